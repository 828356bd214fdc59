//! Where shall it run?
//!
//! Start at [`prepare`]: the runs of a plan become [tasks] of job arrays, each array a [script] for `sbatch`. A
//! [`Launcher`] hands them to Slurm and says what became of them; [`Records`] remember what was submitted. On its node a
//! task is a small campaign of its own under `tasks/`; [`merge()`] brings those together.
//!
//! ```text
//! CAMPAIGN/plan.json                the whole plan
//!          slurm/array-000.sh       what sbatch was given      slurm/array-000.json   its tasks and its job
//!          slurm/sweep.lua          the script               slurm/start.json       where it was submitted from
//!          slurm/closed.jsonl       tasks whose results are merged, or that will never have any
//!          slurm/logs/000-7.log     what task 7 of array 000 printed, over all its attempts
//!          tasks/000-7/             journal, samples, marks and tables of that task, until they are merged
//! ```
//!
//! Limits. The campaign directory must be seen under the same path by all nodes. A run is recorded on one node. Slurm
//! forgets jobs some minutes after their end: what became of them is then known from the campaign, and from `sacct`
//! where the cluster keeps accounts.

mod client;
mod error;
mod merge;
mod records;
pub mod script;
mod start;
pub mod state;
mod submit;
mod survey;
pub mod tasks;

pub use client::{Launch, Launcher, SlurmClient};
pub use error::Error;
pub use merge::{Merged, Reduce, is_taken, merge, note_end, results_dir, task_dir};
pub use records::{ArrayRecord, Records, TaskId};
pub use script::Places;
pub use start::Start;
pub use state::{JobStates, Stage, TaskState};
pub use submit::{Prepared, Refused, Request, Submitted, prepare, submit};
pub use survey::{Survey, TaskStatus, log_path, log_tail};
pub use tasks::Class;
