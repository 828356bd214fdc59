//! Sampling and a writer, put together: on threads for real time, without for simulated time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::error::{Error, Result};
use super::job::JobWatch;
use super::lanes::Lanes;
use super::notices::Notices;
use super::recording::Recording;
use super::ring::{LostCount, ring};
use super::sampler::{Sampler, SamplerOptions, stations};
use super::standing::Standing;
use super::station::Station;
use super::supervisor::{Ended, Supervisor};
use super::writer::SampleWriter;
use super::writing::write_until_ended;
use crate::clock::{Clock, ClockAnchor};
use crate::source::{CounterSource, Device};
use crate::store::{FileMetadata, host_name};

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
}

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
        }
    }
}

impl RecorderOptions {
    fn metadata(&self, devices: Vec<Device>, clock: &dyn Clock) -> FileMetadata {
        FileMetadata {
            host: self.host.clone(),
            driver: self.driver.clone(),
            devices,
            anchor: self.anchor.unwrap_or_else(|| ClockAnchor::now(clock)),
            extra: self.extra.clone(),
        }
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
    writer: SampleWriter,
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
        let meta = options.metadata(sampler.devices(), clock.as_ref());
        let writer = SampleWriter::create(dir.to_owned(), meta, options.segment_rows)?;
        Ok(Self { sampler, writer, clock, host: options.host, t_begin_mono_ns })
    }

    /// Samples up to the instant `t_mono_ns`.
    pub fn run_until(&mut self, t_mono_ns: i64) -> Result<()> {
        let writer = &mut self.writer;
        self.sampler.run_until(t_mono_ns, &mut |row| writer.push(row));
        if self.writer.is_batch_full() { self.flush() } else { Ok(()) }
    }

    /// Hands all rows so far to the operating system: before saying of a run that it is done.
    pub fn flush(&mut self) -> Result<()> {
        let (sampler, host) = (&self.sampler, &self.host);
        let (begin, now) = (self.t_begin_mono_ns, self.clock.now());
        Ok(self.writer.flush(&|| summary(sampler, host, begin, now))?)
    }

    /// Seals the recording.
    pub fn finish(self) -> Result<Recording> {
        let recording = summary(&self.sampler, &self.host, self.t_begin_mono_ns, self.clock.now());
        self.writer.finish(&|| recording.clone())
    }
}

/// Records in real time until stopped: the lanes sample, one thread watches them, one writes. Dropped without
/// [`finish`](Self::finish) it stops and seals too, but nobody learns how that went.
pub struct Recorder {
    supervisor: Option<JoinHandle<Ended>>,
    writer: Option<JoinHandle<Result<Recording>>>,
    stop: Arc<AtomicBool>,
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
        let stations = stations(sources, &options.sampler, begin);
        let devices = stations.iter().flat_map(Station::devices).cloned().collect();
        let meta = options.metadata(devices, clock.as_ref());
        let writer = SampleWriter::create(dir.to_owned(), meta, options.segment_rows)?;
        let (ring_in, ring_out) = ring(options.ring_rows.max(1));
        let ring_in = Arc::new(ring_in);
        let notices = Notices::default();
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
        let (published, lost) = (shared.clone(), ring_out.lost_count());
        let mut recorder = Self { supervisor: None, writer: None, stop, notices, shared: published, lost };
        // Should a thread fail to start, dropping the recorder ends those before it.
        recorder.supervisor = Some(spawn("watch", || supervisor.run())?);
        let stopped = recorder.stop.clone();
        recorder.writer = Some(spawn("writer", move || write_until_ended(writer, &ring_out, &shared, &stopped))?);
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

    /// What happened since this was last asked that somebody should know now: sentences, oldest first.
    pub fn take_notices(&self) -> Vec<String> {
        self.notices.take()
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
