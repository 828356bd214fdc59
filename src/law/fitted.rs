//! A skeleton with fitted numbers, and what it predicts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::case::{Case, Symbol};
use super::matching::same_model;
use super::skeleton::Skeleton;
use super::verdict::Verdict;

/// Probability that a stated prediction interval holds the truth.
const PREDICTION_LEVEL: f64 = 0.90;

/// How the 95 % intervals of parameters came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervals {
    /// From the curvature at the minimum (delta method).
    #[default]
    FirstOrder,
    /// Profile likelihood: how far a parameter can go, the others following, before the rows object.
    Profile,
    /// Seeded bootstrap of whole workloads.
    Bootstrap,
}

impl std::fmt::Display for Intervals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::FirstOrder => "first order",
            Self::Profile => "profile likelihood",
            Self::Bootstrap => "bootstrap of workloads",
        })
    }
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

/// What rows have in common by which a law misses them. A prefill is one pass, a batch the mean of many: where one law bends
/// wrongly for both, the errors of the first are the larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Prompts alone, up to the first token.
    Prefill,
    /// Everything with decode steps in it.
    Batch,
}

impl std::fmt::Display for RowKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Prefill => "prefill",
            Self::Batch => "batches",
        })
    }
}

/// How rows of one kind scatter about the law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// Standard deviation of the log residual of one such row that was not fitted.
    pub sigma_log: f64,
    /// Degrees of freedom of that.
    pub degrees_of_freedom: f64,
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
    /// How the intervals of coefficients and exponents came about.
    #[serde(default)]
    pub intervals: Intervals,
    /// The law of another platform that this one started from, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<String>,
    /// Covariance of all parameters, coefficients first; rows and columns of parameters that are held are zero.
    pub covariance: Vec<Vec<f64>>,
    /// Standard deviation of the log residual of one row, of any kind, that was not fitted.
    pub sigma_log: f64,
    /// The same by kind of row, with its own degrees of freedom; kinds that were not among the rows are missing, and all of
    /// them where a file is older than this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scatter: BTreeMap<RowKind, Scatter>,
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
    /// Whether the law behind it was fitted to simulated rows.
    pub simulated: bool,
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
    pub fn predict(&self, case: &Case, known_model: bool) -> Prediction {
        self.predict_mean(&[(1.0, *case)], known_model)
    }

    /// Prediction for the weighted mean of several cases, such as the lengths of a trace. What the law does not know
    /// moves all of them together.
    ///
    /// With `g = d ln f / d parameters`, the variance of the log is `g' C g + sigma^2 (+ sigma_model^2)`, `sigma` that of
    /// the kind of row that is asked for.
    pub fn predict_mean(&self, cases: &[(f64, Case)], known_model: bool) -> Prediction {
        let (value, gradient) = self.mean_and_gradient(cases);
        let parameter_variance: f64 = gradient
            .iter()
            .zip(&self.covariance)
            .map(|(gi, row)| gi * row.iter().zip(&gradient).map(|(c, gj)| c * gj).sum::<f64>())
            .sum();
        let model_variance = if known_model { 0.0 } else { self.sigma_model_log.powi(2) };
        let is_prefill = cases.iter().all(|(_, case)| case.row_kind() == RowKind::Prefill);
        let scatter = self.scatter_of(if is_prefill { RowKind::Prefill } else { RowKind::Batch });
        let variance = parameter_variance.max(0.0) + scatter.sigma_log.powi(2) + model_variance;
        let std_log = variance.sqrt();
        // What models differ by is known from as few models as there are.
        let models = self.fitted_models.len() as f64;
        let degrees =
            if known_model { scatter.degrees_of_freedom } else { scatter.degrees_of_freedom.min(models + 1.0) };
        let reach = (quantile(PREDICTION_LEVEL, degrees) * std_log).exp();
        Prediction {
            value,
            low: value / reach,
            high: value * reach,
            std_log,
            outside: match cases {
                [(_, case)] => self.outside(case),
                several => self.outside_share(several),
            },
            simulated: self.simulated,
        }
    }

    /// How rows of `kind` scatter; as rows of any kind do where none of them was fitted.
    pub fn scatter_of(&self, kind: RowKind) -> Scatter {
        let of_any = Scatter { sigma_log: self.sigma_log, degrees_of_freedom: self.degrees_of_freedom };
        self.scatter.get(&kind).copied().unwrap_or(of_any)
    }

    /// The weighted mean of several cases, and how its logarithm moves with the parameters, coefficients first.
    pub(crate) fn mean_and_gradient(&self, cases: &[(f64, Case)]) -> (f64, Vec<f64>) {
        let mut sum = 0.0;
        let mut gradient = vec![0.0; self.skeleton.parameter_count()];
        for (weight, case) in cases {
            let contributions = self.contributions(case);
            let value: f64 = contributions.iter().sum();
            sum += weight * value;
            for (total, own) in gradient.iter_mut().zip(self.log_gradient(case, &contributions, value)) {
                *total += weight * value * own;
            }
        }
        gradient.iter_mut().for_each(|g| *g /= sum);
        gradient.iter_mut().filter(|g| !g.is_finite()).for_each(|g| *g = 0.0);
        (sum, gradient)
    }

    /// For each symbol the share of the weight that lies outside what was measured.
    fn outside_share(&self, cases: &[(f64, Case)]) -> Vec<String> {
        let total: f64 = cases.iter().map(|(weight, _)| weight).sum();
        let share = |symbol: &Symbol| {
            let domain = self.domain.get(symbol.as_str())?;
            let slack = 1e-3 * domain.high.abs();
            let range = domain.low - slack..=domain.high + slack;
            let outside: f64 =
                cases.iter().filter(|(_, case)| !range.contains(&case.value(*symbol))).map(|(weight, _)| weight).sum();
            let percent = 100.0 * outside / total;
            let (low, high) = (short(domain.low), short(domain.high));
            (percent > 0.0)
                .then(|| format!("{symbol} of {} % of the requests is outside {low} to {high}", short(percent)))
        };
        Symbol::ALL.iter().filter(|s| !(s.is_card() && self.model.is_some())).filter_map(share).collect()
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
            for (symbol, j) in self.skeleton.scalings(term) {
                if let Some(slot) = by_exponent.get_mut(j) {
                    *slot += contribution * case.value(symbol).ln() / value;
                }
            }
        }
        gradient.extend(by_exponent);
        gradient.iter_mut().filter(|g| !g.is_finite()).for_each(|g| *g = 0.0);
        gradient
    }

    /// Whether the model was among the fitted ones, by any of its names.
    pub fn knows(&self, model: &str) -> bool {
        self.fitted_models.iter().any(|m| m == model) || self.fitted_models.iter().any(|m| same_model(m, model))
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
