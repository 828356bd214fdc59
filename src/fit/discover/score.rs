//! What a candidate is worth: its error on rows that it was not fitted to, over folds of whole workloads.

use super::genome::Genome;
use super::ground::{FOLDS, Ground, Scope};
use super::kernel::{Form, Numbers, rho};

/// Log error from which a held-out row counts linearly: one wild row must not choose the law.
const SCORE_KNEE: f64 = 0.25;

/// Rows to learn from and rows held out.
type Fold = (Vec<usize>, Vec<usize>);

/// The folds of every scope for one dealing.
pub(super) struct Dealing {
    /// Per scope, fold by fold.
    folds: Vec<Vec<Fold>>,
    all: Vec<Vec<usize>>,
}

impl Dealing {
    pub(super) fn new(ground: &Ground, seed: u64) -> Self {
        let deal = |scope: &Scope| {
            let folds = scope.folds(seed);
            let side = |fold: usize| (0..folds.len()).partition(|i| folds.get(*i) != Some(&fold));
            let sides = (0..FOLDS).map(side);
            sides.filter(|(learn, held): &Fold| !held.is_empty() && !learn.is_empty()).collect()
        };
        Self {
            folds: ground.scopes.iter().map(deal).collect(),
            all: ground.scopes.iter().map(|s| (0..s.rows()).collect()).collect(),
        }
    }
}

/// A fit to all rows, scope by scope, and what it leaves unexplained.
pub(super) struct Trained {
    pub(super) numbers: Vec<Numbers>,
    /// Mean robust squared log error of the rows fitted.
    pub(super) error: f64,
}

/// Fits a candidate to all rows.
pub(super) fn train(ground: &Ground, genome: &Genome, dealing: &Dealing) -> Trained {
    let mut sum = 0.0;
    let fit = |(scope, rows): (&Scope, &Vec<usize>)| {
        let form = Form::new(ground, scope, genome);
        let numbers = form.fit(rows);
        sum += form.residuals(&numbers, rows).iter().map(|r| rho(*r, SCORE_KNEE)).sum::<f64>();
        numbers
    };
    let numbers = ground.scopes.iter().zip(&dealing.all).map(fit).collect();
    Trained { numbers, error: sum / ground.rows().max(1) as f64 }
}

/// Held-out log errors: one list per scope, in the order of its rows.
pub(super) fn held_out(ground: &Ground, genome: &Genome, dealing: &Dealing, numbers: &[Numbers]) -> Vec<Vec<f64>> {
    let judge = |((scope, folds), near): ((&Scope, &Vec<Fold>), &Numbers)| {
        let form = Form::new(ground, scope, genome);
        let mut errors = vec![0.0; scope.rows()];
        for (learn, held) in folds {
            let numbers = form.refit(learn, near);
            for (i, r) in held.iter().zip(form.residuals(&numbers, held)) {
                if let Some(slot) = errors.get_mut(*i) {
                    *slot = r;
                }
            }
        }
        errors
    };
    ground.scopes.iter().zip(&dealing.folds).zip(numbers).map(judge).collect()
}

/// Mean robust squared log error.
pub(super) fn mean_square(errors: &[Vec<f64>]) -> f64 {
    let rows = errors.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    errors.iter().flatten().map(|r| rho(*r, SCORE_KNEE)).sum::<f64>() / rows
}
