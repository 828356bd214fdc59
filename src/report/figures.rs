//! The numbers that the charts draw.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{LearningPoint, PhaseBand, PowerTrace, ReportInput};
use crate::dataset::Row;
use crate::law::{Law, Prediction, Scenario, Target, same_model};
use crate::recommend::{Candidate, Quantity};
use crate::schema::Phase;

/// Points of a power trace per device: twice the pixels of a wide chart.
const TRACE_POINTS: usize = 2_000;

/// Devices with a line of their own: with more, lines cover each other and the page gets heavy.
const TRACES: usize = 32;

/// Phase bands; with more, shading is a smear.
const BANDS: usize = 400;

/// Rows in the parity and residual charts.
const PARITY_ROWS: usize = 4_000;

/// Scenarios with an own curve chart.
pub(super) const VIEWS: usize = 6;

/// Batch sizes along a curve.
const CURVE_POINTS: usize = 33;

/// One measured row with what the law says of it.
#[derive(Debug, Clone)]
pub(super) struct FittedRow<'a> {
    pub(super) row: &'a Row,
    pub(super) law: &'a Law,
    pub(super) measured_j: f64,
    pub(super) predicted: Prediction,
}

/// One scenario with a law: what a curve chart shows.
#[derive(Debug, Clone)]
pub(super) struct View<'a> {
    pub(super) law: &'a Law,
    pub(super) scenario: Scenario,
    pub(super) rows: Vec<FittedRow<'a>>,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
    /// Sequences per replica at which the terms are shown apart.
    pub(super) batch_size: f64,
}

/// Everything that is drawn, as the page's script reads it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    simulated: bool,
    pub(super) power: Option<Power>,
    pub(super) views: Vec<ViewFigures>,
    pub(super) tradeoff: Option<Tradeoff>,
    pub(super) parity: Vec<ParityPoint>,
    /// Whether the parity chart holds rows that were not fitted.
    pub(super) held_out: bool,
    learning: Vec<LearningPoint>,
}

#[derive(Debug, Serialize)]
pub(super) struct Power {
    traces: Vec<Trace>,
    bands: Vec<Band>,
    pub(super) bands_left_out: usize,
    #[serde(skip)]
    pub(super) traces_left_out: usize,
    /// From the first instant of all traces to the last.
    #[serde(skip)]
    pub(super) shown_s: f64,
}

