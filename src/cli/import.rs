//! `energylens import`: measured rows of others, into our columns.

use std::path::PathBuf;

use clap::Args;
use energylens::dataset::{self, Format};
use serde_json::json;

use super::destination::Destination;
use super::{Outcome, output};

/// Turn measured rows of others into the columns that `fit` reads.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens import perf_model.csv --from splitwise -o rows.csv")]
pub(crate) struct Arguments {
    /// The file to read (CSV or Parquet).
    file: PathBuf,
    /// Its format: energylens, splitwise, mlenergy-v2 or anl-bench.
    #[arg(long, default_value = "energylens")]
    from: Format,
    /// The file to write: .csv or .parquet.
    #[arg(short, long)]
    output: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let destination = Destination::of(&a.output, &[&a.file])?;
    let is_csv = match a.output.extension().and_then(|e| e.to_str()) {
        Some("csv") => true,
        Some("parquet") => false,
        _ if destination.is_stdout() => true,
        _ => anyhow::bail!(
            "cannot tell the format of {}; expected a name ending in .csv or .parquet",
            a.output.display()
        ),
    };
    let dataset = dataset::import(&a.file, a.from)?;
    let write = if is_csv { dataset::write_csv } else { dataset::write_phases };
    destination.fill(|path| write(path, &dataset))?;
    output::remark(&dataset, &[]);
    if a.json {
        output::print_json(&json!({
            "rows": dataset.rows.len(),
            "rejected": dataset.rejected,
            "notes": dataset.notes,
            "output": a.output,
        }))?;
    } else {
        let rejected = dataset.rejected.len();
        destination.tell(&format!(
            "{} rows written to {}, {rejected} rejected",
            dataset.rows.len(),
            a.output.display()
        ))?;
    }
    Ok(if dataset.rejected.is_empty() { Outcome::Done } else { Outcome::SomeRejected })
}
