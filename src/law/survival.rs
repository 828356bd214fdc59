//! Which terms of a discovered structure survive in parts of its rows: the table that `discover --stability` prints, kept
//! in the model file so that whoever gets the model can see it.

use serde::{Deserialize, Serialize};

/// One part of the rows, searched by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurvivalPart {
    /// `all rows`, an architecture, a GPU, a scenario.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Parameters of the structure chosen there.
    pub parameters: usize,
    /// Held-out error of that structure, as a ratio.
    pub own_mape: f64,
    /// The same, on the same folds, of the structure found in all rows.
    pub common_mape: Option<f64>,
    /// The same of the energylens law.
    pub reference_mape: Option<f64>,
}

/// What one kind of term did in the parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurvivalTerm {
    /// What it stands for.
    pub role: String,
    /// The shape in which it was chosen most often.
    pub product: String,
    /// Its share of the energy of a row, part by part; `None` where it was not chosen.
    pub shares: Vec<Option<f64>>,
    /// Share of the resamples that chose it; `None` without resamples.
    pub in_resamples: Option<f64>,
    /// Smallest coefficient of that shape.
    pub low: f64,
    /// Largest coefficient of that shape.
    pub high: f64,
    /// Unit of the coefficient.
    pub unit: String,
}

/// Which terms survive where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurvivalTable {
    /// The parts, all rows first.
    pub parts: Vec<SurvivalPart>,
    /// The terms, the most stable first.
    pub terms: Vec<SurvivalTerm>,
    /// Resamples of whole workloads.
    pub resamples: usize,
    /// Whether parts or resamples are missing because the search was ended early.
    pub cut: bool,
}
