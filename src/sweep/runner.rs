//! Carries out a plan, run by run.
//!
//! ```text
//! run     |- idle -|- warmup -|------ prefill ------|---------------- total ----------------|
//! batches            w x m=1    n x m=1               k x m=output_tokens
//!                             |<-- >= min_window_s ->|<---------- >= min_window_s ---------->|
//! ```
//!
//! One prefill is over before a counter has moved, so a phase is repeated until its window spans many counter
//! refreshes, and its joules are divided by the number of batches. Decode is the difference of the two windows. A
//! prefill-only point has no total window. A workload that marks its own phases (a command, the script's own `run`) is
//! let idle and then carries out the run as it sees fit. The runner records nothing: it says when phases begin and end, and whoever
//! observes it polls the counters.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::server::Latency;
use super::workload::{Batch, Deployed, OwnMark, OwnPhases, OwnWindow, Workload};
use super::{Error, Journal, Plan, Point, Run};
use crate::clock::{ClockAnchor, SystemClock};
use crate::schema::{MarkEvent, RunStatus};
use crate::store::{RunRow, Serving, host_name};
use crate::units::ns_to_s;

/// Whoever ends what was started for a run, and means this process too, does both within so many seconds.
const TOLD_WITHIN_S: f64 = 1.0;

/// What an observer hears, in the order of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// A run begins.
    RunStarted {
        /// The run.
        run: &'a Run,
        /// Its point.
        point: &'a Point,
    },
    /// A phase begins or ends.
    Mark {
        /// Instant of the mark.
        t_mono_ns: i64,
        /// Run that the phase belongs to.
        run_id: &'a str,
        /// `idle`, `warmup`, `prefill`, `decode` or `total`.
        phase: &'a str,
        /// Whether it begins or ends.
        event: MarkEvent,
    },
    /// Time has passed up to this instant; recorders may poll up to it.
    Advanced {
        /// The instant.
        t_mono_ns: i64,
    },
    /// A point has had the repeats that the plan promises, and this is one more: whether it is wanted, for the precision
    /// that [`relative_std`](super::Measure::relative_std) asks for, is for whoever knows the energies so far.
    Undecided {
        /// The run.
        run: &'a Run,
        /// Its point.
        point: &'a Point,
        /// Whether runs have ended since this was last asked; `runs.parquet` then holds them.
        is_news: bool,
        /// The answer; not, if nobody gives one.
        wanted: &'a Cell<bool>,
    },
    /// A run ended, well (`done`) or not (`failed`), and will stand in the journal when the observer returns: until then
    /// its recording must be safe.
    RunEnded {
        /// What came of it.
        row: &'a RunRow,
        /// Runs that have ended, in this session and before, this one included.
        finished: usize,
        /// Runs of the plan.
        total: usize,
    },
}

/// What an observer answers; an error ends the sweep.
pub type Observed = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Runs carried out in this session.
    pub carried_out: usize,
    /// Runs that had been carried out before.
    pub resumed: usize,
    /// Failed runs, of all.
    pub failed: usize,
    /// Runs left because somebody asked to stop.
    pub left: usize,
    /// Repeats that nobody needed: their points are known well enough.
    pub spared: usize,
}

