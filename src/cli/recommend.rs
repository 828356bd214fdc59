//! `energylens recommend`: the best configurations under limits.

use std::path::PathBuf;

use clap::Args;
use energylens::law::Model;
use energylens::recommend::{Limit, Objective, Request, recommend};

use super::{Outcome, output};

/// Name the energy-optimal configurations for a workload, under limits.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  energylens recommend model.json --workload input_tokens=1024,output_tokens=256 --max-gpus 8 --limit mean_tpot_s=0.05"
)]
pub(crate) struct Arguments {
    /// The model file that `fit` wrote.
    model: PathBuf,
    /// What is asked: input_tokens=1024,output_tokens=256[,batch_size=32][,model=NAME]..., or a CSV file with one row.
    #[arg(long)]
    workload: String,
    /// GPUs there are.
    #[arg(long, default_value_t = 8, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    max_gpus: u32,
    /// What the answer must respect, such as mean_tpot_s=0.05; may be repeated.
    #[arg(long = "limit")]
    limits: Vec<Limit>,
    /// What is made small: energy_per_token_j or energy_per_request_j.
    #[arg(long, default_value = "energy_per_token_j")]
    objective: Objective,
    /// Rank configurations outside the measured range too.
    #[arg(long)]
    allow_outside: bool,
    /// How many configurations to list.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Seed of the draws behind the probabilities.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let model = Model::load(&a.model)?;
    let request = Request {
        max_gpus: a.max_gpus,
        limits: a.limits.clone(),
        objective: a.objective,
        allow_outside: a.allow_outside,
        top: a.top as usize,
        seed: a.seed,
        ..Request::parse_workload(&a.workload)?
    };
    let answer = recommend(&model, &request)?;
    if a.json {
        output::print_json(&answer)?
    } else {
        output::print(&answer.table())?
    }
    Ok(Outcome::Done)
}
