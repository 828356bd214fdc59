//! How rows scatter about a law that has not seen them, from what they were off by.
//!
//! What a left-out row is off by has two sources: its own scatter, and what the refit did not know. The second is measured
//! in the scatter of all rows, for all rows taught the law, whatever kind of row is asked for:
//!
//! ```text
//! variance of row i = own scatter of its kind + leverage_i * scatter of all rows
//! ```
//!
//! The same sum, with the full fit's leverage, is the variance of a prediction. So the own scatter of a kind is the most
//! likely one given the second part. A kind that scatters more than others would come out too small if its leverage were
//! counted in its own units, and with it every interval.

use std::collections::BTreeMap;

use crate::fit::{MAD_TO_SIGMA, median_abs};
use crate::law::{RowKind, Scatter};

/// Robust standard deviations at which a left-out row starts to count linearly. Misfit has longer tails than noise, so the
/// knee lies farther out than that of the fit.
const KNEE: f64 = 4.0;
/// Observations that the expected scatter counts for: few rows may agree by luck, and an interval must not believe them.
pub(in crate::fit) const EXPECTED_ROWS: f64 = 2.0;
/// Rows of its kind that the scatter of all rows counts for.
const ROWS_OF_ALL: f64 = 1.0;
/// Least variance of a kind's own scatter, relative to that of all rows: what a refit did not know may seem to explain
/// everything.
const LEAST_OWN: f64 = 0.02;
/// Steps towards the most likely own scatter.
const STEPS: usize = 20;
/// Mean fourth power of normal errors of variance 1.
const NORMAL_KURTOSIS: f64 = 3.0;

/// One row that was left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    pub(super) kind: RowKind,
    /// Log residual, times the square root of what the measurement weighs.
    pub(super) residual: f64,
    /// Variance of the refit's prediction in units of the scatter of all rows, times what the measurement weighs.
    pub(super) leverage: f64,
    /// How much of a row of its own it is.
    pub(super) independence: f64,
}

/// Scatter of all rows, and of each kind that there is.
pub(crate) struct Scatters {
    pub(crate) all: f64,
    pub(crate) by_kind: BTreeMap<RowKind, Scatter>,
}

/// A row as the sums want it.
#[derive(Debug, Clone, Copy)]
struct Square {
    row: Missed,
    /// Squared residual as if the refit had known all, bounded as Huber does.
    value: f64,
    /// The same, bounded to the knee's.
    winsorised: f64,
}

impl Square {
    /// How much of a row this is: one of which the refit knew little says little.
    fn counts(&self) -> f64 {
        self.row.independence / (1.0 + self.row.leverage)
    }

    /// The squared residual with what the refit did not know.
    fn whole(&self) -> f64 {
        self.value * (1.0 + self.row.leverage)
    }
}

/// The scatter of one more row, by kind. `smallest_knee` is that of the fit, `expected` the scatter expected beforehand.
pub(super) fn scatters(missed: &[Missed], smallest_knee: f64, expected: f64) -> Scatters {
    let kinds: Vec<(RowKind, Vec<Square>)> = [RowKind::Prefill, RowKind::Batch]
        .into_iter()
        .map(|kind| (kind, squares(missed.iter().filter(|row| row.kind == kind), smallest_knee)))
        .filter(|(_, squares)| !squares.is_empty())
        .collect();
    let sum = |of: fn(&Square) -> f64| -> f64 { kinds.iter().flat_map(|(_, squares)| squares).map(of).sum() };
    let squared = sum(|s| s.counts() * s.value) + EXPECTED_ROWS * expected.powi(2);
    let all = squared / (sum(Square::counts) + EXPECTED_ROWS);
    let tails = tails(&kinds);
    let scatter = |squares: &[Square]| {
        let rows: f64 = squares.iter().map(Square::counts).sum();
        let variance = (rows * own(squares, all) + ROWS_OF_ALL * all) / (rows + ROWS_OF_ALL);
        Scatter { sigma_log: variance.sqrt(), degrees_of_freedom: rows / tails + ROWS_OF_ALL }
    };
    Scatters { all: all.sqrt(), by_kind: kinds.iter().map(|(kind, squares)| (*kind, scatter(squares))).collect() }
}

fn squares<'a>(rows: impl Iterator<Item = &'a Missed>, smallest_knee: f64) -> Vec<Square> {
    let rows: Vec<Missed> = rows.copied().collect();
    let sizes: Vec<f64> = rows.iter().map(|row| row.residual.abs() / (1.0 + row.leverage).sqrt()).collect();
    let knee = (KNEE * MAD_TO_SIGMA * median_abs(&sizes)).max(smallest_knee);
    let square =
        |(row, size): (Missed, f64)| Square { row, value: size * size.min(knee), winsorised: size.min(knee).powi(2) };
    rows.into_iter().zip(sizes).map(square).collect()
}

/// The most likely variance of the rows' own scatter, where the refits' share of it stands in units of `all`.
fn own(squares: &[Square], all: f64) -> f64 {
    let mut own = all;
    for _ in 0..STEPS {
        let (mut sum, mut total) = (0.0, 0.0);
        for square in squares {
            let unknown = square.row.leverage * all;
            let weight = square.row.independence / (own + unknown).powi(2);
            (sum, total) = (sum + weight * (square.whole() - unknown), total + weight);
        }
        own = (sum / total).max(LEAST_OWN * all);
    }
    own
}

/// Rows that say as much of their scatter as one row with normal errors does. The mean of `n` squares is as uncertain as
/// one of `2 n / (kurtosis - 1)` normal ones, and a law's misfit is often some rows that it misses widely and many that it
/// meets. All kinds together tell, for one kind has too few rows.
fn tails(kinds: &[(RowKind, Vec<Square>)]) -> f64 {
    let (mut fourth, mut rows) = (0.0, 0.0);
    for (_, squares) in kinds {
        let count: f64 = squares.iter().map(Square::counts).sum();
        let mean = squares.iter().map(|s| s.counts() * s.winsorised).sum::<f64>() / count;
        if mean > 0.0 {
            fourth += squares.iter().map(|s| s.counts() * (s.winsorised / mean).powi(2)).sum::<f64>();
            rows += count;
        }
    }
    let kurtosis = if rows > 0.0 { fourth / rows } else { NORMAL_KURTOSIS };
    ((kurtosis - 1.0) / (NORMAL_KURTOSIS - 1.0)).max(1.0)
}

#[cfg(test)]
mod tests;
