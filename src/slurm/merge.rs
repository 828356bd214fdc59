//! Results of tasks, brought into the campaign.
//!
//! ```text
//! tasks/000-7  ->  tasks/000-7.merging      set aside under its lock: it cannot begin anew while it is read
//!   samples, telemetry, marks               moved into the campaign, as part 000-7
//!   logs                                    those of servers and commands go to logs/000-7
//!   runs.jsonl                              lines that the campaign lacks are appended to its journal
//!   runs.parquet, phases.parquet            written anew once, behind temporary names
//!   slurm/closed.jsonl                      the task is closed
//! tasks/000-7.merging                       removed
//! ```
//!
//! Each step can be done twice, and what a step takes from is removed only when everything is on the disk: a merge that
//! is killed anywhere is carried on by the next. Tables pass through in batches; of the results only the identifiers
//! of the runs are in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::records::{Records, TaskId};
use crate::clock::ClockAnchor;
use crate::schema::{MARKS, PHASES};
use crate::store::{self, Campaign, FileMetadata, RecoveredAs, columns};
use crate::sweep::{Journal, journal};

/// What the task wrote when it ended by itself, so that its tables need not be made again.
const ENDED: &str = "ended.json";
const ASIDE: &str = ".merging";

/// What a merge did.
#[derive(Debug, Default)]
pub struct Merged {
    /// Tasks that were merged.
    pub tasks: usize,
    /// Runs that the campaign did not have.
    pub runs: usize,
    /// Tasks that were closed without a result.
    pub empty: usize,
    /// Tasks that are still running, or may be.
    pub open: usize,
    /// Tasks that could not be merged, and why; their results lie where they were.
    pub problems: Vec<(TaskId, String)>,
}

/// Reduces the recording in a directory to its `phases` table.
pub type Reduce<'a> = dyn FnMut(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Where the task works.
pub fn task_dir(campaign_dir: &Path, id: TaskId) -> PathBuf {
    campaign_dir.join("tasks").join(id.to_string())
}

/// Where the task's results lie: where it works, or aside.
pub fn results_dir(campaign_dir: &Path, id: TaskId) -> PathBuf {
    let aside = aside_dir(campaign_dir, id);
    if aside.exists() { aside } else { task_dir(campaign_dir, id) }
}

/// Whether the task is being merged, or was: it must not begin anew.
pub fn is_taken(campaign_dir: &Path, id: TaskId) -> Result<bool, Error> {
    Ok(aside_dir(campaign_dir, id).exists() || Records::is_closed_in(campaign_dir, id)?)
}

fn aside_dir(campaign_dir: &Path, id: TaskId) -> PathBuf {
    campaign_dir.join("tasks").join(format!("{id}{ASIDE}"))
}

/// How a task ended by itself.
#[derive(Debug, Default, Serialize, Deserialize)]
struct End {
    /// Runs in its journal, all of them in its tables.
    runs: usize,
    /// Repeats that it left out, because their points were known well enough.
    #[serde(default)]
    spared: Vec<String>,
}

/// Notes that a task ended by itself with so many runs in its journal, all of them in its tables, and with these
/// repeats left out because nobody needed them.
pub fn note_end(task_dir: &Path, runs: usize, spared: Vec<String>) -> Result<(), Error> {
    let path = task_dir.join(ENDED);
    let json = serde_json::to_vec(&End { runs, spared }).map_err(|source| Error::Foreign {
        path: path.clone(),
        expected: "note that JSON can hold",
        source,
    })?;
    super::records::write_whole(&path, &json)
}

/// How the task ended by itself, if that is still so: one that went on afterwards has other runs by now.
fn noted_end(task_dir: &Path, runs: usize) -> Option<End> {
    let text = std::fs::read(task_dir.join(ENDED)).ok()?;
    serde_json::from_slice(&text).ok().filter(|end: &End| end.runs == runs)
}

/// Repeats that a task with so many runs in its journal left out for good.
pub(super) fn spared(task_dir: &Path, runs: usize) -> Vec<String> {
    noted_end(task_dir, runs).map_or(Vec::new(), |end| end.spared)
}

/// Merges the open tasks that are over. `journal` is the campaign's, and holds its lock.
pub fn merge(
    campaign: &Campaign,
    journal: &mut Journal,
    records: &mut Records,
    is_over: &dyn Fn(TaskId) -> bool,
    reduce: &mut Reduce<'_>,
) -> Result<Merged, Error> {
    let dir = campaign.dir();
    let mut merged = Merged::default();
    remove_leftovers(dir, records)?;
    let open: Vec<TaskId> = records.open_tasks().map(|(id, ..)| id).collect();
    let mut closing = Vec::new();
    let mut sources = Vec::new();
    // Which of the sources a run's phases are taken from: the first that has it.
    let mut source_of: HashMap<String, usize> = HashMap::new();
    for id in open {
        let aside = aside_dir(dir, id);
        if !aside.exists() {
            let task = task_dir(dir, id);
            if !is_over(id) {
                merged.open += 1;
                continue;
            }
            if !task.exists() {
                merged.empty += 1;
                closing.push((id, Vec::new()));
                continue;
            }
            match set_aside(&task, &aside, reduce)? {
                SetAside::Done => {}
                SetAside::Running => {
                    merged.open += 1;
                    continue;
                }
                SetAside::Problem(why) => {
                    merged.problems.push((id, why));
                    continue;
                }
            }
        }
        let source = sources.len();
        let mut runs = 0;
        let mut tell = |row: &store::RunRow| {
            runs += 1;
            source_of.entry(row.run_id.clone()).or_insert(source);
        };
        match journal.take_over(&aside, &mut tell) {
            Ok(runs) => merged.runs += runs,
            Err(error) => {
                merged.problems.push((id, error.to_string()));
                continue;
            }
        }
        store::move_segments(&aside, dir, &id.to_string())?;
        move_logs(&aside, dir, id)?;
        closing.push((id, spared(&aside, runs)));
        sources.push(aside);
    }
    if !sources.is_empty() {
        journal.sync()?;
        write_tables(dir, &sources, &source_of)?;
        merged.tasks = sources.len();
    }
    records.close(closing)?;
    for aside in sources {
        std::fs::remove_dir_all(&aside).map_err(Error::io(&aside, "removed"))?;
    }
    // Gone with the last task; not empty before that.
    let _ = std::fs::remove_dir(dir.join("tasks"));
    Ok(merged)
}

