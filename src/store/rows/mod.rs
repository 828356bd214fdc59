//! Rows as structs, and the batches they travel in.

mod builder;
mod mark;
mod run;
mod sample;
mod serving;
mod telemetry;

pub use builder::BatchBuilder;
pub use mark::MarkRow;
pub use run::RunRow;
pub use sample::SampleRow;
pub use serving::Serving;
pub use telemetry::TelemetryRow;
