//! Accuracy against the number of rows learnt from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ValidateOptions, Validation, validate, validate_against};
use crate::dataset::Dataset;
use crate::fit::Error;
use crate::fit::stats::Figures;

/// Accuracy from so many rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Rows learnt from, per law.
    pub training_rows: usize,
    /// Figures by predictor, for those that could be fitted.
    pub figures: BTreeMap<String, Figures>,
}

/// Accuracy of every predictor against the number of rows learnt from. The held-out rows are the same at every size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LearningCurve {
    /// How rows were divided, in words.
    pub scheme: String,
    /// Seed.
    pub seed: u64,
    /// Whether any row was simulated.
    pub simulated: bool,
    /// What was left out to come to an end.
    pub notes: Vec<String>,
    /// Predictors, in the order asked.
    pub predictors: Vec<String>,
    /// One per size, ascending.
    pub points: Vec<CurvePoint>,
}

/// Validates at each of `sizes` training rows per law. Sizes beyond what there is to learn from are left out.
pub fn learning_curve(
    dataset: &Dataset,
    sizes: &[usize],
    options: &ValidateOptions<'_>,
) -> Result<LearningCurve, Error> {
    curve(&|options| validate(dataset, options), sizes, options)
}

/// The same for predictors that learn from rows of `learnt` and are judged on all of `unseen`: a sweep laid out for
/// fitting has each workload once, so that it offers no choice between configurations, and another may.
pub fn learning_curve_against(
    learnt: &Dataset,
    unseen: &Dataset,
    sizes: &[usize],
    options: &ValidateOptions<'_>,
) -> Result<LearningCurve, Error> {
    curve(&|options| validate_against(learnt, unseen, options), sizes, options)
}

fn curve(
    validate: &dyn Fn(&ValidateOptions<'_>) -> Result<Validation, Error>,
    sizes: &[usize],
    options: &ValidateOptions<'_>,
) -> Result<LearningCurve, Error> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let count = sizes.len();
    let mut at: Vec<(usize, Validation)> = Vec::new();
    for (i, size) in sizes.into_iter().enumerate() {
        let progress = |done: usize, total: usize| (options.progress)(i * total + done, count * total);
        let options = ValidateOptions { training_rows: Some(size), progress: &progress, ..options.clone() };
        let validation = validate(&options)?;
        // Rows of fewer laws do not compare with those of all.
        let laws = |v: &Validation| v.rows;
        if at.last().is_some_and(|(_, before)| laws(before) > laws(&validation)) {
            break;
        }
        // Asked for more, learnt from no more than before: the rows are used up.
        if at.last().is_some_and(|(_, before)| before.training_rows_min == validation.training_rows_min) {
            break;
        }
        at.push((size, validation));
        if (options.stop)() {
            break;
        }
    }
    let Some((_, first)) = at.first() else {
        let found = "no number of training rows was asked for".to_owned();
        return Err(Error::NothingToHoldOut { scheme: options.scheme.to_string(), found });
    };
    Ok(LearningCurve {
        scheme: first.scheme.clone(),
        seed: first.seed,
        simulated: first.simulated,
        notes: first.notes.clone(),
        predictors: first.scores.iter().map(|s| s.predictor.clone()).collect(),
        points: at
            .into_iter()
            .map(|(training_rows, validation)| CurvePoint {
                training_rows,
                figures: validation.scores.into_iter().filter_map(|s| Some((s.predictor, s.figures?))).collect(),
            })
            .collect(),
    })
}
