//! `energylens validate`: held-out accuracy of the law and of every baseline.

use std::path::PathBuf;

use clap::Args;
use energylens::dataset;
use energylens::fit::split::Scheme;
use energylens::fit::{MIN_ROWS, ValidateOptions, validate};
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
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(MIN_ROWS as i64..))]
    training_rows: Option<u32>,
    /// Relative repeat noise that a tolerant Top-1 allows; estimated from repeats if left out.
    #[arg(long, allow_negative_numbers = true, value_parser = parse_share)]
    noise: Option<f64>,
    /// Seed of folds, draws and fits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share; expected a number from 0 to below 1, such as 0.03 for 3 %")),
    }
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let dataset = dataset::load(&a.runs)?;
    let bar = ProgressBar::new(0);
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let options = ValidateOptions {
        scheme: a.scheme,
        seed: a.seed,
        training_rows: a.training_rows.map(|n| n as usize),
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
