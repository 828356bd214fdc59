//! A sampler and a writer, put together: on threads for real time, without for simulated time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, Result};
use super::keeper::{Keeper, KeeperOptions};
use super::keeping::Keeping;
use super::recording::Recording;
use super::remarks::Remarks;
use super::ring::{RingReader, RingWriter, ring};
use super::sampler::{Sampler, SamplerOptions};
use super::writing::{Orders, Rings, write_until_ended};
use crate::clock::{Clock, ClockAnchor};
use crate::source::CounterSource;
use crate::store::{FileMetadata, SampleRow, TelemetryRow, host_name};
use crate::units::NS_PER_MS;

/// How long the sampler goes on before it looks whether it shall stop.
const SLICE_NS: i64 = 100 * NS_PER_MS;

/// What a recording says about itself, and how it is made.
#[derive(Debug, Clone)]
pub struct RecorderOptions {
    /// Node name, in file names and metadata.
    pub host: String,
    /// Driver and version, for the metadata.
    pub driver: String,
    /// The wall clock's anchor; taken at the start if `None`.
    pub anchor: Option<ClockAnchor>,
    /// More metadata, by key.
    pub extra: BTreeMap<String, String>,
    /// How counters are polled.
    pub sampler: SamplerOptions,
    /// Rows that may wait for the disk. At 8 devices that refresh every 20 ms the default holds for 160 s.
    pub ring_rows: usize,
    /// Rows after which a segment is sealed and the next begun.
    pub segment_rows: u64,
    /// When segments are sealed else, and when sealed ones are removed. Only segments are, whose metadata and
    /// [`extra`](Self::extra) hold the same `recorder`; without that key, none.
    pub keeping: Keeping,
    /// How often each device is asked for its telemetry; `None` never.
    pub telemetry_every: Option<Duration>,
    /// Where the recording says what happens while it goes on.
    pub remarks: Remarks,
}

/// Telemetry rows that may wait for the writer: two minutes of eight devices.
const TELEMETRY_RING_ROWS: usize = 1_024;

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            host: host_name(),
            driver: String::new(),
            anchor: None,
            extra: BTreeMap::new(),
            sampler: SamplerOptions::default(),
            ring_rows: 65_536,
            segment_rows: 1 << 20,
            keeping: Keeping::default(),
            telemetry_every: None,
            remarks: Remarks::default(),
        }
    }
}

impl RecorderOptions {
    fn metadata(&self, sampler: &Sampler, clock: &dyn Clock) -> FileMetadata {
        FileMetadata {
            host: self.host.clone(),
            driver: self.driver.clone(),
            devices: sampler.devices(),
            anchor: self.anchor.unwrap_or_else(|| ClockAnchor::now(clock)),
            extra: self.extra.clone(),
        }
    }

    fn keeper(&self) -> KeeperOptions {
        KeeperOptions {
            keeping: self.keeping,
            segment_rows: self.segment_rows,
            remarks: self.remarks.clone(),
            keeps_anchor: self.anchor.is_some(),
        }
    }

    /// Lets the sampler read telemetry, if that is asked for; the ring is there in any case.
    fn with_telemetry(&self, sampler: Sampler) -> (Sampler, RingReader<TelemetryRow>) {
        let (sink, rows) = ring(TELEMETRY_RING_ROWS);
        let sampler = match self.telemetry_every {
            Some(every) => sampler.with_telemetry(i64::try_from(every.as_nanos()).unwrap_or(i64::MAX), &Arc::new(sink)),
            None => sampler,
        };
        (sampler, rows)
    }
}

/// Summary of what the sampler did between `t_begin_mono_ns` and now; the writer adds the rest.
fn summary(sampler: &Sampler, host: &str, t_begin_mono_ns: i64, now_ns: i64) -> Recording {
    let devices = sampler.device_recordings();
    Recording {
        host: host.to_owned(),
        t_begin_mono_ns,
        t_end_mono_ns: now_ns,
        polls: devices.iter().map(|d| d.polls).sum(),
        late_polls: sampler.late_polls(),
        edges: devices.iter().map(|d| d.edges).sum(),
        read_cost: sampler.read_cost(),
        telemetry: sampler.telemetry_cost(),
        devices,
        // What only the writer knows.
        ..Recording::default()
    }
}

/// Records under virtual time: the same sampler and writer, without threads. Whoever lays the simulated time line
/// calls [`run_until`](Self::run_until) as it grows.
pub struct VirtualRecorder {
    sampler: Sampler,
    telemetry: RingReader<TelemetryRow>,
    keeper: Keeper,
    clock: Arc<dyn Clock>,
    host: String,
    t_begin_mono_ns: i64,
}