/// Carries out the runs that the journal does not have yet.
///
/// `stop` is looked at between batches; a run broken off leaves no row and will be repeated.
pub fn run_plan(
    plan: &Plan,
    journal: &mut Journal,
    workload: &mut Workload,
    observe: &mut dyn FnMut(Event<'_>) -> Observed,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome { carried_out: 0, resumed: 0, failed: 0, left: 0, spared: 0 };
    let mut decided_after = None;
    let host = host_name();
    let mut up: Option<(&Point, Deployed)> = None;
    for run in &plan.runs {
        let Some(point) = plan.points.get(run.point) else { continue };
        if journal.is_finished(&run.run_id) {
            outcome.resumed += 1;
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            outcome.left += 1;
            continue;
        }
        if run.repeat >= plan.repeats {
            // The table is written once for all decisions between two runs.
            let is_news = decided_after.replace(journal.finished()) != Some(journal.finished());
            if is_news {
                journal.write_table(ClockAnchor::now(&SystemClock))?;
            }
            let wanted = Cell::new(false);
            observe(Event::Undecided { run, point, is_news, wanted: &wanted }).map_err(Error::Observer)?;
            if !wanted.get() {
                outcome.spared += 1;
                continue;
            }
        }
        workload.forget();
        let mut session = Session { plan, run, point, workload, observe, stop };
        session.tell(Event::RunStarted { run, point })?;
        let t_begin_mono_ns = session.workload.now();
        // A server that has been up for the run before serves this one too, if it can.
        let serving = up.take().filter(|(of, _)| of.shares_deployment(point)).map(|(_, deployed)| deployed);
        let (measured, error) = match session.carry_out(serving) {
            Ok(measured) => {
                up = measured.deployed.clone().map(|deployed| (point, deployed));
                (measured, None)
            }
            // What a failed run leaves behind is not trusted to serve the next.
            Err(Break::Failed(why)) => (Measured::default(), Some(why)),
            Err(Break::Stopped) => {
                outcome.left += 1;
                continue;
            }
            Err(Break::Fatal(error)) => return Err(error),
        };
        let mut row = row(run, point, workload, &host, measured);
        row.t_begin_mono_ns = t_begin_mono_ns;
        row.status = if error.is_some() { RunStatus::Failed } else { RunStatus::Done };
        row.error = error;
        // Whoever records must have it safe before the journal says that the run need not be repeated.
        let ended = Event::RunEnded { row: &row, finished: journal.finished() + 1, total: plan.runs.len() };
        observe(ended).map_err(Error::Observer)?;
        journal.note(&row)?;
        outcome.carried_out += 1;
    }
    outcome.failed = journal.failed();
    Ok(outcome)
}

/// Why a run did not get to its end.
enum Break {
    /// The run failed; the sweep goes on.
    Failed(String),
    /// Somebody asked to stop.
    Stopped,
    /// The sweep cannot go on.
    Fatal(Error),
}

impl From<Error> for Break {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

#[derive(Default)]
struct Measured {
    deployed: Option<Deployed>,
    prefill: Window,
    decode: Window,
    total: Window,
    /// What the requests of the last window had to wait.
    latency: Option<Latency>,
    /// What a workload with its own phases says of its times.
    told: Option<(Option<f64>, Option<f64>)>,
}

/// Sums over the batches of one window.
#[derive(Default, Clone, Copy)]
struct Window {
    batches: u32,
    duration_s: f64,
    ttft_s: f64,
    tpot_s: f64,
}

impl Window {
    fn add(&mut self, batch: &Batch) {
        self.batches += 1;
        self.duration_s += batch.duration_s;
        self.ttft_s += batch.mean_ttft_s;
        self.tpot_s += batch.mean_tpot_s.unwrap_or(0.0);
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.batches > 0).then(|| sum / f64::from(self.batches))
    }
}

impl From<OwnWindow> for Window {
    fn from(own: OwnWindow) -> Self {
        Self { batches: own.batches, duration_s: own.duration_s, ..Self::default() }
    }
}

/// One run in progress.
struct Session<'a, 'o> {
    plan: &'a Plan,
    run: &'a Run,
    point: &'a Point,
    workload: &'a mut Workload,
    observe: &'a mut (dyn FnMut(Event<'_>) -> Observed + 'o),
    stop: &'a AtomicBool,
}

impl Session<'_, '_> {
    fn tell(&mut self, event: Event<'_>) -> Result<(), Error> {
        (self.observe)(event).map_err(Error::Observer)
    }

