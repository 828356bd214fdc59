//! Which points does an adaptive sweep measure next?
//!
//! Start at [`decide`]: the plan, the rows so far and what there is room for in, a [`Decision`] out. The law is fitted to
//! the rows and says of each candidate how sure it is of its own value; the points that would make it surest of all of them
//! are taken, one after the other, each as if those before it had been measured. Same rows, same decision.
//!
//! Limits: what is made small is the doubt about the law's parameters. Where the law itself is wrong, measuring more
//! points makes it surer of a wrong value; the scatter of the rows around it stands in every decision for that reason.

mod doubt;

use std::collections::{BTreeMap, HashSet};

use self::doubt::{Doubts, Known};
use crate::dataset::{Dataset, Row};
use crate::fit::{FitOptions, fit_model};
use crate::law::{Model, Target, Verdict};
use crate::schema::{EnergySource, Phase};
use crate::sweep::{Adaptive, ChosenPoint, Decision, Plan, Point, StopReason};

/// Share of the candidates that must be known as well as was asked.
const SURE_SHARE: f64 = 0.95;
/// Points of one server without a usable row from which on nothing more is tried there, if nothing ever worked.
const HOPELESS_POINTS: usize = 2;

/// What an adaptive sweep asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Places in [`Plan::points`] of the points that were carried out, well or not.
    pub measured: &'a [usize],
    /// The point that came last, whose servers are up.
    pub up: Option<&'a Point>,
    /// How many points may be chosen at most.
    pub room: usize,
}

