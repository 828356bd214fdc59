//! What shall be run?
//!
//! Start at [`Plan`]: points and their repeats, laid out by a [`design`] over [`axis`]es that a Lua [`script`]
//! describes. A plan is data: the same script gives the same plan and the same run ids.

pub mod axis;
pub mod design;
mod error;
pub mod plan;
pub mod script;

pub use axis::{Axes, Design, Levels, Sweep};
pub use design::{Candidate, Deployment};
pub use error::Error;
pub use plan::{Measure, Plan, Point, Run, WorkloadSpec};