#[derive(Debug, Serialize)]
struct Trace {
    device: String,
    points: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
struct Band {
    phase: String,
    run_id: String,
    start_s: f64,
    end_s: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ViewFigures {
    curves: Vec<CurvePoint>,
    points: Vec<MeasuredPoint>,
    pub(super) terms: Vec<TermBar>,
}

#[derive(Debug, Serialize)]
struct CurvePoint {
    config: String,
    batch: f64,
    value: f64,
    low: f64,
    high: f64,
}

#[derive(Debug, Serialize)]
struct MeasuredPoint {
    config: String,
    batch: f64,
    value: f64,
    run_id: String,
}

/// One term's share of one configuration's energy.
#[derive(Debug, Serialize)]
pub(super) struct TermBar {
    config: String,
    term: String,
    group: &'static str,
    energy_per_token_j: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Tradeoff {
    pub(super) latency: &'static str,
    points: Vec<TradeoffPoint>,
}

#[derive(Debug, Serialize)]
struct TradeoffPoint {
    label: String,
    kind: &'static str,
    latency_s: f64,
    energy_per_token_j: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ParityPoint {
    measured_j: f64,
    predicted_j: f64,
    phase: &'static str,
    label: String,
}

/// The pair of degrees that colours are given to.
fn pair(tensor: u32, pipeline: u32) -> String {
    format!("TP{tensor} PP{pipeline}")
}

/// Every row that has an energy and a law, with its prediction.
pub(super) fn fitted_rows<'a>(input: &ReportInput<'a>) -> Vec<FittedRow<'a>> {
    let model = input.model;
    let mut scenarios: BTreeMap<String, Option<Scenario>> = BTreeMap::new();
    let predict = |row: &'a Row| {
        let measured_j = row.energy_j.filter(|e| e.is_finite() && *e > 0.0)?;
        let law = model.law_for(Target::EnergyJ, row).ok()?;
        let scenario = scenarios.entry(row.scenario_key()).or_insert_with(|| model.scenario_for(law, row).ok());
        let case = scenario.as_ref()?.case(row).ok()?;
        let predicted = law.predict(&case, law.knows(&row.model));
        let usable = predicted.value.is_finite() && predicted.value > 0.0;
        usable.then_some(FittedRow { row, law, measured_j, predicted })
    };
    input.dataset.rows.iter().filter_map(predict).collect()
}

/// The scenarios with the most rows, each with the workload that its charts are drawn for.
pub(super) fn views<'a>(input: &ReportInput<'a>, fitted: &[FittedRow<'a>]) -> Vec<View<'a>> {
    let mut groups: BTreeMap<String, Vec<FittedRow<'a>>> = BTreeMap::new();
    for row in fitted {
        groups.entry(row.row.scenario_key()).or_default().push(row.clone());
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let recommended = input.recommendation.and_then(|r| Some((r, r.ranked.first()?)));
    let view = |rows: Vec<FittedRow<'a>>| {
        let first = rows.first()?;
        let scenario = input.model.scenario_for(first.law, first.row).ok()?;
        let law = first.law;
        let median = |value: &dyn Fn(&Row) -> Option<f64>| {
            let whole = |r: &&FittedRow<'_>| r.row.output_tokens > 1.0;
            let mut values: Vec<f64> = rows.iter().filter(whole).filter_map(|r| value(r.row)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let mut view = View {
            input_tokens: median(&|r| r.input_tokens).or(first.row.input_tokens)?,
            output_tokens: median(&|r| Some(r.output_tokens)).unwrap_or(first.row.output_tokens),
            batch_size: median(&|r| Some(replica_batch(r))).unwrap_or(1.0),
            law,
            scenario,
            rows: Vec::new(),
        };
        if let Some((answer, best)) = recommended
            && same_model(&answer.model, &first.row.model)
        {
            view.input_tokens = answer.input_tokens;
            view.output_tokens = answer.output_tokens;
            view.batch_size = best.batch_size / f64::from(best.data_parallel.max(1));
        }
        view.rows = rows;
        Some(view)
    };
    // The recommended scenario first, then the others of its model, each by rows.
    let distance = |rows: &Vec<FittedRow<'_>>| {
        let Some(((answer, best), first)) = recommended.zip(rows.first()) else { return 2 };
        if !same_model(&answer.model, &first.row.model) {
            return 2;
        }
        let law = first.law;
        // A law that names neither holds for what was asked.
        let same = |own: &Option<String>, law: &Option<String>| law.is_none() || own == law;
        let is_same =
            best.gpu_model == law.gpu_model && same(&best.engine, &law.engine) && same(&best.precision, &law.precision);
        u8::from(!is_same)
    };
    groups.sort_by_key(distance);
    groups.into_iter().filter_map(view).take(VIEWS).collect()
}

fn replica_batch(row: &Row) -> f64 {
    row.batch_size / f64::from(row.data_parallel.max(1))
}

impl View<'_> {
    /// Pairs of degrees that were measured.
    fn pairs(&self) -> BTreeSet<(u32, u32)> {
        self.rows.iter().map(|r| (r.row.tensor_parallel, r.row.pipeline_parallel)).collect()
    }

    /// The view's workload at one pair of degrees, one replica.
    fn row_at(&self, pair: (u32, u32), batch_size: f64) -> Option<Row> {
        let mut row = self.rows.first()?.row.clone();
        (row.tensor_parallel, row.pipeline_parallel) = pair;
        row.data_parallel = 1;
        row.num_gpus = pair.0.saturating_mul(pair.1);
        row.phase = Phase::Total;
        row.batch_size = batch_size;
        row.input_tokens = Some(self.input_tokens);
        row.output_tokens = self.output_tokens;
        // The capacity of that row's own degrees is another's.
        row.kv_capacity_tokens = None;
        Some(row)
    }

    fn predict(&self, pair: (u32, u32), batch_size: f64) -> Option<Prediction> {
        let row = self.row_at(pair, batch_size)?;
        let case = self.scenario.case(&row).ok()?;
        let predicted = self.law.predict(&case, self.law.knows(&row.model));
        (predicted.value.is_finite() && predicted.value > 0.0).then_some(predicted)
    }

    fn figures(&self) -> ViewFigures {
        let batches: Vec<f64> = self.rows.iter().map(|r| replica_batch(r.row)).collect();
        let low = batches.iter().copied().fold(f64::INFINITY, f64::min);
        let high = batches.iter().copied().fold(low, f64::max);
        let along = |i: usize| low * (high / low).powf(i as f64 / (CURVE_POINTS - 1) as f64);
        let steps = if high > low { CURVE_POINTS } else { 1 };
        let mut curves = Vec::new();
        let mut terms = Vec::new();
        for degrees in self.pairs() {
            let config = pair(degrees.0, degrees.1);
            for batch in (0..steps).map(along) {
                let tokens = batch * self.output_tokens;
                if let Some(p) = self.predict(degrees, batch) {
                    let (value, low, high) = (p.value / tokens, p.low / tokens, p.high / tokens);
                    curves.push(CurvePoint { config: config.clone(), batch, value, low, high });
                }
            }
            let case = self.row_at(degrees, self.batch_size).and_then(|row| self.scenario.case(&row).ok());
            let Some(case) = case else { continue };
            let tokens = self.batch_size * self.output_tokens;
            let contributions = self.law.contributions(&case);
            terms.extend(self.law.skeleton.terms.iter().zip(contributions).map(|(term, energy_j)| TermBar {
                config: config.clone(),
                term: term.title.clone(),
                group: term.group.as_str(),
                energy_per_token_j: energy_j / tokens,
            }));
        }
        ViewFigures { curves, points: self.points(), terms }
    }

    /// Measured whole batches, moved along the law to the view's workload: the ratio of measured to predicted is kept,
    /// so a point lies as far from its curve as its row lies from the law.
    fn points(&self) -> Vec<MeasuredPoint> {
        let whole = self.rows.iter().filter(|r| r.row.phase == Phase::Total && r.row.output_tokens > 1.0);
        let moved = |r: &FittedRow<'_>| {
            let degrees = (r.row.tensor_parallel, r.row.pipeline_parallel);
            let batch = replica_batch(r.row);
            let there = self.predict(degrees, batch)?;
            Some(MeasuredPoint {
                config: pair(degrees.0, degrees.1),
                batch,
                value: there.value / (batch * self.output_tokens) * r.measured_j / r.predicted.value,
                run_id: r.row.run_id.clone(),
            })
        };
        whole.filter_map(moved).collect()
    }
}

impl Figures {
    pub(super) fn new(input: &ReportInput<'_>, fitted: &[FittedRow<'_>], views: &[View<'_>]) -> Self {
        let held_out = !input.held_out_rows.is_empty();
        let finite = |(measured, predicted): &&(f64, f64)| *measured > 0.0 && *predicted > 0.0;
        let parity = if held_out {
            let usable = input.held_out_rows.iter().filter(finite).enumerate();
            let point = |(i, (measured_j, predicted_j)): (usize, &(f64, f64))| ParityPoint {
                measured_j: *measured_j,
                predicted_j: *predicted_j,
                phase: "held out",
                label: format!("held-out row {}", i + 1),
            };
            thinned(usable.map(point).collect())
        } else {
            thinned(fitted.iter().map(ParityPoint::of).collect())
        };
        Self {
            simulated: input.is_simulated(),
            power: power(&input.power, &input.phases),
            views: views.iter().map(View::figures).collect(),
            tradeoff: tradeoff(input),
            parity,
            held_out,
            learning: input.learning.clone(),
        }
    }
}

impl ParityPoint {
    fn of(row: &FittedRow<'_>) -> Self {
        let r = row.row;
        Self {
            measured_j: row.measured_j,
            predicted_j: row.predicted.value,
            phase: r.phase.as_str(),
            label: format!(
                "{} {}, {}, DP{}, batch {}, {} in, {} out",
                r.model,
                r.gpu_model,
                pair(r.tensor_parallel, r.pipeline_parallel),
                r.data_parallel,
                r.batch_size,
                r.input_tokens.unwrap_or(f64::NAN),
                r.output_tokens
            ),
        }
    }
}

/// Every n-th, so that at most [`PARITY_ROWS`] remain.
fn thinned(points: Vec<ParityPoint>) -> Vec<ParityPoint> {
    let step = points.len().div_ceil(PARITY_ROWS).max(1);
    points.into_iter().step_by(step).collect()
}

fn power(traces: &[PowerTrace], phases: &[PhaseBand]) -> Option<Power> {
    let traces: Vec<Trace> = traces
        .iter()
        .map(|t| Trace { device: t.device.clone(), points: decimated(&t.t_s, &t.power_w) })
        .filter(|t| !t.points.is_empty())
        .collect();
    let band =
        |b: &PhaseBand| Band { phase: b.phase.clone(), run_id: b.run_id.clone(), start_s: b.start_s, end_s: b.end_s };
    let bands_left_out = phases.len().saturating_sub(BANDS);
    let traces_left_out = traces.len().saturating_sub(TRACES);
    let traces: Vec<Trace> = traces.into_iter().take(TRACES).collect();
    let instants = || traces.iter().flat_map(|t| &t.points).map(|(t_s, _)| *t_s);
    let shown_s = instants().fold(f64::NEG_INFINITY, f64::max) - instants().fold(f64::INFINITY, f64::min);
    let bands = phases.iter().take(BANDS).map(band).collect();
    (!traces.is_empty()).then_some(Power { traces, bands, bands_left_out, traces_left_out, shown_s })
}

/// A trace of at most [`TRACE_POINTS`] points that keeps the lowest and the highest of every stretch.
fn decimated(t_s: &[f64], power_w: &[f64]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = t_s.iter().copied().zip(power_w.iter().copied()).collect();
    let points: Vec<_> = points.into_iter().filter(|(t, w)| t.is_finite() && w.is_finite()).collect();
    if points.len() <= TRACE_POINTS {
        return points;
    }
    let stretch = points.len().div_ceil(TRACE_POINTS / 2);
    let mut kept = Vec::with_capacity(TRACE_POINTS);
    for chunk in points.chunks(stretch) {
        let by_power = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        if let (Some(low), Some(high)) = (chunk.iter().min_by(by_power), chunk.iter().max_by(by_power)) {
            let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
            kept.push(*first);
            if first != second {
                kept.push(*second);
            }
        }
    }
    kept
}

/// Energy against latency: what was predicted for the workload, or failing that what was measured.
fn tradeoff(input: &ReportInput<'_>) -> Option<Tradeoff> {
    let predicted = || {
        let answer = input.recommendation?;
        let latency = answer.latency?;
        let mut points = Vec::new();
        let mut add = |candidates: &[Candidate], kind: &'static str| {
            points.extend(candidates.iter().filter_map(|c| {
                Some(TradeoffPoint {
                    label: match c.varies.gpu_model {
                        true => c.label(),
                        false => format!("{}, {}", c.gpu_model, c.label()),
                    },
                    kind,
                    latency_s: c.estimate(latency)?.value,
                    energy_per_token_j: c.energy_per_token_j.value,
                })
            }));
        };
        let off_front: Vec<_> = answer.ranked.iter().filter(|c| c.pareto != Some(true)).cloned().collect();
        add(&off_front, "other");
        add(&answer.pareto, "front");
        add(answer.ranked.get(..1).unwrap_or_default(), "recommended");
        (!answer.pareto.is_empty()).then_some(Tradeoff { latency: latency.as_str(), points })
    };
    let measured = || {
        let point = |r: &Row| {
            let tokens = r.batch_size * r.output_tokens;
            let whole = r.phase == Phase::Total && r.output_tokens > 1.0 && tokens > 0.0;
            Some(TradeoffPoint {
                label: format!("{}, {}, batch {}", r.model, pair(r.tensor_parallel, r.pipeline_parallel), r.batch_size),
                kind: "measured",
                latency_s: r.mean_tpot_s.filter(|t| *t > 0.0 && whole)?,
                energy_per_token_j: r.energy_j? / tokens,
            })
        };
        let points: Vec<_> = input.dataset.rows.iter().filter_map(point).take(PARITY_ROWS).collect();
        (!points.is_empty()).then_some(Tradeoff { latency: Quantity::MeanTpotS.as_str(), points })
    };
    predicted().or_else(measured)
}
