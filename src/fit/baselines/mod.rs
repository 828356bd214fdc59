//! What else could have been fitted?
//!
//! Start at [`Predictor`]: the law and everything it is measured against, behind one seam: training rows in, an
//! [`Estimator`] (a closure over what was learnt) out. Regressions and trees see the table's columns; the analytic
//! models of others see what their papers see; the rules look at the deployment alone.
//!
//! ```text
//! energylens                    the law, by variable projection
//! linear, log-linear            least squares on columns, and on their logs
//! log-quadratic                 ridge on logs, squares and products of logs
//! random-forest, gradient-boosting, k-nearest      on logs
//! roofline      E = P g (a T_prefill + b T_decode)          T from the GPU card; a, b fitted
//! sweetspot     E = s(t,p,d) (c0 + c1 Bn + c2 Bn2 + c3 m + c4 Bnm + c5 Bm2)     (2602.05695, form implied by its premise)
//! wilkins       E = B (a0 n + a1 m + a2 nm)   per deployment, and per batch where there are the rows (2407.04014)
//! maveriq       E = g (R/(t p^.921) + O (t-1)^.802/p^1.062 + Q (p-1)^.259)       (SC25, its latency form; R, O, Q linear)
//! mfu-power     E = g T (Pidle + (Pmax-Pidle) min(1,(MFU/0.45)^0.7))             (2507.11417)
//! latency-proxy E = c T         T from a latency law fitted to the same rows
//! fewest-gpus, latency-optimal  rules: they choose, and predict no joules
//! ```
//!
//! Limit: the models of others are re-implemented from their papers and extended where they are silent (batch size,
//! parallelism); where a choice had to be made, the one that helps the baseline was taken.

mod analytic;
mod columns;
mod laws;
mod regression;
mod trees;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::group::target_value;
use super::split::Scheme;
use super::stats::Scale;
use crate::card::GpuCard;
use crate::dataset::Row;
use crate::law::{Model, Pool, Skeleton, Target};
use crate::schema::nearest;

/// A predicted value, with a 90 % interval where the predictor states one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Value in joules, or a score whose least value is chosen.
    pub value: f64,
    /// Stated interval.
    pub interval: Option<(f64, f64)>,
}

impl From<f64> for Estimate {
    fn from(value: f64) -> Self {
        Self { value, interval: None }
    }
}

/// What was learnt, ready to be asked; `None` where it has no answer for a row.
pub type Estimator = Box<dyn Fn(&Row) -> Option<Estimate>>;

/// Under which conditions predictors are fitted.
#[derive(Debug, Clone)]
pub struct Context {
    /// One fit per scenario, or one for all models of a platform.
    pub pool: Pool,
    /// One fit for all hardware, for rows of hardware that was never measured.
    pub across_hardware: bool,
    /// Seed of everything random in a fit.
    pub seed: u64,
    /// Structure of the law; `None` for the energylens law.
    pub skeleton: Option<Skeleton>,
    /// Laws of another platform from which the law starts.
    pub prior: Option<Arc<Model>>,
    /// What is predicted.
    pub target: Target,
}

impl Context {
    /// What rows must share to be fitted together.
    pub fn scope(&self, row: &Row) -> String {
        match (self.pool, self.across_hardware) {
            (Pool::None, false) => row.scenario_key(),
            (Pool::Models, false) => row.platform_key(),
            (Pool::None, true) => row.model.clone(),
            (Pool::Models, true) => "all hardware".to_owned(),
        }
    }
}

/// Something that predicts energy or chooses a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Predictor {
    /// The energylens law, or the skeleton that was asked for.
    Law,
    /// Least squares on the columns.
    Linear,
    /// Least squares on logs.
    LogLinear,
    /// Ridge on logs, their squares and products.
    LogQuadratic,
    /// Random forest on logs.
    RandomForest,
    /// Gradient boosting on logs.
    GradientBoosting,
    /// The nearest measured rows, on logs.
    NearestNeighbours,
    /// Roofline times at the board's power limit, two scale factors fitted.
    Roofline,
    /// SweetSpot: polynomial in input and output length from FLOP and byte counts.
    SweetSpot,
    /// Wilkins et al.: `a0 n + a1 m + a2 n m` per deployment.
    Wilkins,
    /// MaverIQ's form of parallel scaling.
    MaverIq,
    /// Power from utilisation by a power law (Ozcan et al.), time from the roofline.
    MfuPower,
    /// Energy proportional to predicted latency.
    LatencyProxy,
    /// Rule: as few GPUs as possible.
    FewestGpus,
    /// Rule: the configuration that was *measured* to be the fastest. It looks at held-out latencies.
    LatencyOptimal,
}

