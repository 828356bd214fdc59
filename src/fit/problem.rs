//! The fit as numbers: products per row and term, observations, weights; and the objective as a function of the
//! exponents alone.
//!
//! For exponents `a`, row `i` and term `j`, the design matrix is the product `P_ij` of the known factors times the fitted
//! powers of `t` and of what the pipeline makes of `p`. The objective is
//!
//! ```text
//! F(a) = min over k >= 0 of  sum_i w_i rho(ln(sum_j k_j A_ij) - ln y_i)  +  sigma^2 d' P d
//! ```
//!
//! with `rho` the Huber function (quadratic up to a knee), and `d` how far the parameters are from what was believed of
//! them, with precision `P` (`belief`). The inner minimum is found by Gauss-Newton steps, each a
//! non-negative least-squares problem in `k`; at the minimum the derivative by `a` needs no derivative of `k` (envelope
//! theorem; variable projection, Golub and Pereyra 1973), so the gradient is exact and cheap.

use std::cell::RefCell;

use nalgebra::{DMatrix, DVector};

use super::belief::Belief;
use super::nnls::nnls;
use crate::law::{Case, Skeleton, Symbol};

/// Scatter of rows about a law, in log units, before it is known: 5 %.
pub(crate) const SIGMA0: f64 = 0.05;
/// Gauss-Newton steps of the inner problem.
const INNER_STEPS: usize = 40;

/// One observation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) case: Case,
    /// Measured value, > 0.
    pub(crate) value: f64,
    /// Relative standard uncertainty of the measurement, where known.
    pub(crate) relative_std: Option<f64>,
}

/// A fit's data, ready for the search.
pub(crate) struct Problem<'a> {
    pub(crate) skeleton: &'a Skeleton,
    /// Rows x terms, without fitted powers.
    products: DMatrix<f64>,
    /// Logs of what fitted powers stand on: one column per symbol of [`Symbol::SCALABLE`].
    ln_bases: Vec<Vec<f64>>,
    ln_y: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    /// Per term, its fitted powers as (column of `ln_bases`, exponent).
    scalings: Vec<Vec<(usize, usize)>>,
    /// What is believed of the parameters beforehand.
    pub(crate) belief: Belief,
    /// A coefficient that is held, for its profile.
    pub(crate) pinned: Option<(usize, f64)>,
    /// Rows of one configuration and workload share a number.
    pub(crate) repeats: Vec<usize>,
    /// Huber knee in log units; infinite for plain least squares.
    pub(crate) knee: f64,
    /// Log residual that a prior of one standard deviation is worth: what the rows scatter by, once that is known.
    pub(crate) sigma: f64,
    /// Coefficients of the last evaluation: the warm start of the next.
    warm: RefCell<Option<DVector<f64>>>,
}

/// The inner minimum at one set of exponents.
#[derive(Debug, Clone)]
pub(crate) struct Inner {
    pub(crate) coefficients: DVector<f64>,
    /// Design matrix at these exponents.
    pub(crate) design: DMatrix<f64>,
    /// Predictions.
    pub(crate) fitted: Vec<f64>,
    /// `ln fitted - ln y`.
    pub(crate) residuals: Vec<f64>,
    /// `w_i` times the Huber weight.
    pub(crate) weights: Vec<f64>,
    /// The objective.
    pub(crate) loss: f64,
}

