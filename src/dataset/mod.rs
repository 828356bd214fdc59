//! What did each run cost?
//!
//! Start at [`Dataset`]: rows of joules with their uncertainty, from our own recordings ([`phases`]) or from others
//! ([`load()`], [`import()`]). Between counters and joules stand [`unwrap`] (which differences are energy at all) and
//! [`interval`] (how much of it fell into a window, and how sure that is).
//!
//! Limits. A counter that lags behind the power it integrates shifts every window by that lag; nothing in the counter
//! tells, and nothing here corrects it. Rows of others are checked for what cannot be true (units, counts, powers no
//! GPU has), not for what is merely unlikely.

pub mod check;
pub mod cost;
pub mod error;
pub mod import;
pub mod interval;
pub mod load;
pub mod phases;
pub mod power;
pub mod quality;
pub mod row;
mod steadiness;
pub mod unwrap;
pub mod write;

mod columns;
mod frame;
mod headers;
mod parse;
mod recording;

pub use columns::{Columns, ColumnsRow, Field, load_columns};
pub use error::Error;
pub use import::{Format, import};
pub use load::{Configurations, load, load_configurations};
pub use phases::reduce;
pub use row::{Dataset, RejectedRow, Row};
pub use write::{write_csv, write_phases};
