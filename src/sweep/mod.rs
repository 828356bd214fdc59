//! What shall be run?
//!
//! Start at [`Plan`]: points and their repeats, laid out by a [`design`] over [`axis`]es that a Lua [`script`]
//! describes. A plan is data: the same script gives the same plan and the same run ids. The [`runner`] carries it out
//! against a [`workload`], and leaves marks for whoever records.

pub mod plan;

pub use plan::{Plan, Point, Run};
