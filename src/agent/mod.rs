//! Who polls, and at what cost?
//!
//! Start at [`Sampler`], which reads counters and emits a row when one moved; [`Recorder`] runs it on a thread of its
//! own and writes the rows, [`VirtualRecorder`] does the same under a simulated clock.
//!
//! ```text
//! sources -> Sampler -> rings (bounded; full = counted loss) -> Keeper -> spools -> Parquet -> removed when told to
//!            one thread, never waits for the disk               one thread, flushes each second
//! ```
//!
//! Limits. An edge is known to lie inside its bracket `(t_prev_poll_ns, t_mono_ns]`, not where in it. A counter that
//! refreshes faster than the resolution is seen once per poll, with several refreshes in one row. One thread reads all
//! devices in turn: where a read blocks for long, the rate is bounded by the sum of the reads, and `late_polls` says so.

mod error;
mod keeper;
mod keeping;
mod marks;
mod pausing;
mod recorder;
mod recording;
mod remarks;
mod retention;
mod ring;
mod sampler;
mod schedule;
mod telemetry;
mod writer;
mod writing;

pub use error::{Error, Result};
pub use keeping::{Keeping, ROTATE_BYTES, ROTATE_EVERY};
pub use marks::MarkWriter;
pub use recorder::{Recorder, RecorderOptions, VirtualRecorder};
pub use recording::{DeviceRecording, Pause, Pauses, ReadCost, Recording, Removed};
pub use remarks::Remarks;
pub use ring::{RingReader, RingWriter, ring};
pub use sampler::{Sampler, SamplerOptions};
pub use schedule::Cadence;
pub use telemetry::{TelemetryCost, TelemetryReader};

#[cfg(test)]
mod tests;
