//! `energylens recommend`: the best configurations under limits.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use energylens::law::Model;
use energylens::recommend::{
    Limit, NextMeasurements, Objective, Prices, Rate, Request, Trace, measure_next, recommend,
};

use super::{Outcome, output};

/// Name the energy-optimal configurations for a workload, under limits.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  energylens recommend model.json --workload input_tokens=1024,output_tokens=256 --limit mean_tpot_s=0.05
  energylens recommend model.json --trace requests.csv --arrival-rate 2 --price-per-kwh 0.25 --pue 1.2
  energylens recommend model.json --workload input_tokens=1024,output_tokens=256 --next 4 -o next.lua")]
pub(crate) struct Arguments {
    /// The model file that `fit` wrote.
    model: PathBuf,
    /// What is asked: input_tokens=1024,output_tokens=256[,batch_size=32][,model=NAME]..., or a CSV file with one row.
    #[arg(long, required_unless_present = "trace")]
    workload: Option<String>,
    /// Requests of many lengths: CSV or Parquet with input_tokens, output_tokens and, where known, arrival_s.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Requests per second that come in; decides how many are in flight. A trace's own rate if left out.
    #[arg(long, value_name = "PER_SECOND", value_parser = positive, allow_negative_numbers = true)]
    arrival_rate: Option<f64>,
    /// GPUs there are.
    #[arg(long, default_value_t = 8, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    max_gpus: u32,
    /// What the answer must respect, such as mean_tpot_s=0.05, throughput_tok_s>=500 or power_w=3000; may be repeated.
    #[arg(long = "limit")]
    limits: Vec<Limit>,
    /// What is made small: energy_per_token_j, energy_per_request_j, energy_per_day_kwh, cost_per_request or
    /// carbon_per_request_g.
    #[arg(long, default_value = "energy_per_token_j")]
    objective: Objective,
    /// Price of a kilowatt-hour: a number, or a file with the columns time and value.
    #[arg(long, value_name = "NUMBER|FILE")]
    price_per_kwh: Option<Rate>,
    /// Carbon dioxide of a kilowatt-hour, g: a number, or a file with the columns time and value.
    #[arg(long, value_name = "NUMBER|FILE")]
    carbon_g_per_kwh: Option<Rate>,
    /// Price of one GPU for an hour, without its energy.
    #[arg(long, value_name = "NUMBER", value_parser = positive, allow_negative_numbers = true)]
    price_per_gpu_hour: Option<f64>,
    /// Power at the meter over power of the GPUs: what cooling and conversion add.
    #[arg(long, default_value_t = 1.0, value_parser = pue, allow_negative_numbers = true)]
    pue: f64,
    /// Rank configurations outside the measured range too.
    #[arg(long)]
    allow_outside: bool,
    /// How many configurations to list.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Name so many configurations whose measurement would improve the choice most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    next: Option<u32>,
    /// Where to write these as a sweep for `energylens run`.
    #[arg(short, long, requires = "next", value_name = "SWEEP")]
    output: Option<PathBuf>,
    /// Seed of the draws behind the probabilities.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found `{text}`"))
}

fn pue(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (1.0..=10.0).contains(n));
    number.ok_or_else(|| format!("expected a number from 1 (no overhead) to 10, found `{text}`"))
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    if let Some(path) = &a.output {
        output::writable(path, &[&a.model])?;
    }
    let model = Model::load(&a.model)?;
    let asked = match &a.trace {
        Some(path) => Request::of_trace(Trace::load(path)?, a.workload.as_deref())?,
        None => Request::parse_workload(a.workload.as_deref().unwrap_or_default())?,
    };
    let request = Request {
        arrival_rate: a.arrival_rate.or(asked.arrival_rate),
        prices: Prices {
            price_per_kwh: a.price_per_kwh,
            carbon_g_per_kwh: a.carbon_g_per_kwh,
            price_per_gpu_hour: a.price_per_gpu_hour,
            pue: a.pue,
        },
        max_gpus: a.max_gpus,
        limits: a.limits.clone(),
        objective: a.objective,
        allow_outside: a.allow_outside,
        top: a.top as usize,
        seed: a.seed,
        ..asked
    };
    let answer = recommend(&model, &request)?;
    let next = a.next.map(|count| measure_next(&model, &request, count as usize)).transpose()?;
    if let (Some(path), Some(next)) = (&a.output, &next) {
        std::fs::write(path, &next.sweep).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if a.json {
        let mut page = serde_json::to_value(&answer)?;
        if let (Some(next), Some(page)) = (&next, page.as_object_mut()) {
            page.insert("next".to_owned(), serde_json::to_value(next)?);
        }
        output::print_json(&page)?;
    } else {
        output::print(&answer.table())?;
        if let Some(next) = &next {
            output::print(&describe(next, a))?;
        }
    }
    Ok(Outcome::Done)
}

fn describe(next: &NextMeasurements, a: &Arguments) -> String {
    let mut table =
        output::table(&["TP", "PP", "DP", "batch", "known to", "expected saving", "GPU"], &[0, 1, 2, 3, 4, 5]);
    for p in &next.points {
        table.add_row([
            p.tensor_parallel.to_string(),
            p.pipeline_parallel.to_string(),
            p.data_parallel.to_string(),
            p.batch_size.to_string(),
            format!("{:.1} %", p.uncertainty_percent),
            format!("{:.2} %", p.expected_saving_percent),
            p.gpu_model.clone(),
        ]);
    }
    let heading = if next.may_change {
        "worth measuring next, the most useful first:"
    } else {
        "no measurement is expected to change the choice; these say most about the first:"
    };
    let file = a.output.as_ref().map_or_else(
        || "-o FILE writes them as a sweep".to_owned(),
        |path| format!("written to {}; energylens plan shows it", path.display()),
    );
    format!("\n{heading}\n{}\n{file}", table.trim_fmt())
}
