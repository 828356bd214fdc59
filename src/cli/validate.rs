//! `energylens validate`: held-out accuracy of the law and of every baseline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use energylens::dataset::{self, RejectedRow};
use energylens::fit::split::Scheme;
use energylens::fit::validate::{LearningCurve, Validation, learning_curve};
use energylens::fit::{MIN_ROWS, Predictor, ValidateOptions, validate};
use energylens::law::{Model, Pool, Target};
use indicatif::ProgressBar;
use serde_json::json;

use super::destination::{Destination, tell};
use super::fit::{PoolChoice, read_skeleton};
use super::{Outcome, output, validation_page};

/// Judge the law and every baseline on rows that they were not fitted to.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  energylens validate rows.csv --scheme workloads=5 --training-rows 50\n  energylens validate rows.csv --learning-curve 10,25,50,100 --budget 5m\n  energylens validate rows.csv --target mean_tpot_s"
)]
pub(crate) struct Arguments {
    /// A campaign directory, a Parquet file or a CSV file.
    runs: PathBuf,
    /// How rows are divided: workloads[=FOLDS], models, batches[=UP_TO] or hardware.
    #[arg(long, default_value = "workloads")]
    scheme: Scheme,
    /// Learn without one model, without larger batches, or without one GPU model, and judge on what was left out.
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "scheme")]
    leave_out: Option<LeaveOut>,
    /// Learn from batches up to so many sequences, judge on the larger ones.
    #[arg(long, value_name = "BATCH", conflicts_with = "scheme", value_parser = parse_batch)]
    train_batches_up_to: Option<f64>,
    /// Judge from so many training rows each, such as 10,25,50,100.
    #[arg(long, value_name = "ROWS", value_delimiter = ',', conflicts_with = "training_rows",
          value_parser = clap::value_parser!(u32).range(MIN_ROWS as i64..))]
    learning_curve: Vec<u32>,
    /// Judge only these predictors (names as in the table); all that suit if left out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    predictors: Vec<Predictor>,
    /// A skeleton file of the target to judge instead of the built-in law (see `energylens laws`).
    #[arg(long)]
    skeleton: Option<PathBuf>,
    /// A model file of another platform that the law starts from.
    #[arg(long, value_name = "MODEL")]
    prior: Option<PathBuf>,
    /// Write an HTML page with parity and learning curves.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// One law per scenario, or one for all models of a GPU, engine and precision.
    #[arg(long, value_enum, default_value_t = PoolChoice::None)]
    pool: PoolChoice,
    /// Learn from at most so many rows per law.
    #[arg(long, value_parser = clap::value_parser!(u32).range(MIN_ROWS as i64..))]
    training_rows: Option<u32>,
    /// What is predicted: energy_j, duration_s, mean_ttft_s or mean_tpot_s.
    #[arg(long, value_name = "TARGET", default_value = "energy_j", value_parser = super::predict::parse_target)]
    target: Target,
    /// End after so long and print what is known until then, such as 60s or 5m: whole laws, in a random order.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Relative repeat noise that a tolerant Top-1 allows; estimated from repeats if left out.
    #[arg(long, value_parser = parse_share)]
    noise: Option<f64>,
    /// Seed of folds, draws and fits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What is left out of the learning, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeaveOut {
    /// Each model; pools the models.
    Model,
    /// The larger half of the batch sizes.
    Batch,
    /// Each GPU model.
    Hardware,
}

impl Arguments {
    fn scheme(&self) -> Scheme {
        match (self.leave_out, self.train_batches_up_to) {
            (None | Some(LeaveOut::Batch), Some(batch)) => Scheme::Batches { up_to: Some(batch) },
            (Some(LeaveOut::Batch), None) => Scheme::Batches { up_to: None },
            (Some(LeaveOut::Model), _) => Scheme::Models,
            (Some(LeaveOut::Hardware), _) => Scheme::Hardware,
            (None, None) => self.scheme,
        }
    }

    /// A model can only be left out of a law that serves several.
    fn pool(&self) -> Pool {
        if self.leave_out == Some(LeaveOut::Model) { Pool::Models } else { self.pool.into() }
    }
}

fn parse_batch(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(batch) if batch.is_finite() && batch > 0.0 => Ok(batch),
        _ => Err(format!("`{text}` is no batch size; expected a number above 0")),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share; expected a number from 0 to below 1, such as 0.03 for 3 %")),
    }
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        a.target == Target::EnergyJ || a.report.is_none(),
        "--report is about energy; expected it without --target {}",
        a.target
    );
    let destination = a.report.as_ref().map(|path| Destination::of(path, &[&a.runs])).transpose()?;
    let skeleton = a.skeleton.as_deref().map(|path| read_skeleton(path, &[a.target])).transpose()?;
    let prior = a.prior.as_deref().map(Model::load).transpose()?.map(Arc::new);
    let dataset = dataset::load(&a.runs)?;
    let (begin, budget) = (Instant::now(), a.budget.unwrap_or(Duration::MAX));
    let stop = || begin.elapsed() >= budget;
    let bar = ProgressBar::new(0);
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let options = ValidateOptions {
        scheme: a.scheme(),
        seed: a.seed,
        training_rows: a.training_rows.map(|n| n as usize),
        pool: a.pool(),
        predictors: a.predictors.clone(),
        skeleton,
        prior,
        target: a.target,
        noise: a.noise,
        stop: &stop,
        progress: &progress,
        ..ValidateOptions::default()
    };
    let sizes: Vec<usize> = a.learning_curve.iter().map(|n| *n as usize).collect();
    let judged = validate(&dataset, &options).and_then(|validation| {
        let curve = (!sizes.is_empty()).then(|| learning_curve(&dataset, &sizes, &options)).transpose()?;
        Ok((validation, curve))
    });
    bar.finish_and_clear();
    let (validation, curve) = judged?;
    output::remark(&dataset, &validation.rejected);
    if let Some(reasons) = validation.nothing_judged() {
        anyhow::bail!("nothing could be judged: {reasons}");
    }
    if a.json {
        let rejected: Vec<_> = dataset.rejected.iter().chain(&validation.rejected).collect();
        output::print_json(&as_json(&validation, &rejected, curve.as_ref())?)?;
    } else {
        tell(destination.as_ref(), &validation.to_string())?;
        if let Some(curve) = &curve {
            tell(destination.as_ref(), &format!("\nlearning curve: {}, seed {}\n{curve}", curve.scheme, curve.seed))?;
        }
    }
    if let (Some(path), Some(destination)) = (&a.report, &destination) {
        let title = a.runs.file_name().map_or_else(|| "rows".into(), |n| n.to_string_lossy());
        destination.write(&validation_page::page(&title, &validation, curve.as_ref()))?;
        output::say(&format!("report written to {}", path.display()));
    }
    Ok(if validation.refused == 0 { Outcome::Done } else { Outcome::SomeRejected })
}

/// The validation with every refused row; a curve, where one was asked for, beside its fields.
fn as_json(
    validation: &Validation,
    rejected: &[&RejectedRow],
    curve: Option<&LearningCurve>,
) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(validation)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("rejected".to_owned(), json!(rejected));
        curve.into_iter().for_each(|curve| _ = object.insert("learning_curve".to_owned(), json!(curve)));
    }
    Ok(value)
}
