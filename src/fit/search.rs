//! The bounded search over the exponents: L-BFGS-B from several seeded starts.

use std::convert::Infallible;

use basin::{
    BoxBounds, ConstraintDescription, ConstraintSet, Constraints, CostFunction, Executor, FirstOrderState, Gradient,
    Lbfgsb,
};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::problem::Problem;

/// Iterations of one start; four dimensions need a few dozen.
const MAX_ITERATIONS: u64 = 200;
/// Random points that compete for the starts.
const SCOUTS: usize = 24;
/// Starts are the prior and the best scouts.
const STARTS: usize = 5;
/// Projected gradient at which a descent has arrived.
const GRADIENT_TOLERANCE: f64 = 1e-7;
/// Objectives that agree to this (relative) are the same minimum.
const SAME_MINIMUM: f64 = 1e-4;

/// Where the search ended.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) exponents: Vec<f64>,
    pub(crate) agreeing_starts: usize,
    pub(crate) starts: usize,
    /// Why the best start did not converge, if it did not.
    pub(crate) trouble: Option<String>,
}

/// What a start led to.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Objective.
    pub(crate) value: f64,
    pub(crate) x: Vec<f64>,
    /// Why it did not converge, if it did not.
    pub(crate) trouble: Option<String>,
}

/// A function with its gradient in a box, as the optimiser wants it.
struct Boxed<'a, F> {
    objective: &'a F,
    low: Vec<f64>,
    high: Vec<f64>,
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> CostFunction for Boxed<'_, F> {
    type Param = Vec<f64>;
    type Output = f64;
    type Error = Infallible;
    fn cost(&self, x: &Vec<f64>) -> Result<f64, Infallible> {
        Ok((self.objective)(x).0)
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Gradient for Boxed<'_, F> {
    type Gradient = Vec<f64>;
    fn gradient(&self, x: &Vec<f64>) -> Result<Vec<f64>, Infallible> {
        Ok((self.objective)(x).1)
    }
    fn cost_and_gradient(&self, x: &Vec<f64>) -> Result<(f64, Vec<f64>), Infallible> {
        Ok((self.objective)(x))
    }
}

impl<F> Constraints for Boxed<'_, F> {
    type Set = ConstraintSet<BoxBounds<Vec<f64>>>;
    fn constraints(&self) -> <Self::Set as ConstraintDescription>::Borrowed<'_> {
        ConstraintSet::new().with_bounds(BoxBounds::new(Some(&self.low), Some(&self.high)))
    }
}

/// One descent by L-BFGS-B. `objective` gives the value and the gradient.
pub(crate) fn minimise<F>(objective: &F, start: Vec<f64>, low: &[f64], high: &[f64]) -> End
where
    F: Fn(&[f64]) -> (f64, Vec<f64>),
{
    let solver = Lbfgsb::new().with_absolute_projected_gradient_tolerance(GRADIENT_TOLERANCE);
    let function = Boxed { objective, low: low.to_vec(), high: high.to_vec() };
    let run = Executor::new(function, solver, FirstOrderState::new(start.clone())).max_iter(MAX_ITERATIONS).run();
    let (x, trouble) = match run {
        Ok(result) => {
            let converged = matches!(result.report.termination, basin::Termination::Converged(_));
            (result.param().clone(), (!converged).then(|| "the line search made no further progress".to_owned()))
        }
        Err(error) => (start, Some(format!("the optimiser failed: {error}"))),
    };
    let (value, gradient) = objective(&x);
    // A stall at the noise floor of the inner problem is an end all the same.
    let steep = x.iter().zip(&gradient).zip(low.iter().zip(high)).any(|((x, g), (l, h))| {
        let clipped = if *g > 0.0 { g.min(x - l) } else { g.max(x - h) };
        clipped.abs() > 1e-4 * (1.0 + value)
    });
    End { value, x, trouble: trouble.filter(|_| steep) }
}

/// One descent of `problem` over the exponents in `free`, from `start` (all exponents; those not free stay there).
pub(crate) fn descend(problem: &Problem<'_>, free: &[usize], start: &[f64]) -> End {
    let specs = &problem.skeleton.exponents;
    let low: Vec<f64> = free.iter().map(|j| specs[*j].low).collect();
    let high: Vec<f64> = free.iter().map(|j| specs[*j].high).collect();
    let all = |x: &[f64]| -> Vec<f64> {
        let mut all = start.to_vec();
        free.iter().zip(x).for_each(|(j, v)| all[*j] = *v);
        all
    };
    problem.cold();
    if free.is_empty() {
        return End { value: problem.inner(start).loss, x: start.to_vec(), trouble: None };
    }
    let objective = |x: &[f64]| {
        let (value, gradient) = problem.objective(&all(x));
        (value, free.iter().map(|j| gradient[*j]).collect())
    };
    let begin = free.iter().zip(low.iter().zip(&high)).map(|(j, (l, h))| start[*j].clamp(*l, *h)).collect();
    let end = minimise(&objective, begin, &low, &high);
    End { x: all(&end.x), ..end }
}

/// Minimises `problem` over the exponents in `free`; `hint` is one more start (a neighbouring fit), and with it the
/// scouts are skipped.
pub(crate) fn search(problem: &Problem<'_>, free: &[usize], seed: u64, hint: Option<&[f64]>) -> Found {
    let specs = &problem.skeleton.exponents;
    let prior: Vec<f64> =
        (0..specs.len()).map(|j| problem.belief.exponent(j).clamp(specs[j].low, specs[j].high)).collect();
    if free.is_empty() {
        return Found { exponents: prior, agreeing_starts: 1, starts: 1, trouble: None };
    }
    let mut starts = vec![prior.clone()];
    match hint {
        Some(hint) => {
            let mut near = prior.clone();
            free.iter().for_each(|j| near[*j] = hint[*j]);
            starts.insert(0, near);
        }
        None => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut scouts: Vec<(f64, Vec<f64>)> = (0..SCOUTS)
                .map(|_| {
                    let mut x = prior.clone();
                    free.iter().for_each(|j| x[*j] = rng.random_range(specs[*j].low..specs[*j].high));
                    problem.cold();
                    (problem.inner(&x).loss, x)
                })
                .collect();
            scouts.sort_by(|a, b| a.0.total_cmp(&b.0));
            starts.extend(scouts.into_iter().take(STARTS - 1).map(|(_, x)| x));
        }
    }
    let mut ends: Vec<End> = starts.iter().map(|start| descend(problem, free, start)).collect();
    ends.sort_by(|a, b| a.value.total_cmp(&b.value));
    let starts = ends.len();
    let best = ends.first().map_or(f64::INFINITY, |e| e.value);
    let agreeing_starts = ends.iter().filter(|e| e.value - best <= SAME_MINIMUM * best.abs().max(1e-12)).count();
    match ends.into_iter().next() {
        Some(end) => Found { exponents: end.x, agreeing_starts, starts, trouble: end.trouble },
        None => Found { exponents: prior, agreeing_starts, starts, trouble: Some("there was no start".to_owned()) },
    }
}

#[cfg(test)]
mod tests;
