//! Figures of accuracy: how far predictions are off, and what the choices made by them cost.
//!
//! A *group* is one workload and phase; its *configurations* are the deployments that were measured for it. Repeats of
//! one configuration are averaged. A predictor *chooses* the configuration with its least prediction:
//!
//! ```text
//! top1           share of groups in which the chosen configuration has the least measured energy
//! top1_tolerant  the same, a choice within the repeat noise of the least counting as right
//! regret         mean over groups of  E(chosen) / E(best) - 1
//! pairwise       share of pairs of configurations of one group that are put in the right order
//! mape           mean of |predicted / measured - 1|
//! coverage       share of rows inside the stated 90 % interval
//! ```
//!
//! Where a predictor cannot tell its favourites apart it draws lots: each of them counts with equal share, so a
//! predictor that knows nothing scores what chance scores. Groups with one configuration offer no choice and are left
//! out of every figure about choices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::Row;

/// Repeat noise (relative) where neither the caller nor the data says.
pub const DEFAULT_NOISE: f64 = 0.03;
/// Repeats beyond the first of their configuration that an estimate of the noise needs.
const NOISE_DEGREES: usize = 5;
/// Predictions that agree to this (relative) are tied.
const TIE: f64 = 1e-9;

/// A deployment: tensor-, pipeline- and data-parallel degree.
pub type Configuration = (u32, u32, u32);

/// The deployment of a row.
pub fn configuration(row: &Row) -> Configuration {
    (row.tensor_parallel, row.pipeline_parallel, row.data_parallel.max(1))
}

/// One held-out row beside what was predicted for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Workload and phase, numbered.
    pub group: usize,
    /// Deployment.
    pub configuration: Configuration,
    /// What was measured.
    pub measured: f64,
    /// What was predicted, or a score whose least value is chosen; `None` where the predictor has no answer.
    pub predicted: Option<f64>,
    /// Stated 90 % interval.
    pub interval: Option<(f64, f64)>,
}

/// What predictions are: values to be compared with measurements, or scores that only order configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Values in the measured unit.
    Value,
    /// Scores without unit: only choices are judged.
    Score,
}

/// Accuracy of one predictor on held-out rows. A figure that makes no sense for it is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean absolute percentage error, as a ratio.
    pub mape: Option<f64>,
    /// Median absolute percentage error, as a ratio.
    pub median_ape: Option<f64>,
    /// Share of groups in which the best configuration was chosen.
    pub top1: Option<f64>,
    /// The same, within the repeat noise of the best.
    pub top1_tolerant: Option<f64>,
    /// Mean excess energy of the choices, as a ratio.
    pub regret: Option<f64>,
    /// Share of pairs in the right order.
    pub pairwise: Option<f64>,
    /// Share of rows inside the stated 90 % interval.
    pub coverage: Option<f64>,
    /// Rows predicted.
    pub rows: usize,
    /// Groups with a choice in which every configuration was predicted.
    pub groups: usize,
}

