//! How good is a prediction on rows that were never fitted?
//!
//! Start at [`validate`]. Every figure here is of held-out rows: a predictor learns from the rows on one side of a
//! [`Split`], is handed the rows of the other side with everything that was measured on them taken away ([`question`]),
//! and its answers are compared afterwards. The one exception is the latency-optimal rule, which by definition looks at
//! measured latencies, and is labelled so.
//!
//! Limits: rows of one node on one day share what the node did that day, so held-out rows of the same campaign say
//! nothing of another node; and figures from few groups are coarse (one group in twenty is 5 %).

mod curve;
mod held_out;
mod parity;
mod table;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::baselines::{Context, Estimate, Predictor};
use super::split::{self, Scheme, Split};
use super::stats::{self, Figures, Outcome};
use super::{Error, group, prior_is_elsewhere};
use crate::dataset::{Dataset, RejectedRow, Row};
use crate::law::{HeldOut, Model, Pool, Skeleton, Target};

pub use curve::{CurvePoint, LearningCurve, learning_curve, learning_curve_against};
pub use held_out::{HeldOutRows, attach_held_out};
pub use parity::HeldOutRow;

/// Rows that a law learns from unless told otherwise: ten times what it needs, and what trees can take in seconds.
const MOST_TRAINING_ROWS: usize = 1000;

/// How to validate.
#[derive(Clone)]
pub struct ValidateOptions<'a> {
    /// How rows are divided.
    pub scheme: Scheme,
    /// Seed of folds, draws and fits.
    pub seed: u64,
    /// Most rows to learn from, per law; `None` for all of the training side.
    pub training_rows: Option<usize>,
    /// One law per scenario, or one for all models of a platform.
    pub pool: Pool,
    /// What to judge; empty for everything that suits the scheme.
    pub predictors: Vec<Predictor>,
    /// Structure of the law; `None` for the energylens law.
    pub skeleton: Option<Skeleton>,
    /// Laws of another platform from which the law starts. They must not have seen any of the rows.
    pub prior: Option<Arc<Model>>,
    /// What is predicted. Regressions and trees learn any target; models of others know energy alone.
    pub target: Target,
    /// Relative repeat noise; `None` to estimate it from exact repeats.
    pub noise: Option<f64>,
    /// Threads; `None` for one per core. Results do not depend on it.
    pub threads: Option<usize>,
    /// Asked before each further law whether to end here; figures are then of the laws judged until then.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told after each piece of work: pieces done, pieces in all.
    pub progress: &'a dyn Fn(usize, usize),
}

impl Default for ValidateOptions<'_> {
    fn default() -> Self {
        Self {
            scheme: Scheme::default(),
            seed: 0,
            training_rows: None,
            pool: Pool::None,
            predictors: Vec::new(),
            skeleton: None,
            prior: None,
            target: Target::EnergyJ,
            noise: None,
            threads: None,
            stop: &|| false,
            progress: &|_, _| {},
        }
    }
}

/// Where the tolerance of the tolerant Top-1 comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSource {
    /// The caller said so.
    Given,
    /// Estimated from exact repeats among the rows.
    Repeats,
    /// Neither: the default.
    Default,
}

/// How one predictor did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Name.
    pub predictor: String,
    /// Its figures; `None` where it could not be fitted at all.
    pub figures: Option<Figures>,
    /// Why it is absent, or what it could not answer.
    pub note: Option<String>,
    /// Whether it looked at measured latencies of the held-out rows.
    pub sees_held_out_latency: bool,
}