impl VirtualRecorder {
    /// Starts a recording in `dir`, at the instant that `clock` shows.
    pub fn start(
        dir: &Path,
        sources: Vec<Box<dyn CounterSource>>,
        clock: Arc<dyn Clock>,
        options: RecorderOptions,
    ) -> Result<Self> {
        let t_begin_mono_ns = clock.now();
        let sampler = Sampler::new(sources, clock.clone(), options.sampler);
        let (sampler, telemetry) = options.with_telemetry(sampler);
        let meta = options.metadata(&sampler, clock.as_ref());
        let keeper = Keeper::create(dir, meta, clock.clone(), options.keeper())?;
        Ok(Self { sampler, telemetry, keeper, clock, host: options.host, t_begin_mono_ns })
    }

    /// Samples up to the instant `t_mono_ns`.
    pub fn run_until(&mut self, t_mono_ns: i64) -> Result<()> {
        let keeper = &mut self.keeper;
        self.sampler.run_until(t_mono_ns, &mut |row| keeper.push(row));
        while let Some(row) = self.telemetry.try_pop() {
            self.keeper.push_telemetry(row);
        }
        if self.keeper.is_batch_full() { self.flush() } else { Ok(()) }
    }

    /// Hands all rows so far to the operating system: before saying of a run that it is done.
    pub fn flush(&mut self) -> Result<()> {
        let (sampler, host) = (&self.sampler, &self.host);
        let (begin, now) = (self.t_begin_mono_ns, self.clock.now());
        Ok(self.keeper.flush(&|| summary(sampler, host, begin, now))?)
    }

    /// Seals the recording.
    pub fn finish(self) -> Result<Recording> {
        let recording = summary(&self.sampler, &self.host, self.t_begin_mono_ns, self.clock.now());
        self.keeper.finish(0, &|| recording.clone())
    }
}

/// Records in real time, on two threads, until stopped. Dropped without [`finish`](Self::finish) it stops and seals
/// too, but nobody learns how that went.
pub struct Recorder {
    sampler: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<Result<Recording>>>,
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
}

impl Recorder {
    /// Starts a recording in `dir`. It ends when `stop` is set, by whomever, or by [`finish`](Self::finish).
    pub fn start(
        dir: &Path,
        sources: Vec<Box<dyn CounterSource>>,
        clock: Arc<dyn Clock>,
        options: RecorderOptions,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let begin = clock.now();
        let sampler = Sampler::new(sources, clock.clone(), options.sampler);
        let (sampler, telemetry) = options.with_telemetry(sampler);
        let meta = options.metadata(&sampler, clock.as_ref());
        let keeper = Keeper::create(dir, meta, clock.clone(), options.keeper())?;
        let (ring_in, samples) = ring(options.ring_rows.max(1));
        let rings = Rings { samples, telemetry };
        let orders = Orders { stop: stop.clone(), reopen: Arc::default() };
        let reopen = orders.reopen.clone();
        let host = options.host;
        let shared = Arc::new(Mutex::new(summary(&sampler, &host, begin, begin)));

        let for_sampler = (shared.clone(), stop.clone());
        let sampler = spawn("sampler", move || {
            let (shared, stop) = for_sampler;
            sample_until_stopped(
                sampler,
                clock.as_ref(),
                &ring_in,
                &stop,
                &|recording| {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = recording;
                },
                &host,
                begin,
            );
        })?;
        let writer = match spawn("writer", move || write_until_ended(keeper, &rings, &shared, &orders)) {
            Ok(writer) => writer,
            Err(e) => {
                stop.store(true, Ordering::Release);
                return Err(e);
            }
        };
        Ok(Self { sampler: Some(sampler), writer: Some(writer), stop, reopen })
    }

    /// Whether sampling has ended: all devices are gone, or the stop flag was set.
    pub fn is_finished(&self) -> bool {
        self.sampler.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Has the writer seal what there is and go on in new segments, soon: for whoever wants to take the file.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Stops, writes what is left, and seals.
    pub fn finish(mut self) -> Result<Recording> {
        self.stop.store(true, Ordering::Release);
        let sampled = self.sampler.take().is_some_and(|thread| thread.join().is_ok());
        let written = self.writer.take().and_then(|thread| thread.join().ok());
        let recording = written.ok_or(Error::Crashed { thread: "writer" })??;
        if sampled { Ok(recording) } else { Err(Error::Crashed { thread: "sampler" }) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn spawn<T: Send + 'static>(thread: &'static str, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(format!("el-{thread}"))
        .spawn(body)
        .map_err(|source| Error::Thread { thread, source })
}

fn sample_until_stopped(
    mut sampler: Sampler,
    clock: &dyn Clock,
    ring: &RingWriter<SampleRow>,
    stop: &AtomicBool,
    publish: &dyn Fn(Recording),
    host: &str,
    begin: i64,
) {
    let mut next_summary = begin;
    loop {
        let ending = stop.load(Ordering::Acquire) || !sampler.is_alive();
        let now = clock.now();
        if ending || now >= next_summary {
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            let mut recording = summary(&sampler, host, begin, now);
            recording.sampler_cpu_s = Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
            publish(recording);
            next_summary = now + 10 * SLICE_NS;
        }
        if ending {
            return;
        }
        sampler.run_until(now + SLICE_NS, &mut |row| ring.push(row));
    }
}
