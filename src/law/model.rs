//! A fitted law, and the file that carries laws with everything needed to use them elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::case::{Case, Symbol};
use super::resolve::{Descriptors, ResolveError, memory_kv_capacity};
use super::skeleton::{Skeleton, SkeletonError, Target};
use crate::card::{GpuCard, ModelCard};
use crate::dataset::Row;

/// Version of the model file.
pub const MODEL_FORMAT: &str = "energylens-model/1";

/// Probability that a stated prediction interval holds the truth.
const PREDICTION_LEVEL: f64 = 0.90;

/// One set of numbers for one scenario, or for all models of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// One law per scenario.
    None,
    /// One law per platform, carried from model to model by their cards.
    Models,
}

/// A fitted coefficient with its 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coefficient {
    /// Name, as in the skeleton.
    pub name: String,
    /// Value, >= 0, in the skeleton's unit.
    pub value: f64,
    /// Standard error; `None` where the coefficient sits at its limit or the data does not determine it.
    pub std_error: Option<f64>,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Unit.
    pub unit: String,
}

/// A fitted exponent with its 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exponent {
    /// Name, as in the skeleton.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Standard error; `None` where the exponent sits at a limit or the data does not determine it.
    pub std_error: Option<f64>,
    /// Lower end of the interval, within the exponent's box.
    pub low: f64,
    /// Upper end of the interval, within the exponent's box.
    pub high: f64,
}

/// One thing a reader must know before believing a fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The search ended at a minimum that several starts agree on.
    Converged {
        /// Starts that ended there.
        agreeing_starts: usize,
        /// Starts in all.
        starts: usize,
    },
    /// The search ended without meeting its tolerance.
    NotConverged {
        /// What the optimiser said.
        reason: String,
    },
    /// A parameter sits at the end of its box; its interval is one-sided.
    AtLimit {
        /// Which.
        parameter: String,
        /// The limit, as text.
        limit: String,
    },
    /// The data does not determine a parameter; it is held at its prior.
    Unidentified {
        /// Which.
        parameter: String,
        /// Why, and what to measure.
        why: String,
    },
    /// Standard error above the value itself: the term may be absent.
    WeaklyDetermined {
        /// Which.
        parameter: String,
    },
    /// Fewer rows than a trustworthy fit needs.
    TooFewRows {
        /// Rows.
        rows: usize,
        /// Parameters.
        parameters: usize,
    },
    /// Residuals depend on something the law does not know.
    ResidualStructure {
        /// On what.
        along: String,
    },
    /// Rows far off the law that were given little weight.
    Outliers {
        /// How many.
        count: usize,
        /// Lines of the worst, at most five.
        lines: Vec<usize>,
    },
    /// Placeholders stand where the model card should.
    NoCard {
        /// The model.
        model: String,
    },
}

impl Verdict {
    /// Whether the verdict is good news.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Converged { .. })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Converged { agreeing_starts, starts } => {
                write!(f, "converged: {agreeing_starts} of {starts} starts end at the same minimum")
            }
            Self::NotConverged { reason } => write!(f, "NOT CONVERGED: {reason}"),
            Self::AtLimit { parameter, limit } => {
                write!(f, "AT LIMIT: {parameter} sits at {limit}; its interval is one-sided")
            }
            Self::Unidentified { parameter, why } => write!(f, "UNIDENTIFIED: {parameter}: {why}"),
            Self::WeaklyDetermined { parameter } => {
                write!(f, "weakly determined: {parameter} is smaller than its standard error")
            }
            Self::TooFewRows { rows, parameters } => {
                write!(f, "TOO FEW ROWS: {rows} rows for {parameters} parameters; some 50 are advised")
            }
            Self::ResidualStructure { along } => {
                write!(f, "RESIDUAL STRUCTURE along {along}: the law misses something there")
            }
            Self::Outliers { count, lines } => {
                let lines: Vec<_> = lines.iter().map(usize::to_string).collect();
                write!(f, "outliers: {count} rows got little weight (worst: row {})", lines.join(", "))
            }
            Self::NoCard { model } => write!(
                f,
                "NO CARD: nothing is known of model `{model}`; its law holds for this scenario alone and ignores the KV cache's capacity"
            ),
        }
    }
}

/// The measured range of one symbol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
}

/// Accuracy on rows that were not fitted, beside the trivial rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// How rows were split, in words.
    pub scheme: String,
    /// Seed of the split.
    pub seed: u64,
    /// Rows in each training part, smallest.
    pub training_rows: usize,
    /// Each predictor by name, with its figures by name (`mape`, `top1`, `top1_tolerant`, `regret`, `pairwise`).
    pub figures: BTreeMap<String, BTreeMap<String, f64>>,
    /// Groups in which there was more than one configuration to choose from.
    pub groups: usize,
}

