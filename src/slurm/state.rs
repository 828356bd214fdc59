//! What Slurm says of jobs, as its programs print it.
//!
//! Read from `squeue --format`, whose columns have meant the same for many versions, and not from `--json`: that prints
//! every job of the cluster in some versions, needs plugins, and has another shape in each.

use std::collections::HashMap;

/// What is known of the tasks of some jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStates {
    tasks: HashMap<(u64, Option<u32>), TaskState>,
}

/// One task, or a job without tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// Slurm's word: `RUNNING`, `NODE_FAIL`.
    pub word: String,
    /// The number that the task has as a job of its own.
    pub job_id: Option<u64>,
    /// Nodes that it runs or ran on.
    pub nodes: Option<String>,
    /// Why it waits or ended, in Slurm's word.
    pub reason: Option<String>,
}

/// Where in its life a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It will run.
    Waiting,
    /// It runs, or is about to begin or end.
    Running,
    /// It is over, however.
    Ended,
}

impl TaskState {
    /// Where in its life the task is. An unknown word is taken for one of a running task: nothing is merged then.
    pub fn stage(&self) -> Stage {
        match self.word.as_str() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
                Stage::Waiting
            }
            "BOOT_FAIL" | "CANCELLED" | "COMPLETED" | "DEADLINE" | "FAILED" | "NODE_FAIL" | "OUT_OF_MEMORY"
            | "PREEMPTED" | "REVOKED" | "TIMEOUT" => Stage::Ended,
            _ => Stage::Running,
        }
    }
}

impl JobStates {
    /// Task `task` of the array `job`; where nothing is known of it any more, `None`.
    pub fn task(&self, job: u64, task: u32) -> Option<&TaskState> {
        self.tasks.get(&(job, Some(task)))
    }

    /// A job without tasks.
    pub fn job(&self, job: u64) -> Option<&TaskState> {
        self.tasks.get(&(job, None))
    }

    /// Whether anything is known of the job.
    pub fn knows(&self, job: u64) -> bool {
        self.tasks.keys().any(|(known, _)| *known == job)
    }

    /// Notes a task.
    pub fn insert(&mut self, job: u64, task: Option<u32>, state: TaskState) {
        self.tasks.insert((job, task), state);
    }
}

/// Lines `array|task|job|state|nodes|reason`.
pub fn read_squeue(answer: &str, states: &mut JobStates) {
    for line in answer.lines() {
        let mut fields = line.splitn(6, '|').map(str::trim);
        let (Some(array), Some(task), Some(job), Some(word)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(array) = array.parse() else { continue };
        let text = |field: Option<&str>| field.filter(|t| !t.is_empty() && *t != "None").map(str::to_owned);
        let state = TaskState {
            word: word.to_owned(),
            job_id: job.parse().ok(),
            nodes: text(fields.next()),
            reason: text(fields.next()),
        };
        states.insert(array, task.parse().ok(), state);
    }
}

/// Lines `job_task|job|state|nodes|exit code`; a state may have words behind it, as in `CANCELLED by 1000`.
pub fn read_sacct(answer: &str, states: &mut JobStates) {
    for line in answer.lines() {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [id, raw, word, nodes, exit, ..] = fields.as_slice() else { continue };
        let (array, task) = match id.split_once('_') {
            Some((array, task)) => (array, task.parse().ok()),
            None => (*id, None),
        };
        // Several waiting tasks in one line (`135_[4-9]`) are squeue's to tell.
        let (Ok(array), false) = (array.parse(), id.contains('[')) else { continue };
        let word = word.split_whitespace().next().unwrap_or_default().trim_end_matches('+').to_owned();
        let nodes = Some(*nodes).filter(|n| !n.is_empty() && *n != "None assigned").map(str::to_owned);
        let reason = Some(*exit).filter(|e| !e.is_empty() && *e != "0:0").map(|e| format!("exit {e}"));
        states.insert(array, task, TaskState { word, job_id: raw.parse().ok(), nodes, reason });
    }
}

/// `MaxArraySize` in what `scontrol show config` prints.
pub fn max_array_size(config: &str) -> Option<u64> {
    let line = config.lines().find_map(|line| line.trim().strip_prefix("MaxArraySize"))?;
    line.trim_start().strip_prefix('=')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn squeue_is_read_as_it_prints() {
        let mut states = JobStates::default();
        read_squeue(
            "135|0|136|COMPLETED|n1|None\n135|2|135|PENDING||BeginTime\n140|N/A|140|RUNNING|n[1-2]|None\nCLUSTER: x\n",
            &mut states,
        );
        let done = states.task(135, 0).unwrap();
        assert_eq!((done.stage(), done.job_id, done.nodes.as_deref()), (Stage::Ended, Some(136), Some("n1")));
        let waits = states.task(135, 2).unwrap();
        assert_eq!(
            (waits.stage(), waits.reason.as_deref(), waits.nodes.clone()),
            (Stage::Waiting, Some("BeginTime"), None)
        );
        assert_eq!(states.job(140).unwrap().stage(), Stage::Running);
        assert!(states.knows(140) && !states.knows(141) && states.task(135, 1).is_none());
    }

    #[test]
    fn accounts_are_read_as_sacct_prints() {
        let mut states = JobStates::default();
        read_sacct(
            "135_0|136|CANCELLED by 1000|n1|0:15\n135_1|137|OUT_OF_ME+|n2|0:125\n135_[4-9]|135|PENDING|None assigned|0:0\n\
             135_2|138|TIMEOUT|n1|0:0\n",
            &mut states,
        );
        assert_eq!(states.task(135, 0).unwrap().word, "CANCELLED");
        assert_eq!(states.task(135, 0).unwrap().reason.as_deref(), Some("exit 0:15"));
        assert_eq!(states.task(135, 2).unwrap().stage(), Stage::Ended);
        // A cut word is none that is known: nothing is concluded from it.
        assert_eq!(states.task(135, 1).unwrap().stage(), Stage::Running);
        assert!(states.task(135, 4).is_none());
    }

    #[test]
    fn the_controllers_bound_on_arrays_is_found() {
        assert_eq!(
            max_array_size("MailProg = /bin/mail\nMaxArraySize            = 1001\nMaxJobCount = 10\n"),
            Some(1001)
        );
        assert_eq!(max_array_size("MaxArrayTasks = 3\n"), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(text in "([0-9_|\\[\\]A-Z /-]{0,30}\n){0,6}") {
            let mut states = JobStates::default();
            read_squeue(&text, &mut states);
            read_sacct(&text, &mut states);
            max_array_size(&text);
        }
    }
}
