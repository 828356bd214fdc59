//! The answer, as data.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::bill::{Day, Prices, Waste};
use super::label::Varies;
use super::lengths::Lengths;
use super::limit::{Limit, Objective, Quantity};
use crate::law::{Prediction, Target};

/// A figure with its 90 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Point value.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    pub(super) fn of(prediction: &Prediction, divisor: f64) -> Self {
        Self { value: prediction.value / divisor, low: prediction.low / divisor, high: prediction.high / divisor }
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self { value: factor * self.value, low: factor * self.low, high: factor * self.high }
    }

    /// A figure that is known.
    pub(super) fn exactly(value: f64) -> Self {
        Self { value, low: value, high: value }
    }

    /// The sum; its interval is that of the worst case, in which both err the same way.
    pub(super) fn plus(self, more: Self) -> Self {
        Self { value: self.value + more.value, low: self.low + more.low, high: self.high + more.high }
    }
}

/// One limit held against one configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitCheck {
    /// The limit.
    pub limit: Limit,
    /// Predicted value.
    pub value: f64,
    /// The end of the 90 % interval that is nearer to the limit; the value itself for counts.
    pub worst: f64,
    /// Whether the point prediction respects it: what decides.
    pub holds: bool,
    /// Whether the interval's worse end respects it too: whether it is safe.
    pub holds_with_margin: bool,
}

/// One configuration with everything that is predicted of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// GPU.
    pub gpu_model: String,
    /// Engine, where known.
    pub engine: Option<String>,
    /// Precision, where known.
    pub precision: Option<String>,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Data-parallel degree.
    pub data_parallel: u32,
    /// GPUs in all.
    pub num_gpus: u32,
    /// Sequences in flight over all replicas.
    pub batch_size: f64,
    /// Energy of one batch, all GPUs.
    pub energy_j: Estimate,
    /// Energy per output token; under an arrival rate with what the GPUs draw while they wait. The interval is then that
    /// of the worst case: energy, duration and idle power err the same way.
    pub energy_per_token_j: Estimate,
    /// Energy per request, likewise.
    pub energy_per_request_j: Estimate,
    /// Share of the time in which there is work, under an arrival rate.
    pub busy_share: Option<f64>,
    /// Price of the energy and GPU hours of a request, where there is one; its interval assumes that energy and duration
    /// err the same way, the worst case.
    pub cost_per_request: Option<Estimate>,
    /// Carbon dioxide of a request, where the grid's intensity is known.
    pub carbon_per_request_g: Option<Estimate>,
    /// A day at the recommendation's number of requests, at the meter.
    pub per_day: Option<Day>,
    /// Mean time to first token, where there is a law of it.
    pub mean_ttft_s: Option<Estimate>,
    /// Mean time per output token after the first, where there is a law of it.
    pub mean_tpot_s: Option<Estimate>,
    /// Duration of one batch, where there is a law of it.
    pub duration_s: Option<Estimate>,
    /// Mean power of all GPUs; its interval assumes that energy and duration err against each other, the worst case.
    pub mean_power_w: Option<Estimate>,
    /// Output tokens per second of the whole deployment.
    pub throughput_tok_s: Option<Estimate>,
    /// What lies outside the range that the law of energy was fitted on; empty inside it.
    pub outside: Vec<String>,
    /// The same for the other laws that the answer rests on: those of limits, of a rate, of the front.
    pub outside_by_law: Vec<LawOutside>,
    /// How much more energy than the first of the ranking, %; negative where it is less.
    pub extra_energy_percent: f64,
    /// How much more of what is made small, %.
    pub extra_percent: f64,
    /// Probability that it truly needs the least energy of all contenders; `None` where it is none of them.
    pub probability_best: Option<f64>,
    /// Other numbers of replicas that are feasible with the same batch each: as good by construction, so they are not
    /// listed apart and do not compete.
    pub other_data_parallel: Vec<u32>,
    /// Whether no other feasible configuration has less energy and less latency; `None` without a law of a time.
    pub pareto: Option<bool>,
    /// The limits, one by one.
    pub limits: Vec<LimitCheck>,
    /// What of its platform differs among all that were looked at.
    #[serde(skip)]
    pub varies: Varies,
}

/// What of a configuration lies outside the range that a law was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LawOutside {
    /// What the law predicts.
    pub law: Target,
    /// The symbols, their values and the range's ends.
    pub symbols: Vec<String>,
}

