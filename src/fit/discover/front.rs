//! The front of error against size, and which of it to believe.
//!
//! A search looks at so many candidates that some fit the folds by luck. So the best of each size are judged once more on
//! dealings of the workloads that the search has not seen. Of those, the smallest is chosen whose error is not worse than
//! the best one's by more than one standard error of the *difference*, workload by workload: all candidates meet the same
//! noise, so the difference is known far better than either error (Breiman's one-standard-error rule, paired).

use super::ground::Ground;
use super::island::Candidate;
use super::score::{Dealing, by_unit, held_out, train};

/// Dealings for the second look.
const DEALINGS: u64 = 4;

/// A candidate after the second look.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    /// Mean robust squared log error over all dealings.
    pub(super) error: f64,
    /// Mean absolute percentage error over all dealings, as a ratio.
    pub(super) mape: f64,
    /// Squared log error by workload, with its number of rows.
    units: Vec<(f64, usize)>,
}

/// Dealings that no search uses: seeds from the upper half.
fn second_look(ground: &Ground, seed: u64) -> Vec<Dealing> {
    (0..DEALINGS).map(|i| Dealing::new(ground, (1 << 63) | seed.wrapping_mul(DEALINGS).wrapping_add(i))).collect()
}

/// Judges every candidate on fresh dealings.
pub(super) fn judge(ground: &Ground, candidates: Vec<Candidate>, seed: u64) -> Vec<Judged> {
    let dealings = second_look(ground, seed);
    let one = |candidate: Candidate| {
        let mut units: Vec<(f64, usize)> = Vec::new();
        let (mut off, mut rows) = (0.0, 0.0);
        for dealing in &dealings {
            let trained = train(ground, &candidate.genome, dealing);
            let errors = held_out(ground, &candidate.genome, dealing, &trained.numbers);
            off += errors.iter().flatten().map(|r| (r.exp() - 1.0).abs()).sum::<f64>();
            rows += errors.iter().map(Vec::len).sum::<usize>() as f64;
            let own = by_unit(ground, &errors);
            if units.is_empty() {
                units = own;
            } else {
                units.iter_mut().zip(own).for_each(|(sum, own)| sum.0 += own.0);
            }
        }
        units.iter_mut().for_each(|u| u.0 /= dealings.len() as f64);
        let total: f64 = units.iter().map(|(e, n)| e * *n as f64).sum();
        let count: usize = units.iter().map(|(_, n)| n).sum();
        Judged { candidate, error: total / count.max(1) as f64, mape: off / f64::max(rows, 1.0), units }
    };
    candidates.into_iter().map(one).filter(|j| j.error.is_finite()).collect()
}

/// The candidates that no smaller or equal one beats, smallest first.
pub(super) fn front(ground: &Ground, mut judged: Vec<Judged>) -> Vec<Judged> {
    let size = |j: &Judged| j.candidate.genome.complexity(ground);
    judged.sort_by(|a, b| {
        size(a).cmp(&size(b)).then(a.error.total_cmp(&b.error)).then(a.candidate.genome.cmp(&b.candidate.genome))
    });
    let mut front: Vec<Judged> = Vec::new();
    for j in judged {
        if front.last().is_none_or(|last| j.error < last.error) {
            front.push(j);
        }
    }
    front
}

/// The place of the candidate to believe in a front.
pub(super) fn choose(front: &[Judged]) -> usize {
    let Some(best) = front.last() else { return 0 };
    front.iter().position(|j| excess(j, best).is_some_and(|(mean, error)| mean <= error)).unwrap_or(0)
}

/// Mean excess error of `j` over `best` by workload, and its standard error.
fn excess(j: &Judged, best: &Judged) -> Option<(f64, f64)> {
    let weight: f64 = j.units.iter().map(|(_, n)| *n as f64).sum();
    let pairs = || j.units.iter().zip(&best.units).map(|((a, n), (b, _))| (a - b, *n as f64 / weight));
    let mean: f64 = pairs().map(|(d, w)| d * w).sum();
    let variance: f64 = pairs().map(|(d, w)| (w * (d - mean)).powi(2)).sum();
    (weight > 0.0).then(|| (mean, variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::super::genome::Genome;
    use super::*;

    fn judged(errors: &[f64]) -> Judged {
        Judged {
            candidate: Candidate { genome: Genome::default(), score: 0.0 },
            error: errors.iter().sum::<f64>() / errors.len() as f64,
            mape: 0.0,
            units: errors.iter().map(|e| (*e, 1)).collect(),
        }
    }

    #[test]
    fn the_smallest_within_one_standard_error_of_the_difference_is_chosen() {
        let best = judged(&[1.0, 2.0, 3.0, 4.0]);
        // Worse by 1 on every workload: the difference has no error at all, however much the workloads differ.
        let surely_worse = judged(&[2.0, 3.0, 4.0, 5.0]);
        // Worse by 1 on one workload, better by 0.8 on another: mean 0.05, standard error above 0.3.
        let by_luck = judged(&[2.0, 1.2, 3.0, 4.0]);
        assert_eq!(choose(&[surely_worse.clone(), by_luck, best.clone()]), 1);
        assert_eq!(choose(&[surely_worse, best]), 1);
        assert_eq!(choose(&[]), 0);
    }

    #[test]
    fn units_weigh_by_their_rows() {
        let mut a = judged(&[1.0, 0.0]);
        let mut b = judged(&[0.0, 0.0]);
        for j in [&mut a, &mut b] {
            j.units[0].1 = 3;
        }
        let (mean, error) = excess(&a, &b).unwrap();
        // Three rows of four: 0.75; deviations 0.25 and -0.75 with weights 0.75 and 0.25.
        assert!((mean - 0.75).abs() < 1e-12);
        assert!((error - (0.1875_f64.powi(2) * 2.0).sqrt()).abs() < 1e-12);
    }
}
