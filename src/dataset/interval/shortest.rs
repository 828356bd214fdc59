//! How long a window must be on a counter whose edges were watched.

use super::{Window, energy};
use crate::dataset::quality::MIN_EDGES_INSIDE;
use crate::dataset::unwrap::Edge;
use crate::units::ns_to_s;

/// Windows that are tried, at different phases between two refreshes.
const TRIED: i64 = 32;

/// The shortest window whose energy is known to within `relative` of itself (half width of the 95 % interval), by the
/// formula that measures windows, at the power and restlessness that these edges show. `None` if they are too few.
///
/// What the marks cost does not depend on how long the window is; so windows within the edges are measured, and the
/// median of their uncertainties is set against the mean power.
pub fn shortest_window_s(edges: &[Edge], relative: f64) -> Option<f64> {
    let (first, last) = (edges.first()?, edges.last()?);
    let intervals = i64::try_from(edges.len()).ok()? - 1;
    let span_ns = last.t_latest_ns - first.t_latest_ns;
    if intervals < 8 || span_ns <= 0 {
        return None;
    }
    let power_w = (last.energy_uj.checked_sub(first.energy_uj)? as f64 / 1e6) / ns_to_s(span_ns);
    let period_ns = span_ns / intervals;
    // From a quarter to three quarters of what was watched: neighbours on both sides of either mark.
    let mut stds_j: Vec<f64> = (0..TRIED)
        .filter_map(|i| {
            let t_begin_ns = first.t_latest_ns + span_ns / 4 + i * period_ns / TRIED;
            // The end lies at another phase than the begin.
            let t_end_ns = t_begin_ns + span_ns / 2 - (i * 7 % TRIED) * period_ns / TRIED;
            energy(edges.iter().copied(), Window { t_begin_ns, t_end_ns }).ok().map(|e| e.std_j)
        })
        .collect();
    stds_j.sort_by(f64::total_cmp);
    let std_j = *stds_j.get(stds_j.len() / 2)?;
    let for_edges_s = (MIN_EDGES_INSIDE + 1) as f64 * ns_to_s(period_ns);
    (power_w > 0.0 && relative > 0.0).then(|| (1.96 * std_j / (relative * power_w)).max(for_edges_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refreshes every `period_ms`, seen by a poll each millisecond, at 100 W.
    fn edges(period_ms: i64, count: i64) -> Vec<Edge> {
        (0..count)
            .map(|i| Edge {
                t_earliest_ns: i * period_ms * 1_000_000 - 1_000_000,
                t_latest_ns: i * period_ms * 1_000_000,
                energy_uj: (i * period_ms) as u128 * 100_000,
            })
            .collect()
    }

    #[test]
    fn a_window_holds_a_few_refreshes_at_least_and_more_for_more_precision() {
        let at = |period_ms, relative| shortest_window_s(&edges(period_ms, 60), relative);
        // At 100 ms the four refreshes decide: an edge known to 0.3 ms costs 0.03 J, 5 % of which are 0.6 J or 6 ms.
        assert_eq!(at(100, 0.05), Some(0.4));
        // Two edges, each uniform within 1 ms: at most sqrt(2/12) ms of 100 W, 1.96 times of which make 0.8 ms.
        let fine = at(5, 0.001).expect("enough edges");
        assert!((0.1..=0.8).contains(&fine), "{fine}");
        let coarse = at(5, 0.01).expect("enough edges");
        assert!((fine / coarse - 10.0).abs() < 1e-6 || coarse == 0.02, "{fine} {coarse}");
        assert_eq!(shortest_window_s(&edges(5, 8), 0.01), None, "seven intervals are too few");
    }
}
