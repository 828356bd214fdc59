//! A sampler and a writer, put together: on threads for real time, without for simulated time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::time::{ClockId, clock_gettime};

use super::error::{Error, Result};
use super::recording::Recording;
use super::ring::{LostCount, RingWriter, ring};
use super::sampler::{Sampler, SamplerOptions};
use super::writer::SampleWriter;
use super::writing::write_until_ended;
use crate::clock::{Clock, ClockAnchor};
use crate::source::CounterSource;
use crate::store::{FileMetadata, SampleRow, host_name};
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
}

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
}

/// Summary of what the sampler did between `t_begin_mono_ns` and now; the writer adds the rest.
fn summary(sampler: &Sampler, host: &str, t_begin_mono_ns: i64, now_ns: i64) -> Recording {
    let devices = sampler.device_recordings();
    Recording {
        host: host.to_owned(),
        t_begin_mono_ns,
        t_end_mono_ns: now_ns,
        rows: 0,
        lost_rows: 0,
        polls: devices.iter().map(|d| d.polls).sum(),
        late_polls: sampler.late_polls(),
        edges: devices.iter().map(|d| d.edges).sum(),
        read_cost: sampler.read_cost(),
        sampler_cpu_s: None,
        write_errors: 0,
        last_write_error: None,
        devices,
        files: Vec::new(),
    }
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
        let meta = options.metadata(&sampler, clock.as_ref());
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

/// Records in real time, on two threads, until stopped. Dropped without [`finish`](Self::finish) it stops and seals
/// too, but nobody learns how that went.
pub struct Recorder {
    sampler: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<Result<Recording>>>,
    stop: Arc<AtomicBool>,
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
        let sampler = Sampler::new(sources, clock.clone(), options.sampler);
        let meta = options.metadata(&sampler, clock.as_ref());
        let writer = SampleWriter::create(dir.to_owned(), meta, options.segment_rows)?;
        let (ring_in, ring_out) = ring(options.ring_rows.max(1));
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
        let (stopped, lost, published) = (stop.clone(), ring_out.lost_count(), shared.clone());
        let writer = match spawn("writer", move || write_until_ended(writer, &ring_out, &shared, &stopped)) {
            Ok(writer) => writer,
            Err(e) => {
                stop.store(true, Ordering::Release);
                return Err(e);
            }
        };
        Ok(Self { sampler: Some(sampler), writer: Some(writer), stop, shared: published, lost })
    }

    /// Whether sampling has ended: all devices are gone, or the stop flag was set.
    pub fn is_finished(&self) -> bool {
        self.sampler.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How the recording goes: published by the sampler about once a second, and so as old as its last sign of life.
    /// `rows` are those handed to the writer.
    pub fn snapshot(&self) -> Recording {
        let mut recording = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recording.lost_rows = self.lost.get();
        let emitted: u64 = recording.devices.iter().map(|d| d.rows).sum();
        recording.rows = emitted.saturating_sub(recording.lost_rows);
        recording
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