impl Predictor {
    /// Every predictor, the law first, rules last.
    pub const ALL: &'static [Self] = &[
        Self::Law,
        Self::Linear,
        Self::LogLinear,
        Self::LogQuadratic,
        Self::RandomForest,
        Self::GradientBoosting,
        Self::NearestNeighbours,
        Self::Roofline,
        Self::SweetSpot,
        Self::Wilkins,
        Self::MaverIq,
        Self::MfuPower,
        Self::LatencyProxy,
        Self::FewestGpus,
        Self::LatencyOptimal,
    ];

    /// The few that stand beside every fit.
    pub const QUICK: &'static [Self] =
        &[Self::Law, Self::LogLinear, Self::RandomForest, Self::FewestGpus, Self::LatencyOptimal];

    /// The name in tables and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Law => "energylens",
            Self::Linear => "linear",
            Self::LogLinear => "log-linear",
            Self::LogQuadratic => "log-quadratic",
            Self::RandomForest => "random-forest",
            Self::GradientBoosting => "gradient-boosting",
            Self::NearestNeighbours => "k-nearest",
            Self::Roofline => "roofline",
            Self::SweetSpot => "sweetspot",
            Self::Wilkins => "wilkins",
            Self::MaverIq => "maveriq",
            Self::MfuPower => "mfu-power",
            Self::LatencyProxy => "latency-proxy",
            Self::FewestGpus => "fewest-gpus",
            Self::LatencyOptimal => "latency-optimal",
        }
    }

    /// Joules, or a score that only orders configurations.
    pub fn scale(self) -> Scale {
        match self {
            Self::FewestGpus | Self::LatencyOptimal => Scale::Score,
            _ => Scale::Value,
        }
    }

    /// Whether it looks at measured latencies of the very rows it is judged on. Nothing else does.
    pub fn sees_held_out_latency(self) -> bool {
        self == Self::LatencyOptimal
    }

    /// Whether it can predict `target` at all.
    pub fn knows(self, target: Target) -> bool {
        let columns_alone = matches!(
            self,
            Self::Law
                | Self::Linear
                | Self::LogLinear
                | Self::LogQuadratic
                | Self::RandomForest
                | Self::GradientBoosting
                | Self::NearestNeighbours
                | Self::FewestGpus
        );
        target == Target::EnergyJ || columns_alone
    }

    /// Whether GPU cards are part of its form, so that its joules need no conversion between GPUs.
    fn knows_hardware(self) -> bool {
        matches!(self, Self::Law | Self::Roofline | Self::MfuPower | Self::FewestGpus | Self::LatencyOptimal)
    }

    /// Learns from `rows`, scope by scope. The reason where there is nothing that could be learnt.
    pub fn fit(self, rows: &[Row], context: &Context) -> Result<Estimator, String> {
        let convert = context.across_hardware && context.target == Target::EnergyJ && !self.knows_hardware();
        if !self.knows(context.target) {
            return Err(format!("{self} is a model of energy and says nothing of {}", context.target));
        }
        let rows: Vec<Row> = rows.iter().map(|r| if convert { in_common_units(r) } else { r.clone() }).collect();
        let estimator = match self {
            Self::FewestGpus => fewest_gpus(),
            Self::LatencyOptimal => latency_optimal(&rows),
            // These find their own scopes.
            Self::Law => laws::law(&rows, context)?,
            Self::LatencyProxy => laws::latency_proxy(&rows, context)?,
            _ if context.target == Target::EnergyJ => self.fit_scopes(&rows, context)?,
            _ => {
                // Regressions and trees learn what stands where the energy would.
                let target = context.target;
                let rows: Vec<Row> = rows
                    .into_iter()
                    .map(|r| Row { energy_j: target_value(&r, target), energy_j_std: None, ..r })
                    .collect();
                self.fit_scopes(&rows, context)?
            }
        };
        if !convert {
            return Ok(estimator);
        }
        Ok(Box::new(move |row| {
            let unit = common_unit_j(row);
            let Estimate { value, interval } = estimator(row)?;
            Some(Estimate { value: value * unit, interval: interval.map(|(low, high)| (low * unit, high * unit)) })
        }))
    }

    /// One fit per scope; rows of a scope without fit get no answer. Fails where no scope could be fitted.
    fn fit_scopes(self, rows: &[Row], context: &Context) -> Result<Estimator, String> {
        let mut by_scope: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows {
            by_scope.entry(context.scope(row)).or_default().push(row.clone());
        }
        let mut estimators = BTreeMap::new();
        let mut reason = "no rows".to_owned();
        for (scope, rows) in by_scope {
            match self.fit_one(&rows, context) {
                Ok(estimator) => _ = estimators.insert(scope, estimator),
                Err(why) => reason = why,
            }
        }
        if estimators.is_empty() {
            return Err(reason);
        }
        let context = context.clone();
        Ok(Box::new(move |row| estimators.get(&context.scope(row))?(row).filter(|e| e.value.is_finite())))
    }

    fn fit_one(self, rows: &[Row], context: &Context) -> Result<Estimator, String> {
        let pooled = context.pool == Pool::Models;
        match self {
            Self::Linear => regression::linear(rows, pooled),
            Self::LogLinear => regression::log_linear(rows, pooled),
            Self::LogQuadratic => regression::log_quadratic(rows, pooled),
            Self::RandomForest => trees::random_forest(rows, pooled, context.seed),
            Self::GradientBoosting => trees::gradient_boosting(rows, pooled, context.seed),
            Self::NearestNeighbours => trees::nearest_neighbours(rows, pooled),
            Self::Roofline => analytic::roofline(rows),
            Self::SweetSpot => analytic::sweetspot(rows),
            Self::Wilkins => analytic::wilkins(rows),
            Self::MaverIq => analytic::maveriq(rows),
            Self::MfuPower => analytic::mfu_power(rows),
            Self::Law => laws::law(rows, context),
            Self::LatencyProxy => laws::latency_proxy(rows, context),
            Self::FewestGpus => Ok(fewest_gpus()),
            Self::LatencyOptimal => Ok(latency_optimal(rows)),
        }
    }

    /// The predictors that make sense for `scheme` and `target`.
    pub fn suitable(scheme: Scheme, target: Target) -> Vec<Self> {
        // A fit per deployment of one model has nothing to say of another.
        let known_model_only = |p: &Self| matches!(p, Self::Wilkins);
        let suits = |p: &Self| p.knows(target) && (scheme != Scheme::Models || !known_model_only(p));
        Self::ALL.iter().copied().filter(suits).collect()
    }
}

