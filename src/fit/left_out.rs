//! How far is the law off on rows that it has not seen?
//!
//! A law of a dozen parameters bends towards the rows that it is fitted to, so their residuals flatter it, and where few
//! rows decide they flatter it most. So workloads are dealt into five folds, the law is fitted anew without each (one
//! descent from the full fit's exponents), and what the rows left out are off by is the scatter that intervals are made of.
//! A refit knows less than the full fit does; what it did not know is taken off, by the leverage of the rows that were left
//! (`scatter`). Prefill-only rows and whole batches have a scatter each, drawn towards that of all rows as if one more row
//! of the kind had been seen.

mod scatter;

use std::collections::BTreeMap;

use nalgebra::{DMatrix, DVector};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::MIN_ROWS;
use super::inference::pseudo_inverse;
use super::problem::{Observation, Problem};
use super::search::{Found, descend};
use super::split::case_units;
use crate::law::{Case, RowKind, Target};
use scatter::Missed;

pub(super) use scatter::{EXPECTED_ROWS, Scatters};

/// Refits. More cost time and change little.
const FOLDS: usize = 5;
/// Seed of the dealing: sweeps are often in order, and a fold must not be one batch size.
const DEALING_SEED: u64 = 0;
/// A log residual beyond this says no more than that the refit had nothing to go by.
const FARTHEST: f64 = 3.0;
/// The same of the leverage.
const HIGHEST_LEVERAGE: f64 = 25.0;

/// Log residuals of rows, each from a fit without its workload.
pub(crate) struct LeftOut {
    fold: Vec<usize>,
    /// `None` where too few rows were left to fit.
    residuals: Vec<Option<f64>>,
    kinds: Vec<RowKind>,
}

/// What the full fit knows of its rows.
pub(crate) struct Full<'a> {
    pub(crate) jacobian: &'a DMatrix<f64>,
    /// Weights of the rows in `information`.
    pub(crate) weights: &'a [f64],
    /// Rows and priors.
    pub(crate) information: &'a DMatrix<f64>,
    /// How much of a row of its own each row is.
    pub(crate) independence: &'a [f64],
    /// Scatter that is expected beforehand.
    pub(crate) expected: f64,
}

/// Fits the law anew without each fold; `None` where there is but one workload.
pub(crate) fn refit(
    problem: &Problem<'_>,
    observations: &[Observation],
    found: &Found,
    free: &[usize],
) -> Option<LeftOut> {
    let fold = folds(observations, problem.skeleton.target)?;
    let mut residuals = vec![None; observations.len()];
    for number in 0..FOLDS {
        let is_left_out = |i: usize| fold.get(i) == Some(&number);
        let kept: Vec<Observation> =
            observations.iter().enumerate().filter(|(i, _)| !is_left_out(*i)).map(|(_, o)| *o).collect();
        if kept.len() < MIN_ROWS || kept.len() == observations.len() {
            continue;
        }
        let mut part = Problem::new(problem.skeleton, &kept);
        (part.belief, part.knee, part.sigma) = (problem.belief.clone(), problem.knee, problem.sigma);
        let end = descend(&part, free, &found.exponents);
        part.cold();
        let inner = part.inner(&end.x);
        let coefficients: Vec<f64> = inner.coefficients.iter().copied().collect();
        for (i, o) in observations.iter().enumerate().filter(|(i, _)| is_left_out(*i)) {
            let predicted: f64 = problem.skeleton.contributions(&coefficients, &end.x, &o.case).iter().sum();
            let residual = (predicted.max(f64::MIN_POSITIVE) / o.value).ln();
            if let Some(slot) = residuals.get_mut(i).filter(|_| residual.is_finite()) {
                *slot = Some(residual.clamp(-FARTHEST, FARTHEST));
            }
        }
    }
    let kinds = observations.iter().map(|o| o.case.row_kind()).collect();
    residuals.iter().any(Option::is_some).then_some(LeftOut { fold, residuals, kinds })
}

/// The fold of each row: what is never torn apart (`split::units`) is dealt evenly in a shuffled order.
fn folds(observations: &[Observation], target: Target) -> Option<Vec<usize>> {
    // A first token does not wait for those behind it: batches of the same prompts measure it again.
    let seen = |o: &Observation| if target == Target::MeanTtftS { o.case.with_output(1.0) } else { o.case };
    let cases: Vec<Case> = observations.iter().map(seen).collect();
    let units = case_units(&cases);
    let mut distinct = units.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 2 {
        return None;
    }
    distinct.shuffle(&mut ChaCha8Rng::seed_from_u64(DEALING_SEED));
    let place: BTreeMap<_, _> = distinct.into_iter().zip((0..FOLDS).cycle()).collect();
    Some(units.iter().map(|unit| place.get(unit).copied().unwrap_or(0)).collect())
}

impl LeftOut {
    /// The scatter of one more row, by kind.
    pub(crate) fn scatters(&self, problem: &Problem<'_>, full: &Full<'_>) -> Scatters {
        let leverage = self.leverage(full);
        let mut missed = Vec::with_capacity(self.residuals.len());
        for (i, residual) in self.residuals.iter().enumerate() {
            let (Some(residual), Some(kind)) = (residual, self.kinds.get(i)) else { continue };
            let measured = problem.weights.get(i).copied().unwrap_or(1.0);
            missed.push(Missed {
                kind: *kind,
                residual: residual * measured.sqrt(),
                leverage: measured * leverage.get(i).copied().unwrap_or(0.0),
                independence: full.independence.get(i).copied().unwrap_or(1.0),
            });
        }
        scatter::scatters(&missed, problem.knee, full.expected)
    }

    /// Variance of each row's prediction by the fit without its fold, in units of the scatter's.
    fn leverage(&self, full: &Full<'_>) -> Vec<f64> {
        let mut leverage = vec![0.0; self.fold.len()];
        if full.jacobian.ncols() == 0 {
            return leverage;
        }
        for number in 0..FOLDS {
            let rows = || self.fold.iter().enumerate().filter(|(_, f)| **f == number).map(|(i, _)| i);
            let mut information = full.information.clone();
            for i in rows() {
                let slope: DVector<f64> = full.jacobian.row(i).transpose();
                information.ger(-full.weights.get(i).copied().unwrap_or(1.0), &slope, &slope, 1.0);
            }
            let (inverse, _) = pseudo_inverse(&information);
            for i in rows() {
                let slope: DVector<f64> = full.jacobian.row(i).transpose();
                let variance = slope.dot(&(&inverse * &slope));
                if let Some(slot) = leverage.get_mut(i).filter(|_| variance.is_finite()) {
                    *slot = variance.clamp(0.0, HIGHEST_LEVERAGE);
                }
            }
        }
        leverage
    }
}

#[cfg(test)]
mod tests;