/// Keeps what servers and commands printed.
fn move_logs(aside: &Path, dir: &Path, id: TaskId) -> Result<(), Error> {
    let (from, to) = (aside.join("logs"), dir.join("logs").join(id.to_string()));
    if !from.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir.join("logs")).map_err(Error::io(&to, "created"))?;
    std::fs::rename(&from, &to).map_err(Error::io(&from, "moved"))
}

/// What a merge left that was killed after its last step but one.
fn remove_leftovers(dir: &Path, records: &Records) -> Result<(), Error> {
    let tasks = dir.join("tasks");
    let Ok(entries) = std::fs::read_dir(&tasks) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(Error::io(&tasks, "read"))?.path();
        let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(ASIDE)).and_then(parse_id);
        if id.is_some_and(|id| records.is_closed(id)) {
            std::fs::remove_dir_all(&path).map_err(Error::io(&path, "removed"))?;
        }
    }
    Ok(())
}

fn parse_id(text: &str) -> Option<TaskId> {
    let (array, task) = text.split_once('-')?;
    Some(TaskId { array: array.parse().ok()?, task: task.parse().ok()? })
}

enum SetAside {
    Done,
    Running,
    Problem(String),
}

/// Completes the tables of a task that is over, and gives its directory the other name.
fn set_aside(task: &Path, aside: &Path, reduce: &mut Reduce<'_>) -> Result<SetAside, Error> {
    let campaign = match Campaign::create_or_open(task) {
        Ok(campaign) => campaign,
        Err(error) => return Ok(SetAside::Problem(error.to_string())),
    };
    // Held until the directory has its other name.
    let _lock = match campaign.lock() {
        Ok(lock) => lock,
        Err(store::Error::Locked { .. }) => return Ok(SetAside::Running),
        Err(error) => return Err(error.into()),
    };
    let mut is_whole = true;
    for recovered in campaign.recover()? {
        match recovered.outcome {
            RecoveredAs::Live => return Ok(SetAside::Running),
            RecoveredAs::Refused(why) => {
                return Ok(SetAside::Problem(format!("{}: {why}", recovered.spool.display())));
            }
            RecoveredAs::Sealed { .. } | RecoveredAs::AlreadySealed | RecoveredAs::Empty => is_whole = false,
        }
    }
    let mut runs = 0;
    let counted = journal::read_runs(task, &mut |_| {
        runs += 1;
        Ok(())
    });
    if let Err(error) = counted {
        return Ok(SetAside::Problem(error.to_string()));
    }
    if runs > 0 && !(is_whole && noted_end(task, runs).is_some() && task.join("phases.parquet").exists()) {
        journal::write_runs(task, anchor_of(task))?;
        if let Err(error) = reduce(task) {
            return Ok(SetAside::Problem(error.to_string()));
        }
    }
    std::fs::rename(task, aside).map_err(Error::io(task, "moved"))?;
    Ok(SetAside::Done)
}

/// The clock of the task's recording.
fn anchor_of(dir: &Path) -> ClockAnchor {
    let marks = store::table_files(dir, &MARKS).unwrap_or_default();
    let anchor = marks.first().and_then(|path| store::read_metadata(path).ok()).map(|m| m.anchor);
    anchor.unwrap_or(ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 })
}

/// Writes the campaign's tables of runs and phases with what the sources bring.
fn write_tables(dir: &Path, sources: &[PathBuf], source_of: &HashMap<String, usize>) -> Result<(), Error> {
    // Rows of many nodes have no clock in common.
    let anchor = ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 };
    journal::write_runs(dir, anchor)?;
    let phases = dir.join("phases.parquet");
    let own = std::iter::once((None, phases.clone()));
    let tables = own.chain(sources.iter().enumerate().map(|(i, source)| (Some(i), source.join("phases.parquet"))));
    let batches = tables.filter(|(_, path)| path.exists()).flat_map(|(source, path)| {
        let filtered = move |batch: store::Result<_>| {
            columns::rows_where(&batch?, "run_id", |run| source_of.get(run).copied() == source)
        };
        match store::read_file(&path, &PHASES) {
            Ok(batches) => Box::new(batches.map(filtered)) as Box<dyn Iterator<Item = store::Result<_>> + '_>,
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    });
    store::write_table_from::<store::Error>(&phases, &PHASES, batches, &FileMetadata::of_host("", anchor))?;
    Ok(())
}