/// Accuracy of every predictor on the same held-out rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// How rows were divided, in words.
    pub scheme: String,
    /// What was predicted.
    pub target: Target,
    /// Its unit: that of [`predictions`](Self::predictions).
    pub unit: &'static str,
    /// Seed.
    pub seed: u64,
    /// One law per scenario, or pooled.
    pub pool: Pool,
    /// Whether any row was simulated.
    pub simulated: bool,
    /// Splits.
    pub splits: usize,
    /// Rows learnt from: the smallest split.
    pub training_rows_min: usize,
    /// Rows learnt from: the largest split.
    pub training_rows_max: usize,
    /// Rows that one law learnt from: the fewest of all laws and splits.
    pub training_rows_per_law_min: usize,
    /// Rows that one law learnt from: the most.
    pub training_rows_per_law_max: usize,
    /// Laws among which those rows are divided (scenarios or platforms).
    pub scopes: usize,
    /// Held-out rows over all splits.
    pub rows: usize,
    /// Rows that could not take part, those that the dataset refused among them.
    pub refused: usize,
    /// The others of these, with reasons.
    #[serde(skip)]
    pub rejected: Vec<RejectedRow>,
    /// Held-out groups with more than one configuration.
    pub groups: usize,
    /// Relative repeat noise that the tolerant Top-1 allows.
    pub noise: f64,
    /// Where it comes from.
    pub noise_source: NoiseSource,
    /// Share of groups whose fastest configuration is not the one of least energy; `None` without durations.
    pub optima_differ: Option<f64>,
    /// One per predictor, in the order asked.
    pub scores: Vec<Score>,
    /// The law's held-out predictions, if it was among the predictors.
    pub predictions: Vec<HeldOutRow>,
    /// What was left out to come to an end.
    pub notes: Vec<String>,
}

impl Validation {
    /// The figures of one predictor.
    pub fn figures(&self, predictor: Predictor) -> Option<&Figures> {
        self.scores.iter().find(|s| s.predictor == predictor.as_str())?.figures.as_ref()
    }

    /// Why no predictor has a figure; `None` where one has.
    pub fn nothing_judged(&self) -> Option<String> {
        let reason = |s: &Score| format!("{}: {}", s.predictor, s.note.as_deref().unwrap_or("no answer"));
        let reasons: Vec<String> = self.scores.iter().map(reason).collect();
        self.scores.iter().all(|s| s.figures.is_none()).then(|| reasons.join("; "))
    }

    /// The figures as they stand in a model file.
    pub fn summary(&self) -> HeldOut {
        held_out::summary(self, None)
    }
}

/// The row as a question: its configuration, without anything that was measured.
pub fn question(row: &Row) -> Row {
    Row {
        energy_j: None,
        energy_j_std: None,
        duration_s: None,
        mean_ttft_s: None,
        mean_tpot_s: None,
        run_id: String::new(),
        quality: Vec::new(),
        ..row.clone()
    }
}

/// Judges predictors on rows that they did not learn from.
pub fn validate(dataset: &Dataset, options: &ValidateOptions<'_>) -> Result<Validation, Error> {
    let usable = Usable::of(dataset, options)?;
    let splits = split::splits(&usable.rows, &usable.units, options.scheme, options.pool, options.seed)?;
    let most = options.training_rows.unwrap_or(MOST_TRAINING_ROWS);
    let before: usize = splits.iter().map(|s| s.train().len()).sum();
    let capped = splits.into_iter().zip(options.seed..);
    let splits: Vec<Split> =
        capped.map(|(s, seed)| s.with_training_rows(most, &usable.units, &usable.scopes, seed)).collect();
    let drawn = splits.iter().map(|s| s.train().len()).sum::<usize>() < before;
    let mut validation = judge(&usable, &splits, options.scheme.to_string(), options);
    if drawn && options.training_rows.is_none() {
        validation.notes.push(format!("each law learns from at most {most} rows, drawn evenly over the workloads"));
    }
    Ok(validation)
}

