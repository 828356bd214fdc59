//! Who polls, and at what cost?
//!
//! Start at [`Sampler`], which reads counters and emits a row when one moved; [`Recorder`] runs it on a thread of its
//! own and writes the rows, [`VirtualRecorder`] does the same under a simulated clock.
//!
//! ```text
//! sources -> lanes -> rings (bounded; full = counted loss) -> Keeper -> spools -> Parquet -> removed when told to
//!            never wait for the disk                          one thread, flushes each second
//! ```
//!
//! Limits. An edge is known to lie inside its bracket `(t_prev_poll_ns, t_mono_ns]`, not where in it. A counter that
//! refreshes faster than the resolution is seen once per poll, with several refreshes in one row. Sources share a
//! thread while their reads are quick; the devices of one source are always read in turn. The first read that hangs
//! holds up its thread's other sources for about 70 ms, later ones nobody.

mod budget;
mod energy_meter;
mod error;
mod examine;
mod job;
mod keeper;
mod keeping;
mod lanes;
mod marks;
mod metrics;
mod notices;
mod notify;
mod pausing;
mod recorder;
mod recording;
mod retention;
mod ring;
mod sampler;
mod schedule;
mod socket;
mod standing;
mod station;
mod supervisor;
mod survey;
mod telemetry;
mod watched;
mod writer;
mod writing;

pub use budget::CpuMeter;
pub use error::{Error, Result};
pub use examine::{Agreement, Examination, Fault, Refresh, examine};
pub use job::{JobIds, JobPlaces, JobWatch};
pub use keeping::{Keeping, ROTATE_BYTES, ROTATE_EVERY};
pub use marks::MarkWriter;
pub use metrics::{MetricsServer, MetricsState};
pub use notices::Notices;
pub use notify::ServiceNotifier;
pub use recorder::{Recorder, RecorderOptions, VirtualRecorder};
pub use recording::{BackOff, DeviceRecording, Pause, Pauses, ReadCost, Recording, Removed};
pub use ring::{RingReader, RingWriter, ring};
pub use sampler::{Sampler, SamplerOptions};
pub use schedule::Cadence;
pub use socket::{
    Answer, MAX_MARK_BYTES, MAX_SOCKET_PATH_BYTES, MarkCounts, MarkMessage, MarkSocket, MarkSocketOptions,
    MarksReceived, Refusal, send_mark,
};
pub use standing::Standing;
pub use survey::{Movement, Survey, Watch, survey, thread_cpu_s, time_reads};
pub use telemetry::{TelemetryCost, TelemetryReader};

#[cfg(test)]
mod tests;
