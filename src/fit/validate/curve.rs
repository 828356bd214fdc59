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
    /// Rows that a law learnt from, the most of all laws and splits: the size that was asked for, or all there are.
    pub training_rows: usize,
    /// The fewest of all laws and splits: less where some law has no more.
    pub training_rows_min: usize,
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
    /// What was left out to come to an end, and sizes that there are no rows for.
    pub notes: Vec<String>,
    /// Predictors, in the order asked.
    pub predictors: Vec<String>,
    /// One per size, ascending.
    pub points: Vec<CurvePoint>,
}

/// Validates at each of `sizes` training rows per law. In place of sizes that no law has rows for stands one point of all
/// there are, under their true number, and a note says so.
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
    let asked = sizes.clone();
    let mut at: Vec<Validation> = Vec::new();
    let mut most = None;
    for (i, size) in sizes.into_iter().enumerate() {
        let progress = |done: usize, total: usize| (options.progress)(i * total + done, count * total);
        let options = ValidateOptions { training_rows: Some(size), progress: &progress, ..options.clone() };
        let validation = validate(&options)?;
        // Rows of fewer laws do not compare with those of all.
        if at.last().is_some_and(|before| before.rows > validation.rows) {
            break;
        }
        let learnt = learnt_from(&validation);
        let is_used_up = learnt.1 < size;
        if is_used_up {
            most = Some(learnt);
        }
        if at.last().is_none_or(|before| learnt_from(before) != learnt) {
            at.push(validation);
        }
        if is_used_up || (options.stop)() {
            break;
        }
    }
    let Some(first) = at.first() else {
        let found = "no number of training rows was asked for".to_owned();
        return Err(Error::NothingToHoldOut { scheme: options.scheme.to_string(), found });
    };
    let mut notes = first.notes.clone();
    notes.extend(most.map(|most| unreached(&asked, most)));
    Ok(LearningCurve {
        scheme: first.scheme.clone(),
        seed: first.seed,
        simulated: first.simulated,
        notes,
        predictors: first.scores.iter().map(|s| s.predictor.clone()).collect(),
        points: at
            .into_iter()
            .map(|validation| CurvePoint {
                training_rows: validation.training_rows_per_law_max,
                training_rows_min: validation.training_rows_per_law_min,
                figures: validation.scores.into_iter().filter_map(|s| Some((s.predictor, s.figures?))).collect(),
            })
            .collect(),
    })
}

impl CurvePoint {
    /// The rows learnt from, in words.
    pub fn learnt(&self) -> String {
        span((self.training_rows_min, self.training_rows))
    }
}

fn learnt_from(validation: &Validation) -> (usize, usize) {
    (validation.training_rows_per_law_min, validation.training_rows_per_law_max)
}

fn span((low, high): (usize, usize)) -> String {
    if low == high { high.to_string() } else { format!("{low} to {high}") }
}

/// Which of the sizes there are no rows for.
fn unreached(asked: &[usize], most: (usize, usize)) -> String {
    let missing: Vec<String> = asked.iter().filter(|size| **size > most.1).map(usize::to_string).collect();
    let sizes = missing.join(", ");
    let (law, all) = (if missing.len() == 1 { "is" } else { "are" }, span(most));
    format!("{sizes} rows {law} more than any law has to learn from: the last point is of all there are, {all}")
}
