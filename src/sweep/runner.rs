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

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

use self::session::{Break, Measured, Session};
use self::starts::Starts;
use super::workload::{Deployed, Workload};
use super::{Decision, Error, Journal, Plan, Point, Run};
use crate::clock::{ClockAnchor, SystemClock};
use crate::schema::{MarkEvent, RunStatus};
use crate::store::{RunRow, host_name};

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
    /// An adaptive sweep has measured all that was decided: what comes next, and whether anything does, is for whoever
    /// knows the energies so far. `runs.parquet` holds all runs.
    Unplanned {
        /// Places in [`Plan::points`] of the points that were carried out, well or not.
        measured: &'a [usize],
        /// The point that came last: its servers are up, unless the sweep was stopped since. What is chosen must not
        /// hang on whether it was.
        up: Option<&'a Point>,
        /// How many points may be chosen at most; where it is none, the sweep is over, and only how sure one is by now
        /// is of interest.
        room: usize,
        /// The answer; the start design goes on, if nobody gives one.
        answer: &'a RefCell<Option<Decision>>,
    },
    /// A run ended, well (`done`) or not (`failed`), and will stand in the journal when the observer returns: until then
    /// its recording must be safe.
    RunEnded {
        /// What came of it.
        row: &'a RunRow,
        /// Runs that have ended, in this session and before, this one included.
        finished: usize,
        /// Runs of the plan; of an adaptive one as many as there can be.
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
    /// Of these, runs that had failed before.
    pub failed_before: usize,
    /// Runs left because somebody asked to stop; of an adaptive plan as many as there could have been.
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
    let mut attempts = Attempts {
        plan,
        journal,
        workload,
        observe,
        stop,
        outcome: Outcome { carried_out: 0, resumed: 0, failed: 0, failed_before: 0, left: 0, spared: 0 },
        starts: Starts::default(),
        decided_after: None,
        host: host_name(),
        up: None,
    };
    for run in &plan.runs {
        attempts.attempt(run)?;
    }
    if let Some(adaptive) = &plan.adaptive {
        adaptive::go_on(&mut attempts, adaptive)?;
    }
    let (failed, failed_before) = (attempts.journal.failed(), attempts.journal.failed_before());
    Ok(Outcome { failed, failed_before, ..attempts.outcome })
}

/// Runs, one after the other.
struct Attempts<'a, 'o> {
    plan: &'a Plan,
    journal: &'a mut Journal,
    workload: &'a mut Workload,
    observe: &'a mut (dyn FnMut(Event<'_>) -> Observed + 'o),
    stop: &'a AtomicBool,
    outcome: Outcome,
    /// Runs that had ended when it was last asked whether one more is wanted.
    decided_after: Option<usize>,
    host: String,
    /// The servers that are up, and the point that they were started for.
    up: Option<(&'a Point, Deployed)>,
    starts: Starts,
}

impl Attempts<'_, '_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Carries out a run, unless the journal has it, nobody wants it, or somebody asked to stop.
    fn attempt(&mut self, run: &Run) -> Result<(), Error> {
        let plan = self.plan;
        let Some(point) = plan.points.get(run.point) else { return Ok(()) };
        if self.journal.is_finished(&run.run_id) {
            self.outcome.resumed += 1;
            return Ok(());
        }
        if self.is_stopped() {
            self.outcome.left += 1;
            return Ok(());
        }
        if run.repeat >= plan.repeats && !self.is_wanted(run, point)? {
            self.outcome.spared += 1;
            return Ok(());
        }
        self.workload.forget();
        let (workload, observe, stop) = (&mut *self.workload, &mut *self.observe, self.stop);
        let mut session = Session { plan, run, point, workload, observe, stop, is_deployed: false };
        session.tell(Event::RunStarted { run, point })?;
        let t_begin_mono_ns = session.workload.now();
        // A server that has been up for the run before serves this one too, if it can.
        let serving = self.up.take().filter(|(of, _)| of.shares_deployment(point)).map(|(_, deployed)| deployed);
        let given_up = self.starts.given_up(point).filter(|_| serving.is_none());
        let result = given_up.map_or_else(|| session.carry_out(serving), |why| Err(Break::Failed(why)));
        if session.is_deployed {
            self.starts.worked(point);
        }
        let (measured, error) = match result {
            Ok(measured) => {
                self.up = measured.deployed.clone().map(|deployed| (point, deployed));
                (measured, None)
            }
            // What a failed run leaves behind is not trusted to serve the next.
            Err(Break::Failed(why)) => (Measured::default(), Some(why)),
            Err(Break::NotStarted(why)) => {
                self.starts.failed(point, &why);
                (Measured::default(), Some(why))
            }
            Err(Break::Stopped) => {
                self.outcome.left += 1;
                return Ok(());
            }
            Err(Break::Fatal(error)) => return Err(error),
        };
        let mut row = row::row(run, point, self.workload, &self.host, measured);
        row.t_begin_mono_ns = t_begin_mono_ns;
        row.status = if error.is_some() { RunStatus::Failed } else { RunStatus::Done };
        row.error = error;
        // Whoever records must have it safe before the journal says that the run need not be repeated.
        let ended = Event::RunEnded { row: &row, finished: self.journal.finished() + 1, total: plan.most_runs() };
        (self.observe)(ended).map_err(Error::Observer)?;
        self.journal.note(&row)?;
        self.outcome.carried_out += 1;
        Ok(())
    }

    /// Whether one more repeat of a point is wanted.
    fn is_wanted(&mut self, run: &Run, point: &Point) -> Result<bool, Error> {
        // The table is written once for all decisions between two runs.
        let is_news = self.decided_after.replace(self.journal.finished()) != Some(self.journal.finished());
        if is_news {
            self.journal.write_table(ClockAnchor::now(&SystemClock))?;
        }
        let wanted = Cell::new(false);
        (self.observe)(Event::Undecided { run, point, is_news, wanted: &wanted }).map_err(Error::Observer)?;
        Ok(wanted.get())
    }
}

mod adaptive;
mod row;
mod session;
mod starts;
