//! What can go wrong between a plan and its results on a cluster.

use std::path::PathBuf;

/// Why something could not be submitted, followed or merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of Slurm's is not there.
    #[error("`{program}` is in no directory of PATH; expected Slurm's programs, as on a login node")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// A program of Slurm's could not be started.
    #[error("`{program}` cannot be started")]
    Start {
        /// Its name.
        program: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A program of Slurm's refused.
    #[error("`{program}` says: {said}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What it printed.
        said: String,
    },
    /// A program of Slurm's answered what nobody understands.
    #[error("`{program}` answers `{found}`; expected {expected}")]
    Answer {
        /// Its name.
        program: &'static str,
        /// What was wanted.
        expected: &'static str,
        /// What it printed, shortly.
        found: String,
    },
    /// A name or path that cannot stand in a batch script.
    #[error("{what} `{found}` cannot stand in a batch script: expected UTF-8 without control characters")]
    Unquotable {
        /// Which.
        what: &'static str,
        /// The text, its odd characters escaped.
        found: String,
    },
    /// Slurm would read patterns into the campaign's path.
    #[error(
        "the campaign's path `{found}` has a `%` or a backslash, which Slurm replaces in the names of logs; choose another directory"
    )]
    Pattern {
        /// The path.
        found: String,
    },
    /// Slurm's tasks are at work on the campaign.
    #[error(
        "{tasks} tasks of the campaign {path} are with Slurm; `energylens status {path} --merge` merges those that have ended, `scancel` ends the others",
        path = .path.display()
    )]
    WithSlurm {
        /// The campaign.
        path: PathBuf,
        /// Tasks that are not closed.
        tasks: usize,
    },
    /// An option asks for fewer GPUs than runs need.
    #[error(
        "slurm option `{option}` asks for {asked} GPUs; runs of this sweep need {needed}: write {{num_gpus}} for the number"
    )]
    TooFewGpus {
        /// The option and its value.
        option: String,
        /// GPUs that it asks for.
        asked: u64,
        /// GPUs of the largest run.
        needed: u32,
    },
    /// An option's template cannot be filled in.
    #[error("slurm option `{option}`: {reason}")]
    Option {
        /// Its name.
        option: String,
        /// Why not.
        reason: String,
    },
    /// The cluster takes no job arrays.
    #[error("this cluster takes no job arrays (MaxArraySize is {found}); ask its administrator")]
    NoArrays {
        /// What the controller says.
        found: u64,
    },
    /// Nothing of the plan is left to be submitted.
    #[error("all runs of the plan are done or under way; nothing is left to submit")]
    NothingLeft,
    /// The campaign was submitted before.
    #[error(
        "{path} was submitted already ({arrays} job arrays); `energylens status {path} --resubmit` submits what is missing",
        path = .path.display()
    )]
    SubmittedBefore {
        /// The campaign.
        path: PathBuf,
        /// How many arrays.
        arrays: usize,
    },
    /// The campaign was never submitted.
    #[error("{path} was never submitted to Slurm; `energylens submit SWEEP.lua -o {path}` does", path = .path.display())]
    NeverSubmitted {
        /// The campaign.
        path: PathBuf,
    },
    /// There is no such task.
    #[error("the campaign has no task {task} in array {array:03}; expected one of {tasks}")]
    NoTask {
        /// The array.
        array: u32,
        /// The task.
        task: u32,
        /// How many tasks it has.
        tasks: usize,
    },
    /// A file could not be read or written.
    #[error("{path} cannot be {verb}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// A participle: read, written, moved.
        verb: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of the campaign is not what this program writes.
    #[error("{path} is no {expected}", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// The journal or the plan.
    #[error("campaign")]
    Sweep(#[from] crate::sweep::Error),
    /// The campaign's tables.
    #[error("campaign")]
    Store(#[from] crate::store::Error),
}

impl Error {
    /// Whether a job may have been submitted all the same: the controller may take a job and answer too late.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Answer { .. } => true,
            Self::Refused { said, .. } => {
                let said = said.to_lowercase();
                ["timed out", "zero bytes", "connection", "unexpected message"].iter().any(|sign| said.contains(sign))
            }
            _ => false,
        }
    }

    pub(super) fn io(path: &std::path::Path, verb: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, verb, source }
    }
}