impl Candidate {
    /// The predicted figure of `quantity`, where it is known.
    pub fn estimate(&self, quantity: Quantity) -> Option<Estimate> {
        let exactly = |count: f64| Some(Estimate::exactly(count));
        match quantity {
            Quantity::MeanTtftS => self.mean_ttft_s,
            Quantity::MeanTpotS => self.mean_tpot_s,
            Quantity::DurationS => self.duration_s,
            Quantity::EnergyJ => Some(self.energy_j),
            Quantity::EnergyPerTokenJ => Some(self.energy_per_token_j),
            Quantity::EnergyPerRequestJ => Some(self.energy_per_request_j),
            Quantity::EnergyPerDayKwh => self.per_day.map(|day| day.energy_kwh),
            Quantity::CostPerRequest => self.cost_per_request,
            Quantity::CarbonPerRequestG => self.carbon_per_request_g,
            Quantity::MeanPowerW => self.mean_power_w,
            Quantity::ThroughputTokS => self.throughput_tok_s,
            Quantity::NumGpus => exactly(f64::from(self.num_gpus)),
            Quantity::TensorParallel => exactly(f64::from(self.tensor_parallel)),
            Quantity::PipelineParallel => exactly(f64::from(self.pipeline_parallel)),
            Quantity::DataParallel => exactly(f64::from(self.data_parallel)),
            Quantity::BatchSize => exactly(self.batch_size),
        }
    }

    /// Which other numbers of replicas are as good, in words.
    pub fn replicas_note(&self) -> Option<String> {
        let others: Vec<_> = self.other_data_parallel.iter().map(u32::to_string).collect();
        let each = figure(self.batch_size / f64::from(self.data_parallel.max(1)));
        (!others.is_empty()).then(|| format!("as good with DP {}, batch {each} each", others.join(", ")))
    }

    /// What lies outside the ranges that the laws were fitted on, in words: of the law of energy as it is, of others with
    /// their name.
    pub fn outside_notes(&self) -> Vec<String> {
        let others = self.outside_by_law.iter();
        let others = others.map(|o| format!("{} in the law of {}", o.symbols.join(" and "), o.law));
        self.outside.iter().cloned().chain(others).collect()
    }
}

/// What a rule of thumb would have picked, at the batch size of the first of the ranking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alternative {
    /// The rule, in words.
    pub rule: &'static str,
    /// Whether that is the first of the ranking.
    pub same_as_best: bool,
    /// What it takes more than the first in a day; `None` where neither a rate nor durations are known.
    pub waste_per_day: Option<Waste>,
    /// Its pick; how much it costs more is in `extra_energy_percent`.
    pub pick: Candidate,
}

/// Configurations that were not ranked, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exclusion {
    /// What excluded them: a limit, memory, the measured range.
    pub reason: String,
    /// How many; one that breaks two limits counts for both.
    pub count: usize,
    /// The one that came closest, and its figure.
    pub closest: Option<String>,
}

/// The ranked answer to a [`Request`](super::Request).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// Model.
    pub model: String,
    /// Input tokens per sequence; of a trace the mean.
    pub input_tokens: f64,
    /// Output tokens per sequence; of a trace the mean.
    pub output_tokens: f64,
    /// The trace that stood for the workload.
    pub trace: Option<PathBuf>,
    /// The classes of lengths that stood for the trace.
    pub lengths: Option<Lengths>,
    /// Sequences in flight, where the request fixed them.
    pub batch_size: Option<f64>,
    /// Requests per second that come in.
    pub arrival_rate: Option<f64>,
    /// Requests in a day: those that come, else those that the first can serve at full speed.
    pub requests_per_day: Option<f64>,
    /// What energy and GPUs cost.
    pub prices: Prices,
    /// GPUs there are.
    pub max_gpus: u32,
    /// What is made small: what was asked for, or energy per request where that is 0 for all.
    pub objective: Objective,
    /// What the answer respects.
    pub limits: Vec<Limit>,
    /// Whether the law behind it was fitted to simulated rows.
    pub simulated: bool,
    /// What differs among the platforms that were looked at, so that the choice is one of it too.
    pub varies: Varies,
    /// Platforms that lack a law that the question needs: they were not looked at.
    pub not_judged: Vec<String>,
    /// Configurations looked at.
    pub candidates: usize,
    /// Configurations that fit, lie inside the measured range and respect every limit.
    pub feasible: usize,
    /// Why others were left out.
    pub excluded: Vec<Exclusion>,
    /// The best first.
    pub ranked: Vec<Candidate>,
    /// How much more the second needs of what is made small, %.
    pub margin_percent: Option<f64>,
    /// What rules of thumb would have picked.
    pub alternatives: Vec<Alternative>,
    /// What is made small against latency: the feasible configurations that no other beats in both, cheapest first.
    pub pareto: Vec<Candidate>,
    /// The latency of that front.
    pub latency: Option<Quantity>,
    /// The best of those outside the measured range, where they are not ranked: guesses.
    pub outside: Vec<Candidate>,
    /// Configurations that took part in the draws.
    pub contenders: usize,
    /// Draws behind the probabilities.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// What a reader must know before acting on it.
    pub warnings: Vec<String>,
}

