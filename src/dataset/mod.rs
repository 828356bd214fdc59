//! What did each run cost?
//!
//! Start at [`Dataset`]: rows of joules with their uncertainty, from our own recordings ([`phases`]) or from others
//! ([`import`]). Between counters and joules stand [`unwrap`] (which differences are energy at all) and [`interval`]
//! (how much of it fell into a window, and how sure that is).

pub mod row;

pub use row::{Dataset, RejectedRow, Row};
