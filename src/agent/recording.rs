//! What a recording was and cost: the summary that stands in its files and on a report's first page.

use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::station::Station;
use super::telemetry::TelemetryCost;

/// Summary of one recording.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Poll instants that passed while an earlier poll was late; they were not made up for.
    #[serde(default)]
    pub missed_polls: u64,
    /// Counter movements seen.
    pub edges: u64,
    /// What a read cost.
    pub read_cost: ReadCost,
    /// CPU seconds of all sampling threads; missing under virtual time.
    pub sampler_cpu_s: Option<f64>,
    /// Threads that sample at the end; 0 under virtual time. More than one: some reads were slow or hung.
    #[serde(default)]
    pub lanes: u32,
    /// Whether the budget of processor time was exceeded, and what was done about it.
    #[serde(default)]
    pub backed_off: Option<BackOff>,
    /// Attempts to write that failed and were made good later.
    pub write_errors: u64,
    /// The last of them.
    pub last_write_error: Option<String>,
    /// Device by device.
    pub devices: Vec<DeviceRecording>,
    /// The latest sealed files, in order.
    pub files: Vec<PathBuf>,
    /// Sealed files in all, listed above or not.
    #[serde(default)]
    pub sealed_files: u64,
    /// Times in which nothing could be written, and what they cost.
    #[serde(default)]
    pub pauses: Pauses,
    /// What retention removed.
    #[serde(default)]
    pub removed: Removed,
    /// What reading telemetry cost; none of it is in `read_cost`.
    #[serde(default)]
    pub telemetry: TelemetryCost,
}

/// Times in which the disk took nothing, so that rows waited in memory and, beyond its bound, were lost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pauses {
    /// How many.
    pub count: u64,
    /// How long, together.
    pub total_s: f64,
    /// Rows lost in them: windows inside one are to be doubted.
    pub lost_rows: u64,
    /// The latest, in order.
    pub latest: Vec<Pause>,
}

/// One time in which the disk took nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Instant of the first write that failed.
    pub t_begin_mono_ns: i64,
    /// Instant of the first that succeeded again; missing while the pause goes on.
    pub t_end_mono_ns: Option<i64>,
    /// Rows lost in it.
    pub lost_rows: u64,
    /// Why nothing could be written.
    pub reason: String,
}

/// Sealed files that retention removed, as it was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removed {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far sampling retreated to keep to its budget of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// Distance of dense polls in force, ns.
    pub step_ns: i64,
    /// Times that the distance was doubled.
    pub back_offs: u64,
}

/// What one device did during a recording.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Slowest read that came to an end, ns.
    #[serde(default)]
    pub longest_read_ns: u64,
    /// Instant since which a read hangs in the driver.
    #[serde(default)]
    pub stuck_since_mono_ns: Option<i64>,
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

/// For durations in ns: 1 ns to 10 s, two digits; slower reads count as 10 s.
pub(super) fn read_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("constant bounds in the right order")
}

/// What stations did, added up.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) devices: Vec<DeviceRecording>,
    late_polls: u64,
    missed_polls: u64,
    read_ns: Option<Histogram<u64>>,
    pub(super) telemetry: TelemetryCost,
}

impl Tally {
    pub(super) fn of(station: &Station) -> Self {
        let mut tally = Self::default();
        tally.add(station);
        tally
    }

    pub(super) fn add(&mut self, station: &Station) {
        self.devices.extend(station.device_recordings());
        self.late_polls += station.late_polls();
        self.missed_polls += station.missed_polls();
        self.add_reads(station.read_ns());
        self.telemetry.add(&station.telemetry_cost());
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.devices.extend(other.devices);
        self.late_polls += other.late_polls;
        self.missed_polls += other.missed_polls;
        self.telemetry.add(&other.telemetry);
        if let Some(read_ns) = &other.read_ns {
            self.add_reads(read_ns);
        }
    }

    fn add_reads(&mut self, read_ns: &Histogram<u64>) {
        match &mut self.read_ns {
            // All are made with the same bounds; what does not fit one would not have fitted the other.
            Some(sum) => drop(sum.add(read_ns)),
            None => self.read_ns = Some(read_ns.clone()),
        }
    }

    pub(super) fn read_cost(&self) -> ReadCost {
        self.read_ns.as_ref().map(ReadCost::from_ns).unwrap_or_default()
    }

    /// The summary as far as sampling knows it; the writer adds the rest.
    pub(super) fn into_recording(self, host: &str, t_begin_mono_ns: i64, t_end_mono_ns: i64) -> Recording {
        Recording {
            host: host.to_owned(),
            t_begin_mono_ns,
            t_end_mono_ns,
            polls: self.devices.iter().map(|d| d.polls).sum(),
            late_polls: self.late_polls,
            missed_polls: self.missed_polls,
            edges: self.devices.iter().map(|d| d.edges).sum(),
            read_cost: self.read_cost(),
            telemetry: self.telemetry,
            devices: self.devices,
            ..Recording::default()
        }
    }
}