/// A skeleton with fitted numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Law {
    /// The structure.
    pub skeleton: Skeleton,
    /// The model it holds for; `None` for all models of the platform.
    pub model: Option<String>,
    /// The GPU it holds for.
    pub gpu_model: String,
    /// The engine it holds for, where known.
    pub engine: Option<String>,
    /// The precision it holds for, where known.
    pub precision: Option<String>,
    /// Whether the rows were simulated.
    pub simulated: bool,
    /// Coefficients, in the skeleton's order.
    pub coefficients: Vec<Coefficient>,
    /// Exponents, in the skeleton's order.
    pub exponents: Vec<Exponent>,
    /// Covariance of all parameters, coefficients first; rows and columns of parameters that are held are zero.
    pub covariance: Vec<Vec<f64>>,
    /// Standard deviation of the log residuals of one row, corrected for fitted parameters.
    pub sigma_log: f64,
    /// Standard deviation of the log offset of a whole model that was never fitted; 0 unless pooled.
    pub sigma_model_log: f64,
    /// Degrees of freedom of `sigma_log`.
    pub degrees_of_freedom: f64,
    /// Rows fitted.
    pub rows: usize,
    /// Mean absolute percentage error on the fitted rows: *not* an accuracy figure; see [`HeldOut`].
    pub training_mape: f64,
    /// Measured range per symbol.
    pub domain: BTreeMap<String, Domain>,
    /// Models among the fitted rows.
    pub fitted_models: Vec<String>,
    /// What to know before believing it.
    pub verdicts: Vec<Verdict>,
    /// Accuracy on held-out rows, where it was computed.
    pub held_out: Option<HeldOut>,
}

/// A predicted value with its 90 % interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Point prediction, in the target's unit.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Standard deviation of the log of the prediction.
    pub std_log: f64,
    /// Symbols whose value lies outside what was measured; empty inside the domain.
    pub outside: Vec<String>,
}

/// What the file knows of one model on one platform, besides the law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Model.
    pub model: String,
    /// Architecture label, where known.
    pub architecture: Option<String>,
    /// GPU.
    pub gpu_model: String,
    /// Engine.
    pub engine: Option<String>,
    /// Precision.
    pub precision: Option<String>,
    /// Card numbers.
    pub descriptors: Descriptors,
    /// Memory of one GPU, bytes, where known.
    pub gpu_memory_bytes: Option<f64>,
    /// Share of memory that weights and cache were seen to use, from measured capacities.
    pub memory_utilisation: Option<f64>,
    /// Measured capacities: tensor_parallel, pipeline_parallel, tokens.
    pub kv_capacity_tokens: Vec<(u32, u32, f64)>,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Rows fitted.
    pub rows: usize,
    /// Rows refused.
    pub rejected: usize,
    /// SHA-256 of the rows, hex.
    pub sha256: String,
    /// Seed of the starts.
    pub seed: u64,
}

/// The model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// [`MODEL_FORMAT`].
    pub format: String,
    /// Version of energylens that wrote it.
    pub energylens_version: String,
    /// Pooled or not.
    pub pool: Pool,
    /// Where it came from.
    pub training: Training,
    /// Laws.
    pub laws: Vec<Law>,
    /// Facts per scenario.
    pub scenarios: Vec<Scenario>,
}