impl Recommendation {
    /// The answer in one sentence.
    pub fn sentence(&self, best: &Candidate) -> String {
        let limits: Vec<_> = self.limits.iter().map(Limit::to_string).collect();
        let under = if limits.is_empty() { String::new() } else { format!(" under {}", limits.join(" and ")) };
        let figures = best.estimate(self.objective.into()).unwrap_or(best.energy_per_token_j);
        let safe = if best.limits.iter().all(|l| l.holds_with_margin) {
            ""
        } else {
            "; the interval's worse end breaks a limit"
        };
        let (mean, of) = if self.lengths.as_ref().is_some_and(Lengths::is_mixed) {
            ("a mean of ", " per request")
        } else {
            ("", "")
        };
        let load = self.arrival_rate.map_or_else(String::new, |r| format!(" at {} requests per second", figure(r)));
        format!(
            "{} with {mean}{} input and {} output tokens{of}{load}{under}: {} on {} needs {} {} (90 %: {} to {}){safe}",
            self.model,
            tokens(self.input_tokens),
            tokens(self.output_tokens),
            best.degrees(),
            best.hardware(),
            figure(figures.value),
            self.objective.unit(),
            figure(figures.low),
            figure(figures.high),
        )
    }
}

impl Recommendation {
    /// That the like of the first was never measured, in words.
    pub(super) fn range_warnings(best: &Candidate) -> Vec<String> {
        let energy = (!best.outside.is_empty()).then(|| {
            format!(
                "the first lies outside the measured range: {}; the interval and P(best) are not to be trusted there",
                best.outside.join("; ")
            )
        });
        let of_law = |other: &LawOutside| {
            format!(
                "the first lies outside the range of the law of {}: {}; that figure, and what is judged by it, are guesses",
                other.law,
                other.symbols.join("; ")
            )
        };
        energy.into_iter().chain(best.outside_by_law.iter().map(of_law)).collect()
    }

    /// That the counts of what was left out overlap, in words.
    pub fn overlap_note(&self) -> Option<&'static str> {
        let left_out = self.candidates.saturating_sub(self.feasible);
        overlap_note(&self.excluded, left_out)
    }
}

/// The same for `left_out` configurations.
pub(super) fn overlap_note(excluded: &[Exclusion], left_out: usize) -> Option<&'static str> {
    let counted: usize = excluded.iter().map(|e| e.count).sum();
    (counted > left_out).then_some("a configuration that is left out for several reasons is counted for each of them")
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, pick) = (self.rule, &self.pick);
        if self.same_as_best {
            write!(f, "{rule}: the same choice")
        } else {
            let extra = percent(pick.extra_energy_percent);
            write!(f, "{rule}: {} on {} GPUs, {extra} energy", pick.label(), pick.num_gpus)?;
            let Some(waste) = self.waste_per_day else { return Ok(()) };
            let mut parts = vec![format!("{} kWh", figure(waste.energy_kwh)), format!("{} J", figure(waste.energy_j))];
            parts.extend(waste.cost.map(|c| format!("{} of money", figure(c))));
            parts.extend(waste.carbon_kg.map(|c| format!("{} kg CO2", figure(c))));
            write!(f, "; more per day: {}", parts.join(", "))
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.count, self.reason)?;
        match &self.closest {
            Some(closest) => write!(f, "; closest: {closest}"),
            None => Ok(()),
        }
    }
}

/// A number of tokens, which may be the mean of many: to its digits, whatever their number.
fn tokens(count: f64) -> String {
    let text = format!("{count:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Four significant digits at most, without an exponent where people would not write one.
pub(crate) fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..7.0).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let decimals = (3.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

pub(super) fn percent(value: f64) -> String {
    if value.abs() < 0.05 { "0 %".to_owned() } else { format!("{value:+.1} %") }
}
