//! The words and tables of the page, ready for the template.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::answer::Answer;
use super::figures::{Figures, FittedRow, Power, VIEWS, View};
use super::laws::{Accuracy, LAW, LawText};
use super::{FailedRun, ReportInput};
use crate::law::Target;
use crate::recommend::figure;
use crate::schema::Phase;

/// Rows of the phase table.
const TABLE_ROWS: usize = 200;

/// Refused rows, and failed runs, that are listed one by one.
const REFUSED_ROWS: usize = 20;

/// Names that a fact lists.
const NAMES: usize = 4;

/// Laws with a section of their own.
const LAWS: usize = 12;

/// Everything on the page but the charts' numbers.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    title: String,
    version: &'static str,
    simulated: bool,
    measured: Vec<Fact>,
    quality: Vec<Fact>,
    recommendation: Option<Answer>,
    refused: Vec<Refused>,
    refused_more: usize,
    failed: Vec<FailedRun>,
    failed_more: usize,
    power: Option<String>,
    views: Vec<ViewText>,
    views_more: usize,
    tradeoff: Option<String>,
    parity: Option<String>,
    accuracy: Vec<Accuracy>,
    learning: Option<String>,
    survival: Vec<Table>,
    laws: Vec<LawText>,
    laws_more: usize,
    phases: Table,
    phases_more: usize,
}

/// One line of the first page.
#[derive(Debug, Serialize)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
    /// Whether a reader should be wary of it.
    pub(super) warn: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Whether the last column is words rather than figures.
    pub(super) words_last: bool,
}

