//! What the law said of each held-out row.

use serde::Serialize;

use super::Estimate;
use crate::dataset::Row;
use crate::schema::Phase;

/// One held-out row and what the law said of it, in the unit of the target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutRow {
    /// Line of the row in its file.
    pub line: usize,
    /// Model.
    pub model: String,
    /// Phase.
    pub phase: Phase,
    /// Measured value.
    pub measured: f64,
    /// Predicted value.
    pub predicted: f64,
    /// Lower end of the 90 % interval.
    pub low: f64,
    /// Upper end of the 90 % interval.
    pub high: f64,
}

/// Rows that were asked about, beside the answers that there are.
pub(super) fn parity(
    asked: &[Option<(usize, &Row)>],
    estimates: &[Option<Estimate>],
    value: &dyn Fn(&Row) -> Option<f64>,
) -> Vec<HeldOutRow> {
    let pairs = asked.iter().zip(estimates);
    pairs
        .filter_map(|(asked, estimate)| {
            let (_, row) = asked.as_ref()?;
            let estimate = (*estimate)?;
            let (low, high) = estimate.interval.unwrap_or((estimate.value, estimate.value));
            Some(HeldOutRow {
                line: row.line,
                model: row.model.clone(),
                phase: row.phase,
                measured: value(row)?,
                predicted: estimate.value,
                low,
                high,
            })
        })
        .collect()
}
