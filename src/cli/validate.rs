//! `energylens validate`: held-out accuracy of the law and of every baseline.

use std::path::PathBuf;

use clap::Args;
use energylens::dataset;
use energylens::fit::split::Scheme;
use energylens::fit::{ValidateOptions, validate};
use indicatif::ProgressBar;

use super::fit::PoolChoice;
use super::{Outcome, output};

/// Judge the law and every baseline on rows that they were not fitted to.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens validate rows.csv --scheme workloads=5 --training-rows 50")]
pub(crate) struct Arguments {
    /// A campaign directory, a Parquet file or a CSV file.
    runs: PathBuf,
    /// How rows are divided: workloads[=FOLDS], models, batches[=UP_TO] or hardware.
    #[arg(long, default_value = "workloads")]
    scheme: Scheme,
    /// One law per scenario, or one for all models of a GPU, engine and precision.
    #[arg(long, value_enum, default_value_t = PoolChoice::None)]
    pool: PoolChoice,
    /// Learn from at most so many rows per law.
    #[arg(long)]
    training_rows: Option<usize>,
    /// Relative repeat noise that a tolerant Top-1 allows; estimated from repeats if left out.
    #[arg(long)]
    noise: Option<f64>,
    /// Seed of folds, draws and fits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    if let Some(noise) = a.noise {
        anyhow::ensure!((0.0..1.0).contains(&noise), "--noise {noise} is out of range; expected a share such as 0.03");
    }
    let dataset = dataset::load(&a.runs)?;
    let bar = ProgressBar::new(0);
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let options = ValidateOptions {
        scheme: a.scheme,
        seed: a.seed,
        training_rows: a.training_rows,
        pool: a.pool.into(),
        noise: a.noise,
        progress: &progress,
        ..ValidateOptions::default()
    };
    let validation = validate(&dataset, &options);
    bar.finish_and_clear();
    let validation = validation?;
    output::remark(&dataset, &[]);
    if a.json {
        output::print_json(&validation)?
    } else {
        output::print(&validation.to_string())?
    }
    Ok(if dataset.rejected.is_empty() { Outcome::Done } else { Outcome::SomeRejected })
}
