//! The answer, as data and as a table.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::limit::{Limit, Objective, Quantity};
use crate::law::Prediction;

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
    /// Energy per output token.
    pub energy_per_token_j: Estimate,
    /// Energy per request.
    pub energy_per_request_j: Estimate,
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
    /// What lies outside the measured range; empty inside it.
    pub outside: Vec<String>,
    /// How much more energy than the first of the ranking, %; negative where it is less.
    pub extra_energy_percent: f64,
    /// Probability that it truly needs the least energy of all contenders; `None` where it is none of them.
    pub probability_best: Option<f64>,
    /// Other numbers of replicas that are feasible with the same batch each: as good by construction, so they are not
    /// listed apart and do not compete.
    pub other_data_parallel: Vec<u32>,
    /// Whether no other feasible configuration has less energy and less latency; `None` without a law of a time.
    pub pareto: Option<bool>,
    /// The limits, one by one.
    pub limits: Vec<LimitCheck>,
}

impl Candidate {
    /// The predicted figure of `quantity`, where it is known.
    pub fn estimate(&self, quantity: Quantity) -> Option<Estimate> {
        let exactly = |count: f64| Some(Estimate { value: count, low: count, high: count });
        match quantity {
            Quantity::MeanTtftS => self.mean_ttft_s,
            Quantity::MeanTpotS => self.mean_tpot_s,
            Quantity::DurationS => self.duration_s,
            Quantity::EnergyJ => Some(self.energy_j),
            Quantity::EnergyPerTokenJ => Some(self.energy_per_token_j),
            Quantity::EnergyPerRequestJ => Some(self.energy_per_request_j),
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

    /// `TP 4 x PP 1 x DP 2, batch 32`.
    pub fn label(&self) -> String {
        format!(
            "TP {} x PP {} x DP {}, batch {}",
            self.tensor_parallel, self.pipeline_parallel, self.data_parallel, self.batch_size
        )
    }
}

/// What a rule of thumb would have picked, at the batch size of the first of the ranking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alternative {
    /// The rule, in words.
    pub rule: &'static str,
    /// Whether that is the first of the ranking.
    pub same_as_best: bool,
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
    /// Input tokens per sequence.
    pub input_tokens: f64,
    /// Output tokens per sequence.
    pub output_tokens: f64,
    /// Sequences in flight, where the request fixed them.
    pub batch_size: Option<f64>,
    /// GPUs there are.
    pub max_gpus: u32,
    /// What is made small.
    pub objective: Objective,
    /// What the answer respects.
    pub limits: Vec<Limit>,
    /// Whether the law behind it was fitted to simulated rows.
    pub simulated: bool,
    /// Configurations looked at.
    pub candidates: usize,
    /// Configurations that fit, lie inside the measured range and respect every limit.
    pub feasible: usize,
    /// Why others were left out.
    pub excluded: Vec<Exclusion>,
    /// The best, least energy first.
    pub ranked: Vec<Candidate>,
    /// How much more energy the second needs, %.
    pub margin_percent: Option<f64>,
    /// What rules of thumb would have picked.
    pub alternatives: Vec<Alternative>,
    /// Energy against latency: the feasible configurations that no other beats in both, least energy first.
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

/// Rows of the rest that the table shows.
const TABLE_OUTSIDE: usize = 3;

impl Recommendation {
    /// The answer for people: one sentence, the ranking, what rules of thumb would have cost, the warnings.
    pub fn table(&self) -> String {
        let Some(best) = self.ranked.first() else { return "no configuration\n".to_owned() };
        let mut text = String::new();
        if self.simulated {
            text.push_str("SIMULATED: the law behind this was fitted to simulated rows\n");
        }
        text.push_str(&format!("{}\n\n", self.sentence(best)));
        text.push_str(&self.ranking(&self.ranked));
        for alternative in &self.alternatives {
            text.push_str(&format!("\n{alternative}"));
        }
        text.push_str(&format!(
            "\n{} of {} configurations are feasible; probabilities from {} draws over {} contenders, seed {}\n",
            self.feasible, self.candidates, self.draws, self.contenders, self.seed
        ));
        for exclusion in &self.excluded {
            text.push_str(&format!("left out: {exclusion}\n"));
        }
        if !self.outside.is_empty() {
            text.push_str("\noutside the measured range (guesses, not ranked):\n");
            let shown: Vec<_> = self.outside.iter().take(TABLE_OUTSIDE).cloned().collect();
            text.push_str(&self.ranking(&shown));
            text.push('\n');
        }
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    }

    /// The answer in one sentence.
    pub fn sentence(&self, best: &Candidate) -> String {
        let limits: Vec<_> = self.limits.iter().map(Limit::to_string).collect();
        let under = if limits.is_empty() { String::new() } else { format!(" under {}", limits.join(" and ")) };
        let per_token = best.energy_per_token_j;
        let safe = if best.limits.iter().all(|l| l.holds_with_margin) {
            ""
        } else {
            "; the interval's worse end breaks a limit"
        };
        format!(
            "{} with {} input and {} output tokens{under}: {} on {} x {} needs {} J per output token (90 %: {} to {}){safe}",
            self.model,
            self.input_tokens,
            self.output_tokens,
            best.label(),
            best.num_gpus,
            best.gpu_model,
            figure(per_token.value),
            figure(per_token.low),
            figure(per_token.high),
        )
    }

    fn ranking(&self, candidates: &[Candidate]) -> String {
        let several_gpus = candidates.iter().any(|c| Some(&c.gpu_model) != candidates.first().map(|f| &f.gpu_model));
        let times = [
            (Quantity::MeanTtftS, "TTFT s"),
            (Quantity::MeanTpotS, "TPOT s"),
            (Quantity::DurationS, "batch s"),
            (Quantity::MeanPowerW, "W"),
        ];
        let times: Vec<_> =
            times.into_iter().filter(|(q, _)| candidates.iter().any(|c| c.estimate(*q).is_some())).collect();
        let mut head = vec!["TP", "PP", "DP", "GPUs", "batch"];
        if several_gpus {
            head.insert(0, "GPU");
        }
        head.extend(["J/token", "90 % interval", "J/request", "extra", "P(best)"]);
        head.extend(times.iter().map(|(_, title)| *title));
        head.push("notes");
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
        for c in candidates {
            let mut row: Vec<String> = Vec::new();
            if several_gpus {
                row.push(c.gpu_model.clone());
            }
            row.extend([c.tensor_parallel, c.pipeline_parallel, c.data_parallel, c.num_gpus].map(|v| v.to_string()));
            row.push(figure(c.batch_size));
            row.push(figure(c.energy_per_token_j.value));
            row.push(format!("{} to {}", figure(c.energy_per_token_j.low), figure(c.energy_per_token_j.high)));
            row.push(figure(c.energy_per_request_j.value));
            row.push(percent(c.extra_energy_percent));
            row.push(c.probability_best.map_or("-".to_owned(), |p| format!("{:.0} %", 100.0 * p)));
            row.extend(times.iter().map(|(q, _)| c.estimate(*q).map_or("-".to_owned(), |e| figure(e.value))));
            row.push(notes(c));
            table.add_row(row);
        }
        let last = table.column_count().saturating_sub(1);
        for (i, column) in table.column_iter_mut().enumerate() {
            if i != last && !(several_gpus && i == 0) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: Vec<_> = table.to_string().lines().map(|l| l.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }
}

fn notes(candidate: &Candidate) -> String {
    let mut notes = Vec::new();
    if candidate.pareto == Some(true) {
        notes.push("on the front".to_owned());
    }
    notes.extend(candidate.replicas_note());
    notes.extend(
        candidate
            .limits
            .iter()
            .filter(|l| !l.holds_with_margin)
            .map(|l| format!("{} may reach {}", l.limit.quantity, figure(l.worst))),
    );
    notes.extend(candidate.outside.iter().cloned());
    notes.join("; ")
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, pick) = (self.rule, &self.pick);
        if self.same_as_best {
            write!(f, "{rule}: the same choice")
        } else {
            let extra = percent(pick.extra_energy_percent);
            write!(f, "{rule}: {} on {} GPUs, {extra} energy", pick.label(), pick.num_gpus)
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

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table())
    }
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

fn percent(value: f64) -> String {
    if value.abs() < 0.05 { "0 %".to_owned() } else { format!("{value:+.1} %") }
}
