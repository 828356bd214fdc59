//! What shall be run?
//!
//! Start at [`Plan`]: points and their repeats, laid out by a [`design`] over [`axis`]es that a Lua [`script`]
//! describes. A plan is data: the same script gives the same plan and the same run ids. The [`runner`] carries it out
//! against a [`workload`], keeps a [`journal`] of what is done, and tells whoever observes it when phases begin and end;
//! it does not know who records.

pub mod adaptive;
pub mod axis;
pub mod design;
mod error;
pub mod journal;
pub mod plan;
pub mod process;
pub mod runner;
pub mod sbatch;
pub mod script;
pub mod server;
pub mod surroundings;
pub mod template;
pub mod visible;
pub mod workload;

pub use adaptive::{Adaptive, AdaptiveRule, ChosenPoint, Decision, StopReason};
pub use axis::{Axes, Design, Levels, Sweep};
pub use design::{Candidate, Deployment};
pub use error::Error;
pub use journal::Journal;
pub use plan::{Measure, Plan, Point, Run};
pub use runner::{Event, Observed, Outcome, run_plan};
pub use sbatch::{OptionValue, SlurmSpec};
pub use surroundings::{MarksTaken, Surroundings};
pub use visible::VisibleDevices;
pub use workload::{CommandSpec, ScriptSpec, ServerSpec, Workload, WorkloadSpec};
