//! Sampling and a writer, put together: on threads for real time, without for simulated time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::job::JobWatch;
use super::keeper::{Keeper, KeeperOptions};
use super::keeping::Keeping;
use super::lanes::Lanes;
use super::notices::Notices;
use super::recording::Recording;
use super::ring::{LostCount, RingReader, RingWriter, ring};
use super::sampler::{Sampler, SamplerOptions, stations};
use super::standing::Standing;
use super::station::Station;
use super::supervisor::{Ended, Supervisor};
use super::writing::{FlushOrder, Orders, Rings, write_until_ended};
use crate::clock::{Clock, ClockAnchor};
use crate::source::{CounterSource, Device};
use crate::store::{FileMetadata, TelemetryRow, host_name};

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
    /// How the sampling threads stand with the scheduler.
    pub standing: Standing,
    /// Which Slurm job is on the node, for the rows.
    pub jobs: JobWatch,
    /// Rows that may wait for the disk. At 8 devices that refresh every 20 ms the default holds for 160 s.
    pub ring_rows: usize,
    /// Rows after which a segment is sealed and the next begun.
    pub segment_rows: u64,
    /// When segments are sealed else, and when sealed ones are removed. Only segments are, whose metadata and
    /// [`extra`](Self::extra) hold the same `recorder`; without that key, none.
    pub keeping: Keeping,
    /// How often each device is asked for its telemetry; `None` never.
    pub telemetry_every: Option<Duration>,
}

/// How often telemetry is read, ns, and where it goes.
type TelemetrySink = (i64, Arc<RingWriter<TelemetryRow>>);

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
            standing: Standing::default(),
            jobs: JobWatch::default(),
            ring_rows: 65_536,
            segment_rows: 1 << 20,
            keeping: Keeping::default(),
            telemetry_every: None,
        }
    }
}

impl RecorderOptions {
    fn metadata(&self, devices: Vec<Device>, clock: &dyn Clock) -> FileMetadata {
        let mut metadata = FileMetadata {
            host: self.host.clone(),
            driver: self.driver.clone(),
            devices,
            anchor: self.anchor.unwrap_or_else(|| ClockAnchor::now(clock)),
            extra: self.extra.clone(),
        };
        metadata.name_recording();
        metadata
    }

    fn keeper(&self, notices: &Notices) -> KeeperOptions {
        KeeperOptions {
            keeping: self.keeping,
            segment_rows: self.segment_rows,
            notices: notices.clone(),
            keeps_anchor: self.anchor.is_some(),
        }
    }

    /// How often telemetry is read and where it goes, if it is asked for; what comes out of it in any case.
    fn telemetry(&self) -> (Option<TelemetrySink>, RingReader<TelemetryRow>) {
        let (sink, rows) = ring(TELEMETRY_RING_ROWS);
        let every_ns = self.telemetry_every.map(|every| i64::try_from(every.as_nanos()).unwrap_or(i64::MAX));
        (every_ns.map(|every_ns| (every_ns, Arc::new(sink))), rows)
    }
}

