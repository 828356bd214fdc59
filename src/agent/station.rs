//! One source with the devices it reads: what a lane polls, and what moves from lane to lane as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use hdrhistogram::Histogram;

use super::recording::{DeviceRecording, read_histogram};
use super::ring::RingWriter;
use super::sampler::SamplerOptions;
use super::schedule::Schedule;
use super::telemetry::{TelemetryCost, TelemetryReader};
use super::watched::Watched;
use crate::clock::Clock;
use crate::source::{CounterSource, Device, ReadError};
use crate::store::{SampleRow, TelemetryRow};
use crate::units::NS_PER_MS;

/// Weight of the newest read in the moving mean.
const NEWEST: f64 = 1.0 / 16.0;
/// A read beyond this is an event of its own, however quick the others are.
const LONG_READ_NS: i64 = 5 * NS_PER_MS;
/// Long reads that make a source slow if they come within [`LONG_READS_WITHIN_NS`]. One alone is as likely a
/// preempted thread.
const LONG_READS: usize = 3;
const LONG_READS_WITHIN_NS: i64 = 10_000 * NS_PER_MS;
/// No read is under way.
const IDLE: i64 = i64::MIN;

/// What a station's reader is inside of, readable while the reader hangs there.
pub(super) struct InFlight {
    since_ns: AtomicI64,
    device: AtomicUsize,
}

impl InFlight {
    pub(super) fn idle() -> Self {
        Self { since_ns: AtomicI64::new(IDLE), device: AtomicUsize::new(0) }
    }

    pub(super) fn begin(&self, device: usize, now_ns: i64) {
        self.device.store(device, Ordering::Relaxed);
        self.since_ns.store(now_ns, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.since_ns.store(IDLE, Ordering::Release);
    }

    /// The device being read and since when.
    pub(super) fn read(&self) -> Option<(usize, i64)> {
        let since_ns = self.since_ns.load(Ordering::Acquire);
        (since_ns != IDLE).then(|| (self.device.load(Ordering::Relaxed), since_ns))
    }
}

pub(super) struct Station {
    source: Box<dyn CounterSource>,
    devices: Vec<Watched>,
    base_step_ns: i64,
    doublings: u32,
    late_polls: u64,
    missed_polls: u64,
    read_ns: Histogram<u64>,
    mean_read_ns: f64,
    /// Ends of the latest long reads.
    long_reads_ns: [i64; LONG_READS],
    in_flight: Arc<InFlight>,
    telemetry: Option<TelemetryReader>,
}

impl Station {
    pub(super) fn new(source: Box<dyn CounterSource>, schedule: &Schedule, now_ns: i64) -> Self {
        let devices = source.devices().iter().map(|d| Watched::new(d, schedule.clone(), now_ns)).collect();
        Self {
            source,
            devices,
            base_step_ns: schedule.step_ns(),
            doublings: 0,
            late_polls: 0,
            missed_polls: 0,
            read_ns: read_histogram(),
            mean_read_ns: 0.0,
            long_reads_ns: [i64::MIN; LONG_READS],
            in_flight: Arc::new(InFlight::idle()),
            telemetry: None,
        }
    }

    /// Also reads what else the devices tell, each every `every_ns`, into `sink`.
    pub(super) fn set_telemetry(&mut self, every_ns: i64, now_ns: i64, sink: &Arc<RingWriter<TelemetryRow>>) {
        self.telemetry = Some(TelemetryReader::new(self.source.as_ref(), every_ns, now_ns, sink.clone()));
    }

    /// To be called before sleeping until `gap_ends_ns`: reads the telemetry of at most one device, if one is due and
    /// there is room. Says whether it did. A call that hangs is seen as a counter's would be.
    pub(super) fn use_gap(&mut self, clock: &dyn Clock, gap_ends_ns: i64) -> bool {
        let Some(reader) = &mut self.telemetry else { return false };
        reader.use_gap(self.source.as_mut(), &self.in_flight, clock, gap_ends_ns)
    }

