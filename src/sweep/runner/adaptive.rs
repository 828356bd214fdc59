//! Batches of an adaptive sweep: what was noted is carried out, then whoever knows the energies is asked for more.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::{Attempts, Event};
use crate::clock::{ClockAnchor, SystemClock};
use crate::sweep::adaptive::{Adaptive, ChosenPoint, Decision, StopReason};
use crate::sweep::{Error, Plan, Point, Run};

/// Goes on behind the start until something ends the sweep.
pub(super) fn go_on(attempts: &mut Attempts<'_, '_>, adaptive: &Adaptive) -> Result<(), Error> {
    let plan = attempts.plan;
    let places: HashMap<&str, usize> = plan.points.iter().enumerate().map(|(i, p)| (p.point_id.as_str(), i)).collect();
    let mut measured: Vec<usize> = adaptive.start().to_vec();
    let mut known: HashSet<usize> = measured.iter().copied().collect();
    let mut up = plan.runs.last().and_then(|run| plan.points.get(run.point));
    let mut noted = attempts.journal.decisions().to_vec().into_iter();
    loop {
        let room = adaptive.rule.max_points.saturating_sub(measured.len()).min(adaptive.rule.batch);
        let decision = match noted.next() {
            Some(decision) => decision,
            // Where nothing more is to be run, the last word may be said even by one who was asked to stop.
            None if attempts.outcome.left > 0 || (attempts.is_stopped() && room > 0) => {
                let done = attempts.journal.finished() + attempts.outcome.spared;
                attempts.outcome.left = plan.most_runs().saturating_sub(done).max(1);
                return Ok(());
            }
            None => {
                let asked = Asked { adaptive, measured: &measured, known: &known, places: &places, up, room };
                let decision = asked.decision(attempts)?;
                attempts.journal.decide(decision.clone())?;
                decision
            }
        };
        if decision.stopped.is_some() {
            return Ok(());
        }
        let chosen: Vec<usize> =
            decision.points.iter().filter_map(|c| places.get(c.point_id.as_str()).copied()).collect();
        for run in runs(plan, &chosen, up) {
            attempts.attempt(&run)?;
            up = plan.points.get(run.point);
        }
        known.extend(chosen.iter().copied());
        measured.extend(chosen);
    }
}

/// What somebody is asked who knows the energies so far.
struct Asked<'a> {
    adaptive: &'a Adaptive,
    measured: &'a [usize],
    known: &'a HashSet<usize>,
    places: &'a HashMap<&'a str, usize>,
    up: Option<&'a Point>,
    room: usize,
}

impl Asked<'_> {
    /// The answer, made fit for use: no more points than there is room for, none that is measured or unknown, and a reason
    /// where there is no point.
    fn decision(&self, attempts: &mut Attempts<'_, '_>) -> Result<Decision, Error> {
        attempts.journal.write_table(ClockAnchor::now(&SystemClock))?;
        let answer = RefCell::new(None);
        let asked = Event::Unplanned { measured: self.measured, up: self.up, room: self.room, answer: &answer };
        (attempts.observe)(asked).map_err(Error::Observer)?;
        let mut decision = answer.into_inner().unwrap_or_else(|| self.of_start_design(attempts.plan));
        decision.points_before = self.measured.len();
        let mut taken = self.known.clone();
        let is_new = |c: &ChosenPoint| self.places.get(c.point_id.as_str()).is_some_and(|place| taken.insert(*place));
        decision.points = decision.points.into_iter().filter(is_new).take(self.room).collect();
        if decision.stopped.is_some() {
            decision.points.clear();
        } else if self.room == 0 {
            decision.stopped = Some(StopReason::MaxPoints);
        } else if decision.points.is_empty() {
            decision.stopped = Some(StopReason::Candidates);
        }
        Ok(decision)
    }

    fn of_start_design(&self, plan: &Plan) -> Decision {
        let next = self.adaptive.next_of_start_design(self.measured, self.room);
        let chosen =
            |place: usize| Some(ChosenPoint { point_id: plan.points.get(place)?.point_id.clone(), half_width: None });
        Decision {
            points: next.into_iter().filter_map(chosen).collect(),
            no_law: Some("nobody fits a law here".to_owned()),
            ..Decision::default()
        }
    }
}

/// The runs of points that were chosen together: server by server, the one that is up first, and each serves its points
/// and their repeats before it is ended. A batch is too short for blocks by repeat to be worth the restarts.
fn runs(plan: &Plan, chosen: &[usize], up: Option<&Point>) -> Vec<Run> {
    let mut servers: Vec<(&Point, Vec<usize>)> = up.map(|point| (point, Vec::new())).into_iter().collect();
    for (place, point) in chosen.iter().filter_map(|&place| Some((place, plan.points.get(place)?))) {
        match servers.iter_mut().find(|(of, _)| of.shares_deployment(point)) {
            Some((_, points)) => points.push(place),
            None => servers.push((point, vec![place])),
        }
    }
    let repeats = 0..plan.measure.most_repeats(plan.repeats);
    let of_server = |(_, points): (&Point, Vec<usize>)| {
        repeats.clone().flat_map(move |repeat| points.clone().into_iter().map(move |point| (point, repeat)))
    };
    servers.into_iter().flat_map(of_server).filter_map(|(point, repeat)| plan.run_of(point, repeat)).collect()
}
