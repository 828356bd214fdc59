//! Which law explains the data, and how well?
//!
//! Start at [`fit_model`]: rows in, a [`Model`] out, one law per scenario and target (or per platform, with
//! [`Pool::Models`]). Inside, `problem` is the objective, `search` the bounded minimisation over the exponents with the
//! coefficients projected out, `inference` what may be believed of the result.
//!
//! Limits: intervals are first order (delta method) and assume that rows err independently; a law fitted on one scenario
//! says nothing of another; and a training error is never an accuracy figure, which is why `validate` exists.

pub mod baselines;
mod belief;
pub mod discover;
mod group;
mod inference;
mod intervals;
mod left_out;
mod nnls;
mod problem;
mod search;
pub mod split;
pub mod stats;
#[cfg(test)]
mod synthetic;
mod transfer;
pub mod validate;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, RejectedRow};
use crate::law::{Domain, Intervals, Law, MODEL_FORMAT, Model, Pool, Skeleton, Symbol, Target, Training, Verdict};
use crate::schema::Phase;
use belief::Belief;
use group::Group;
use problem::{Observation, Problem};
use search::{Found, search};

pub use baselines::Predictor;
pub use transfer::prior_is_elsewhere;
pub use validate::{ValidateOptions, Validation, attach_held_out, validate, validate_against};

/// Median absolute deviations at which a residual starts to count linearly.
const KNEE: f64 = 3.0;
/// The knee before anything is known of the spread: a row that is off by a factor 1.5 is off for a reason of its own.
const FIRST_KNEE: f64 = 0.4;
/// Rounds of estimating the spread and refining; three wild rows in sixty need two.
const REFINEMENTS: usize = 4;
/// A knee that shrinks by less has settled.
const SETTLED: f64 = 0.8;
/// Residuals below this (log units) are never treated as outliers: measurements repeat to a few per cent at best.
const SMALLEST_KNEE: f64 = 0.06;
/// Range of the scatter that weighs the priors: a perfect fit of few rows is luck, a terrible one no licence. Energies
/// repeat to some 3 % at best.
const SMALLEST_SIGMA: f64 = 0.03;
/// See [`SMALLEST_SIGMA`].
const LARGEST_SIGMA: f64 = 0.2;
/// A median absolute deviation times this is a standard deviation, for normal errors.
const MAD_TO_SIGMA: f64 = 1.4826;
/// Fewest rows from which anything is fitted.
pub const MIN_ROWS: usize = 4;

/// What to fit, and how.
#[derive(Debug, Clone)]
pub struct FitOptions {
    /// One law per scenario, or one for all models of a platform.
    pub pool: Pool,
    /// Seed of the search's starts.
    pub seed: u64,
    /// Quantities to fit; those that the rows do not carry are left out, energy excepted.
    pub targets: Vec<Target>,
    /// The structure for energy or for times, in place of the built-in one.
    pub skeleton: Option<Skeleton>,
    /// How the intervals of parameters are made.
    pub intervals: Intervals,
    /// Laws of another platform to start from: ten rows are then enough.
    pub prior: Option<Arc<Model>>,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            pool: Pool::None,
            seed: 0,
            targets: Target::ALL.to_vec(),
            skeleton: None,
            intervals: Intervals::FirstOrder,
            prior: None,
        }
    }
}

/// A model, and the rows that could not be used for it.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The model.
    pub model: Model,
    /// Rows refused by the fit, beside those that the dataset had refused already.
    pub refused: Vec<RejectedRow>,
}

/// Why nothing could be fitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not enough usable rows in any scenario.
    #[error(
        "no scenario has the {MIN_ROWS} usable rows that a fit needs at least; {found}; measure more configurations"
    )]
    TooFewRows {
        /// What was found, in words.
        found: String,
    },
    /// Measured and simulated rows in one scenario.
    #[error("{scope} has both measured and simulated rows; fit them apart, or remove one kind")]
    MixedSources {
        /// Where.
        scope: String,
    },
    /// The prior has no law to start from.
    #[error("the prior has no law of {target} that could be carried over to {scope}; it has {found}")]
    NoPrior {
        /// What is to be fitted.
        scope: String,
        /// Which quantity.
        target: Target,
        /// What the prior has.
        found: String,
    },
    /// The prior was fitted to these very rows.
    #[error(
        "the prior was fitted to these very rows (sha256 {sha256}), which would count twice; expected a prior of another platform"
    )]
    PriorOfTheseRows {
        /// Digest of the rows.
        sha256: String,
    },
    /// The prior knows the platform that held-out figures are to be of.
    #[error(
        "the prior has a law of {law}, the model and platform of row {line}: it may have seen what is to be held out; expected a prior of another platform"
    )]
    PriorOfThisPlatform {
        /// Which law.
        law: String,
        /// Line of the row.
        line: usize,
    },
    /// A split of rows would learn from what it is judged on, or has an empty side.
    #[error("a split of rows is not clean: {problem}")]
    Leak {
        /// Which row, and why.
        problem: String,
    },
    /// A structure was given for a quantity that no law was fitted of.
    #[error(
        "the skeleton `{skeleton}` predicts {target}, which too few rows carry or --target leaves out; add the column, or leave the skeleton out"
    )]
    UnusedSkeleton {
        /// Its name.
        skeleton: String,
        /// What it predicts.
        target: Target,
    },
    /// The rows cannot be divided as asked.
    #[error("nothing can be held out by `{scheme}`: {found}")]
    NothingToHoldOut {
        /// How rows were to be divided.
        scheme: String,
        /// What was found.
        found: String,
    },
}

