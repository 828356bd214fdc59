//! The fit of one candidate to some rows of one law, made for being done a million times.
//!
//! The same objective as the final fit's (`problem`): robust squares of `ln(sum_j k_j A_ij) - ln y_i`, non-negative `k`,
//! priors. Where that one must find the best of several minima to the last digit, this one must be quick: columns stand
//! ready, the exponents take Gauss-Newton steps with the coefficients projected out, and folds start where the fit to
//! all rows ended.

use nalgebra::{DMatrix, DVector};

use super::genome::{Genome, phase_of};
use super::ground::{Ground, Scope};
use crate::fit::nnls::nnls;

/// Box of a fitted power.
pub(super) const LOW: f64 = -1.0;
/// See [`LOW`].
pub(super) const HIGH: f64 = 1.5;
/// Prior of a fitted power: none is the guess, and half a power either way is common.
pub(super) const POWER_SD: f64 = 0.5;
/// Knee of a first fit, log units; see `FIRST_KNEE` of the final fit.
const FIRST_KNEE: f64 = 0.4;
/// Knee in robust standard deviations, and its floor.
const KNEE: f64 = 3.0 * 1.4826;
/// See [`KNEE`].
const SMALLEST_KNEE: f64 = 0.06;
/// Range of the scatter that weighs the priors.
const SIGMAS: (f64, f64) = (0.03, 0.2);
/// Outer steps of a fit from scratch.
const STEPS: usize = 12;
/// Outer steps of a fit that starts close.
const NEAR_STEPS: usize = 3;
/// Reweighted solutions for the coefficients at one set of powers.
const INNER_STEPS: usize = 4;

/// What a fit leaves behind.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub(super) coefficients: DVector<f64>,
    pub(super) exponents: Vec<f64>,
    /// Robust misfit and priors.
    pub(super) loss: f64,
    knee: f64,
    sigma: f64,
}

/// A candidate on one law: its columns, and who scales what.
pub(super) struct Form<'a> {
    scope: &'a Scope,
    columns: Vec<&'a [f64]>,
    /// Phase of each term, where fitted powers stand on it.
    phases: Vec<Option<usize>>,
    /// Phase and logs of the base, per exponent.
    exponents: Vec<(usize, &'a [f64])>,
    expected: Vec<Option<f64>>,
}

/// The coefficients at one set of powers.
struct Inner {
    coefficients: DVector<f64>,
    design: DMatrix<f64>,
    /// Predicted over measured.
    fitted: Vec<f64>,
    residuals: Vec<f64>,
    loss: f64,
}

impl<'a> Form<'a> {
    pub(super) fn new(ground: &Ground, scope: &'a Scope, genome: &Genome) -> Self {
        let of = |q: usize| scope.columns.get(q).map_or(&[][..], Vec::as_slice);
        let logs = |b: usize| scope.ln_bases.get(b).map_or(&[][..], Vec::as_slice);
        Self {
            scope,
            columns: genome.genes.iter().map(|g| of(g.quantity)).collect(),
            phases: genome.genes.iter().map(|g| phase_of(ground, *g)).collect(),
            exponents: genome.exponents().into_iter().map(|(phase, base)| (phase, logs(base))).collect(),
            expected: genome.genes.iter().map(|g| scope.expected.get(g.quantity).copied().flatten()).collect(),
        }
    }

