//! A sweep on this node, in real time.
//!
//! ```text
//! recorder   |------------------------- samples, telemetry -------------------------|
//! runner        |- run -|flush|journal|- run -|flush|journal| ...
//! workload      starts and ends processes; those mark through the socket, the runner marks by itself
//! ```
//!
//! A runner that is killed with SIGKILL cannot end what it has started; the next one in that campaign does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use energylens::agent::{MarkSocket, MarkWriter, Recorder, RecorderOptions, Recording};
use energylens::clock::{ClockAnchor, SystemClock};
use energylens::dataset;
use energylens::source::Device;
use energylens::store::{Campaign, FileMetadata, host_name};
use energylens::sweep::runner::{Event, run_plan};
use energylens::sweep::{MarksTaken, Plan, Surroundings, VisibleDevices, Workload};
use energylens::units::NS_PER_S;
use tempfile::TempDir;

use super::super::output;
use super::precision::Precision;
use super::{Begun, Conducted, Equipment, OwnMarks, adaptive, agent, energies, progress, service};

/// How often temperature, clocks and throttling are read.
const TELEMETRY_EVERY: Duration = Duration::from_secs(1);
/// Before the first run each counter shall have been seen to move some times; power sensors never are.
const LEARNING: Duration = Duration::from_secs(3);
/// How long the writer may take to have a run's recording on disk.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);
/// Only our own user marks here.
const OWN_USER: u32 = 0o600;

/// Carries out `plan` in real time, recorded by whatever counters the node has.
pub(super) fn conduct(
    plan: &Plan,
    begun: Begun,
    mut precision: Option<Precision>,
    stop: &Arc<AtomicBool>,
    equipment: &Equipment,
) -> anyhow::Result<Conducted> {
    let Begun { campaign, mut journal, job_id, step_id } = begun;
    let dir = campaign.dir();
    // What is started for a run may go elsewhere, and shall find its files from there.
    let absolute = std::path::absolute(dir).context("the campaign directory has no absolute path")?;
    let anchor = ClockAnchor::now(&SystemClock);
    let mut counters = Counters::start(&campaign, equipment)?;
    let devices = VisibleDevices::of(&counters.devices, service::variable);
    let socket = Socket::open(&campaign)?;
    let mut marks = MarkWriter::create(dir, &host_name(), &FileMetadata::of_host(&host_name(), anchor))?;
    let surroundings = Surroundings {
        dir: absolute,
        devices,
        marks: Some(socket.taken),
        script: equipment.script.clone(),
        stop: stop.clone(),
        slowest_refresh_ns: counters.slowest_refresh_ns.clone(),
    };
    let mut workload = Workload::start_here(plan, surroundings)?;
    let own = OwnMarks { origin: workload.origin(), job_id, step_id };
    counters.learn(stop);

    let bar = progress(plan.most_runs() as u64, journal.finished() as u64);
    let carried = run_plan(
        plan,
        &mut journal,
        &mut workload,
        &mut |event| {
            match event {
                Event::RunStarted { .. } => {
                    counters.say(&bar);
                    counters.note_refresh();
                }
                Event::Advanced { .. } => {}
                Event::Mark { t_mono_ns, run_id, phase, event } => {
                    counters.note_refresh();
                    marks.write(&own.row(t_mono_ns, run_id, phase, event))?;
                }
                Event::Undecided { point, is_news, wanted, .. } => {
                    if let Some(precision) = &mut precision {
                        if is_news {
                            precision.renew(dir)?;
                        }
                        wanted.set(!precision.has(&point.point_id));
                    }
                    if !wanted.get() {
                        bar.inc(1);
                    }
                }
                Event::Unplanned { measured, up, room, answer } => {
                    answer.replace(Some(adaptive::next(plan, dir, (measured, up, room), &bar)?));
                }
                Event::RunEnded { row, finished, total } => {
                    counters.flush()?;
                    // A log of a batch job has no bar.
                    let place = if bar.is_hidden() { format!("[{finished}/{total}] ") } else { String::new() };
                    let of = energies::configuration(row);
                    if let Some(error) = &row.error {
                        bar.suspend(|| output::say(&format!("{place}run {} failed ({of}): {error}", row.run_id)));
                    } else if bar.is_hidden() {
                        // Whether it can be shown is nothing that the sweep depends on.
                        let rows = dataset::phases::of_run(dir, row);
                        let costs = rows.map_or_else(|error| format!("done; {error}"), |rows| energies::costs(&rows));
                        output::say(&format!("{place}{of}: {costs}"));
                    }
                    bar.inc(1);
                }
            }
            Ok(())
        },
        stop,
    );
    // Whatever runs still ends before the recording does, and both are kept also where the sweep broke off.
    drop(workload);
    bar.finish_and_clear();
    let recording = counters.finish();
    let received = socket.socket.finish();
    marks.seal()?;
    journal.write_table(anchor)?;
    let runs = carried?;
    let recording = recording?;
    received?;
    let dataset = dataset::phases::reduce(dir)?;
    Ok(Conducted {
        runs,
        recording,
        dataset,
        origin: own.origin,
        decisions: journal.decisions().to_vec(),
        truth_j: HashMap::new(),
    })
}

