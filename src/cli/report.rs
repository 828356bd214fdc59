//! `energylens report`: a campaign as one HTML file.

use std::path::{Path, PathBuf};

use clap::Args;
use energylens::dataset::{self, Dataset};
use energylens::fit::stats::Figures;
use energylens::fit::validate::{
    CurvePoint, ValidateOptions, learning_curve, learning_curve_against, validate_against,
};
use energylens::fit::{FitOptions, MIN_ROWS, Predictor, attach_held_out, fit_model};
use energylens::law::{Law, Model, Target};
use energylens::report::{LearningPoint, ReportInput, write_html};

use super::asked::Asked;
use super::destination::Destination;
use super::{Outcome, output, recorded};

/// Write a campaign or a table of rows as one HTML file.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  energylens report demo --workload input_tokens=1024,output_tokens=256 -o report.html"
)]
pub(crate) struct Arguments {
    /// A campaign directory, a Parquet file or a CSV file.
    runs: PathBuf,
    /// The HTML file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// The model; fitted to the rows if left out.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Rows of workloads that were never fitted, such as those of a second campaign: accuracy is judged on them.
    #[arg(long, value_name = "RUNS", conflicts_with = "model")]
    unseen: Option<PathBuf>,
    /// Put the recommendation for this workload on the first page: input_tokens=1024,output_tokens=256[,batch_size=32]...
    #[arg(long)]
    workload: Option<String>,
    /// The same for requests of many lengths: CSV or Parquet with input_tokens, output_tokens and, where known, arrival_s.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    /// Show accuracy from so many rows each, the law beside the baselines; not with --model, whose rows are known.
    #[arg(long, value_name = "ROWS", value_delimiter = ',', default_values_t = [10, 20, 40], conflicts_with = "model",
        value_parser = clap::value_parser!(u32).range(MIN_ROWS as i64..))]
    learning_curve: Vec<u32>,
    /// Seed of the fit, the held-out split and the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let inputs = [Some(&a.runs), a.model.as_ref(), a.unseen.as_ref(), a.trace.as_ref()];
    let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    let destination = Destination::of(&a.output, &inputs)?;
    // Before the long work: the request may be misspelt.
    let request = a.asked.request(a.workload.as_deref(), a.trace.as_deref(), a.seed)?;
    if let (None, Some(option)) = (&request, a.asked.any()) {
        anyhow::bail!(
            "{option} is about a recommendation; say for which workload with --workload input_tokens=NUMBER,output_tokens=NUMBER or --trace FILE"
        );
    }
    let dataset = dataset::load(&a.runs)?;
    let unseen = a.unseen.as_deref().map(dataset::load).transpose()?;
    let (model, held_out_rows) = match &a.model {
        Some(path) => (Model::load(path)?, Vec::new()),
        None => fitted(&dataset, unseen.as_ref(), a.seed)?,
    };
    if model.laws.is_empty() {
        let named = a.model.as_ref().map_or_else(|| "the fit".to_owned(), |path| path.display().to_string());
        anyhow::bail!(
            "{named} has no law, so there is nothing to report; expected a model with one at least, such as `energylens fit` writes"
        );
    }
    let answer = request.map(|request| a.asked.answer(&model, &request)).transpose()?;
    let title = a.runs.file_name().map_or_else(|| "energylens".to_owned(), |n| n.to_string_lossy().into_owned());
    let mut input = if a.runs.is_dir() {
        of_campaign(&title, &a.runs, &dataset, &model)?
    } else {
        ReportInput::new(&title, &dataset, &model)
    };
    input.recommendation = answer.as_ref().map(|a| &a.recommendation);
    input.next = answer.as_ref().and_then(|a| a.next.as_ref());
    input.held_out_rows = held_out_rows;
    if a.model.is_none() {
        input.learning = learning(&dataset, unseen.as_ref(), &a.learning_curve, a.seed);
    }
    destination.fill(|path| write_html(path, &input))?;
    output::remark(&dataset, &[]);
    destination.tell(&format!("report written to {}", a.output.display()))?;
    Ok(if dataset.rejected.is_empty() { Outcome::Done } else { Outcome::SomeRejected })
}

/// A model of the rows with its accuracy, and held-out energies as measured and as predicted.
fn fitted(dataset: &Dataset, unseen: Option<&Dataset>, seed: u64) -> anyhow::Result<(Model, Vec<(f64, f64)>)> {
    let options = FitOptions { seed, ..FitOptions::default() };
    let mut model = fit_model(dataset, &options)?.model;
    let Some(unseen) = unseen else {
        let held_out = attach_held_out(&mut model, dataset, &options, seed, &|_, _| {})?;
        let rows = held_out.iter().flat_map(|h| &h.rows);
        let pairs = rows.map(|r| (r.measured, r.predicted)).collect();
        return Ok((model, pairs));
    };
    let judged = validate_against(dataset, unseen, &quick(seed))?;
    let mut summary = judged.summary();
    let of_energy = |law: &&mut Law| law.skeleton.target == Target::EnergyJ;
    if model.laws.iter_mut().filter(of_energy).count() > 1 {
        summary.scheme.push_str(", all laws of energy together");
    }
    model.laws.iter_mut().filter(of_energy).for_each(|law| law.held_out = Some(summary.clone()));
    let pairs = judged.predictions.iter().map(|r| (r.measured, r.predicted)).collect();
    Ok((model, pairs))
}

fn quick(seed: u64) -> ValidateOptions<'static> {
    ValidateOptions { seed, predictors: Predictor::QUICK.to_vec(), ..ValidateOptions::default() }
}

/// Accuracy against the rows learnt from, of the law and the quick baselines, judged on unseen rows where there are some.
/// Rows that offer no choice or are too few to hold any out give no curve; the section is left out then.
pub(crate) fn learning(dataset: &Dataset, unseen: Option<&Dataset>, sizes: &[u32], seed: u64) -> Vec<LearningPoint> {
    let sizes: Vec<usize> = sizes.iter().map(|n| *n as usize).collect();
    let curve = match unseen {
        Some(unseen) => learning_curve_against(dataset, unseen, &sizes, &quick(seed)),
        None => learning_curve(dataset, &sizes, &quick(seed)),
    };
    let curve = match curve {
        Ok(curve) => curve,
        Err(e) => {
            eprintln!("note: no learning curve: {e}");
            return Vec::new();
        }
    };
    for note in &curve.notes {
        eprintln!("note: learning curve: {note}");
    }
    let point = |at: &CurvePoint, predictor: &str, f: &Figures| LearningPoint {
        training_rows: at.training_rows,
        training_rows_min: at.training_rows_min,
        predictor: predictor.to_owned(),
        top1: f.top1,
        regret: f.regret,
        mape: f.mape,
    };
    let known = |p: &CurvePoint| {
        let figures = curve.predictors.iter().filter_map(|name| Some((name, p.figures.get(name)?)));
        figures.map(|(name, f)| point(p, name, f)).collect::<Vec<_>>()
    };
    curve.points.iter().flat_map(known).collect()
}

/// A report's input with the campaign's own recording: what was lost and what it cost, power, phases.
pub(crate) fn of_campaign<'a>(
    title: &'a str,
    campaign: &Path,
    dataset: &'a Dataset,
    model: &'a Model,
) -> anyhow::Result<ReportInput<'a>> {
    let recorded = recorded::read(campaign)?;
    let mut input = ReportInput::new(title, dataset, model);
    input.recording = recorded.facts;
    input.power = recorded.power;
    input.phases = recorded.phases;
    input.failed_runs = Some(recorded.failed_runs);
    Ok(input)
}