/// Fits laws to the rows of `dataset`.
///
/// Rows of the phase `decode` are left out where the run's `total` row is there: they are a difference of rows already
/// in use. Rows with quality reasons, without energy, or of models of which too little is known (pooled) are refused and
/// listed.
pub fn fit_model(dataset: &Dataset, options: &FitOptions) -> Result<Fitted, Error> {
    let sha256 = digest(dataset);
    if options.prior.as_ref().is_some_and(|prior| prior.training.sha256 == sha256) {
        return Err(Error::PriorOfTheseRows { sha256 });
    }
    let (groups, mut refused) = group::groups_for(dataset, options.pool, &options.targets)?;
    let unusable = refused.len();
    let mut laws = Vec::new();
    let usable: usize = groups.iter().map(|g| g.rows.len()).sum();
    let (large, small): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| g.rows.len() >= MIN_ROWS);
    for group in &small {
        let reason = format!("{} has {} usable rows; a fit needs {MIN_ROWS} at least", group.scope(), group.rows.len());
        refused.extend(group.rows.iter().map(|r| RejectedRow { line: r.line, column: None, reason: reason.clone() }));
    }
    for group in &large {
        for target in Target::ALL.iter().filter(|t| options.targets.contains(t)) {
            let given = options.skeleton.as_ref().and_then(|skeleton| skeleton.serving(*target));
            let skeleton = given.unwrap_or_else(|| Skeleton::default_for(*target));
            laws.extend(fit_law_with(group, skeleton, options)?);
        }
    }
    if let Some(skeleton) = &options.skeleton
        && !laws.is_empty()
        && !laws.iter().any(|law: &Law| skeleton.serving(law.skeleton.target).is_some())
    {
        return Err(Error::UnusedSkeleton { skeleton: skeleton.name.clone(), target: skeleton.target });
    }
    if laws.is_empty() {
        let found = format!(
            "found {usable} usable in {} of model, GPU, engine and precision, {unusable} refused",
            match small.len() {
                1 => "1 combination".to_owned(),
                n => format!("{n} combinations"),
            }
        );
        return Err(Error::TooFewRows { found });
    }
    let model = Model {
        format: MODEL_FORMAT.to_owned(),
        energylens_version: env!("CARGO_PKG_VERSION").to_owned(),
        pool: options.pool,
        training: Training {
            rows: large.iter().map(|g| g.rows.len()).sum(),
            rejected: refused.len() + dataset.rejected.len(),
            sha256,
            seed: options.seed,
        },
        laws,
        scenarios: large.into_iter().flat_map(|g| g.scenarios).collect(),
        survival: None,
    };
    Ok(Fitted { model, refused })
}

/// As [`fit_law_with`], by default.
#[cfg(test)]
fn fit_law(group: &Group, skeleton: Skeleton, seed: u64) -> Option<Law> {
    fit_law_with(group, skeleton, &FitOptions { seed, ..FitOptions::default() }).ok().flatten()
}

/// Fits one law to one group; `None` when the group has too few rows that carry the target.
fn fit_law_with(group: &Group, skeleton: Skeleton, options: &FitOptions) -> Result<Option<Law>, Error> {
    let seed = options.seed;
    let (observations, lines): (Vec<Observation>, Vec<usize>) = group.observations(skeleton.target).into_iter().unzip();
    if observations.len() < MIN_ROWS {
        return Ok(None);
    }
    let started = match options.prior.as_ref().map(|prior| transfer::belief(prior, group, &skeleton)).transpose() {
        // A prior is asked for the sake of energy; times are fitted without one where it has none.
        Err(Error::NoPrior { .. }) if skeleton.target != Target::EnergyJ && options.targets.len() > 1 => None,
        other => other?,
    };
    let (belief, prior) = started.unzip();
    let skeleton = group.priced(skeleton);
    let how = How { seed, hint: None, belief, intervals: options.intervals, leaves_out: true };
    let core = fit_core_with(&skeleton, &observations, &lines, &how);
    let mut verdicts = core.inference.verdicts;
    verdicts.extend(inference::residual_structure(&observations, &core.residuals));
    verdicts.extend(group.without_card().map(|model| Verdict::NoCard { model }));
    let sigma_model_log =
        if group.model.is_none() { group::between_models(&skeleton, group, seed, &core.exponents) } else { 0.0 };
    let mape = core.residuals.iter().map(|r| (r.exp() - 1.0).abs()).sum::<f64>() / observations.len() as f64;
    Ok(Some(Law {
        model: group.model.clone(),
        gpu_model: group.gpu_model.clone(),
        engine: group.engine.clone(),
        precision: group.precision.clone(),
        simulated: group.simulated,
        coefficients: core.inference.coefficients,
        exponents: core.inference.exponents,
        covariance: core.inference.covariance,
        sigma_log: core.inference.sigma_log,
        scatter: core.inference.scatter,
        sigma_model_log,
        degrees_of_freedom: core.inference.degrees_of_freedom,
        rows: observations.len(),
        training_mape: mape,
        domain: domain(&observations),
        fitted_models: group.models(),
        verdicts,
        held_out: None,
        intervals: options.intervals,
        prior,
        skeleton,
    }))
}