/// Why a model file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("model file {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Not a model file.
    #[error("{path} is no energylens model: {problem}")]
    NotAModel {
        /// File.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The skeleton in it is wrong.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// No law for what was asked.
    #[error("the model has no law of {target} for {asked}; it knows {known}")]
    NoLaw {
        /// What was asked.
        asked: String,
        /// Which quantity.
        target: Target,
        /// What there is.
        known: String,
    },
    /// The configuration is incomplete.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Law {
    /// Fitted coefficients, bare.
    pub fn coefficient_values(&self) -> Vec<f64> {
        self.coefficients.iter().map(|c| c.value).collect()
    }

    /// Fitted exponents, bare.
    pub fn exponent_values(&self) -> Vec<f64> {
        self.exponents.iter().map(|e| e.value).collect()
    }

    /// What each term contributes; the sum is the prediction.
    pub fn contributions(&self, case: &Case) -> Vec<f64> {
        self.skeleton.contributions(&self.coefficient_values(), &self.exponent_values(), case)
    }

    /// Prediction for `case`. `known_model` says whether the model was among the fitted ones; a stranger's interval
    /// also holds what models differ by.
    ///
    /// With `g = d ln f / d parameters`, the variance of the log is `g' C g + sigma^2 (+ sigma_model^2)`.
    pub fn predict(&self, case: &Case, known_model: bool) -> Prediction {
        let contributions = self.contributions(case);
        let value: f64 = contributions.iter().sum();
        let gradient = self.log_gradient(case, &contributions, value);
        let parameter_variance: f64 = gradient
            .iter()
            .zip(&self.covariance)
            .map(|(gi, row)| gi * row.iter().zip(&gradient).map(|(c, gj)| c * gj).sum::<f64>())
            .sum();
        let model_variance = if known_model { 0.0 } else { self.sigma_model_log.powi(2) };
        let variance = parameter_variance.max(0.0) + self.sigma_log.powi(2) + model_variance;
        let std_log = variance.sqrt();
        let reach = (quantile(PREDICTION_LEVEL, self.degrees_of_freedom) * std_log).exp();
        Prediction { value, low: value / reach, high: value * reach, std_log, outside: self.outside(case) }
    }

    /// `d ln f / d parameter`, coefficients first.
    pub(crate) fn log_gradient(&self, case: &Case, contributions: &[f64], value: f64) -> Vec<f64> {
        let products = self.skeleton.products(case);
        let exponents = self.exponent_values();
        let mut gradient: Vec<f64> = self
            .skeleton
            .terms
            .iter()
            .zip(&products)
            .map(|(term, product)| product * self.skeleton.scale(term, &exponents, case) / value)
            .collect();
        let mut by_exponent = vec![0.0; exponents.len()];
        for (term, contribution) in self.skeleton.terms.iter().zip(contributions) {
            for symbol in [Symbol::TensorParallel, Symbol::PipelineParallel] {
                if let Some(slot) = self.skeleton.exponent_index(term, symbol).and_then(|j| by_exponent.get_mut(j)) {
                    *slot += contribution * case.value(symbol).ln() / value;
                }
            }
        }
        gradient.extend(by_exponent);
        gradient.iter_mut().filter(|g| !g.is_finite()).for_each(|g| *g = 0.0);
        gradient
    }

    /// Symbols whose value lies outside what was measured, with 0.1 % slack for rounding.
    pub fn outside(&self, case: &Case) -> Vec<String> {
        Symbol::ALL
            .iter()
            .filter(|s| !(s.is_card() && self.model.is_some()))
            .filter_map(|s| {
                let domain = self.domain.get(s.as_str())?;
                let v = case.value(*s);
                let slack = 1e-3 * domain.high.abs();
                let name = s.as_str();
                if v < domain.low - slack {
                    Some(format!("{name} = {} is below {}", short(v), short(domain.low)))
                } else if v > domain.high + slack {
                    Some(format!("{name} = {} is above {}", short(v), short(domain.high)))
                } else {
                    None
                }
            })
            .collect()
    }

    /// The scenario or platform it holds for, in words.
    pub fn scope(&self) -> String {
        let mut scope = self.model.clone().unwrap_or_else(|| "all models".to_owned());
        for part in [Some(&self.gpu_model), self.engine.as_ref(), self.precision.as_ref()].into_iter().flatten() {
            scope.push_str(" / ");
            scope.push_str(part);
        }
        scope
    }
}

/// Four significant digits.
fn short(v: f64) -> String {
    if v.abs() >= 1e6 || (v != 0.0 && v.abs() < 1e-3) {
        format!("{v:.3e}")
    } else {
        format!("{}", (v * 1e3).round() / 1e3)
    }
}

/// Two-sided Student quantile; the normal one where degrees of freedom are beyond count.
pub(crate) fn quantile(level: f64, degrees_of_freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, degrees_of_freedom.clamp(1.0, 1e6)).map_or(1.96, |t| t.inverse_cdf(0.5 + level / 2.0))
}

impl Scenario {
    /// KV capacity at the row's degrees: the row's own, else measured at the same degrees, else from memory.
    pub fn kv_capacity(&self, row: &Row) -> Option<f64> {
        let measured = || {
            self.kv_capacity_tokens
                .iter()
                .find(|(t, p, _)| (*t, *p) == (row.tensor_parallel, row.pipeline_parallel))
                .map(|(_, _, tokens)| *tokens)
        };
        let from_memory = || {
            memory_kv_capacity(
                &self.descriptors,
                row.gpu_memory_bytes.or(self.gpu_memory_bytes)?,
                f64::from(row.tensor_parallel),
                f64::from(row.pipeline_parallel),
                self.memory_utilisation,
            )
        };
        row.kv_capacity_tokens.or_else(measured).or_else(from_memory)
    }