/// Judges predictors that learn from `learnt`, all of it unless the options say how many rows, on all of `unseen`. A
/// workload that stands in both is refused.
pub fn validate_against(
    learnt: &Dataset,
    unseen: &Dataset,
    options: &ValidateOptions<'_>,
) -> Result<Validation, Error> {
    let offset = learnt.rows.iter().map(|r| r.line).max().unwrap_or(0);
    let moved = unseen.rows.iter().map(|r| Row { line: r.line + offset, ..r.clone() });
    let together = Dataset { rows: learnt.rows.iter().cloned().chain(moved).collect(), ..Dataset::default() };
    let mut usable = Usable::of(&together, options)?;
    usable.refused += learnt.rejected.len() + unseen.rejected.len();
    usable.rejected.iter_mut().filter(|r| r.line > offset).for_each(|r| r.line -= offset);
    let (train, test) = (0..usable.rows.len()).partition(|i| usable.rows[*i].line <= offset);
    let mut split = split::Split::new(train, test, &usable.units)?;
    if let Some(most) = options.training_rows {
        split = split.with_training_rows(most, &usable.units, &usable.scopes, options.seed);
    }
    Ok(judge(&usable, &[split], "workloads of a campaign of their own".to_owned(), options))
}

/// Rows that may take part, with what splits and predictors need to know of them.
struct Usable {
    rows: Vec<Row>,
    units: Vec<usize>,
    scopes: Vec<String>,
    context: Context,
    simulated: bool,
    refused: usize,
    rejected: Vec<RejectedRow>,
}

impl Usable {
    fn of(dataset: &Dataset, options: &ValidateOptions<'_>) -> Result<Self, Error> {
        let (found, rejected) = group::groups_for(dataset, options.pool, &[options.target])?;
        let simulated = found.iter().any(|g| g.simulated);
        let mut rows: Vec<Row> = found.into_iter().flat_map(|g| g.rows).collect();
        rows.retain(|row| group::target_value(row, options.target).is_some());
        rows.sort_by_key(|r| r.line);
        if let Some(prior) = &options.prior {
            prior_is_elsewhere(prior, &rows)?;
        }
        let context = Context {
            pool: options.pool,
            across_hardware: options.scheme == Scheme::Hardware,
            seed: options.seed,
            skeleton: options.skeleton.clone(),
            prior: options.prior.clone(),
            target: options.target,
        };
        // A first token does not wait for those behind it: batches of the same prompts measure it again.
        let until_first_token = |row: &Row| Row { output_tokens: 1.0, ..row.clone() };
        let units = match options.target {
            Target::MeanTtftS => split::units(&rows.iter().map(until_first_token).collect::<Vec<_>>()),
            _ => split::units(&rows),
        };
        Ok(Self {
            units,
            scopes: rows.iter().map(|r| context.scope(r)).collect(),
            refused: rejected.len() + dataset.rejected.len(),
            rejected,
            rows,
            context,
            simulated,
        })
    }
}