fn summary(sampler: &Sampler, host: &str, t_begin_mono_ns: i64, now_ns: i64) -> Recording {
    let mut recording = sampler.tally().into_recording(host, t_begin_mono_ns, now_ns);
    recording.backed_off = sampler.back_off();
    recording
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
        let (sampler, telemetry) = match options.telemetry() {
            (Some((every_ns, sink)), rows) => (sampler.with_telemetry(every_ns, &sink), rows),
            (None, rows) => (sampler, rows),
        };
        let meta = options.metadata(sampler.devices(), clock.as_ref());
        let keeper = Keeper::create(dir, meta, clock.clone(), options.keeper(&Notices::default()))?;
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

/// Records in real time until stopped: the lanes sample, one thread watches them, one writes. Dropped without
/// [`finish`](Self::finish) it stops and seals too, but nobody learns how that went.
pub struct Recorder {
    supervisor: Option<JoinHandle<Ended>>,
    writer: Option<JoinHandle<Result<Recording>>>,
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    flush: Arc<FlushOrder>,
    notices: Notices,
    shared: Arc<Mutex<Recording>>,
    lost: LostCount,
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
        let mut stations = stations(sources, &options.sampler, begin);
        let (sink, telemetry) = options.telemetry();
        if let Some((every_ns, sink)) = sink {
            stations.iter_mut().for_each(|station| station.set_telemetry(every_ns, begin, &sink));
        }
        let devices = stations.iter().flat_map(Station::devices).cloned().collect();
        let meta = options.metadata(devices, clock.as_ref());
        let notices = Notices::default();
        let keeper = Keeper::create(dir, meta, clock.clone(), options.keeper(&notices))?;
        let (ring_in, samples) = ring(options.ring_rows.max(1));
        let rings = Rings { samples, telemetry };
        let ring_in = Arc::new(ring_in);
        let lanes = Lanes::new(
            stations,
            clock,
            options.sampler,
            options.standing,
            Arc::downgrade(&ring_in),
            stop.clone(),
            notices.clone(),
        );
        let lanes = Arc::new(lanes.labelling(options.jobs));
        let nothing_yet = Recording { host: options.host.clone(), t_begin_mono_ns: begin, ..Recording::default() };
        let shared = Arc::new(Mutex::new(Recording { t_end_mono_ns: begin, ..nothing_yet }));
        let supervisor = Supervisor::new(lanes.clone(), shared.clone(), ring_in, options.host, begin);
        lanes.start().map_err(|source| Error::Thread { thread: "sampler", source })?;
        let orders = Orders { stop: stop.clone(), ..Orders::default() };
        let mut recorder = Self {
            supervisor: None,
            writer: None,
            stop,
            reopen: orders.reopen.clone(),
            flush: orders.flush.clone(),
            notices,
            shared: shared.clone(),
            lost: rings.samples.lost_count(),
        };
        // Should a thread fail to start, dropping the recorder ends those before it.
        recorder.supervisor = Some(spawn("watch", || supervisor.run())?);
        recorder.writer = Some(spawn("writer", move || write_until_ended(keeper, &rings, &shared, &orders))?);
        Ok(recorder)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(supervisor) = &self.supervisor {
            supervisor.thread().unpark();
        }
    }

    /// Whether sampling has ended: all devices are gone, or the stop flag was set.
    pub fn is_finished(&self) -> bool {
        self.supervisor.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How the recording goes, published about once a second. `rows` are those handed to the writer.
    pub fn snapshot(&self) -> Recording {
        let mut recording = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recording.lost_rows = self.lost.get();
        let emitted: u64 = recording.devices.iter().map(|d| d.rows).sum();
        recording.rows = emitted.saturating_sub(recording.lost_rows);
        recording
    }

    /// What the recording has to tell, to be asked even after [`finish`](Self::finish), which may add to it.
    pub fn notices(&self) -> Notices {
        self.notices.clone()
    }

    /// What happened since this was last asked that somebody should know now: sentences, oldest first.
    pub fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    /// Has the writer seal what there is and go on in new segments, soon: for whoever wants to take the file.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Hands all rows so far to the operating system, before saying of a run that it is done: waits for the writer so
    /// long, which is told while the disk refuses and when the recording has ended.
    pub fn flush_within(&self, patience: Duration) -> Result<()> {
        let number = self.flush.ask();
        let deadline = Instant::now() + patience;
        while !self.flush.is_done(number) {
            if self.writer.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(Error::Ended);
            }
            if Instant::now() >= deadline {
                let reason =
                    self.snapshot().last_write_error.unwrap_or_else(|| "the writer does not answer".to_owned());
                return Err(Error::NotFlushed { waited_s: patience.as_secs_f64(), reason });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops, writes what is left, and seals. A driver call that hangs is waited for a second or two, no longer: its
    /// thread is left behind, and its device's [`stuck_since_mono_ns`](super::DeviceRecording::stuck_since_mono_ns) says so.
    pub fn finish(mut self) -> Result<Recording> {
        self.stop();
        let ended = self.supervisor.take().and_then(|thread| thread.join().ok());
        let written = self.writer.take().and_then(|thread| thread.join().ok());
        let recording = written.ok_or(Error::Crashed { thread: "writer" })??;
        match ended {
            Some(Ended::Well) => Ok(recording),
            Some(Ended::Crashed) | None => Err(Error::Crashed { thread: "sampler" }),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
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
