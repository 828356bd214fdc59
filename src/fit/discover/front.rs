//! The front of error against size, and which of it to believe.
//!
//! A search looks at so many candidates that some fit its folds by luck. So the best of each size are judged once more on
//! dealings of the workloads that the search has not seen: all on a few, those that may be chosen on many. The errors that
//! are left are the better, the more there was to choose from: held-out rows make a structure pay for its numbers, and
//! not for having been picked among thousands. So each number pays `ln(rows)/2` once more, as in Schwarz's criterion
//! (BIC), and the one with the least of both is chosen. Without it, structures that were never to be told apart by the
//! rows were chosen for a hundredth less error on them, and were off by twice as much elsewhere.
//! A complete law may take its place after all ([`admit`]).

use super::complete::Complete;
use super::ground::Ground;
use super::island::Candidate;
use super::score::{Dealing, held_out, mean_square, train};

/// Dealings that every candidate of the second look meets.
const FEW: u64 = 4;
/// Dealings that those meet which may be chosen.
const MANY: u64 = 20;
/// How much worse the criterion may be after few dealings for a candidate to meet the rest.
const IN_QUESTION: f64 = 8.0;
/// A held-out error below this, in log units, is no reason for another term: no counter repeats itself so well.
const FINEST: f64 = 1e-3;

/// A candidate after the second look.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) candidate: Candidate,
    /// Fitted numbers, and powers that were picked to suit.
    complexity: usize,
    /// Mean robust squared log error over all dealings.
    pub(super) error: f64,
    /// Mean absolute percentage error over all dealings, as a ratio.
    pub(super) mape: f64,
    dealings: u64,
}

impl Judged {
    pub(super) fn new(ground: &Ground, candidate: Candidate) -> Self {
        let complexity = candidate.genome.complexity(ground);
        Self { candidate, complexity, error: 0.0, mape: 0.0, dealings: 0 }
    }

    /// Judges it on the dealings up to `count` that it has not met.
    pub(super) fn meet(&mut self, ground: &Ground, dealings: &[Dealing], count: u64) {
        let mut unmet =
            dealings.iter().take(usize::try_from(count).unwrap_or(usize::MAX)).skip(self.dealings as usize).peekable();
        // The fit to all rows, from which those of the folds start, is the same for every dealing.
        let Some(trained) = unmet.peek().map(|dealing| train(ground, &self.candidate.genome, dealing)) else { return };
        for dealing in unmet {
            let errors = held_out(ground, &self.candidate.genome, dealing, &trained.numbers);
            let rows = errors.iter().map(Vec::len).sum::<usize>().max(1) as f64;
            let off = errors.iter().flatten().map(|r| (r.exp() - 1.0).abs()).sum::<f64>() / rows;
            let met = self.dealings as f64;
            self.error = (met * self.error + mean_square(&errors)) / (met + 1.0);
            self.mape = (met * self.mape + off) / (met + 1.0);
            self.dealings += 1;
        }
    }

    /// Minus the logarithm of how likely the held-out rows make it, up to a constant.
    pub(super) fn misfit(&self, rows: usize) -> f64 {
        0.5 * rows.max(1) as f64 * self.error.max(FINEST * FINEST).ln()
    }

    /// What is to be least: the same for the candidate, with what its numbers cost.
    fn criterion(&self, rows: usize) -> f64 {
        self.misfit(rows) + 0.5 * (rows.max(1) as f64).ln() * self.complexity as f64
    }
}

/// Dealings that no search uses: seeds from the upper half.
pub(super) fn dealings(ground: &Ground, seed: u64) -> Vec<Dealing> {
    (0..MANY).map(|i| Dealing::new(ground, (1 << 63) | seed.wrapping_mul(MANY).wrapping_add(i))).collect()
}

/// One candidate on every dealing.
pub(super) fn judge(ground: &Ground, candidate: Candidate, seed: u64) -> Judged {
    let mut judged = Judged::new(ground, candidate);
    judged.meet(ground, &dealings(ground, seed), MANY);
    judged
}

/// Judges the candidates on dealings of their own; those that are out of the question on a few only. `spread` does its
/// work on every item, on threads or not.
pub(super) fn second_look(
    ground: &Ground,
    candidates: Vec<Candidate>,
    seed: u64,
    spread: impl Fn(&mut [Judged], &(dyn Fn(&mut Judged) + Sync)),
) -> Vec<Judged> {
    let dealings = dealings(ground, seed);
    let mut judged: Vec<Judged> = candidates.into_iter().map(|c| Judged::new(ground, c)).collect();
    spread(&mut judged, &|j| j.meet(ground, &dealings, FEW));
    judged.retain(|j| j.error.is_finite());
    let rows = ground.rows();
    let best = judged.iter().map(|j| j.criterion(rows)).fold(f64::INFINITY, f64::min);
    spread(&mut judged, &|j| {
        if j.criterion(rows) <= best + IN_QUESTION {
            j.meet(ground, &dealings, MANY);
        }
    });
    judged.retain(|j| j.error.is_finite());
    judged
}

/// The candidates that no smaller or equal one beats, smallest first.
pub(super) fn front(mut judged: Vec<Judged>) -> Vec<Judged> {
    judged.sort_by(|a, b| {
        a.complexity
            .cmp(&b.complexity)
            .then(a.error.total_cmp(&b.error))
            .then(a.candidate.genome.cmp(&b.candidate.genome))
    });
    let mut front: Vec<Judged> = Vec::new();
    for j in judged {
        if front.last().is_none_or(|last| j.error < last.error) {
            front.push(j);
        }
    }
    front
}

