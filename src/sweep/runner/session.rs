//! One run: its idle time, warm-up and windows, or the phases that a workload marks by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Event, Observed};
use crate::schema::MarkEvent;
use crate::sweep::server::Latency;
use crate::sweep::workload::{Batch, Deployed, OwnMark, OwnPhases, OwnWindow, Trouble, Workload};
use crate::sweep::{Error, Plan, Point, Run};
use crate::units::ns_to_s;

/// Whoever ends what was started for a run, and means this process too, does both within so many seconds.
const TOLD_WITHIN_S: f64 = 1.0;

/// Why a run did not get to its end.
pub(super) enum Break {
    /// The run failed; the sweep goes on.
    Failed(String),
    /// The same, before it began: its servers could not be started.
    NotStarted(String),
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

/// What was timed in a run.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) deployed: Option<Deployed>,
    pub(super) prefill: Window,
    pub(super) decode: Window,
    pub(super) total: Window,
    /// What the requests of the last window had to wait.
    pub(super) latency: Option<Latency>,
    /// What a workload with its own phases says of its times.
    pub(super) told: Option<(Option<f64>, Option<f64>)>,
}

/// Sums over the batches of one window.
#[derive(Default, Clone, Copy)]
pub(super) struct Window {
    pub(super) batches: u32,
    pub(super) duration_s: f64,
    pub(super) ttft_s: f64,
    pub(super) tpot_s: f64,
}

impl Window {
    fn add(&mut self, batch: &Batch) {
        self.batches += 1;
        self.duration_s += batch.duration_s;
        self.ttft_s += batch.mean_ttft_s;
        self.tpot_s += batch.mean_tpot_s.unwrap_or(0.0);
    }

    pub(super) fn mean(&self, sum: f64) -> Option<f64> {
        (self.batches > 0).then(|| sum / f64::from(self.batches))
    }
}

impl From<OwnWindow> for Window {
    fn from(own: OwnWindow) -> Self {
        Self { batches: own.batches, duration_s: own.duration_s, ..Self::default() }
    }
}

/// One run in progress.
pub(super) struct Session<'a, 'o> {
    pub(super) plan: &'a Plan,
    pub(super) run: &'a Run,
    pub(super) point: &'a Point,
    pub(super) workload: &'a mut Workload,
    pub(super) observe: &'a mut (dyn FnMut(Event<'_>) -> Observed + 'o),
    pub(super) stop: &'a AtomicBool,
    /// Whether what the point needs is up.
    pub(super) is_deployed: bool,
}

impl Session<'_, '_> {
    pub(super) fn tell(&mut self, event: Event<'_>) -> Result<(), Error> {
        (self.observe)(event).map_err(Error::Observer)
    }

    pub(super) fn carry_out(&mut self, serving: Option<Deployed>) -> Result<Measured, Break> {
        let measure = self.plan.measure;
        let deployed = match serving {
            Some(deployed) => deployed,
            None => {
                let deployed = self.workload.deploy(self.point).map_err(|why| match self.failed(why) {
                    Break::Failed(why) if self.workload.starts_servers() => Break::NotStarted(why),
                    other => other,
                })?;
                self.is_deployed = true;
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
    fn failed(&self, trouble: impl Into<Trouble>) -> Break {
        // Slurm's SIGTERM goes to every process of a job: a server may be gone before this process is told.
        self.workload.heed(TOLD_WITHIN_S);
        match trouble.into() {
            _ if self.stop.load(Ordering::Relaxed) => Break::Stopped,
            Trouble::Run(why) => Break::Failed(why),
            Trouble::Sweep(why) => Break::Fatal(Error::Workload(why)),
        }
    }

    /// Batches of `output_tokens` until the window is long enough.
    fn window(&mut self, phase: &'static str, output_tokens: u32) -> Result<Window, Break> {
        let measure = self.plan.measure;
        let min_window_s = self.workload.window_s(measure.min_window_s);
        let mut window = Window::default();
        self.workload.make_ready(self.point, output_tokens);
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
