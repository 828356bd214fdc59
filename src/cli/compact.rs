//! `energylens compact`: many small segments as few large files, in directories by date and node.

use std::path::PathBuf;

use clap::Args;
use energylens::store::{Campaign, compact};
use serde_json::json;

use super::{Outcome, output};

/// Bring a lake of files by date and node up to what campaigns hold; the campaigns stay as they are.
#[derive(Debug, Args)]
#[command(after_help = "Layout:    LAKE/TABLE/date=YYYY-MM-DD/node=HOST/ID.parquet
Examples:  energylens compact /var/lib/energylens --partition /scratch/energy-lake
           energylens sql /scratch/energy-lake \"SELECT host, sum(energy_j) / 3.6e6 AS kwh FROM power GROUP BY host\"
Doing it again adds what was sealed since. What retention removes from a campaign stays in the lake.")]
pub(crate) struct Arguments {
    /// Campaign directories.
    #[arg(required = true)]
    campaigns: Vec<PathBuf>,
    /// The lake: a directory, made if it is not there.
    #[arg(long, value_name = "LAKE")]
    partition: PathBuf,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    // Before anything is written: one of them may be misspelt.
    let campaigns = a.campaigns.iter().map(|dir| Campaign::open(dir)).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(
        Campaign::open(&a.partition).is_err(),
        "{} is a campaign itself; name another directory for the lake",
        a.partition.display()
    );
    let mut told = Vec::new();
    for campaign in campaigns {
        let done = compact(campaign.dir(), &a.partition)?;
        if !a.json {
            output::print(&format!(
                "{}: {} files read; {} written ({} rows, {} bytes), {} complete already",
                campaign.dir().display(),
                done.files_read,
                done.files_written,
                done.rows,
                done.bytes,
                done.files_kept
            ))?;
        }
        told.push(json!({ "campaign": campaign.dir(), "done": done }));
    }
    if a.json {
        output::print_json(&told)?;
    }
    Ok(Outcome::Done)
}
