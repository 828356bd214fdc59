//! How does one see why?
//!
//! Start at [`write_html`]: one self-contained HTML file, readable without network, on a phone, in the dark and on
//! paper. `figures` turns rows and laws into the numbers that are drawn, `page` into the words and tables around
//! them; the template beside this file lays both out, and Observable Plot (`vendor/observable-plot`) draws.
//!
//! Limits: charts need a browser that runs scripts; without one, words and tables remain. Long recordings are thinned
//! to what a screen can show, keeping the extremes; the tables say where they stop.

mod answer;
mod figures;
mod formula;
mod laws;
mod page;

use std::io::Write;
use std::path::{Path, PathBuf};

use minijinja::{Environment, context};
use serde::Serialize;

use crate::dataset::Dataset;
use crate::file;
use crate::law::Model;
use crate::recommend::{NextMeasurements, Recommendation};
use crate::schema::EnergySource;

/// What a report is made of. Only the first four are needed; a section whose data is missing says so.
#[derive(Debug, Clone)]
pub struct ReportInput<'a> {
    /// Title: the campaign's name.
    pub title: &'a str,
    /// Whether anything in it was simulated; it is then labelled so in the header and in each figure.
    pub simulated: bool,
    /// Measured rows, and those that were refused.
    pub dataset: &'a Dataset,
    /// Fitted laws.
    pub model: &'a Model,
    /// The answer to the workload that the report is about.
    pub recommendation: Option<&'a Recommendation>,
    /// What to measure next to be surer of it.
    pub next: Option<&'a NextMeasurements>,
    /// How the recording went.
    pub recording: Option<RecordingFacts>,
    /// Runs that failed, of a campaign; `None` where there are no runs, but rows alone.
    pub failed_runs: Option<Vec<FailedRun>>,
    /// Power over time, device by device.
    pub power: Vec<PowerTrace>,
    /// Phases on the same time axis.
    pub phases: Vec<PhaseBand>,
    /// Measured and predicted energy, J, of rows that the predicting law was not fitted on.
    pub held_out_rows: Vec<(f64, f64)>,
    /// Accuracy on held-out rows against the number of rows learnt from.
    pub learning: Vec<LearningPoint>,
}

impl<'a> ReportInput<'a> {
    /// A report on rows and the laws fitted to them.
    pub fn new(title: &'a str, dataset: &'a Dataset, model: &'a Model) -> Self {
        Self {
            title,
            simulated: false,
            dataset,
            model,
            recommendation: None,
            next: None,
            recording: None,
            failed_runs: None,
            power: Vec::new(),
            phases: Vec::new(),
            held_out_rows: Vec::new(),
            learning: Vec::new(),
        }
    }

    /// Simulated, whether the caller said so or the rows and laws do.
    fn is_simulated(&self) -> bool {
        self.simulated
            || self.dataset.rows.iter().any(|r| r.source == EnergySource::Simulated)
            || self.model.laws.iter().any(|l| l.simulated)
            || self.recommendation.is_some_and(|r| r.simulated)
    }
}

/// How a recording went; what is not known stays out of the report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordingFacts {
    /// Names of the devices.
    pub devices: Option<Vec<String>>,
    /// Counter edges seen, which is rows stored apart from heartbeats.
    pub edges: Option<u64>,
    /// Readings taken.
    pub polls: Option<u64>,
    /// Samples that the ring refused because it was full.
    pub lost: Option<u64>,
    /// Time recorded, s.
    pub duration_s: Option<f64>,
    /// Share of one CPU core that polling took.
    pub cpu_share: Option<f64>,
    /// Files that do not say what was lost in them: still written, or left by a recorder that was killed.
    pub silent_files: Option<usize>,
}

/// One run that came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRun {
    /// Run.
    pub run_id: String,
    /// Why it failed.
    pub reason: String,
}

/// Power of one device over time.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerTrace {
    /// Device.
    pub device: String,
    /// Instants, s, from any common origin; ascending.
    pub t_s: Vec<f64>,
    /// Power at each instant, W.
    pub power_w: Vec<f64>,
}

/// One phase on the time axis of the power.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseBand {
    /// Phase: idle, warmup, prefill, decode or total.
    pub phase: String,
    /// Run that it belongs to.
    pub run_id: String,
    /// Begin, s.
    pub start_s: f64,
    /// End, s.
    pub end_s: f64,
}

/// Accuracy of one predictor from so many rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LearningPoint {
    /// Rows learnt from, per law; the most where laws or splits differ.
    pub training_rows: usize,
    /// The fewest.
    pub training_rows_min: usize,
    /// Predictor.
    pub predictor: String,
    /// Share of workloads for which the best configuration was picked.
    pub top1: Option<f64>,
    /// Mean excess energy of the picked configuration.
    pub regret: Option<f64>,
    /// Mean absolute error, relative.
    pub mape: Option<f64>,
}

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be written.
    #[error("report {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The page could not be laid out.
    #[error("report could not be laid out: {0}")]
    Template(#[from] minijinja::Error),
    /// The figures could not be written as JSON.
    #[error("figures of the report could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

const TEMPLATE: &str = include_str!("template.html");
const STYLE: &str = include_str!("style.css");
const CHARTS: &str = include_str!("charts.js");
const D3: &str = include_str!("../../vendor/observable-plot/d3.min.js");
const PLOT: &str = include_str!("../../vendor/observable-plot/plot.umd.min.js");

/// Writes the report, whole or not at all.
pub fn write_html(path: &Path, input: &ReportInput<'_>) -> Result<(), Error> {
    let html = html(input)?;
    let io = |source| Error::Io { path: path.to_owned(), source };
    file::replace(path, |file| file.write_all(html.as_bytes())).map_err(io)
}

/// The page as text.
pub fn html(input: &ReportInput<'_>) -> Result<String, Error> {
    let fitted = figures::fitted_rows(input);
    let views = figures::views(input, &fitted);
    let figures = figures::Figures::new(input, &fitted, &views);
    let page = page::Page::new(input, &fitted, &views, &figures);
    let data = script_json(&serde_json::to_string(&figures)?);
    let mut environment = Environment::new();
    // The name's ending turns HTML escaping on: whatever is not marked safe in the template is text.
    environment.add_template("report.html", TEMPLATE)?;
    let template = environment.get_template("report.html")?;
    let page = minijinja::value::Serde(page);
    Ok(template.render(context! { page, data, style => STYLE, charts => CHARTS, d3 => D3, plot => PLOT })?)
}

/// JSON that can stand in a script element: nothing in it can end the element or open a comment.
fn script_json(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests;
