//! `energylens task`: what a task of a job array does on its node. Started by the scripts that `submit` writes.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use energylens::slurm::script::UNFINISHED;
use energylens::slurm::{self, Records, TaskId, is_taken, note_end, task_dir};
use energylens::sweep::{Plan, journal};

use super::Outcome;
use super::run::{Equipment, Means, conduct};

/// Carry out one task of a submitted campaign; the batch scripts call this.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The campaign directory.
    campaign: PathBuf,
    /// Number of the array in the campaign.
    #[arg(long)]
    array: u32,
    /// Number of the task in the array.
    #[arg(long)]
    task: u32,
    #[command(flatten)]
    equipment: Equipment,
}

pub(crate) fn run(a: Arguments) -> anyhow::Result<Outcome> {
    // First of all: a signal that comes before anybody listens would end the task without a word.
    let stop = super::signals::stop_on_signal()?;
    let id = TaskId { array: a.array, task: a.task };
    if is_taken(&a.campaign, id)? {
        eprintln!("task {id} is merged already; nothing is left to do");
        return Ok(Outcome::Done);
    }
    let plan = Plan::of_campaign(&a.campaign)?;
    let record = Records::array(&a.campaign, a.array)?;
    let runs = usize::try_from(a.task).ok().and_then(|task| record.tasks.get(task)).ok_or(slurm::Error::NoTask {
        array: a.array,
        task: a.task,
        tasks: record.tasks.len(),
    })?;
    let places: HashMap<&str, usize> = plan.runs.iter().enumerate().map(|(i, run)| (run.run_id.as_str(), i)).collect();
    let chosen: Vec<usize> = runs
        .iter()
        .map(|run| places.get(run.as_str()).copied().with_context(|| format!("the campaign's plan has no run `{run}`")))
        .collect::<anyhow::Result<_>>()?;
    let part = plan.part(&chosen, 1 + (u64::from(a.array) << 32) + u64::from(a.task));
    let dir = task_dir(&a.campaign, id);
    eprintln!("task {id}: {} runs on {}", part.runs.len(), energylens::store::host_name());
    let mut equipment = a.equipment;
    // As it was when it was submitted, whatever became of it since.
    equipment.script = Some(a.campaign.join("slurm/sweep.lua"));
    let conducted = conduct(&part, &dir, &stop, Means::Real(&equipment))?;
    let mut finished = 0;
    journal::read_runs(&dir, &mut |_| {
        finished += 1;
        Ok(())
    })?;
    note_end(&dir, finished)?;
    let done = &conducted.runs;
    eprintln!(
        "task {id}: {} runs carried out, {} done before, {} failed, {} left",
        done.carried_out, done.resumed, done.failed, done.left
    );
    Ok(match (done.left, done.carried_out) {
        (0, _) if done.failed == 0 && conducted.dataset.rejected.is_empty() => Outcome::Done,
        (0, _) => Outcome::SomeRejected,
        // Without a single run done, the next attempt would get no further: Slurm must not repeat it for ever.
        (_, 0) => anyhow::bail!("stopped before a single run was done; give tasks more time, or runs shorter windows"),
        _ => Outcome::Status(UNFINISHED),
    })
}