    /// Fits all `rows` from scratch: first with a wide knee, then with one set from the spread of the residuals.
    pub(super) fn fit(&self, rows: &[usize]) -> Numbers {
        let start = Numbers {
            coefficients: DVector::zeros(0),
            exponents: vec![0.0; self.exponents.len()],
            loss: f64::INFINITY,
            knee: FIRST_KNEE,
            sigma: SIGMAS.1,
        };
        let mut numbers = self.descend(rows, start, STEPS);
        let mut sizes: Vec<f64> = self.residuals(&numbers, rows).iter().map(|r| r.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
        numbers.knee = (KNEE * median).max(SMALLEST_KNEE);
        numbers.sigma = (1.4826 * median).clamp(SIGMAS.0, SIGMAS.1);
        self.descend(rows, numbers, STEPS)
    }

    /// Fits some `rows` from a fit of nearly the same ones.
    pub(super) fn refit(&self, rows: &[usize], near: &Numbers) -> Numbers {
        self.descend(rows, near.clone(), NEAR_STEPS)
    }

    /// `ln predicted - ln measured` of `rows`.
    pub(super) fn residuals(&self, numbers: &Numbers, rows: &[usize]) -> Vec<f64> {
        let design = self.design(rows, &numbers.exponents);
        let fitted = &design * &numbers.coefficients;
        fitted.iter().map(|f| f.max(f64::MIN_POSITIVE).ln()).collect()
    }

    /// Scales of each phase, row by row.
    fn scales(&self, rows: &[usize], exponents: &[f64]) -> [Vec<f64>; 2] {
        [0, 1].map(|phase| {
            let own = || self.exponents.iter().zip(exponents).filter(move |((p, _), _)| *p == phase);
            if own().next().is_none() {
                return Vec::new();
            }
            let log = |i: &usize| own().map(|((_, logs), a)| a * logs.get(*i).copied().unwrap_or(0.0)).sum::<f64>();
            rows.iter().map(|i| log(i).exp()).collect()
        })
    }

    fn design(&self, rows: &[usize], exponents: &[f64]) -> DMatrix<f64> {
        let scales = self.scales(rows, exponents);
        let mut design = DMatrix::zeros(rows.len(), self.columns.len());
        for ((mut out, column), phase) in design.column_iter_mut().zip(&self.columns).zip(&self.phases) {
            let scale = phase.and_then(|p| scales.get(p)).filter(|s| !s.is_empty());
            for (place, (slot, i)) in out.iter_mut().zip(rows).enumerate() {
                let v = column.get(*i).copied().unwrap_or(0.0);
                *slot = scale.and_then(|s| s.get(place)).map_or(v, |s| v * s);
            }
        }
        design
    }

    fn weight(&self, row: usize) -> f64 {
        self.scope.weights.get(row).copied().unwrap_or(1.0)
    }

    fn inner(&self, rows: &[usize], at: &Numbers, exponents: &[f64]) -> Inner {
        let design = self.design(rows, exponents);
        let near = (at.coefficients.len() == design.ncols()).then(|| at.coefficients.clone());
        let judge = |k: DVector<f64>| {
            let fitted: Vec<f64> = (&design * &k).iter().map(|f| f.max(f64::MIN_POSITIVE)).collect();
            let residuals: Vec<f64> = fitted.iter().map(|f| f.ln()).collect();
            let misfit: f64 = residuals.iter().zip(rows).map(|(r, i)| self.weight(*i) * rho(*r, at.knee)).sum();
            let surprise = |(k, e): (&f64, &Option<f64>)| e.map_or(0.0, |e| (at.sigma * (k / e - 1.0)).powi(2));
            let powers: f64 = exponents.iter().map(|a| (at.sigma * a / POWER_SD).powi(2)).sum();
            let loss = misfit + powers + k.iter().zip(&self.expected).map(surprise).sum::<f64>();
            (k, fitted, residuals, loss)
        };
        let relative = |start: &[bool]| {
            let rows: Vec<(f64, f64)> = rows.iter().map(|i| (self.weight(*i), 1.0)).collect();
            judge(self.solve(&design, &rows, at.sigma, start))
        };
        let mut best = match near {
            Some(k) => judge(k),
            None => relative(&[]),
        };
        if best.2.iter().any(|r| r.abs() > 1.0) {
            let start: Vec<bool> = best.0.iter().map(|v| *v > 0.0).collect();
            let fresh = relative(&start);
            if fresh.3 < best.3 {
                best = fresh;
            }
        }
        for _ in 0..INNER_STEPS {
            let weighted: Vec<(f64, f64)> = best
                .1
                .iter()
                .zip(&best.2)
                .zip(rows)
                .map(|((f, r), i)| {
                    let huber = if r.abs() <= at.knee { 1.0 } else { at.knee / r.abs() };
                    (self.weight(*i) * huber / (f * f), f * (1.0 - r.clamp(-1.0, 0.9)))
                })
                .collect();
            let start: Vec<bool> = best.0.iter().map(|v| *v > 0.0).collect();
            let next = judge(self.solve(&design, &weighted, at.sigma, &start));
            let gain = best.3 - next.3;
            if gain.is_nan() || gain <= 0.0 {
                break;
            }
            let settled = gain < 1e-6 * next.3;
            best = next;
            if settled {
                break;
            }
        }
        let (coefficients, fitted, residuals, loss) = best;
        Inner { coefficients, design, fitted, residuals, loss }
    }

    /// Non-negative least squares with weights and targets row by row, priors as rows of their own.
    fn solve(&self, design: &DMatrix<f64>, rows: &[(f64, f64)], sigma: f64, start: &[bool]) -> DVector<f64> {
        let terms = design.ncols();
        let mut gram = DMatrix::zeros(terms, terms);
        let mut rhs = DVector::zeros(terms);
        let mut weighted = vec![0.0; rows.len()];
        for a in 0..terms {
            let column = design.column(a);
            weighted.iter_mut().zip(column.iter()).zip(rows).for_each(|((w, d), (v, _))| *w = d * v);
            rhs[a] = weighted.iter().zip(rows).map(|(w, (_, target))| w * target).sum();
            for b in 0..=a {
                let dot: f64 = weighted.iter().zip(design.column(b).iter()).map(|(w, d)| w * d).sum();
                gram[(a, b)] = dot;
                gram[(b, a)] = dot;
            }
        }
        for (a, expected) in self.expected.iter().enumerate() {
            if let Some(e) = expected {
                gram[(a, a)] += (sigma / e).powi(2);
                rhs[a] += sigma * sigma / e;
            }
        }
        nnls(&gram, &rhs, start)
    }

    /// Gauss-Newton on the powers with step halving; the coefficients follow.
    fn descend(&self, rows: &[usize], from: Numbers, steps: usize) -> Numbers {
        let mut at = from;
        let mut inner = self.inner(rows, &at, &at.exponents);
        at.coefficients = inner.coefficients.clone();
        at.loss = inner.loss;
        if self.exponents.is_empty() {
            return at;
        }
        for _ in 0..steps {
            let Some(direction) = self.direction(rows, &at, &inner) else { break };
            let mut length = 1.0;
            let mut moved = None;
            while length > 0.1 {
                let step = |(a, d): (&f64, &f64)| (a + length * d).clamp(LOW, HIGH);
                let exponents: Vec<f64> = at.exponents.iter().zip(&direction).map(step).collect();
                let next = self.inner(rows, &at, &exponents);
                if next.loss < at.loss {
                    moved = Some((exponents, next));
                    break;
                }
                length *= 0.35;
            }
            let Some((exponents, next)) = moved else { break };
            let gain = at.loss - next.loss;
            at.exponents = exponents;
            at.coefficients = next.coefficients.clone();
            at.loss = next.loss;
            inner = next;
            if gain < 1e-5 * at.loss {
                break;
            }
        }
        at
    }

    /// The Gauss-Newton step of the powers, coefficients eliminated (the Schur complement of the normal equations).
    fn direction(&self, rows: &[usize], at: &Numbers, inner: &Inner) -> Option<Vec<f64>> {
        let n = rows.len();
        let active: Vec<usize> = (0..inner.coefficients.len()).filter(|j| inner.coefficients[*j] > 0.0).collect();
        let (terms, powers) = (active.len(), self.exponents.len());
        let mut jacobian = DMatrix::zeros(n, terms + powers);
        let mut root = Vec::with_capacity(n);
        for (place, i) in rows.iter().enumerate() {
            let (r, f) = (inner.residuals[place], inner.fitted[place]);
            let huber = if r.abs() <= at.knee { 1.0 } else { at.knee / r.abs() };
            let v = (self.weight(*i) * huber).sqrt();
            root.push(v);
            let mut shares = [0.0; 2];
            for (column, j) in active.iter().enumerate() {
                // In units of the coefficient itself, so that the matrix is well scaled.
                let share = inner.coefficients[*j] * inner.design[(place, *j)] / f;
                jacobian[(place, column)] = v * share;
                if let Some(slot) = self.phases.get(*j).copied().flatten().and_then(|p| shares.get_mut(p)) {
                    *slot += share;
                }
            }
            for (e, (phase, logs)) in self.exponents.iter().enumerate() {
                let log = logs.get(*i).copied().unwrap_or(0.0);
                jacobian[(place, terms + e)] = v * shares.get(*phase).copied().unwrap_or(0.0) * log;
            }
        }
        let pulled = DVector::from_iterator(n, inner.residuals.iter().zip(&root).map(|(r, v)| -r * v));
        let mut normal = jacobian.tr_mul(&jacobian);
        let mut rhs = jacobian.tr_mul(&pulled);
        for (column, j) in active.iter().enumerate() {
            if let Some(e) = self.expected.get(*j).copied().flatten() {
                let pull = at.sigma * inner.coefficients[*j] / e;
                normal[(column, column)] += pull * pull;
                rhs[column] += pull * at.sigma * (1.0 - inner.coefficients[*j] / e);
            }
        }
        let pull = (at.sigma / POWER_SD).powi(2);
        for (e, a) in at.exponents.iter().enumerate() {
            normal[(terms + e, terms + e)] += pull;
            rhs[terms + e] -= pull * a;
        }
        // Terms that trade against each other would make the matrix singular.
        for j in 0..terms + powers {
            normal[(j, j)] = normal[(j, j)] * (1.0 + 1e-7) + 1e-12;
        }
        let step = normal.cholesky()?.solve(&rhs);
        let direction: Vec<f64> = step.iter().skip(terms).map(|d| d.clamp(-0.7, 0.7)).collect();
        direction.iter().all(|d| d.is_finite()).then_some(direction)
    }

    /// By how much each quantity of the grammar, put beside the terms of a fit, would lower the misfit of all rows, to
    /// first order and with the terms free to give way; 0 for one that would enter with a negative coefficient.
    pub(super) fn gains(&self, ground: &Ground, genome: &Genome, numbers: &Numbers) -> Vec<[f64; 2]> {
        let rows: Vec<usize> = (0..self.scope.rows()).collect();
        let inner = self.inner(&rows, numbers, &numbers.exponents);
        let scales = self.scales(&rows, &numbers.exponents);
        let weights: Vec<f64> = inner
            .residuals
            .iter()
            .zip(&rows)
            .map(|(r, i)| (self.weight(*i) * if r.abs() <= numbers.knee { 1.0 } else { numbers.knee / r.abs() }).sqrt())
            .collect();
        // An orthonormal basis of what the terms and the powers can already move.
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let project = |v: &mut Vec<f64>, basis: &[Vec<f64>]| {
            for b in basis {
                let dot: f64 = b.iter().zip(v.iter()).map(|(b, v)| b * v).sum();
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= dot * b);
            }
        };
        let mut extend = |mut v: Vec<f64>| {
            let before: f64 = v.iter().map(|x| x * x).sum();
            project(&mut v, &basis);
            let after: f64 = v.iter().map(|x| x * x).sum();
            if after > 1e-10 * before {
                v.iter_mut().for_each(|x| *x /= after.sqrt());
                basis.push(v);
            }
        };
        let weighted = |place: usize, value: f64| value * weights[place] / inner.fitted[place];
        let mut movement = [vec![0.0; rows.len()], vec![0.0; rows.len()]];
        for (j, k) in inner.coefficients.iter().enumerate().filter(|(_, k)| **k > 0.0) {
            let column: Vec<f64> = (0..rows.len()).map(|place| weighted(place, k * inner.design[(place, j)])).collect();
            if let Some(slot) = self.phases.get(j).copied().flatten().and_then(|p| movement.get_mut(p)) {
                slot.iter_mut().zip(&column).for_each(|(m, c)| *m += c);
            }
            extend(column);
        }
        for (phase, logs) in &self.exponents {
            let moved = movement.get(*phase).into_iter().flatten().zip(logs.iter()).map(|(m, l)| m * l).collect();
            extend(moved);
        }
        let mut missing: Vec<f64> = inner.residuals.iter().zip(&weights).map(|(r, w)| -r * w).collect();
        project(&mut missing, &basis);
        let gain = |column: &[f64], scale: Option<&Vec<f64>>| {
            let at = |place: usize| {
                let v = column.get(place).copied().unwrap_or(0.0);
                weighted(place, scale.and_then(|s| s.get(place)).map_or(v, |s| v * s))
            };
            let mut v: Vec<f64> = (0..rows.len()).map(at).collect();
            let before: f64 = v.iter().map(|x| x * x).sum();
            project(&mut v, &basis);
            let after: f64 = v.iter().map(|x| x * x).sum();
            let dot: f64 = v.iter().zip(&missing).map(|(v, m)| v * m).sum();
            if after > 1e-9 * before && dot > 0.0 { dot * dot / after } else { 0.0 }
        };
        let of = |(q, column): (usize, &Vec<f64>)| {
            let scaled = super::genome::Gene { quantity: q, scaled: true };
            let phase = phase_of(ground, scaled).filter(|p| genome.powers.get(*p).is_some_and(|b| !b.is_empty()));
            let scale = phase.and_then(|p| scales.get(p)).filter(|s| !s.is_empty());
            [gain(column, None), scale.map_or(0.0, |s| gain(column, Some(s)))]
        };
        self.scope.columns.iter().enumerate().map(of).collect()
    }

    /// Mean share of each term in the predictions.
    pub(super) fn shares(&self, numbers: &Numbers) -> Vec<f64> {
        let rows: Vec<usize> = (0..self.scope.rows()).collect();
        let design = self.design(&rows, &numbers.exponents);
        let fitted = &design * &numbers.coefficients;
        let share = |j: usize, k: f64| {
            let sum: f64 =
                design.column(j).iter().zip(fitted.iter()).map(|(d, f)| k * d / f.max(f64::MIN_POSITIVE)).sum();
            sum / rows.len().max(1) as f64
        };
        numbers.coefficients.iter().enumerate().map(|(j, k)| share(j, *k)).collect()
    }
}

/// Huber's function.
pub(super) fn rho(r: f64, knee: f64) -> f64 {
    if r.abs() <= knee { r * r } else { knee * (2.0 * r.abs() - knee) }
}
