//! Intervals of parameters that need no straight lines: by profile likelihood, or by bootstrap.
//!
//! **Profile.** A parameter is held at one value after another and all others are fitted anew; its 95 % interval ends where
//! the objective has risen by `t^2 s^2` (`t` Student's, `s` the rows' scatter). With exponents searched and coefficients
//! projected out, one value costs one short descent. **Bootstrap.** Whole workloads are drawn with replacement and the law
//! is refitted from its own exponents; the interval ends at the 2.5 and 97.5 % quantiles. Where nothing beyond the
//! parameter's box objects, the interval ends at the box, or not at all.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::inference::{Inference, LEVEL};
use super::problem::{Observation, Problem};
use super::search::{Found, descend};
use super::split::case_units;

/// Evaluations per end of an interval; false position on a nearly straight line needs four or five.
const EVALUATIONS: usize = 12;
/// An end is found when the objective has risen to this share of `t`.
const CLOSE: f64 = 0.02;
/// Fewer refits make the ends of a 95 % interval a matter of luck.
const DRAWS: usize = 200;

/// Replaces the first-order intervals by profiles. `problem` comes back as it was, its warm start apart.
pub(crate) fn profile(problem: &mut Problem<'_>, found: &Found, free: &[usize], inference: &mut Inference) {
    let before = (problem.sigma, problem.weights.clone());
    // Priors in units of the scatter that was found; repeats that err alike count as fewer.
    problem.sigma = inference.sigma_log;
    problem.weights.iter_mut().zip(&inference.independence).for_each(|(w, g)| *w *= g);
    let best = descend(problem, free, &found.exponents);
    problem.cold();
    let least: Vec<f64> = problem.inner(&best.x).coefficients.iter().copied().collect();
    let reach = crate::law::quantile(LEVEL, inference.degrees_of_freedom);
    let rise = |value: f64| ((value - best.value).max(0.0)).sqrt() / inference.sigma_log - reach;
    // Every side begins anew at the minimum: what was found at the far end of the box is no neighbour of it.
    for (j, c) in inference.coefficients.iter_mut().enumerate() {
        if !problem.term_is_observable(j) && !problem.belief.knows_coefficient(j) {
            continue;
        }
        let mut at = |value: f64, start: &mut Vec<f64>| {
            problem.pinned = Some((j, value));
            let end = descend(problem, free, start);
            *start = end.x;
            rise(end.value)
        };
        let step = c
            .std_error
            .filter(|s| *s > 0.0)
            .map_or_else(|| c.high.map_or(c.value, |h| h - c.value).max(0.1 * c.value), |std| std * reach);
        let centre = least.get(j).copied().unwrap_or(c.value);
        if c.value > 0.0 {
            let mut start = best.x.clone();
            let objects = centre > 0.0 && at(0.0, &mut best.x.clone()) > 0.0;
            let low = objects.then(|| end(&mut |v| at(v, &mut start), centre, -step, 0.0)).flatten();
            c.low = low.unwrap_or(0.0).min(c.value);
        }
        if step > 0.0 {
            let mut start = best.x.clone();
            let high = end(&mut |v| at(v, &mut start), centre, step, f64::INFINITY);
            c.high = high.map(|high| high.max(c.value));
        }
        problem.pinned = None;
    }
    for (j, e) in inference.exponents.iter_mut().enumerate() {
        if !free.contains(&j) {
            continue;
        }
        let others: Vec<usize> = free.iter().copied().filter(|f| *f != j).collect();
        let at = |value: f64, start: &mut Vec<f64>| {
            start[j] = value;
            let end = descend(problem, &others, start);
            *start = end.x;
            rise(end.value)
        };
        let spec = &problem.skeleton.exponents[j];
        let step = e.std_error.map_or(0.1, |s| s * reach);
        for (side, bound) in [(-step, spec.low), (step, spec.high)] {
            let mut start = best.x.clone();
            let objects = at(bound, &mut best.x.clone()) > 0.0;
            let found = objects.then(|| end(&mut |v| at(v, &mut start), best.x[j], side, bound)).flatten();
            let value = found.unwrap_or(bound);
            if side < 0.0 { e.low = value.min(e.value) } else { e.high = value.max(e.value) }
        }
    }
    (problem.sigma, problem.weights) = before;
    problem.cold();
}

