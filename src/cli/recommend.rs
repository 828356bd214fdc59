//! `energylens recommend`: the best configurations under limits.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use energylens::law::Model;
use energylens::recommend::{NextMeasurements, Varies};

use super::asked::{Answered, Asked};
use super::destination::{Destination, tell};
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
    #[command(flatten)]
    asked: Asked,
    /// Where to write these as a sweep for `energylens run`.
    #[arg(short, long, requires = "next", value_name = "SWEEP")]
    output: Option<PathBuf>,
    /// Seed of the draws behind the probabilities.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let destination = a.output.as_ref().map(|path| Destination::of(path, &[&a.model])).transpose()?;
    let model = Model::load(&a.model)?;
    let request = a.asked.request(a.workload.as_deref(), a.trace.as_deref(), a.seed)?;
    let request = request.context("nothing is asked: give --workload or --trace")?;
    let Answered { recommendation: answer, next } = a.asked.answer(&model, &request)?;
    if let (Some(destination), Some(next)) = (&destination, &next) {
        destination.write(&next.sweep)?;
    }
    if a.json {
        let mut page = serde_json::to_value(&answer)?;
        if let (Some(next), Some(page)) = (&next, page.as_object_mut()) {
            page.insert("next".to_owned(), serde_json::to_value(next)?);
        }
        output::print_json(&page)?;
    } else {
        tell(destination.as_ref(), &answer.table())?;
        if let Some(next) = &next {
            tell(destination.as_ref(), &describe(next, a))?;
        }
    }
    Ok(Outcome::Done)
}

fn describe(next: &NextMeasurements, a: &Arguments) -> String {
    // The GPU is named in any case; engine and precision where there are several.
    let named = Varies { gpu_model: true, ..next.varies };
    let mut head = vec!["TP", "PP", "DP", "batch", "known to", "expected saving"];
    head.extend(named.titles());
    let mut table = output::table(&head, &[0, 1, 2, 3, 4, 5]);
    for p in &next.points {
        let mut row = vec![
            p.tensor_parallel.to_string(),
            p.pipeline_parallel.to_string(),
            p.data_parallel.to_string(),
            p.batch_size.to_string(),
            format!("{:.1} %", p.uncertainty_percent),
            format!("{:.2} %", p.expected_saving_percent),
        ];
        let names = named.names(&p.gpu_model, p.engine.as_deref(), p.precision.as_deref());
        row.extend(names.into_iter().map(output::one_line));
        table.add_row(row);
    }
    let file = a.output.as_ref().map_or_else(
        || "-o FILE writes them as a sweep".to_owned(),
        |path| format!("written to {}; energylens plan shows it", path.display()),
    );
    let notes: String = next.notes.iter().map(|note| format!("{}\n", output::one_line(note))).collect();
    format!("\n{}:\n{}\n{notes}{file}", output::one_line(next.heading()), table.trim_fmt())
}