    fn carry_out(&mut self, serving: Option<Deployed>) -> Result<Measured, Break> {
        let measure = self.plan.measure;
        let deployed = match serving {
            Some(deployed) => deployed,
            None => {
                let deployed = self.workload.deploy(self.point).map_err(|why| self.failed(why))?;
                // A server that has just loaded its weights is warm and busy with itself.
                if measure.settle_s > 0.0 {
                    self.workload.idle(measure.settle_s);
                    self.advanced()?;
                }
                deployed
            }
        };
        let mut measured = Measured { deployed: Some(deployed), ..Measured::default() };
        if measure.idle_s > 0.0 {
            self.phase("idle", |session| {
                session.workload.idle(measure.idle_s);
                session.advanced()
            })?;
        }
        if self.workload.has_own_phases() {
            self.own_phases(&mut measured)?;
            return Ok(measured);
        }
        let warmup_tokens = self.workload.warmup_tokens(self.point);
        if measure.warmup_batches > 0 {
            self.phase("warmup", |session| {
                for _ in 0..measure.warmup_batches {
                    session.batch(warmup_tokens)?;
                }
                Ok(())
            })?;
        }
        measured.prefill = self.window("prefill", 1)?;
        measured.latency = self.workload.take_latency();
        if !self.point.is_prefill_only() {
            measured.total = self.window("total", self.point.output_tokens)?;
            measured.latency = self.workload.take_latency();
        }
        self.close()?;
        Ok(measured)
    }

    /// The window's last joules are known once each counter has moved again: a run that is called done without it would
    /// lose them to whoever kills the runner now.
    fn close(&mut self) -> Result<(), Break> {
        self.workload.idle(self.workload.closing_s());
        self.advanced()
    }

    /// A run that the workload carries out whole.
    fn own_phases(&mut self, measured: &mut Measured) -> Result<(), Break> {
        let carried = self.workload.carry_out(self.run, self.point);
        let OwnPhases { untold, prefill, decode, total, mean_ttft_s, mean_tpot_s, kv_capacity_tokens } =
            carried.map_err(|why| self.failed(why))?;
        for OwnMark { t_mono_ns, phase, event } in &untold {
            let (t_mono_ns, event, run_id) = (*t_mono_ns, *event, &self.run.run_id);
            self.tell(Event::Mark { t_mono_ns, run_id, phase, event })?;
        }
        (measured.prefill, measured.decode, measured.total) = (prefill.into(), decode.into(), total.into());
        measured.told = Some((mean_ttft_s, mean_tpot_s));
        if let Some(deployed) = &mut measured.deployed {
            deployed.kv_capacity_tokens = kv_capacity_tokens;
        }
        self.close()
    }

    /// What breaks a run off: what went wrong in it, unless it went wrong because somebody asked to stop.
    fn failed(&self, why: String) -> Break {
        // Slurm's SIGTERM goes to every process of a job: a server may be gone before this process is told.
        self.workload.heed(TOLD_WITHIN_S);
        if self.stop.load(Ordering::Relaxed) { Break::Stopped } else { Break::Failed(why) }
    }

