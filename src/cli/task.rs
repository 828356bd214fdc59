//! `energylens task`: what a task of a job array does on its node. Started by the scripts that `submit` writes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use energylens::dataset::{self, Row};
use energylens::slurm::script::UNFINISHED;
use energylens::slurm::tasks::{Clock, is_worth_another_try};
use energylens::slurm::{self, Records, Start, TaskId, is_taken, note_end, task_dir};
use energylens::sweep::{Plan, ScriptFile, SlurmSpec, journal};

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
    let begin = Instant::now();
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
    let spec = plan.slurm.clone().unwrap_or_default();
    let part = plan.part(&chosen, 1 + (u64::from(a.array) << 32) + u64::from(a.task));
    let dir = task_dir(&a.campaign, id);
    eprintln!("task {id}: {} runs on {}", part.runs.len(), energylens::store::host_name());
    let mut equipment = a.equipment;
    let start = Start::of_campaign(&a.campaign)?;
    equipment.script = Some(ScriptFile { text: Start::script_copy(&a.campaign), origin: start.script });
    if part.measure.relative_std.is_some() {
        equipment.measured_before = measured_before(&a.campaign, &part)?;
    }
    let conducted = conduct(&part, &dir, &stop, Means::Real(&equipment))?;
    let done = &conducted.runs;
    let mut finished = HashSet::new();
    journal::read_runs(&dir, &mut |row| {
        finished.insert(row.run_id);
        Ok(())
    })?;
    let spared = match done.left {
        0 => runs.iter().filter(|run| !finished.contains(*run)).cloned().collect(),
        _ => Vec::new(),
    };
    eprintln!(
        "task {id}: {} runs carried out, {} done before, {} failed, {} left{}",
        done.carried_out,
        done.resumed,
        done.failed,
        done.left,
        if spared.is_empty() { String::new() } else { format!(", {} repeats not needed", spared.len()) }
    );
    note_end(&dir, finished.len(), spared)?;
    Ok(match (done.left, done.carried_out) {
        (0, _) if done.failed == 0 && conducted.dataset.rejected.is_empty() => Outcome::Done,
        (0, _) => Outcome::SomeRejected,
        (_, 0) if is_worth_another_try(&spec, clock(&spec, begin)) => {
            eprintln!("task {id}: stopped with time left, before a single run was done");
            Outcome::Status(UNFINISHED)
        }
        // At its time limit the next attempt would get no further: Slurm must not repeat it for ever.
        (_, 0) => anyhow::bail!("stopped before a single run was done; give tasks more time, or runs shorter windows"),
        _ => Outcome::Status(UNFINISHED),
    })
}

/// What Slurm says of this task's time; where it says nothing, as older ones do, what the sweep asked for.
fn clock(spec: &SlurmSpec, begin: Instant) -> Clock {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now_s = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let by_slurm = number("SLURM_JOB_END_TIME").map(|end_s| end_s.saturating_sub(now_s()));
    let by_spec = || spec.time_limit_s().map(|limit_s| limit_s.saturating_sub(begin.elapsed().as_secs()));
    let restarts = number("SLURM_RESTART_COUNT").map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
    Clock { left_s: by_slurm.or_else(by_spec), restarts }
}

/// Phases of the points of `part` that other tasks have measured and the campaign has: their repeats count too.
fn measured_before(campaign: &Path, part: &Plan) -> anyhow::Result<Vec<Row>> {
    if !campaign.join("phases.parquet").exists() {
        return Ok(Vec::new());
    }
    let points: HashSet<&str> = part.points.iter().map(|point| point.point_id.as_str()).collect();
    let own: HashSet<&str> = part.runs.iter().map(|run| run.run_id.as_str()).collect();
    let mut rows = match dataset::load(campaign) {
        Ok(dataset) => dataset.rows,
        // What other tasks have measured may be of no use at all.
        Err(dataset::Error::NoRows { .. } | dataset::Error::NoGoodRow { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let is_of_point = |run_id: &str| run_id.rsplit_once('-').is_some_and(|(point, _)| points.contains(point));
    rows.retain(|row| is_of_point(&row.run_id) && !own.contains(row.run_id.as_str()));
    Ok(rows)
}