    pub(super) fn telemetry_cost(&self) -> TelemetryCost {
        self.telemetry.as_ref().map(TelemetryReader::cost).unwrap_or_default()
    }

    pub(super) fn devices(&self) -> &[Device] {
        self.source.devices()
    }

    pub(super) fn in_flight(&self) -> Arc<InFlight> {
        self.in_flight.clone()
    }

    /// When the first of its devices is due; `None` once all have left.
    pub(super) fn next_due_ns(&self) -> Option<i64> {
        self.devices.iter().filter_map(Watched::due_ns).min()
    }

    /// Polls whatever is due up to `horizon_ns`. The clock was last read at `before_ns`; gives when it was read since:
    /// the end of one read is the beginning of the next, so each costs one look at the clock.
    pub(super) fn poll_due(
        &mut self,
        horizon_ns: i64,
        mut before_ns: i64,
        clock: &dyn Clock,
        options: &SamplerOptions,
        emit: &mut dyn FnMut(SampleRow),
    ) -> i64 {
        let mut fatal: Option<String> = None;
        for (index, device) in self.devices.iter_mut().enumerate() {
            if device.due_ns().is_none_or(|due| due > horizon_ns) {
                continue;
            }
            let missed = device.begin_poll(before_ns);
            self.late_polls += u64::from(missed > 0);
            self.missed_polls += missed;
            self.in_flight.begin(index, before_ns);
            let reading = self.source.read(index);
            let after_ns = clock.now();
            let took_ns = (after_ns - before_ns).max(1);
            self.read_ns.saturating_record(took_ns.unsigned_abs());
            device.note_read_ns(took_ns.unsigned_abs());
            // Clipped, so that one preempted read does not pass for many slow ones.
            self.mean_read_ns += (took_ns.min(LONG_READ_NS) as f64 - self.mean_read_ns) * NEWEST;
            if took_ns > LONG_READ_NS {
                self.long_reads_ns.rotate_left(1);
                self.long_reads_ns[LONG_READS - 1] = after_ns;
            }
            match reading {
                Ok(reading) => {
                    if let Some(row) = device.take(reading, before_ns, after_ns, options) {
                        emit(row);
                    }
                }
                Err(ReadError::Transient(message)) => device.failed(message, after_ns),
                Err(e @ ReadError::Gone(_)) => device.leave(e.to_string()),
                Err(ReadError::Fatal(message)) => {
                    device.leave(message.clone());
                    fatal = Some(message);
                }
            }
            before_ns = after_ns;
        }
        self.in_flight.end();
        if let Some(message) = fatal {
            self.leave(&message);
        }
        before_ns
    }

    /// None of its devices is read again.
    pub(super) fn leave(&mut self, message: &str) {
        self.devices.iter_mut().for_each(|d| d.leave(message.to_owned()));
    }

    /// Polls come 2^`doublings` times as far apart as was asked for.
    pub(super) fn set_doublings(&mut self, doublings: u32) {
        if self.doublings != doublings {
            self.doublings = doublings;
            let step_ns = self.base_step_ns << doublings;
            self.devices.iter_mut().for_each(|d| d.set_step_ns(step_ns));
        }
    }

    /// How long reading all of its devices takes, as of late.
    pub(super) fn sweep_ns(&self) -> f64 {
        self.mean_read_ns * self.devices.iter().filter(|d| d.due_ns().is_some()).count() as f64
    }

    /// Whether several of its latest reads took long.
    pub(super) fn is_slow(&self, now_ns: i64) -> bool {
        self.long_reads_ns[0] > now_ns.saturating_sub(LONG_READS_WITHIN_NS)
    }

    pub(super) fn late_polls(&self) -> u64 {
        self.late_polls
    }

    pub(super) fn missed_polls(&self) -> u64 {
        self.missed_polls
    }

    pub(super) fn read_ns(&self) -> &Histogram<u64> {
        &self.read_ns
    }

    pub(super) fn device_recordings(&self) -> impl Iterator<Item = DeviceRecording> + '_ {
        self.devices.iter().map(Watched::recording)
    }
}