    /// Batches of `output_tokens` until the window is long enough.
    fn window(&mut self, phase: &'static str, output_tokens: u32) -> Result<Window, Break> {
        let measure = self.plan.measure;
        let min_window_s = self.workload.window_s(measure.min_window_s);
        let mut window = Window::default();
        // What the warm-up had to wait is nobody's business.
        self.workload.take_latency();
        let begin = self.workload.now();
        self.phase(phase, |session| {
            while window.batches < measure.max_batches.max(1) {
                window.add(&session.batch(output_tokens)?);
                if ns_to_s(session.workload.now() - begin) >= min_window_s {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(window)
    }

    /// Marks around what happens in between; a phase that fails or is stopped is ended too.
    fn phase(&mut self, phase: &'static str, body: impl FnOnce(&mut Self) -> Result<(), Break>) -> Result<(), Break> {
        let run_id = &self.run.run_id;
        let begin = self.workload.now();
        self.tell(Event::Mark { t_mono_ns: begin, run_id, phase, event: MarkEvent::Begin })?;
        let result = body(self);
        let end = self.workload.now();
        self.tell(Event::Mark { t_mono_ns: end, run_id, phase, event: MarkEvent::End })?;
        result
    }

    fn batch(&mut self, output_tokens: u32) -> Result<Batch, Break> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Break::Stopped);
        }
        let batch = self.workload.batch(self.point, output_tokens).map_err(|why| self.failed(why))?;
        self.advanced()?;
        Ok(batch)
    }

    fn advanced(&mut self) -> Result<(), Break> {
        let t_mono_ns = self.workload.now();
        Ok(self.tell(Event::Advanced { t_mono_ns })?)
    }
}

fn row(run: &Run, point: &Point, workload: &Workload, host: &str, measured: Measured) -> RunRow {
    let Measured { deployed, prefill, decode, total, latency, told } = measured;
    let (devices, kv_capacity_tokens) = deployed.map_or((Vec::new(), None), |d| (d.devices, d.kv_capacity_tokens));
    // Without a total window the first token is all there is to time.
    let ttft = if total.batches > 0 { total.mean(total.ttft_s) } else { prefill.mean(prefill.ttft_s) };
    let (mean_ttft_s, mean_tpot_s) = told.unwrap_or((ttft, total.mean(total.tpot_s)));
    let (model, gpu) = (&point.model, &point.gpu);
    RunRow {
        run_id: run.run_id.clone(),
        point_id: point.point_id.clone(),
        repeat: run.repeat,
        status: RunStatus::Done,
        error: None,
        host: host.to_owned(),
        source: workload.origin(),
        devices,
        t_begin_mono_ns: 0,
        t_end_mono_ns: workload.now(),
        prefill_batches: prefill.batches,
        decode_batches: (decode.batches > 0).then_some(decode.batches),
        total_batches: total.batches,
        prefill_duration_s: prefill.mean(prefill.duration_s),
        total_duration_s: total.mean(total.duration_s),
        mean_ttft_s,
        mean_tpot_s,
        serving: serving(workload, latency.as_ref()),
        model: model.model.clone(),
        architecture: Some(model.architecture.as_str().to_owned()),
        engine: Some(point.engine.clone()),
        precision: Some(point.precision.clone()),
        gpu_model: gpu.gpu_model.clone(),
        num_gpus: point.num_gpus(),
        tensor_parallel: point.tensor_parallel,
        pipeline_parallel: point.pipeline_parallel,
        data_parallel: point.data_parallel,
        expert_parallel: 1,
        batch_size: f64::from(point.batch_size),
        input_tokens: Some(f64::from(point.input_tokens)),
        output_tokens: f64::from(point.output_tokens),
        kv_capacity_tokens,
        params: Some(model.params),
        active_params: Some(model.active_params),
        n_layers: Some(model.n_layers),
        hidden_size: Some(model.hidden_size),
        kv_bytes_per_token: Some(model.kv_bytes_per_token),
        num_experts: Some(model.num_experts),
        experts_per_token: Some(model.experts_per_token),
        bytes_per_weight: Some(model.bytes_per_weight),
        gpu_memory_bytes: Some(gpu.memory_bytes),
        // The journal knows them.
        job_id: None,
        step_id: None,
    }
}

fn serving(workload: &Workload, latency: Option<&Latency>) -> Serving {
    let ttft = latency.and_then(|l| l.ttft);
    let tpot = latency.and_then(|l| l.tpot);
    let itl = latency.and_then(|l| l.itl);
    Serving {
        engine_version: workload.facts().and_then(|f| f.engine_version.clone()),
        completed_requests: latency.map(|l| l.requests),
        output_tokens_per_s: latency.and_then(|l| l.output_tokens_per_s),
        p50_ttft_s: ttft.map(|p| p.p50_s),
        p90_ttft_s: ttft.map(|p| p.p90_s),
        p99_ttft_s: ttft.map(|p| p.p99_s),
        p50_tpot_s: tpot.map(|p| p.p50_s),
        p90_tpot_s: tpot.map(|p| p.p90_s),
        p99_tpot_s: tpot.map(|p| p.p99_s),
        p50_itl_s: itl.map(|p| p.p50_s),
        p90_itl_s: itl.map(|p| p.p90_s),
        p99_itl_s: itl.map(|p| p.p99_s),
    }
}