fn judge(usable: &Usable, splits: &[split::Split], scheme: String, options: &ValidateOptions<'_>) -> Validation {
    let Usable { rows, scopes, context, .. } = usable;
    let predictors = if options.predictors.is_empty() {
        Predictor::suitable(options.scheme, options.target)
    } else {
        options.predictors.clone()
    };

    let work::Answered { answers, judged: is_judged, laws } =
        work::answers(rows, scopes, splits, &predictors, context, options);

    let groups = split::choice_groups(rows);
    let held_out: Vec<usize> = splits.iter().flat_map(|s| s.test().iter().copied()).collect();
    let value = |row: &Row| group::target_value(row, options.target);
    let (noise, noise_source) = match (options.noise, stats::repeat_noise(rows, &value)) {
        (Some(noise), _) => (noise, NoiseSource::Given),
        (None, Some(noise)) => (noise, NoiseSource::Repeats),
        (None, None) => (stats::DEFAULT_NOISE, NoiseSource::Default),
    };
    let asked: Vec<Option<(usize, &Row)>> = held_out
        .iter()
        .zip(&is_judged)
        .map(|(i, judged)| Some((*groups.get(*i)?, rows.get(*i)?)).filter(|_| *judged))
        .collect();
    let judged: Vec<(usize, &Row)> = asked.iter().copied().flatten().collect();
    let outcomes = |answers: &[Option<Estimate>]| -> Vec<Outcome> {
        let pairs = asked.iter().zip(answers);
        pairs
            .filter_map(|(asked, estimate)| {
                let (group, row) = asked.as_ref()?;
                Some(Outcome {
                    group: *group,
                    configuration: stats::configuration(row),
                    measured: value(row)?,
                    predicted: estimate.map(|e| e.value),
                    interval: estimate.and_then(|e| e.interval),
                })
            })
            .collect()
    };
    let scores = predictors.iter().zip(&answers).map(|(predictor, answers)| {
        let figures = stats::figures(&outcomes(&answers.estimates), predictor.scale(), noise);
        let unanswered = judged.len() - figures.rows;
        let note = match (&answers.trouble, unanswered) {
            (Some(reason), _) if figures.rows == 0 => Some(reason.clone()),
            (None, _) if figures.rows == 0 => Some("no answer for any held-out row".to_owned()),
            (Some(reason), n) => Some(format!("{n} rows unanswered: {reason}")),
            (None, n) if n > 0 => Some(format!("{n} rows unanswered")),
            (None, _) => None,
        };
        Score {
            predictor: predictor.to_string(),
            note,
            sees_held_out_latency: predictor.sees_held_out_latency(),
            figures: (figures.rows > 0).then_some(figures),
        }
    });
    let law = predictors.iter().position(|p| *p == Predictor::Law).and_then(|i| answers.get(i));
    let predictions = law.map_or_else(Vec::new, |law| parity::parity(&asked, &law.estimates, &value));
    let (training_rows_per_law_min, training_rows_per_law_max) = rows_per_law(splits, scopes);
    let scopes = scopes.iter().collect::<BTreeSet<_>>().len();
    let cut = judged.len() < held_out.len();
    let note =
        || format!("stopped early: {laws} of {scopes} laws were judged, drawn at random; the figures are of those");
    let training = |fold: fn(usize, usize) -> usize, from| splits.iter().map(|s| s.train().len()).fold(from, fold);
    Validation {
        scheme,
        target: options.target,
        unit: options.target.unit(),
        seed: options.seed,
        pool: options.pool,
        simulated: usable.simulated,
        splits: splits.len(),
        training_rows_min: training(usize::min, usize::MAX),
        training_rows_max: training(usize::max, 0),
        training_rows_per_law_min,
        training_rows_per_law_max,
        scopes,
        rows: judged.len(),
        refused: usable.refused,
        rejected: usable.rejected.clone(),
        groups: choices(&judged),
        noise,
        noise_source,
        optima_differ: (options.target == Target::EnergyJ).then(|| stats::optima_differ(&judged)).flatten(),
        scores: scores.collect(),
        predictions,
        notes: cut.then(note).into_iter().collect(),
    }
}

/// The fewest and the most rows that one law learns from.
fn rows_per_law(splits: &[Split], scopes: &[String]) -> (usize, usize) {
    let of_split = |split: &Split| {
        let mut rows: BTreeMap<&String, usize> = BTreeMap::new();
        split.train().iter().filter_map(|i| scopes.get(*i)).for_each(|scope| *rows.entry(scope).or_default() += 1);
        rows.into_values().collect::<Vec<usize>>()
    };
    let rows: Vec<usize> = splits.iter().flat_map(of_split).collect();
    (rows.iter().copied().min().unwrap_or(0), rows.iter().copied().max().unwrap_or(0))
}

/// Groups with more than one configuration.
fn choices(judged: &[(usize, &Row)]) -> usize {
    let mut configurations: std::collections::BTreeMap<usize, std::collections::BTreeSet<_>> = Default::default();
    for (group, row) in judged {
        configurations.entry(*group).or_default().insert(stats::configuration(row));
    }
    configurations.values().filter(|c| c.len() > 1).count()
}

#[cfg(test)]
mod tests;
