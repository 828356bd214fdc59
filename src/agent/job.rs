//! Which Slurm job is at work: from the kernel's cgroups or our own environment, never by asking the controller.
//!
//! ```text
//! cgroup v2   /system.slice/slurmstepd.scope/job_123/step_0/user/task_0     also NODE_slurmstepd.scope
//! cgroup v1   /slurm/uid_1000/job_123/step_batch/...                        also /slurm_NODE/...
//! otherwise   SLURM_JOB_ID, SLURM_STEP_ID of this process only: others' environment is not ours to believe
//! ```
//!
//! Limit: where Slurm makes no cgroups, an agent outside of the job sees no job.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod watch;

pub use watch::JobWatch;

/// A Slurm job, and a step in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobIds {
    /// The job, as in `squeue`: a number.
    pub job_id: String,
    /// The step: a number (with its component behind `+`, where the job has several), batch, extern or interactive.
    pub step_id: Option<String>,
}

/// Where the kernel shows processes and their cgroups.
#[derive(Debug, Clone)]
pub struct JobPlaces {
    /// What stands for `/proc`.
    pub proc_root: PathBuf,
    /// What stands for `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
}

impl Default for JobPlaces {
    fn default() -> Self {
        Self { proc_root: PathBuf::from("/proc"), cgroup_root: PathBuf::from("/sys/fs/cgroup") }
    }
}

impl JobIds {
    /// The job of another process, by its cgroup.
    pub fn of_process(places: &JobPlaces, pid: u32) -> Option<Self> {
        Self::of_cgroup_file(&places.proc_root.join(pid.to_string()).join("cgroup"))
    }

    /// The job that this process runs in, by its cgroup or else by `variable` (of the environment).
    pub fn own(places: &JobPlaces, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let by_cgroup = Self::of_cgroup_file(&places.proc_root.join("self/cgroup"));
        by_cgroup.or_else(|| Self::of_environment(variable))
    }

    /// The job that the environment names.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let job_id = variable("SLURM_JOB_ID").or_else(|| variable("SLURM_JOBID")).filter(|id| is_number(id))?;
        let step_id = variable("SLURM_STEP_ID").or_else(|| variable("SLURM_STEPID"));
        Some(Self { job_id, step_id: step_id.and_then(|id| step(&id)) })
    }

    fn of_cgroup_file(path: &Path) -> Option<Self> {
        Self::of_cgroups(&std::fs::read_to_string(path).ok()?)
    }

    /// The job in the text of a `/proc/PID/cgroup`.
    pub fn of_cgroups(text: &str) -> Option<Self> {
        // `hierarchy:controllers:path`; of several hierarchies (v1) the one that names a step says most.
        let found: Vec<Self> = text.lines().filter_map(|line| Self::of_path(line.splitn(3, ':').nth(2)?)).collect();
        let with_step = found.iter().find(|ids| ids.step_id.is_some());
        with_step.or(found.first()).cloned()
    }

    fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        // A directory `job_1` that is not Slurm's is somebody else's job.
        parts.find(|part| is_slurms(part))?;
        let job_id = parts.find_map(job_directory)?.to_owned();
        let step_id = parts.next().and_then(|part| part.strip_prefix("step_")).and_then(step);
        Some(Self { job_id, step_id })
    }

    /// A name for what this process does, for marks that name no run: `123.0`, or `123`.
    pub fn run_id(&self) -> String {
        match &self.step_id {
            Some(step_id) => format!("{}.{step_id}", self.job_id),
            None => self.job_id.clone(),
        }
    }
}

fn is_slurms(directory: &str) -> bool {
    directory == "slurm" || directory.starts_with("slurm_") || directory.ends_with("slurmstepd.scope")
}

/// `123` of `job_123`.
fn job_directory(name: &str) -> Option<&str> {
    name.strip_prefix("job_").filter(|id| is_number(id))
}

fn is_number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// The step's name; Slurm gives the steps without a number the highest numbers.
fn step(id: &str) -> Option<String> {
    let name = match id {
        "4294967292" => "extern",
        "4294967291" => "batch",
        "4294967290" => "interactive",
        other => other,
    };
    let is_numbered = || name.split_once('+').map_or_else(|| is_number(name), |(a, b)| is_number(a) && is_number(b));
    (["extern", "batch", "interactive"].contains(&name) || is_numbered()).then(|| name.to_owned())
}

/// Whether a text may stand as a job's id: what a client says of itself is held to the same form.
pub(super) fn is_job_id(text: &str) -> bool {
    is_number(text)
}

/// Whether a text may stand as a step's id.
pub(super) fn is_step_id(text: &str) -> bool {
    step(text).is_some_and(|name| name == text)
}

#[cfg(test)]
mod tests;