impl<'a> Problem<'a> {
    pub(crate) fn new(skeleton: &'a Skeleton, observations: &[Observation]) -> Self {
        let n = observations.len();
        let mut products = DMatrix::zeros(n, skeleton.terms.len());
        for (i, o) in observations.iter().enumerate() {
            for (j, v) in skeleton.products(&o.case).into_iter().enumerate() {
                products[(i, j)] = v;
            }
        }
        // A measurement known to 5 % weighs half of a perfect one: the law itself is not better than that.
        let weight = |o: &Observation| o.relative_std.map_or(1.0, |s| 1.0 / (1.0 + (s / SIGMA0).powi(2)));
        let column = |symbol: Symbol| Symbol::SCALABLE.iter().position(|s| *s == symbol);
        let scalings = skeleton
            .terms
            .iter()
            .map(|term| skeleton.scalings(term).filter_map(|(symbol, j)| Some((column(symbol)?, j))).collect())
            .collect();
        let logs = |symbol: &Symbol| observations.iter().map(|o| o.case.value(*symbol).ln()).collect();
        Self {
            skeleton,
            products,
            ln_bases: Symbol::SCALABLE.iter().map(logs).collect(),
            ln_y: observations.iter().map(|o| o.value.ln()).collect(),
            weights: observations.iter().map(weight).collect(),
            scalings,
            belief: Belief::of(skeleton),
            pinned: None,
            repeats: repeats(observations),
            knee: f64::INFINITY,
            sigma: SIGMA0,
            warm: RefCell::new(None),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.ln_y.len()
    }

    /// Whether the data says anything about exponent `j`: some term that uses it is non-zero on rows that differ in what
    /// the power stands on.
    pub(crate) fn exponent_is_observable(&self, j: usize) -> bool {
        let varies = |logs: &[f64], rows: &[usize]| {
            let mut values = rows.iter().filter_map(|i| logs.get(*i));
            values.next().is_some_and(|first| values.any(|v| (v - first).abs() > 1e-12))
        };
        self.scalings.iter().enumerate().any(|(term, scalings)| {
            let rows: Vec<usize> = (0..self.rows()).filter(|i| self.products[(*i, term)] > 0.0).collect();
            scalings.iter().any(|(base, exponent)| *exponent == j && varies(&self.ln_bases[*base], &rows))
        })
    }

    /// Whether term `j` is non-zero on any row.
    pub(crate) fn term_is_observable(&self, j: usize) -> bool {
        self.products.column(j).iter().any(|v| *v > 0.0)
    }

    fn design(&self, exponents: &[f64]) -> DMatrix<f64> {
        DMatrix::from_fn(self.rows(), self.skeleton.terms.len(), |i, term| {
            let log: f64 = self.scalings[term].iter().map(|(base, j)| exponents[*j] * self.ln_bases[*base][i]).sum();
            self.products[(i, term)] * if log == 0.0 { 1.0 } else { log.exp() }
        })
    }

    fn huber_weight(&self, r: f64) -> f64 {
        if r.abs() <= self.knee { 1.0 } else { self.knee / r.abs() }
    }

    fn rho(&self, r: f64) -> f64 {
        if r.abs() <= self.knee { r * r } else { self.knee * (2.0 * r.abs() - self.knee) }
    }

    fn residuals(&self, design: &DMatrix<f64>, k: &DVector<f64>, exponents: &[f64]) -> (Vec<f64>, Vec<f64>, f64) {
        let fitted: Vec<f64> = (design * k).iter().map(|f| f.max(f64::MIN_POSITIVE)).collect();
        let residuals: Vec<f64> = fitted.iter().zip(&self.ln_y).map(|(f, y)| f.ln() - y).collect();
        let misfit: f64 = residuals.iter().zip(&self.weights).map(|(r, w)| w * self.rho(*r)).sum();
        let loss = misfit + self.sigma * self.sigma * self.belief.surprise(k, exponents);
        (fitted, residuals, loss)
    }

    /// One weighted non-negative least-squares problem: rows `A_i v_i`, right-hand side `target_i v_i`.
    fn solve(
        &self,
        design: &DMatrix<f64>,
        exponents: &[f64],
        rows: impl Fn(usize) -> (f64, f64),
        start: &[bool],
    ) -> DVector<f64> {
        let (weights, targets): (Vec<f64>, Vec<f64>) =
            (0..design.nrows()).map(rows).map(|(v, target)| (v * v, target)).unzip();
        let mut weighted = design.clone();
        for mut column in weighted.column_iter_mut() {
            column.iter_mut().zip(&weights).for_each(|(d, v2)| *d *= v2);
        }
        // Columns are contiguous: dot products over them are much cheaper than one pass over the rows.
        let terms = design.ncols();
        let mut gram = DMatrix::zeros(terms, terms);
        for a in 0..terms {
            for b in 0..=a {
                gram[(a, b)] = weighted.column(a).dot(&design.column(b));
                gram[(b, a)] = gram[(a, b)];
            }
        }
        let mut rhs = weighted.tr_mul(&DVector::from_vec(targets));
        self.belief.add_to(&mut gram, &mut rhs, exponents, self.sigma * self.sigma);
        let Some((held, value)) = self.pinned else { return nnls(&gram, &rhs, start) };
        rhs -= gram.column(held) * value;
        gram.row_mut(held).fill(0.0);
        gram.column_mut(held).fill(0.0);
        rhs[held] = 0.0;
        let mut k = nnls(&gram, &rhs, start);
        k[held] = value;
        k
    }

    /// Minimises over the coefficients at fixed exponents.
    pub(crate) fn inner(&self, exponents: &[f64]) -> Inner {
        let design = self.design(exponents);
        let relative = |start: &[bool]| {
            self.solve(&design, exponents, |i| (self.weights[i].sqrt() / self.ln_y[i].exp(), self.ln_y[i].exp()), start)
        };
        let mut k = self.warm.borrow().clone().unwrap_or_else(|| relative(&[]));
        if let Some((held, value)) = self.pinned {
            k[held] = value;
        }
        let (mut fitted, mut residuals, mut loss) = self.residuals(&design, &k, exponents);
        // A warm start from far away can be worse than none.
        if !loss.is_finite() || residuals.iter().any(|r| r.abs() > 1.0) {
            k = relative(&[]);
            (fitted, residuals, loss) = self.residuals(&design, &k, exponents);
        }
        for _ in 0..INNER_STEPS {
            let positive: Vec<bool> = k.iter().map(|v| *v > 0.0).collect();
            // ln f + (A dk)/f: linear in k. Far-off rows are pulled by at most a factor e at a time.
            let step = self.solve(
                &design,
                exponents,
                |i| {
                    let r = residuals[i];
                    let bounded = r.clamp(-1.0, 0.9);
                    // The pull of a bounded row stays what the objective's is, or the steps would end beside the minimum.
                    let pull = if bounded == r { 1.0 } else { r / bounded };
                    ((self.weights[i] * self.huber_weight(r) * pull).sqrt() / fitted[i], fitted[i] * (1.0 - bounded))
                },
                &positive,
            );
            let mut length = 1.0;
            let mut next = (step.clone(), self.residuals(&design, &step, exponents));
            while next.1.2 > loss && length > 1e-3 {
                length *= 0.5;
                let shorter = &k + (&step - &k) * length;
                next = (shorter.clone(), self.residuals(&design, &shorter, exponents));
            }
            let gain = loss - next.1.2;
            if gain.is_nan() || gain <= 0.0 {
                break;
            }
            k = next.0;
            (fitted, residuals, loss) = next.1;
            if gain <= 1e-14 * loss {
                break;
            }
        }
        *self.warm.borrow_mut() = Some(k.clone());
        let weights = residuals.iter().zip(&self.weights).map(|(r, w)| w * self.huber_weight(*r)).collect();
        Inner { coefficients: k, design, fitted, residuals, weights, loss }
    }

    /// Forgets the warm start, so that an evaluation depends on its argument alone.
    pub(crate) fn cold(&self) {
        *self.warm.borrow_mut() = None;
    }

    /// Objective and its gradient by the exponents.
    pub(crate) fn objective(&self, exponents: &[f64]) -> (f64, Vec<f64>) {
        let inner = self.inner(exponents);
        let mut gradient = vec![0.0; exponents.len()];
        for i in 0..self.rows() {
            let pull = 2.0 * inner.weights[i] * inner.residuals[i] / inner.fitted[i];
            for (term, scalings) in self.scalings.iter().enumerate() {
                let share = pull * inner.coefficients[term] * inner.design[(i, term)];
                for (base, j) in scalings {
                    gradient[*j] += share * self.ln_bases[*base][i];
                }
            }
        }
        let strength = 2.0 * self.sigma * self.sigma;
        let pull = self.belief.pull(&inner.coefficients, exponents);
        gradient.iter_mut().zip(pull).for_each(|(g, p)| *g += strength * p);
        (inner.loss, gradient)
    }

    /// `d ln f_i / d exponent_j` at the inner minimum.
    pub(crate) fn exponent_sensitivity(&self, inner: &Inner, i: usize, j: usize) -> f64 {
        let terms = self.scalings.iter().enumerate();
        let sum: f64 = terms
            .map(|(term, scalings)| {
                let uses = scalings.iter().filter(|(_, exponent)| *exponent == j);
                let logs: f64 = uses.map(|(base, _)| self.ln_bases[*base][i]).sum();
                inner.coefficients[term] * inner.design[(i, term)] * logs
            })
            .sum();
        sum / inner.fitted[i]
    }
}

/// A number per row, the same for rows that ask the same of the law.
fn repeats(observations: &[Observation]) -> Vec<usize> {
    let mut numbers = std::collections::BTreeMap::new();
    let key = |c: &Case| {
        let numbers = [
            c.tensor_parallel,
            c.pipeline_parallel,
            c.data_parallel,
            c.batch_size,
            c.input_tokens,
            c.output_tokens,
            c.active_params,
            c.weight_bytes,
        ];
        (c.phase.as_str(), numbers.map(f64::to_bits))
    };
    observations
        .iter()
        .map(|o| {
            let next = numbers.len();
            *numbers.entry(key(&o.case)).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;
    use crate::law::Target;

    #[test]
    fn the_gradient_agrees_with_central_differences() {
        let skeleton = Skeleton::default_for(Target::EnergyJ);
        let observations = synthetic::observations(&skeleton, 50, 0.1, 7);
        for knee in [f64::INFINITY, 0.08] {
            let mut problem = Problem::new(&skeleton, &observations);
            problem.knee = knee;
            let at = [0.2, -0.3, 0.4, 0.1];
            problem.cold();
            let (_, gradient) = problem.objective(&at);
            for j in 0..4 {
                let moved = |h: f64| {
                    let mut a = at;
                    a[j] += h;
                    problem.cold();
                    problem.objective(&a).0
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((gradient[j] - numeric).abs() < 1e-4 * (1.0 + numeric.abs()), "{j}: {} {numeric}", gradient[j]);
            }
        }
    }
}