/// The place of the candidate to believe in a front. Whatever is best by the criterion is on the front: it rises with
/// both error and size.
pub(super) fn choose(front: &[Judged], rows: usize) -> usize {
    // A candidate on few dealings only was out of the question; it may be on the front by the luck of those few.
    let met = front.iter().map(|j| j.dealings).max().unwrap_or(0);
    let in_question = front.iter().enumerate().filter(|(_, j)| j.dealings == met);
    in_question.min_by(|a, b| a.1.criterion(rows).total_cmp(&b.1.criterion(rows))).map_or(0, |(place, _)| place)
}

/// Takes a complete law in, at the place of its size, if it is to be believed instead of `chosen`; its place then.
///
/// Both pay for what there was to pick from: a candidate of the islands for its terms, any so many of the grammar, and for
/// each number; a complete law for the forms of terms that are taken for granted.
pub(super) fn admit(front: &mut Vec<Judged>, chosen: usize, complete: Complete, ground: &Ground) -> Option<usize> {
    let rows = ground.rows();
    let picked = |j: &Judged| ways_ln(ground.quantities.len(), j.candidate.genome.genes.len());
    let rival = front.get(chosen).map_or(f64::INFINITY, |j| j.criterion(rows) + picked(j));
    let Complete { judged, picked } = complete;
    if judged.misfit(rows) + picked >= rival {
        return None;
    }
    front.retain(|j| j.candidate.genome != judged.candidate.genome);
    let place = front.partition_point(|j| j.complexity <= judged.complexity);
    front.insert(place, judged);
    Some(place)
}

/// The logarithm of the number of ways to pick `some` of `all`.
fn ways_ln(all: usize, some: usize) -> f64 {
    (0..some.min(all)).map(|i| ((all - i) as f64 / (i + 1) as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::genome::{Gene, Genome};
    use super::*;

    fn judged(complexity: usize, rms: f64) -> Judged {
        let candidate = Candidate { genome: Genome::default(), score: 0.0 };
        Judged { candidate, complexity, error: rms * rms, mape: rms, dealings: MANY }
    }

    #[test]
    fn a_number_more_must_lower_the_error_by_what_it_costs() {
        // Of 50 rows a number costs ln(50)/2 = 1.956, which is 50 ln(0.9616): 3.8 % of the error.
        let small = judged(8, 0.0250);
        let too_little = judged(9, 0.0250 * 0.965);
        let enough = judged(9, 0.0250 * 0.955);
        assert_eq!(choose(&[small.clone(), too_little], 50), 0);
        assert_eq!(choose(&[small.clone(), enough.clone()], 50), 1);
        // Three more must lower it by 11.1 %, and do not.
        assert_eq!(choose(&[small, enough, judged(12, 0.0250 * 0.955 * 0.90)], 50), 1);
        assert_eq!(choose(&[], 50), 0);
    }

    #[test]
    fn nothing_is_gained_below_the_finest_error() {
        assert_eq!(choose(&[judged(5, 0.9e-3), judged(9, 1e-9)], 200), 0);
    }

    #[test]
    fn luck_on_few_dealings_is_not_chosen() {
        let lucky = Judged { dealings: FEW, ..judged(5, 0.01) };
        assert_eq!(choose(&[lucky, judged(9, 0.009)], 50), 1);
    }

    #[test]
    fn ways_to_pick_are_counted() {
        assert!((ways_ln(5, 2) - 10.0_f64.ln()).abs() < 1e-12);
        assert!((ways_ln(40, 38) - 780.0_f64.ln()).abs() < 1e-9);
        assert_eq!((ways_ln(7, 0), ways_ln(3, 9)), (0.0, 0.0));
    }

    #[test]
    fn a_complete_law_pays_for_its_forms_and_its_rival_for_its_terms() {
        let rows = super::super::tests::fifty_rows(1);
        let ground = super::super::ground(&rows, &super::super::DiscoverOptions::default()).unwrap();
        let rival = || {
            let mut judged = judged(9, 0.021);
            let gene = |quantity| Gene { quantity, scaled: false };
            judged.candidate.genome.genes = (0..6).map(gene).collect();
            judged
        };
        // The rival pays nine numbers of ln(50)/2 and six of all terms, some 40; a complete law 14 for its forms. So it
        // may be off by exp(26/50) as much, 1.7 times.
        let cost = 9.0 * 0.5 * 50.0_f64.ln() + ways_ln(ground.quantities.len(), 6);
        let as_good = 0.021 * ((cost - 14.0) / 50.0).exp();
        for (rms, is_taken) in [(as_good * 0.999, true), (as_good * 1.001, false)] {
            let of = |quantity, judged: Judged| {
                let genome = Genome { genes: vec![Gene { quantity, scaled: false }], ..Genome::default() };
                Judged { candidate: Candidate { genome, score: 0.0 }, ..judged }
            };
            let mut front = vec![of(7, judged(5, 0.05)), rival(), of(8, judged(14, 0.0209))];
            let complete = || Complete { judged: of(9, judged(12, rms)), picked: 14.0 };
            let place = admit(&mut front, 1, complete(), &ground);
            assert_eq!((place, front.len()), if is_taken { (Some(2), 4) } else { (None, 3) }, "{rms}");
            // One that is there already does not stand there twice.
            assert_eq!((admit(&mut front, 1, complete(), &ground), front.len()), (place, if is_taken { 4 } else { 3 }));
        }
    }

    #[test]
    fn a_front_falls() {
        let sizes = front(vec![judged(3, 0.05), judged(2, 0.06), judged(4, 0.055), judged(3, 0.04), judged(9, 0.01)]);
        let shown: Vec<(usize, f64)> = sizes.iter().map(|j| (j.complexity, j.mape)).collect();
        assert_eq!(shown, [(2, 0.06), (3, 0.04), (9, 0.01)]);
    }
}
