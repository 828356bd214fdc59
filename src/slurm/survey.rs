//! How a campaign stands: what is done, what is under way, what is missing.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Error;
use super::merge::{self, results_dir};
use super::records::{Records, TaskId};
use super::state::{JobStates, Stage, TaskState};
use crate::schema::RunStatus;
use crate::store::RunRow;
use crate::sweep::{Plan, journal};

/// Bytes of a log's end that are looked at.
const TAIL_BYTES: u64 = 4096;
/// Lines of it that are shown, and characters of each.
const TAIL: (usize, usize) = (5, 200);

/// How a campaign stands.
#[derive(Debug)]
pub struct Survey {
    /// Tasks that are not closed.
    pub tasks: Vec<TaskStatus>,
    /// Runs that have been carried out, merged or not.
    pub finished: HashSet<String>,
    /// Of these, the failed ones.
    pub failed: Vec<RunRow>,
    /// Runs that open tasks will carry out.
    pub under_way: HashSet<String>,
    /// Repeats that tasks left out, because their points were known well enough.
    pub spared: HashSet<String>,
}

/// A task that is not closed.
#[derive(Debug)]
pub struct TaskStatus {
    /// Which.
    pub id: TaskId,
    /// Slurm's number of its array.
    pub job_id: Option<u64>,
    /// Runs that it shall carry out.
    pub runs: usize,
    /// Runs that it has carried out.
    pub finished: usize,
    /// Repeats that it left out for good.
    pub spared: usize,
    /// What Slurm says of it, if it knows.
    pub state: Option<TaskState>,
    /// Where in its life it is; `None` where nobody can tell, since no cluster answers.
    pub stage: Option<Stage>,
}

impl TaskStatus {
    /// Whether all of its runs were carried out, or were not needed.
    pub fn is_complete(&self) -> bool {
        self.finished + self.spared >= self.runs
    }

    /// Whether it is over, so that its results can be merged.
    pub fn is_over(&self) -> bool {
        self.is_complete() || self.stage == Some(Stage::Ended)
    }
}

impl Survey {
    /// Looks at the campaign in `dir`; `states` is what the cluster says of its jobs, if it answers.
    pub fn take(dir: &Path, records: &Records, states: Option<&JobStates>) -> Result<Self, Error> {
        let mut survey = Self {
            tasks: Vec::new(),
            finished: HashSet::new(),
            failed: Vec::new(),
            under_way: HashSet::new(),
            spared: records.spared().clone(),
        };
        survey.read(dir)?;
        for (id, record, runs) in records.open_tasks() {
            let results = results_dir(dir, id);
            let finished = survey.read(&results)?;
            let spared = if finished < runs.len() { merge::spared(&results, finished) } else { Vec::new() };
            let state = states.zip(record.job_id).and_then(|(states, job)| states.task(job, id.task)).cloned();
            let stage = match &state {
                Some(state) => Some(state.stage()),
                // The cluster answers and does not know the task: it is over, or was never submitted.
                None => states.map(|_| Stage::Ended),
            };
            let status = TaskStatus {
                id,
                job_id: record.job_id,
                runs: runs.len(),
                finished,
                spared: spared.len(),
                state,
                stage,
            };
            survey.spared.extend(spared);
            if !status.is_over() {
                survey.under_way.extend(runs.iter().filter(|run| !survey.finished.contains(*run)).cloned());
            }
            survey.tasks.push(status);
        }
        Ok(survey)
    }

    /// Notes the runs in the journal of a directory; returns how many there are.
    fn read(&mut self, dir: &Path) -> Result<usize, Error> {
        let mut runs = 0;
        journal::read_runs(dir, &mut |row| {
            runs += 1;
            let is_new = self.finished.insert(row.run_id.clone());
            if is_new && row.status == RunStatus::Failed {
                self.failed.push(row);
            }
            Ok(())
        })?;
        Ok(runs)
    }

    /// Runs of the plan that nobody has carried out or will, and that are needed.
    pub fn missing<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a str> {
        let ids = plan.runs.iter().map(|run| run.run_id.as_str());
        ids.filter(|id| ![&self.finished, &self.under_way, &self.spared].iter().any(|known| known.contains(*id)))
    }
}

/// The log of a task.
pub fn log_path(dir: &Path, id: TaskId) -> PathBuf {
    dir.join(format!("slurm/logs/{:03}-{}.log", id.array, id.task))
}

/// The last lines of a log, without what a terminal would obey.
pub fn log_tail(path: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let plain = |line: &str| line.chars().filter(|c| !c.is_control()).take(TAIL.1).collect::<String>();
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(TAIL.0)..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_without_what_a_terminal_obeys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut text: String = (0..2000).map(|i| format!("line {i}\n")).collect();
        text.push_str("\u{1b}[31mred\u{7}\n\n  \nlast");
        std::fs::write(&path, text).unwrap();
        assert_eq!(log_tail(&path), ["line 1997", "line 1998", "line 1999", "[31mred", "last"]);
        assert!(log_tail(&dir.path().join("none")).is_empty());
    }
}