/// What the search and the inference leave behind.
struct Core {
    exponents: Vec<f64>,
    coefficients: Vec<f64>,
    residuals: Vec<f64>,
    inference: inference::Inference,
}

/// Several starts with a wide knee first; then the knee and the weight of the priors are set from the spread of the
/// residuals and the best minimum is refined with them until the spread stays, so that a few bad rows cannot bend the
/// law and priors speak only where the rows are silent.
fn fit_core(
    skeleton: &Skeleton,
    observations: &[Observation],
    lines: &[usize],
    seed: u64,
    hint: Option<&[f64]>,
) -> Core {
    fit_core_with(
        skeleton,
        observations,
        lines,
        &How { seed, hint, belief: None, intervals: Intervals::FirstOrder, leaves_out: false },
    )
}

/// What a fit needs besides rows and structure.
struct How<'a> {
    seed: u64,
    /// Exponents of a neighbouring fit.
    hint: Option<&'a [f64]>,
    /// What is believed instead of the skeleton's priors.
    belief: Option<Belief>,
    intervals: Intervals,
    /// Whether the scatter is that of rows left out of refits; else that of the fitted ones.
    leaves_out: bool,
}

fn fit_core_with(skeleton: &Skeleton, observations: &[Observation], lines: &[usize], how: &How<'_>) -> Core {
    let (seed, hint) = (how.seed, how.hint);
    let mut problem = Problem::new(skeleton, observations);
    let free: Vec<usize> = (0..skeleton.exponents.len()).filter(|j| problem.exponent_is_observable(*j)).collect();
    if let Some(belief) = &how.belief {
        problem.belief = belief.clone();
    }
    problem.knee = FIRST_KNEE;
    let mut found = search(&problem, &free, seed, hint);
    for _ in 0..REFINEMENTS {
        problem.cold();
        let spread = MAD_TO_SIGMA * median_abs(&problem.inner(&found.exponents).residuals);
        let before = problem.knee;
        problem.knee = (KNEE * spread).max(SMALLEST_KNEE);
        problem.sigma = spread.clamp(SMALLEST_SIGMA, LARGEST_SIGMA);
        let refined = search(&problem, &free, seed, Some(&found.exponents));
        found = Found { agreeing_starts: found.agreeing_starts, starts: found.starts, ..refined };
        if problem.knee > SETTLED * before {
            break;
        }
    }
    problem.cold();
    let inner = problem.inner(&found.exponents);
    let left_out = how.leaves_out.then(|| left_out::refit(&problem, observations, &found, &free)).flatten();
    let mut inference = inference::infer(&problem, &found, &inner, &free, lines, left_out.as_ref());
    match how.intervals {
        Intervals::FirstOrder => {}
        Intervals::Profile => intervals::profile(&mut problem, &found, &free, &mut inference),
        Intervals::Bootstrap => intervals::bootstrap(&problem, observations, &found, &free, seed, &mut inference),
    }
    Core {
        exponents: found.exponents,
        coefficients: inner.coefficients.iter().copied().collect(),
        residuals: inner.residuals,
        inference,
    }
}

fn median_abs(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().map(|v| v.abs()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn domain(observations: &[Observation]) -> std::collections::BTreeMap<String, Domain> {
    let range = |s: Symbol| {
        // A prefill stops at its first token, whatever its request asked for.
        let seen = |o: &Observation| if o.case.phase == Phase::Prefill { o.case.with_output(1.0) } else { o.case };
        let values = observations.iter().map(|o| seen(o).value(s));
        let fold = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        Domain { low: fold.0, high: fold.1 }
    };
    let asked = [
        Symbol::TensorParallel,
        Symbol::PipelineParallel,
        Symbol::Batch,
        Symbol::Input,
        Symbol::Output,
        Symbol::Waves,
        Symbol::ActiveParams,
    ];
    asked.into_iter().map(|s| (s.as_str().to_owned(), range(s))).collect()
}

/// SHA-256 over the rows as JSON: two models with one digest were fitted to the same numbers.
fn digest(dataset: &Dataset) -> String {
    let mut hasher = Sha256::new();
    for row in &dataset.rows {
        hasher.update(serde_json::to_vec(row).unwrap_or_default());
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