/// Where `at` crosses zero, going from `value` by `step` towards `bound`; `None` where it does not within reason.
fn end(at: &mut impl FnMut(f64) -> f64, value: f64, step: f64, bound: f64) -> Option<f64> {
    let beyond = |v: f64| if step < 0.0 { v.max(bound) } else { v.min(bound) };
    let (mut inside, mut outside) = ((value, at(value)), (beyond(value + step), 0.0));
    if inside.1 > 0.0 {
        return Some(value);
    }
    outside.1 = at(outside.0);
    for doubling in 1..EVALUATIONS {
        if outside.1 > 0.0 || outside.0 == bound {
            break;
        }
        inside = outside;
        let next = beyond(value + step * f64::powi(2.0, doubling as i32));
        outside = (next, at(next));
    }
    if outside.1 <= 0.0 {
        return None;
    }
    // False position; an end that stays twice is halved (Illinois).
    let (mut low, mut high) = (inside.1, outside.1);
    for _ in 0..EVALUATIONS {
        let middle = (inside.0 * high - outside.0 * low) / (high - low);
        let risen = at(middle);
        if risen.abs() < CLOSE {
            return Some(middle);
        }
        if risen > 0.0 {
            (outside.0, high, low) = (middle, risen, 0.5 * low);
        } else {
            (inside.0, low, high) = (middle, risen, 0.5 * high);
        }
    }
    Some(0.5 * (inside.0 + outside.0))
}

/// Replaces the first-order intervals by those of refits to workloads drawn with replacement.
pub(crate) fn bootstrap(
    problem: &Problem<'_>,
    observations: &[Observation],
    found: &Found,
    free: &[usize],
    seed: u64,
    inference: &mut Inference,
) {
    let mut workloads: std::collections::BTreeMap<usize, Vec<Observation>> = std::collections::BTreeMap::new();
    for (unit, o) in case_units(observations.iter().map(|o| &o.case)).into_iter().zip(observations) {
        workloads.entry(unit).or_default().push(*o);
    }
    let workloads: Vec<Vec<Observation>> = workloads.into_values().collect();
    if workloads.len() < 2 {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(DRAWS); problem.skeleton.parameter_count()];
    for _ in 0..DRAWS {
        let rows: Vec<Observation> =
            (0..workloads.len()).flat_map(|_| workloads[rng.random_range(0..workloads.len())].clone()).collect();
        let mut again = Problem::new(problem.skeleton, &rows);
        (again.belief, again.knee, again.sigma) = (problem.belief.clone(), problem.knee, problem.sigma);
        let end = descend(&again, free, &found.exponents);
        again.cold();
        let inner = again.inner(&end.x);
        let values = inner.coefficients.iter().chain(&end.x);
        drawn.iter_mut().zip(values).for_each(|(column, v)| column.push(*v));
    }
    let quantile = |column: &mut Vec<f64>, share: f64| {
        column.sort_by(f64::total_cmp);
        column.get(((column.len() - 1) as f64 * share).round() as usize).copied()
    };
    let terms = inference.coefficients.len();
    let tail = (1.0 - LEVEL) / 2.0;
    for (j, column) in drawn.iter_mut().enumerate() {
        let (Some(low), Some(high)) = (quantile(column, tail), quantile(column, 1.0 - tail)) else { continue };
        match (inference.coefficients.get_mut(j), inference.exponents.get_mut(j.wrapping_sub(terms))) {
            // A parameter that no draw moves is held: nothing is known of how far it could go.
            (Some(c), _) if high > low => (c.low, c.high) = (low.min(c.value), Some(high.max(c.value))),
            (None, Some(e)) if high > low => (e.low, e.high) = (low.min(e.value), high.max(e.value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