fn fewest_gpus() -> Estimator {
    Box::new(|row| {
        let gpus = f64::from(row.tensor_parallel) * f64::from(row.pipeline_parallel) * f64::from(row.data_parallel);
        Some(gpus.into())
    })
}

fn latency_optimal(rows: &[Row]) -> Estimator {
    let latency = super::stats::latency_s(rows);
    Box::new(move |row| latency(row).map(Estimate::from))
}

/// Joules that one byte of memory traffic costs on the row's GPU at its power limit: the unit in which energies of
/// different GPUs are nearest to each other. 1 for a GPU without card.
fn common_unit_j(row: &Row) -> f64 {
    GpuCard::builtin(&row.gpu_model)
        .map(|g| g.power_limit_w / g.memory_bandwidth_bytes_per_s)
        .filter(|unit| unit.is_finite() && *unit > 0.0)
        .unwrap_or(1.0)
}

/// The row with its energy in units of [`common_unit_j`].
fn in_common_units(row: &Row) -> Row {
    let unit = common_unit_j(row);
    Row { energy_j: row.energy_j.map(|e| e / unit), energy_j_std: row.energy_j_std.map(|s| s / unit), ..row.clone() }
}

impl fmt::Display for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Predictor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|p| p.as_str());
        Self::ALL.iter().copied().find(|p| p.as_str() == text).ok_or_else(|| match nearest(text, names()) {
            Some(near) => format!("predictor `{text}` is unknown; did you mean `{near}`?"),
            None => {
                format!("predictor `{text}` is unknown; expected one of {}", names().collect::<Vec<_>>().join(", "))
            }
        })
    }
}

#[cfg(test)]
mod tests;