/// What is measured next, given the rows of what was measured so far.
///
/// Nothing is chosen in a plan that is not adaptive.
pub fn decide(plan: &Plan, dataset: &Dataset, asked: &Asked<'_>) -> Decision {
    let points_before = asked.measured.len();
    let Some(adaptive) = &plan.adaptive else {
        return Decision { points_before, stopped: Some(StopReason::Candidates), ..Decision::default() };
    };
    let given_up = hopeless(plan, dataset, asked.measured);
    let options = FitOptions { seed: plan.seed, targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let model = match fit_model(dataset, &options) {
        Ok(fitted) => fitted.model,
        Err(error) => return of_start_design(plan, adaptive, asked, &given_up, &error.to_string()),
    };
    let mut doubts = doubts(plan, &model);
    for place in &given_up {
        doubts.leave_out(*place);
    }
    let mut decision = Decision { points_before, given_up: given_up.len(), ..Decision::default() };
    if let Some(unknown) = doubts.unknown(asked.measured) {
        let point = plan.points.get(unknown);
        let of = point.map_or_else(String::new, |p| configuration(p).scenario_key());
        return of_start_design(plan, adaptive, asked, &given_up, &format!("no law could be fitted to {of}"));
    }
    decision.half_width = doubts.half_width(SURE_SHARE);
    decision.largest_half_width = doubts.half_width(1.0);
    decision.residual = model.laws.iter().map(|law| law.sigma_log).reduce(f64::max);
    if decision.half_width.is_some_and(|half_width| half_width <= adaptive.rule.precision) {
        decision.stopped = Some(StopReason::Precision);
        return decision;
    }
    let taken: HashSet<usize> = asked.measured.iter().copied().collect();
    let chosen = doubts.choose(asked.room, &taken, &|before, place| is_served(plan, asked.up, before, place));
    let named = |(place, half_width): (usize, f64)| {
        Some(ChosenPoint { point_id: plan.points.get(place)?.point_id.clone(), half_width: Some(half_width) })
    };
    decision.points = chosen.into_iter().filter_map(named).collect();
    decision
}

/// What the start design takes next, where there is no law.
fn of_start_design(plan: &Plan, adaptive: &Adaptive, asked: &Asked<'_>, given_up: &[usize], why: &str) -> Decision {
    let skipped: Vec<usize> = asked.measured.iter().chain(given_up).copied().collect();
    let next = adaptive.next_of_start_design(&skipped, asked.room);
    let named =
        |place: usize| Some(ChosenPoint { point_id: plan.points.get(place)?.point_id.clone(), half_width: None });
    Decision {
        points_before: asked.measured.len(),
        points: next.into_iter().filter_map(named).collect(),
        no_law: Some(why.to_owned()),
        given_up: given_up.len(),
        ..Decision::default()
    }
}

/// The doubts about all candidates; unknown where there is no law that can be trusted at all.
fn doubts(plan: &Plan, model: &Model) -> Doubts {
    let mut doubts = Doubts::new(&model.laws);
    // Candidates are sorted: those of one law are neighbours.
    let mut found: Option<(&Point, Option<(usize, crate::law::Scenario)>)> = None;
    for point in &plan.points {
        let row = configuration(point);
        let is_same = |of: &Point| {
            (&of.model, &of.gpu, &of.precision, &of.engine)
                == (&point.model, &point.gpu, &point.precision, &point.engine)
        };
        if !found.as_ref().is_some_and(|(of, _)| is_same(of)) {
            found = Some((point, law_of(model, &row)));
        }
        let known = found.as_ref().and_then(|(_, law)| law.as_ref()).and_then(|(number, scenario)| {
            let law = model.laws.get(*number)?;
            let gradient = |row: &Row| {
                let (value, gradient) = law.mean_and_gradient(&[(1.0, scenario.case(row).ok()?)]);
                (value.is_finite() && value > 0.0).then_some(gradient)
            };
            // A run measures its prefill by itself too.
            let prefill = Row { phase: Phase::Prefill, ..row.clone() };
            Some(Known { law: *number, whole: gradient(&row)?, prefill: gradient(&prefill)? })
        });
        doubts.push(known);
    }
    doubts
}

/// The law of a candidate, by number, and the facts of its model.
fn law_of(model: &Model, row: &Row) -> Option<(usize, crate::law::Scenario)> {
    let law = model.law_for(Target::EnergyJ, row).ok()?;
    if law.verdicts.iter().any(|v| matches!(v, Verdict::NotConverged { .. })) {
        return None;
    }
    let number = model.laws.iter().position(|l| std::ptr::eq(l, law))?;
    Some((number, model.scenario_for(law, row).ok()?))
}

/// Candidates on servers of which nothing usable came, though it was tried more than once: the next would not start either.
fn hopeless(plan: &Plan, dataset: &Dataset, measured: &[usize]) -> Vec<usize> {
    let usable: HashSet<&str> =
        dataset.rows.iter().filter_map(|row| row.run_id.rsplit_once('-')).map(|(point_id, _)| point_id).collect();
    // The first point of each server that was tried, what was tried there, and whether anything worked.
    let mut tried: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
    for point in measured.iter().filter_map(|place| Some((*place, plan.points.get(*place)?))) {
        let same = tried.keys().copied().find(|of| plan.points.get(*of).is_some_and(|p| p.shares_deployment(point.1)));
        let (count, works) = tried.entry(same.unwrap_or(point.0)).or_default();
        *count += 1;
        *works |= usable.contains(point.1.point_id.as_str());
    }
    // Where nothing worked at all, no server is worse than another.
    if tried.values().all(|(_, works)| !works) {
        return Vec::new();
    }
    let hopeless: Vec<&Point> = tried
        .iter()
        .filter(|(_, (count, works))| *count >= HOPELESS_POINTS && !works)
        .filter_map(|(of, _)| plan.points.get(*of))
        .collect();
    if hopeless.is_empty() {
        return Vec::new();
    }
    let is_hopeless = |point: &Point| hopeless.iter().any(|of| of.shares_deployment(point));
    plan.points.iter().enumerate().filter(|(_, point)| is_hopeless(point)).map(|(place, _)| place).collect()
}

/// Whether servers that are up, or are started for a point that was chosen `before`, could serve the candidate too.
fn is_served(plan: &Plan, up: Option<&Point>, before: &[usize], place: usize) -> bool {
    let mut started = up.into_iter().chain(before.iter().filter_map(|place| plan.points.get(*place)));
    plan.points.get(place).is_some_and(|point| started.any(|of| of.shares_deployment(point)))
}

/// A point as a row that is to be predicted: whole batches, without energy.
pub fn configuration(point: &Point) -> Row {
    let (model, gpu) = (&point.model, &point.gpu);
    Row {
        architecture: Some(model.architecture.as_str().to_owned()),
        engine: Some(point.engine.clone()),
        precision: Some(point.precision.clone()),
        num_gpus: point.num_gpus(),
        tensor_parallel: point.tensor_parallel,
        pipeline_parallel: point.pipeline_parallel,
        data_parallel: point.data_parallel,
        batch_size: f64::from(point.batch_size),
        input_tokens: Some(f64::from(point.input_tokens)),
        output_tokens: f64::from(point.output_tokens),
        params: Some(model.params),
        active_params: Some(model.active_params),
        n_layers: Some(model.n_layers),
        hidden_size: Some(model.hidden_size),
        kv_bytes_per_token: Some(model.kv_bytes_per_token),
        num_experts: Some(model.num_experts),
        experts_per_token: Some(model.experts_per_token),
        bytes_per_weight: Some(model.bytes_per_weight),
        gpu_memory_bytes: Some(gpu.memory_bytes),
        phase: if point.is_prefill_only() { Phase::Prefill } else { Phase::Total },
        source: EnergySource::Imported,
        ..Row::new(&model.model, &gpu.gpu_model)
    }
}