    /// The case of a row of this scenario.
    pub fn case(&self, row: &Row) -> Result<Case, ResolveError> {
        self.descriptors.case(row, self.kv_capacity(row))
    }

    /// A scenario for a model that the file does not know, from the row's columns or the built-in card.
    pub fn of_stranger(row: &Row) -> Result<Self, ResolveError> {
        let card = ModelCard::builtin(&row.model);
        let gpu = GpuCard::builtin(&row.gpu_model);
        Ok(Self {
            model: row.model.clone(),
            architecture: row.architecture.clone().or(card.as_ref().map(|c| c.architecture.to_string())),
            gpu_model: row.gpu_model.clone(),
            engine: row.engine.clone(),
            precision: row.precision.clone(),
            descriptors: Descriptors::from_row(row, card.as_ref())?,
            gpu_memory_bytes: row.gpu_memory_bytes.or(gpu.map(|g| g.memory_bytes)),
            memory_utilisation: None,
            kv_capacity_tokens: Vec::new(),
        })
    }

    fn matches(&self, row: &Row) -> bool {
        self.model == row.model && platform_matches(row, &self.gpu_model, &self.engine, &self.precision)
    }
}

/// A row that leaves engine or precision open matches any; one that names them must agree where the law does too.
fn platform_matches(row: &Row, gpu_model: &str, engine: &Option<String>, precision: &Option<String>) -> bool {
    let agrees = |asked: &Option<String>, known: &Option<String>| match (asked, known) {
        (Some(a), Some(k)) => a.eq_ignore_ascii_case(k),
        _ => true,
    };
    row.gpu_model.eq_ignore_ascii_case(gpu_model) && agrees(&row.engine, engine) && agrees(&row.precision, precision)
}

impl Model {
    /// Reads and checks a model file. Any bytes give a model or an error, never a panic.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let not = |problem: String| Error::NotAModel { path: path.to_owned(), problem };
        let format = serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_err(|e| not(format!("not JSON: {e}")))?
            .get("format")
            .and_then(|v| v.as_str().map(str::to_owned));
        match format.as_deref() {
            Some(MODEL_FORMAT) => {}
            Some(other) => return Err(not(format!("its format is `{other}`, expected `{MODEL_FORMAT}`"))),
            None => return Err(not(format!("it has no `format`, expected `{MODEL_FORMAT}`"))),
        }
        let model: Self = serde_json::from_slice(&bytes).map_err(|e| not(e.to_string()))?;
        for law in &model.laws {
            law.skeleton.check()?;
            let parameters = law.skeleton.parameter_count();
            let square = law.covariance.len() == parameters && law.covariance.iter().all(|r| r.len() == parameters);
            if law.coefficients.len() != law.skeleton.terms.len()
                || law.exponents.len() != law.skeleton.exponents.len()
                || !square
            {
                return Err(not(format!("the law for {} has the wrong number of parameters", law.scope())));
            }
        }
        Ok(model)
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let text = serde_json::to_string_pretty(self).map_err(|e| io(e.into()))?;
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
        std::io::Write::write_all(&mut file, b"\n").map_err(io)?;
        // A temporary file is private; a model is meant to be read by others.
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(io)?;
        file.persist(path).map_err(|e| io(e.error))?;
        Ok(())
    }

    /// The law of `target` that covers `row`.
    pub fn law_for(&self, target: Target, row: &Row) -> Result<&Law, Error> {
        let covers = |law: &&Law| {
            law.skeleton.target == target
                && law.model.as_ref().is_none_or(|m| *m == row.model)
                && platform_matches(row, &law.gpu_model, &law.engine, &law.precision)
        };
        self.laws.iter().find(covers).ok_or_else(|| {
            let known: Vec<_> = self.laws.iter().filter(|l| l.skeleton.target == target).map(Law::scope).collect();
            Error::NoLaw {
                asked: row.scenario_key(),
                target,
                known: if known.is_empty() { "none".to_owned() } else { known.join("; ") },
            }
        })
    }

    /// The scenario of `row`: as fitted, or built from the row's columns for a model that was not.
    pub fn scenario_for(&self, row: &Row) -> Result<Scenario, ResolveError> {
        self.scenarios.iter().find(|s| s.matches(row)).cloned().map_or_else(|| Scenario::of_stranger(row), Ok)
    }

    /// Predicts `target` for a configuration.
    pub fn predict(&self, target: Target, row: &Row) -> Result<Prediction, Error> {
        let law = self.law_for(target, row)?;
        let case = self.scenario_for(row)?.case(row)?;
        Ok(law.predict(&case, law.fitted_models.contains(&row.model)))
    }
}
