//! Who polls, and at what cost?
//!
//! Start at [`Sampler`], which reads counters and emits a row when one moved; [`Recorder`] runs it on a thread of its
//! own and writes the rows, [`VirtualRecorder`] does the same under a simulated clock.
//!
//! ```text
//! sources -> Sampler -> ring (bounded; full = counted loss) -> SampleWriter -> spool -> Parquet
//!            one thread, never waits for the disk               one thread, flushes each second
//! ```
//!
//! Limits. An edge is known to lie inside its bracket `(t_prev_poll_ns, t_mono_ns]`, not where in it. A counter that
//! refreshes faster than the resolution is seen once per poll, with several refreshes in one row. One thread reads all
//! devices in turn: where a read blocks for long, the rate is bounded by the sum of the reads, and `late_polls` says so.

mod error;
mod job;
mod marks;
mod recorder;
mod recording;
mod ring;
mod sampler;
mod schedule;
mod socket;
mod tally;
mod writer;
mod writing;

pub use error::{Error, Result};
pub use job::{JobIds, JobPlaces, JobWatch};
pub use marks::MarkWriter;
pub use recorder::{Recorder, RecorderOptions, VirtualRecorder};
pub use recording::{DeviceRecording, ReadCost, Recording};
pub use ring::{RingReader, RingWriter, ring};
pub use sampler::{Sampler, SamplerOptions};
pub use schedule::Cadence;
pub use socket::{
    Answer, MAX_MARK_BYTES, MAX_SOCKET_PATH_BYTES, MarkCounts, MarkMessage, MarkSocket, MarkSocketOptions,
    MarksReceived, Refusal, send_mark,
};

#[cfg(test)]
mod tests;