impl Figures {
    /// The figures by name, for tables that do not know them one by one.
    pub fn by_name(&self) -> BTreeMap<String, f64> {
        let named = [
            ("mape", self.mape),
            ("median_ape", self.median_ape),
            ("top1", self.top1),
            ("top1_tolerant", self.top1_tolerant),
            ("regret", self.regret),
            ("pairwise", self.pairwise),
            ("coverage", self.coverage),
            ("rows", Some(self.rows as f64)),
            ("groups", Some(self.groups as f64)),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// One configuration of a group, repeats averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    measured: f64,
    predicted: f64,
}

/// Judges predictions against measurements; `noise` is the relative repeat noise.
pub fn figures(outcomes: &[Outcome], scale: Scale, noise: f64) -> Figures {
    let mut figures = Figures { rows: outcomes.iter().filter(|o| o.predicted.is_some()).count(), ..Figures::default() };
    if scale == Scale::Value {
        let mut errors: Vec<f64> =
            outcomes.iter().filter_map(|o| Some((o.predicted? / o.measured - 1.0).abs())).collect();
        errors.sort_by(f64::total_cmp);
        figures.mape = mean(&errors);
        figures.median_ape = median(&errors);
        let inside: Vec<f64> = outcomes
            .iter()
            .filter_map(|o| o.interval.map(|(low, high)| f64::from(u8::from(low <= o.measured && o.measured <= high))))
            .collect();
        figures.coverage = mean(&inside);
    }
    let choices: Vec<Vec<Candidate>> = groups(outcomes).into_iter().filter(|g| g.len() > 1).collect();
    figures.groups = choices.len();
    let judged: Vec<(f64, f64, f64)> = choices.iter().filter_map(|g| judge(g, noise)).collect();
    let of = |pick: fn(&(f64, f64, f64)) -> f64| mean(&judged.iter().map(pick).collect::<Vec<_>>());
    figures.top1 = of(|j| j.0);
    figures.top1_tolerant = of(|j| j.1);
    figures.regret = of(|j| j.2);
    figures.pairwise = mean(&choices.iter().flat_map(|g| pairs(g)).collect::<Vec<_>>());
    figures
}

/// Groups in which every configuration was predicted.
fn groups(outcomes: &[Outcome]) -> Vec<Vec<Candidate>> {
    let mut by_group: BTreeMap<usize, BTreeMap<Configuration, Vec<&Outcome>>> = BTreeMap::new();
    for o in outcomes {
        by_group.entry(o.group).or_default().entry(o.configuration).or_default().push(o);
    }
    let candidate = |repeats: &Vec<&Outcome>| {
        let predicted: Option<Vec<f64>> = repeats.iter().map(|o| o.predicted.filter(|p| p.is_finite())).collect();
        let measured: Vec<f64> = repeats.iter().map(|o| o.measured).collect();
        Some(Candidate { measured: mean(&measured)?, predicted: mean(&predicted?)? })
    };
    by_group.values().filter_map(|configurations| configurations.values().map(candidate).collect()).collect()
}

/// Top-1, tolerant Top-1 and regret of one group, averaged over the predictor's equal favourites.
fn judge(group: &[Candidate], noise: f64) -> Option<(f64, f64, f64)> {
    let least = group.iter().map(|c| c.measured).min_by(f64::total_cmp)?;
    let favourite = group.iter().map(|c| c.predicted).min_by(f64::total_cmp)?;
    let chosen: Vec<f64> = group.iter().filter(|c| tied(c.predicted, favourite)).map(|c| c.measured).collect();
    let share = |right: &dyn Fn(f64) -> bool| chosen.iter().filter(|m| right(**m)).count() as f64 / chosen.len() as f64;
    let regret = mean(&chosen)? / least - 1.0;
    Some((share(&|m| m <= least), share(&|m| m <= least * (1.0 + noise)), regret))
}

/// One entry per pair that was measured apart: 1 for the right order, 0 for the wrong one, 1/2 for a tie.
fn pairs(group: &[Candidate]) -> Vec<f64> {
    let all = group.iter().enumerate().flat_map(|(i, a)| group.iter().skip(i + 1).map(move |b| (a, b)));
    all.filter(|(a, b)| a.measured != b.measured)
        .map(|(a, b)| match () {
            () if tied(a.predicted, b.predicted) => 0.5,
            () => f64::from(u8::from((a.measured < b.measured) == (a.predicted < b.predicted))),
        })
        .collect()
}

fn tied(a: f64, b: f64) -> bool {
    (a - b).abs() <= TIE * a.abs().max(b.abs())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Median of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(*upper) } else { sorted.get(middle.wrapping_sub(1)).map(|l| 0.5 * (l + upper)) }
}

/// Relative standard deviation of `value` among exact repeats (same workload, phase and configuration), pooled over configurations in
/// log units; `None` with fewer than five repeats beyond the first.
pub fn repeat_noise(rows: &[Row], value: &dyn Fn(&Row) -> Option<f64>) -> Option<f64> {
    let mut repeats: BTreeMap<(String, &str, Configuration), Vec<f64>> = BTreeMap::new();
    for row in rows {
        let key = (row.workload_key(), row.phase.as_str(), configuration(row));
        repeats.entry(key).or_default().extend(value(row).filter(|e| *e > 0.0).map(f64::ln));
    }
    let (mut squares, mut degrees) = (0.0, 0);
    for logs in repeats.values() {
        let Some(center) = mean(logs) else { continue };
        squares += logs.iter().map(|l| (l - center).powi(2)).sum::<f64>();
        degrees += logs.len() - 1;
    }
    (degrees >= NOISE_DEGREES).then(|| (squares / degrees as f64).sqrt())
}

/// Share of groups (with a choice, every configuration with its duration) in which the fastest configuration is not the
/// one of least energy.
pub fn optima_differ(rows: &[(usize, &Row)]) -> Option<f64> {
    let latency = latency_s(rows.iter().map(|(_, row)| *row));
    let outcome = |(group, row): &(usize, &Row)| {
        Some(Outcome {
            group: *group,
            configuration: configuration(row),
            measured: row.energy_j?,
            predicted: latency(row),
            interval: None,
        })
    };
    let outcomes: Vec<Outcome> = rows.iter().filter_map(outcome).collect();
    figures(&outcomes, Scale::Score, 0.0).top1.map(|same| 1.0 - same)
}

/// How long a row took, as one column says.
pub type Latency = fn(&Row) -> Option<f64>;

/// What a user waits for: the duration of a batch, or the time per output token where no row has a duration. One column
/// for all rows, since the two do not compare.
pub fn latency_s<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Latency {
    let (mut durations, mut tpots) = (false, false);
    for row in rows {
        durations |= row.duration_s.is_some();
        tpots |= row.mean_tpot_s.is_some();
    }
    if tpots && !durations {
        |row| row.mean_tpot_s.filter(|s| s.is_finite() && *s > 0.0)
    } else {
        |row| row.duration_s.filter(|s| s.is_finite() && *s > 0.0)
    }
}

#[cfg(test)]
mod tests;