#[derive(Debug, Serialize)]
struct Refused {
    line: usize,
    column: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct ViewText {
    name: String,
    workload: String,
    batch: String,
}

impl Page {
    pub(super) fn new(
        input: &ReportInput<'_>,
        fitted: &[FittedRow<'_>],
        views: &[View<'_>],
        figures: &Figures,
    ) -> Self {
        let scenarios: BTreeSet<_> = fitted.iter().map(|r| r.row.scenario_key()).collect();
        let rejected = &input.dataset.rejected;
        let failed = input.failed_runs.as_deref().unwrap_or_default();
        Self {
            title: input.title.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            simulated: input.is_simulated(),
            measured: measured(input),
            quality: quality(input, fitted),
            recommendation: input.recommendation.map(|answer| Answer::of(answer, input.next)),
            refused: rejected
                .iter()
                .take(REFUSED_ROWS)
                .map(|r| Refused {
                    line: r.line,
                    column: r.column.clone().unwrap_or_default(),
                    reason: r.reason.clone(),
                })
                .collect(),
            refused_more: rejected.len().saturating_sub(REFUSED_ROWS),
            failed: failed.iter().take(REFUSED_ROWS).cloned().collect(),
            failed_more: failed.len().saturating_sub(REFUSED_ROWS),
            power: figures.power.as_ref().map(power),
            views: views.iter().map(|view| ViewText::of(view, views)).collect(),
            views_more: if views.len() == VIEWS { scenarios.len().saturating_sub(VIEWS) } else { 0 },
            tradeoff: figures.tradeoff.as_ref().map(|t| t.latency.to_owned()),
            parity: (!figures.parity.is_empty()).then(|| {
                if figures.held_out {
                    "Held-out rows: the law that predicts each was fitted without it.".to_owned()
                } else {
                    "Fitted rows: the law has seen every one of them, so this shows how well it describes, not how well \
                     it predicts."
                        .to_owned()
                }
            }),
            accuracy: input
                .model
                .laws
                .iter()
                .filter_map(|law| Some(Accuracy::of(law, law.held_out.as_ref()?)))
                .take(LAWS)
                .collect(),
            learning: learning(input),
            survival: input.model.survival.iter().flat_map(super::laws::survival).collect(),
            laws: input.model.laws.iter().take(LAWS).map(LawText::of).collect(),
            laws_more: input.model.laws.len().saturating_sub(LAWS),
            phases: phase_table(input, fitted),
            phases_more: input.dataset.rows.len().saturating_sub(TABLE_ROWS),
        }
    }
}

/// How much of the recording the chart shows, in words.
fn power(power: &Power) -> String {
    let mut text = format!("All {} s are shown; of each stretch the least and the greatest.", figure(power.shown_s));
    match power.traces_left_out {
        0 => {}
        n => text.push_str(&format!(" {n} more devices are not drawn.")),
    }
    match power.bands_left_out {
        0 => text.push_str(" Phases are shaded."),
        n => text.push_str(&format!(" Phases are shaded; the last {n} are left out.")),
    }
    text
}

pub(super) fn fact(name: &'static str, value: impl Into<String>) -> Fact {
    Fact { name, value: value.into(), warn: false }
}

/// What was measured, on what.
fn measured(input: &ReportInput<'_>) -> Vec<Fact> {
    let rows = &input.dataset.rows;
    let mut facts = Vec::new();
    let mut names = |name, values: BTreeSet<&str>| {
        if !values.is_empty() {
            facts.push(fact(name, listing(&values)));
        }
    };
    names("models", rows.iter().map(|r| r.model.as_str()).collect());
    names("GPUs", rows.iter().map(|r| r.gpu_model.as_str()).collect());
    names("engines", rows.iter().filter_map(|r| r.engine.as_deref()).collect());
    names("precisions", rows.iter().filter_map(|r| r.precision.as_deref()).collect());
    names("energy from", rows.iter().map(|r| r.source.as_str()).collect());
    let mut range = |name, values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low.is_finite() {
            let text = if low == high { figure(low) } else { format!("{} to {}", figure(low), figure(high)) };
            facts.push(fact(name, text));
        }
    };
    range("GPUs per run", rows.iter().map(|r| f64::from(r.num_gpus)).collect());
    range("tensor_parallel", rows.iter().map(|r| f64::from(r.tensor_parallel)).collect());
    range("pipeline_parallel", rows.iter().map(|r| f64::from(r.pipeline_parallel)).collect());
    range("batch_size", rows.iter().map(|r| r.batch_size).collect());
    range("input_tokens", rows.iter().filter_map(|r| r.input_tokens).collect());
    range("output_tokens", rows.iter().map(|r| r.output_tokens).collect());
    facts
}

/// How well it was measured and fitted.
fn quality(input: &ReportInput<'_>, fitted: &[FittedRow<'_>]) -> Vec<Fact> {
    let dataset = input.dataset;
    let of_phase = |phase| dataset.rows.iter().filter(|r| r.phase == phase).count();
    let [total, prefill, decode] = [Phase::Total, Phase::Prefill, Phase::Decode].map(of_phase);
    let mut facts =
        vec![fact("rows", format!("{} ({total} total, {prefill} prefill, {decode} decode)", dataset.rows.len()))];
    if let Some(failed) = &input.failed_runs {
        facts.push(Fact { name: "runs that failed", value: failed.len().to_string(), warn: !failed.is_empty() });
    }
    facts.push(Fact {
        name: "rows refused",
        value: dataset.rejected.len().to_string(),
        warn: !dataset.rejected.is_empty(),
    });
    let doubtful = dataset.rows.iter().filter(|r| !r.quality.is_empty()).count();
    facts.push(Fact { name: "rows with a reason to doubt", value: doubtful.to_string(), warn: doubtful > 0 });
    let relative = |r: &crate::dataset::Row| Some(r.energy_j_std? / r.energy_j.filter(|e| *e > 0.0)?);
    let mut uncertainty: Vec<f64> = dataset.rows.iter().filter_map(relative).filter(|u| u.is_finite()).collect();
    uncertainty.sort_by(f64::total_cmp);
    if let Some(median) = uncertainty.get(uncertainty.len() / 2) {
        facts.push(fact("median uncertainty of an energy", format!("±{} %", figure(100.0 * median))));
    }
    if let Some(recording) = &input.recording {
        recording_facts(recording, &mut facts);
    }
    facts.push(fact("rows that a law describes", fitted.len().to_string()));
    let held_out = input.model.laws.iter().filter(|l| l.skeleton.target == Target::EnergyJ);
    if let Some(held_out) = held_out.filter_map(|l| l.held_out.as_ref()).next() {
        let own = held_out.figures.get(LAW).or(held_out.figures.values().next());
        if let Some(mape) = own.and_then(|f| f.get("mape")) {
            facts.push(fact("error on held-out rows (MAPE)", format!("{} %", figure(100.0 * mape))));
        }
        if let Some(top1) = own.and_then(|f| f.get("top1")) {
            facts.push(fact("best configuration picked, held out (Top-1)", format!("{} %", figure(100.0 * top1))));
        }
    } else {
        facts.push(Fact { name: "accuracy on held-out rows", value: "not computed".to_owned(), warn: true });
    }
    let bad = input.model.laws.iter().flat_map(|l| &l.verdicts).filter(|v| !v.is_good()).count();
    facts.push(Fact { name: "verdicts to read", value: bad.to_string(), warn: bad > 0 });
    facts
}

fn recording_facts(recording: &super::RecordingFacts, facts: &mut Vec<Fact>) {
    if let Some(devices) = &recording.devices {
        facts.push(fact("devices recorded", listing(&devices.iter().map(String::as_str).collect())));
    }
    if let Some(duration_s) = recording.duration_s {
        facts.push(fact("time recorded", format!("{} s", figure(duration_s))));
    }
    if let (Some(edges), Some(polls)) = (recording.edges, recording.polls) {
        facts.push(fact("counter edges", format!("{edges} in {polls} readings")));
    } else if let Some(edges) = recording.edges {
        facts.push(fact("counter edges", edges.to_string()));
    }
    if let Some(lost) = recording.lost {
        facts.push(Fact { name: "samples lost", value: lost.to_string(), warn: lost > 0 });
    }
    if let Some(files) = recording.silent_files.filter(|files| *files > 0) {
        let value = format!("{files}: still written, or the recorder was killed");
        facts.push(Fact { name: "files that do not say what was lost", value, warn: true });
    }
    if let Some(share) = recording.cpu_share {
        facts.push(fact("cost of recording", format!("{} % of one core", figure(100.0 * share))));
    }
}

fn listing(names: &BTreeSet<&str>) -> String {
    let shown: Vec<_> = names.iter().take(NAMES).copied().collect();
    let more = names.len().saturating_sub(NAMES);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

impl ViewText {
    fn of(view: &View<'_>, all: &[View<'_>]) -> Self {
        let name = |view: &View<'_>| format!("{} on {}", view.scenario.model, view.scenario.gpu_model);
        let is_unlike_any = all.iter().filter(|other| name(other) == name(view)).count() <= 1;
        let scenario = &view.scenario;
        let rest: Vec<&str> =
            [&scenario.engine, &scenario.precision].into_iter().flatten().map(String::as_str).collect();
        Self {
            name: match is_unlike_any || rest.is_empty() {
                true => name(view),
                false => format!("{} ({})", name(view), rest.join(", ")),
            },
            workload: format!("{} input and {} output tokens", figure(view.input_tokens), figure(view.output_tokens)),
            batch: figure(view.batch_size),
        }
    }
}

/// What the learning curve shows, in words.
fn learning(input: &ReportInput<'_>) -> Option<String> {
    let sizes: BTreeSet<(usize, usize)> =
        input.learning.iter().map(|p| (p.training_rows, p.training_rows_min)).collect();
    let size = |(most, fewest): &(usize, usize)| match most == fewest {
        true => most.to_string(),
        // Splits differ in what there is to learn from.
        false => format!("{fewest} to {most}"),
    };
    let sizes: Vec<String> = sizes.iter().map(size).collect();
    (!sizes.is_empty()).then(|| format!("from {} rows, judged on the same held-out rows each time", sizes.join(", ")))
}

fn phase_table(input: &ReportInput<'_>, fitted: &[FittedRow<'_>]) -> Table {
    let rows = &input.dataset.rows;
    let several =
        |value: &dyn Fn(&crate::dataset::Row) -> &str| rows.iter().map(value).collect::<BTreeSet<_>>().len() > 1;
    let (models, gpus) = (several(&|r| &r.model), several(&|r| &r.gpu_model));
    let mut head = vec!["run".to_owned(), "phase".to_owned()];
    head.extend(models.then(|| "model".to_owned()));
    head.extend(gpus.then(|| "GPU".to_owned()));
    head.extend(
        [
            "TP",
            "PP",
            "DP",
            "batch",
            "input",
            "output",
            "energy, J",
            "±, J",
            "law, J",
            "off by",
            "duration, s",
            "doubts",
        ]
        .map(str::to_owned),
    );
    let known: BTreeMap<*const crate::dataset::Row, &FittedRow<'_>> =
        fitted.iter().map(|f| (std::ptr::from_ref(f.row), f)).collect();
    let or_dash = |value: Option<f64>| value.map_or("–".to_owned(), figure);
    let row = |r: &crate::dataset::Row| {
        let law = known.get(&std::ptr::from_ref(r));
        let mut cells = vec![r.run_id.clone(), r.phase.to_string()];
        cells.extend(models.then(|| r.model.clone()));
        cells.extend(gpus.then(|| r.gpu_model.clone()));
        cells.extend([r.tensor_parallel, r.pipeline_parallel, r.data_parallel].map(|v| v.to_string()));
        cells.extend([figure(r.batch_size), or_dash(r.input_tokens), figure(r.output_tokens)]);
        cells.extend([or_dash(r.energy_j), or_dash(r.energy_j_std), or_dash(law.map(|l| l.predicted.value))]);
        cells.push(
            law.map_or("–".to_owned(), |l| format!("{:+.1} %", 100.0 * (l.measured_j / l.predicted.value - 1.0))),
        );
        cells.extend([or_dash(r.duration_s), r.quality.join(", ")]);
        cells
    };
    without_empty_last(Table { head, rows: rows.iter().take(TABLE_ROWS).map(row).collect(), words_last: true })
}

/// Drops the last column, the one for remarks, where nobody has any.
pub(super) fn without_empty_last(mut table: Table) -> Table {
    if table.rows.iter().all(|row| row.last().is_none_or(String::is_empty)) {
        table.head.pop();
        table.words_last = false;
        table.rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    table
}
