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

/// The objective over the free exponents; the others stay at their prior.
struct Free<'a, 'b> {
    problem: &'a Problem<'b>,
    free: &'a [usize],
    held: Vec<f64>,
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Free<'_, '_> {
    fn all(&self, x: &[f64]) -> Vec<f64> {
        let mut all = self.held.clone();
        self.free.iter().zip(x).for_each(|(j, v)| all[*j] = *v);
        all
    }

    fn evaluate(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let (value, gradient) = self.problem.objective(&self.all(x));
        (value, self.free.iter().map(|j| gradient[*j]).collect())
    }
}

impl CostFunction for Free<'_, '_> {
    type Param = Vec<f64>;
    type Output = f64;
    type Error = Infallible;
    fn cost(&self, x: &Vec<f64>) -> Result<f64, Infallible> {
        Ok(self.evaluate(x).0)
    }
}

impl Gradient for Free<'_, '_> {
    type Gradient = Vec<f64>;
    fn gradient(&self, x: &Vec<f64>) -> Result<Vec<f64>, Infallible> {
        Ok(self.evaluate(x).1)
    }
}

impl Constraints for Free<'_, '_> {
    type Set = ConstraintSet<BoxBounds<Vec<f64>>>;
    fn constraints(&self) -> <Self::Set as ConstraintDescription>::Borrowed<'_> {
        ConstraintSet::new().with_bounds(BoxBounds::new(Some(&self.low), Some(&self.high)))
    }
}

/// Minimises `problem` over the exponents in `free`; `hint` is one more start (a neighbouring fit), and with it the
/// scouts are skipped.
pub(crate) fn search(problem: &Problem<'_>, free: &[usize], seed: u64, hint: Option<&[f64]>) -> Found {
    let specs = &problem.skeleton.exponents;
    let prior: Vec<f64> = specs.iter().map(|e| e.prior).collect();
    let pick = |values: &[f64]| -> Vec<f64> { free.iter().map(|j| values[*j]).collect() };
    let low: Vec<f64> = free.iter().map(|j| specs[*j].low).collect();
    let high: Vec<f64> = free.iter().map(|j| specs[*j].high).collect();
    if free.is_empty() {
        return Found { exponents: prior, agreeing_starts: 1, starts: 1, trouble: None };
    }
    let function = || Free { problem, free, held: prior.clone(), low: low.clone(), high: high.clone() };
    let evaluator = function();
    let mut starts = vec![pick(&prior)];
    match hint {
        Some(hint) => starts.insert(0, pick(hint)),
        None => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut scouts: Vec<(f64, Vec<f64>)> = (0..SCOUTS)
                .map(|_| {
                    let x: Vec<f64> = low.iter().zip(&high).map(|(l, h)| rng.random_range(*l..*h)).collect();
                    problem.cold();
                    (evaluator.evaluate(&x).0, x)
                })
                .collect();
            scouts.sort_by(|a, b| a.0.total_cmp(&b.0));
            starts.extend(scouts.into_iter().take(STARTS - 1).map(|(_, x)| x));
        }
    }
    let mut ends: Vec<(f64, Vec<f64>, Option<String>)> = Vec::with_capacity(starts.len());
    for start in starts {
        problem.cold();
        let solver = Lbfgsb::new().with_absolute_projected_gradient_tolerance(1e-7);
        let run = Executor::new(function(), solver, FirstOrderState::new(start.clone())).max_iter(MAX_ITERATIONS).run();
        let (x, trouble) = match run {
            Ok(result) => {
                let converged = matches!(result.report.termination, basin::Termination::Converged(_));
                (result.param().clone(), (!converged).then(|| "the line search made no further progress".to_owned()))
            }
            Err(error) => (start, Some(format!("the optimiser failed: {error}"))),
        };
        problem.cold();
        let (value, gradient) = evaluator.evaluate(&x);
        // A stall at the noise floor of the inner problem is an end all the same.
        let steep = x.iter().zip(&gradient).zip(low.iter().zip(&high)).any(|((x, g), (l, h))| {
            let clipped = if *g > 0.0 { g.min(x - l) } else { g.max(x - h) };
            clipped.abs() > 1e-4 * (1.0 + value)
        });
        ends.push((value, x, trouble.filter(|_| steep)));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let starts = ends.len();
    let best = ends.first().map_or(f64::INFINITY, |e| e.0);
    let agreeing_starts = ends.iter().filter(|e| e.0 - best <= SAME_MINIMUM * best.abs().max(1e-12)).count();
    let (_, x, trouble) = ends.into_iter().next().unwrap_or((best, pick(&prior), None));
    Found { exponents: evaluator.all(&x), agreeing_starts, starts, trouble }
}