/// The node's counters while a sweep goes on; a node without any is not recorded.
struct Counters {
    recorder: Option<Recorder>,
    devices: Vec<Device>,
    slowest_refresh_ns: Arc<AtomicI64>,
}

impl Counters {
    fn start(campaign: &Campaign, equipment: &Equipment) -> anyhow::Result<Self> {
        let detection = equipment.sources.detect_live()?;
        let devices: Vec<Device> = detection.devices().cloned().collect();
        if detection.found.is_empty() {
            eprintln!(
                "note: no energy counter can be read here; runs are carried out and timed, without joules \
                 (`energylens doctor` says what is missing)"
            );
            return Ok(Self { recorder: None, devices, slowest_refresh_ns: Arc::default() });
        }
        let options = RecorderOptions {
            driver: detection.driver.clone().unwrap_or_default(),
            sampler: equipment.cadence.sampler(),
            standing: equipment.cadence.standing(),
            jobs: service::job_watch(),
            telemetry_every: Some(TELEMETRY_EVERY),
            ..RecorderOptions::default()
        };
        // A flag of its own: what stops the sweep must not stop the recording before the last run has ended.
        let flag = Arc::new(AtomicBool::new(false));
        let recorder = Recorder::start(campaign.dir(), detection.found, Arc::new(SystemClock), options, flag)?;
        Ok(Self { recorder: Some(recorder), devices, slowest_refresh_ns: Arc::default() })
    }

    /// Waits until the refresh periods are known, or for as long as that usually takes.
    fn learn(&self, stop: &AtomicBool) {
        let deadline = Instant::now() + LEARNING;
        let is_known = |r: &Recorder| r.snapshot().devices.iter().all(|d| d.refresh_period_s.is_some());
        while self.recorder.as_ref().is_some_and(|r| !is_known(r)) {
            if Instant::now() >= deadline || stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What is known by now of how slowly counters move.
    fn note_refresh(&self) {
        let Some(recorder) = &self.recorder else { return };
        let known = recorder.snapshot().devices.iter().filter_map(|d| d.refresh_period_s).fold(0.0, f64::max);
        self.slowest_refresh_ns.store((known * NS_PER_S) as i64, Ordering::Relaxed);
    }

    fn say(&self, bar: &indicatif::ProgressBar) {
        for notice in self.recorder.iter().flat_map(Recorder::take_notices) {
            bar.suspend(|| output::say(&format!("note: {notice}")));
        }
    }

    fn flush(&self) -> energylens::agent::Result<()> {
        self.recorder.as_ref().map_or(Ok(()), |recorder| recorder.flush_within(FLUSH_WITHIN))
    }

    fn finish(&mut self) -> anyhow::Result<Recording> {
        let Some(recorder) = self.recorder.take() else {
            return Ok(Recording { host: host_name(), ..Recording::default() });
        };
        let notices = recorder.notices();
        let recording = recorder.finish();
        agent::say(&notices);
        Ok(recording?)
    }
}

/// The socket that commands mark through.
struct Socket {
    socket: MarkSocket,
    taken: MarksTaken,
    // The socket's directory: short, whatever the campaign's path is.
    _directory: TempDir,
}

impl Socket {
    fn open(campaign: &Campaign) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("energylens-").tempdir();
        let directory = directory.context("cannot create a directory for the marks socket; see $TMPDIR")?;
        let path = directory.path().join("marks.sock");
        let (tap, heard) = channel();
        let socket = service::take_marks(campaign, path.clone(), OWN_USER, Some(tap))?;
        Ok(Self { socket, taken: MarksTaken { path, heard }, _directory: directory })
    }
}
