//! Which points are known well enough: the answer to a sweep that repeats until it is precise.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use energylens::dataset::{self, Row};
use energylens::schema::{Method, Phase};

/// Fewer repeats than this say nothing of how much repeats differ.
const MIN_REPEATS: usize = 2;

/// The points of a campaign that are precise enough, renewed when runs have ended.
pub(super) struct Precision {
    relative_std: f64,
    /// Phases of repeats that are in another campaign.
    before: Vec<Row>,
    precise: HashSet<String>,
}

impl Precision {
    pub(super) fn new(relative_std: f64, before: Vec<Row>) -> Self {
        Self { relative_std, before, precise: HashSet::new() }
    }

    /// Looks at what the campaign knows by now.
    pub(super) fn renew(&mut self, dir: &Path) -> Result<(), dataset::Error> {
        let mut rows = dataset::phases::reduce(dir)?.rows;
        rows.extend(self.before.iter().cloned());
        self.precise = precise(&rows, self.relative_std);
        Ok(())
    }

    /// Whether the point needs no more repeats.
    pub(super) fn has(&self, point_id: &str) -> bool {
        self.precise.contains(point_id)
    }
}

/// Energy and standard uncertainty, J, of each repeat, by phase.
type Repeats = BTreeMap<Phase, Vec<(f64, f64)>>;

/// Points of which every fitted phase has a mean energy whose relative standard uncertainty is at most `relative_std`.
fn precise(rows: &[Row], relative_std: f64) -> HashSet<String> {
    let mut by_point: BTreeMap<&str, Repeats> = BTreeMap::new();
    for row in rows {
        // A decode that is the difference of two others is no figure of its own, and far less certain than they are.
        if row.method == Some(Method::Difference) {
            continue;
        }
        let Some((point_id, _)) = row.run_id.rsplit_once('-') else { continue };
        let Some(energy) = row.energy_j.zip(row.energy_j_std) else { continue };
        by_point.entry(point_id).or_default().entry(row.phase).or_default().push(energy);
    }
    let is_precise = |phases: &BTreeMap<Phase, Vec<(f64, f64)>>| {
        phases.values().all(|energies| relative_uncertainty(energies).is_some_and(|u| u <= relative_std))
    };
    by_point.into_iter().filter(|(_, phases)| is_precise(phases)).map(|(id, _)| id.to_owned()).collect()
}

/// Relative standard uncertainty of the mean of energies with their own uncertainties; `None` for too few.
///
/// Repeats scatter by what the counters leave open and by what really differs between them. So their scatter is the
/// measure, but never less than the counters' part: three repeats that agree by chance are no better than their counters.
fn relative_uncertainty(energies: &[(f64, f64)]) -> Option<f64> {
    if energies.len() < MIN_REPEATS {
        return None;
    }
    let n = energies.len() as f64;
    let mean = energies.iter().map(|(e, _)| e).sum::<f64>() / n;
    let scatter = (energies.iter().map(|(e, _)| (e - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let counters = (energies.iter().map(|(_, std)| std * std).sum::<f64>() / n).sqrt();
    (mean > 0.0).then(|| scatter.max(counters) / n.sqrt() / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_as_uncertain_as_repeats_scatter_or_counters_leave_open() {
        assert_eq!(relative_uncertainty(&[(100.0, 1.0)]), None);
        // Scatter: sqrt(2 * 10^2 / 1) = 14.1 J, of the mean 10 J, of 100 J.
        assert!((relative_uncertainty(&[(90.0, 1.0), (110.0, 1.0)]).unwrap() - 0.1).abs() < 1e-12);
        // No scatter: 4 J each, of the mean of four 2 J.
        assert!((relative_uncertainty(&[(100.0, 4.0); 4]).unwrap() - 0.02).abs() < 1e-12);
    }

    #[test]
    fn repeats_that_were_measured_elsewhere_count() {
        let row = |run_id: &str, energy_j| Row {
            run_id: run_id.to_owned(),
            phase: Phase::Total,
            energy_j: Some(energy_j),
            energy_j_std: Some(0.1),
            ..Row::new("m", "g")
        };
        let dir = tempfile::tempdir().unwrap();
        for (before, is_precise) in
            [(vec![], false), (vec![row("a-0", 100.0)], false), (vec![row("a-0", 100.0), row("a-1", 100.1)], true)]
        {
            let mut precision = Precision::new(0.01, before);
            precision.renew(dir.path()).unwrap();
            assert_eq!(precision.has("a"), is_precise);
        }
    }

    #[test]
    fn a_point_is_precise_when_each_of_its_phases_is() {
        let row = |run_id: &str, phase, energy_j| Row {
            run_id: run_id.to_owned(),
            phase,
            energy_j: Some(energy_j),
            energy_j_std: Some(1.0),
            ..Row::new("m", "g")
        };
        let rows = [
            row("a-0", Phase::Prefill, 100.0),
            row("a-1", Phase::Prefill, 100.0),
            row("a-0", Phase::Total, 1000.0),
            row("a-1", Phase::Total, 1001.0),
            row("b-0", Phase::Prefill, 100.0),
            row("b-1", Phase::Prefill, 130.0),
            row("b-0", Phase::Total, 1000.0),
            row("b-1", Phase::Total, 1001.0),
            row("c-0", Phase::Total, 1000.0),
        ];
        assert_eq!(precise(&rows, 0.01), HashSet::from(["a".to_owned()]));
        let doubtful = Row { method: Some(Method::Difference), ..row("a-1", Phase::Decode, 5.0) };
        assert!(precise(&[rows.as_slice(), &[doubtful]].concat(), 0.01).contains("a"));
    }
}
