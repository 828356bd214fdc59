//! `energylens compact`: many small segments as few large files.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use energylens::store::{Campaign, compact, merge};
use indicatif::ProgressBar;
use serde_json::json;

use super::{Outcome, output};

/// Make many small files few: in a lake of files by date and node, or where they lie.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("where").required(true).args(["partition", "in_place"])))]
#[command(after_help = "Layout:    LAKE/TABLE/date=YYYY-MM-DD/node=HOST/ID.parquet
Examples:  energylens compact /var/lib/energylens --partition /scratch/energy-lake
           energylens sql /scratch/energy-lake \"SELECT host, sum(energy_j) / 3.6e6 AS kwh FROM power GROUP BY host\"
           energylens compact /var/lib/energylens --in-place
A lake is brought up to what campaigns hold, and they stay as they are. Doing it again adds what was sealed since; what
retention removes from a campaign stays in the lake. In place, the segments of each day become one file that stands for
them: killed at any moment, every row is there once.")]
pub(crate) struct Arguments {
    /// Campaign directories.
    #[arg(required = true)]
    campaigns: Vec<PathBuf>,
    /// The lake: a directory, made if it is not there.
    #[arg(long, value_name = "LAKE")]
    partition: Option<PathBuf>,
    /// Merge the segments of each day where they lie, instead.
    #[arg(long)]
    in_place: bool,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    // Before anything is written: one of them may be misspelt.
    let campaigns = a.campaigns.iter().map(|dir| Campaign::open(dir)).collect::<Result<Vec<_>, _>>()?;
    if let Some(lake) = &a.partition {
        anyhow::ensure!(
            Campaign::open(lake).is_err(),
            "{} is a campaign itself; name another directory for the lake",
            lake.display()
        );
    }
    let mut told = Vec::new();
    for campaign in campaigns {
        let (done, said) = match &a.partition {
            Some(lake) => {
                let done = compact(campaign.dir(), lake)?;
                let said = format!(
                    "{} files read; {} written ({} rows, {} bytes), {} complete already",
                    done.files_read, done.files_written, done.rows, done.bytes, done.files_kept
                );
                (json!(done), said)
            }
            None => in_place(&campaign)?,
        };
        if !a.json {
            output::print(&format!("{}: {said}", campaign.dir().display()))?;
        }
        told.push(json!({ "campaign": campaign.dir(), "done": done }));
    }
    if a.json {
        output::print_json(&told)?;
    }
    Ok(Outcome::Done)
}

fn in_place(campaign: &Campaign) -> anyhow::Result<(serde_json::Value, String)> {
    let bar = ProgressBar::new(0);
    let done = merge(campaign, &|files, all| {
        bar.set_length(all);
        bar.set_position(files);
    });
    bar.finish_and_clear();
    let done = done?;
    let said = format!(
        "{} files became {} ({} rows, {} bytes, {} before), {} stay as they are",
        done.files_merged, done.files_written, done.rows, done.bytes, done.bytes_before, done.files_kept
    );
    Ok((json!(done), said))
}
