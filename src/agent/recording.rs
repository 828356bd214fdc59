//! What a recording was and cost: the summary that stands in its files and on a report's first page.

use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Summary of one recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Node.
    pub host: String,
    /// Instant of the start.
    pub t_begin_mono_ns: i64,
    /// Instant of the end, or of the summary while it goes on.
    pub t_end_mono_ns: i64,
    /// Rows written.
    pub rows: u64,
    /// Rows that the full ring refused. Not 0: windows inside this recording are to be doubted.
    pub lost_rows: u64,
    /// Reads of all devices.
    pub polls: u64,
    /// Reads that began more than a poll distance late.
    pub late_polls: u64,
    /// Counter movements seen.
    pub edges: u64,
    /// What a read cost.
    pub read_cost: ReadCost,
    /// CPU seconds of the sampling thread; missing under virtual time.
    pub sampler_cpu_s: Option<f64>,
    /// Attempts to write that failed and were made good later.
    pub write_errors: u64,
    /// The last of them.
    pub last_write_error: Option<String>,
    /// Device by device.
    pub devices: Vec<DeviceRecording>,
    /// Sealed files, in order.
    pub files: Vec<PathBuf>,
}

/// What one device did during a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecording {
    /// Device identifier.
    pub device: String,
    /// Reads.
    pub polls: u64,
    /// Movements seen.
    pub edges: u64,
    /// Movements that came earlier than the schedule expected, so that their bracket is wide.
    pub blurred_edges: u64,
    /// Rows emitted: movements, heartbeats and the first reading.
    pub rows: u64,
    /// Reads that gave nothing.
    pub read_errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
    /// Whether the device left and was not read again.
    pub gone: bool,
    /// Refresh period of the counter, s, once enough edges were seen.
    pub refresh_period_s: Option<f64>,
    /// Energy since the first reading, J, wraps undone: a running sum for live views. Results come from the rows.
    #[serde(default)]
    pub energy_j: Option<f64>,
    /// Mean power of about the last second, W.
    #[serde(default)]
    pub power_w: Option<f64>,
    /// Resets, leaps and holes across which `energy_j` counts nothing.
    #[serde(default)]
    pub gaps: u64,
}

/// How long reads took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ReadCost {
    /// Reads.
    pub count: u64,
    /// Mean, ns.
    pub mean_read_ns: f64,
    /// Median, ns.
    pub p50_read_ns: u64,
    /// 99th percentile, ns.
    pub p99_read_ns: u64,
    /// Slowest, ns.
    pub max_read_ns: u64,
}

impl ReadCost {
    pub(super) fn from_ns(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_read_ns: histogram.mean(),
            p50_read_ns: histogram.value_at_quantile(0.5),
            p99_read_ns: histogram.value_at_quantile(0.99),
            max_read_ns: histogram.max(),
        }
    }
}
