//! How sure a law is of its own value at each candidate, and which of them would make it surest of all.
//!
//! With `g = d ln f / d parameters` and the covariance `C` of the parameters, the variance of the logarithm of the law's
//! value is `g' C g`. The scatter of single rows is no part of it: measuring does not make that smaller. Measuring a
//! point with rows that scatter by `s` leaves `C - (C g)(C g)' / (g' C g + s^2)`, whatever comes out. Of all candidates
//! that takes `h' A h / (g' C g + s^2)` with `h = C g` and `A` the sum of their `g g'`: the point that takes most is chosen.
//! On the simulated node this finds a law that errs less, and less by chance, than taking the point of the largest doubt,
//! which sits at a corner more often than not, where a law is least true.

use std::collections::HashSet;

use nalgebra::{DMatrix, DVector};

use crate::law::{Law, quantile};

/// Probability of the intervals: that of predictions.
const LEVEL: f64 = 0.90;
/// A candidate that takes at least this share of the most that one can is as good, if its servers are up.
const NEARLY: f64 = 0.9;

/// How a law's value at a candidate moves with the parameters: that of the whole batch and that of its prefill.
pub(super) struct Known {
    pub(super) law: usize,
    pub(super) whole: Vec<f64>,
    pub(super) prefill: Vec<f64>,
}

/// A candidate, its gradients in units of the parameters' standard deviations.
enum Candidate {
    Known { law: usize, whole: DVector<f64>, prefill: DVector<f64> },
    Unknown,
    LeftOut,
}

/// What a law does not know.
#[derive(Clone)]
struct LawDoubt {
    /// Standard deviations of the parameters: they span twenty decades, which no matrix survives.
    deviation: DVector<f64>,
    correlation: DMatrix<f64>,
    row_variance: f64,
    reach: f64,
}

impl LawDoubt {
    fn of(law: &Law) -> Self {
        let n = law.covariance.len();
        let entry = |i: usize, j: usize| law.covariance.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0.0);
        let reach = quantile(LEVEL, law.degrees_of_freedom);
        let deviation = DVector::from_fn(n, |i, _| match (entry(i, i), law.coefficients.get(i)) {
            (variance, _) if variance > 0.0 => variance.sqrt(),
            // A coefficient that came out as zero may be as large as the upper end of its interval, and matter where
            // nothing was measured yet.
            (_, Some(held)) if held.value == 0.0 => held.high.unwrap_or(0.0) / reach,
            _ => 0.0,
        });
        let correlation = DMatrix::from_fn(n, n, |i, j| {
            let scaled = entry(i, j) / (deviation[i] * deviation[j]);
            match i == j {
                true => 1.0,
                false if scaled.is_finite() => scaled.clamp(-1.0, 1.0),
                false => 0.0,
            }
        });
        Self { deviation, correlation, row_variance: law.sigma_log.powi(2), reach }
    }

    fn scaled(&self, gradient: &[f64]) -> DVector<f64> {
        let own = DVector::from_fn(self.deviation.len(), |i, _| gradient.get(i).copied().unwrap_or(0.0));
        own.component_mul(&self.deviation)
    }

    /// Half width of the interval at a candidate, as a share of the value.
    fn half_width(&self, gradient: &DVector<f64>) -> f64 {
        let variance = gradient.dot(&(&self.correlation * gradient)).max(0.0);
        (self.reach * variance.sqrt()).exp_m1()
    }

    /// How much of the variance of all candidates, whose gradients' squares add up to `all`, a row measured there takes.
    fn taken(&self, gradient: &DVector<f64>, all: &DMatrix<f64>) -> f64 {
        let moved = &self.correlation * gradient;
        let variance = gradient.dot(&moved).max(0.0) + self.row_variance;
        if variance > 0.0 { moved.dot(&(all * &moved)) / variance } else { 0.0 }
    }

    /// What is left when a row has been measured there.
    fn measure(&mut self, gradient: &DVector<f64>) {
        let moved = &self.correlation * gradient;
        let variance = gradient.dot(&moved).max(0.0) + self.row_variance;
        if variance > 0.0 {
            self.correlation -= &moved * moved.transpose() / variance;
        }
    }
}

/// The doubts about all candidates, in their order.
pub(super) struct Doubts {
    laws: Vec<LawDoubt>,
    candidates: Vec<Candidate>,
}

impl Doubts {
    pub(super) fn new(laws: &[Law]) -> Self {
        Self { laws: laws.iter().map(LawDoubt::of).collect(), candidates: Vec::new() }
    }

    /// The next candidate; `None` for one that no law speaks of.
    pub(super) fn push(&mut self, known: Option<Known>) {
        let scaled = known.and_then(|known| {
            let law = self.laws.get(known.law)?;
            let (whole, prefill) = (law.scaled(&known.whole), law.scaled(&known.prefill));
            Some(Candidate::Known { law: known.law, whole, prefill })
        });
        self.candidates.push(scaled.unwrap_or(Candidate::Unknown));
    }

    /// Neither chosen nor counted any more.
    pub(super) fn leave_out(&mut self, place: usize) {
        if let Some(candidate) = self.candidates.get_mut(place) {
            *candidate = Candidate::LeftOut;
        }
    }

    /// The first candidate that no law speaks of and that was not `measured` either.
    pub(super) fn unknown(&self, measured: &[usize]) -> Option<usize> {
        let measured: HashSet<usize> = measured.iter().copied().collect();
        let mut unknown = self.candidates.iter().enumerate().filter(|(_, c)| matches!(c, Candidate::Unknown));
        unknown.find(|(place, _)| !measured.contains(place)).map(|(place, _)| place)
    }

    fn of(&self, laws: &[LawDoubt], place: usize) -> Option<f64> {
        match self.candidates.get(place)? {
            Candidate::Known { law, whole, .. } => laws.get(*law).map(|law| law.half_width(whole)),
            Candidate::Unknown | Candidate::LeftOut => None,
        }
    }

    /// The half width that `share` of the candidates do not exceed.
    pub(super) fn half_width(&self, share: f64) -> Option<f64> {
        let mut all: Vec<f64> = (0..self.candidates.len()).filter_map(|place| self.of(&self.laws, place)).collect();
        all.sort_by(f64::total_cmp);
        let last = (share * all.len() as f64).ceil() as usize;
        all.get(last.saturating_sub(1)).copied()
    }

    /// The sum of `g g'` over all candidates of each law.
    fn squares(&self) -> Vec<DMatrix<f64>> {
        let empty = |law: &LawDoubt| DMatrix::zeros(law.deviation.len(), law.deviation.len());
        let mut sums: Vec<DMatrix<f64>> = self.laws.iter().map(empty).collect();
        for candidate in &self.candidates {
            if let Candidate::Known { law, whole, .. } = candidate
                && let Some(sum) = sums.get_mut(*law)
            {
                *sum += whole * whole.transpose();
            }
        }
        sums
    }

    /// Up to `count` candidates that are not `taken`, with their half widths: always the one that takes most of the doubt
    /// about all, as if those before it had been measured; or one that is nearly as good and served by what is up, which
    /// `is_served` says of a candidate, given those that were chosen before.
    pub(super) fn choose(
        &self,
        count: usize,
        taken: &HashSet<usize>,
        is_served: &dyn Fn(&[usize], usize) -> bool,
    ) -> Vec<(usize, f64)> {
        let mut laws = self.laws.clone();
        let all = self.squares();
        let (mut chosen, mut places): (Vec<(usize, f64)>, Vec<usize>) = Default::default();
        while chosen.len() < count {
            let free = (0..self.candidates.len()).filter(|place| !taken.contains(place) && !places.contains(place));
            let worth = |place: usize| match self.candidates.get(place)? {
                Candidate::Known { law, whole, .. } => {
                    Some((place, laws.get(*law)?.taken(whole, all.get(*law)?))).filter(|(_, worth)| worth.is_finite())
                }
                Candidate::Unknown | Candidate::LeftOut => None,
            };
            let worths: Vec<(usize, f64)> = free.filter_map(worth).collect();
            // Of equals the first.
            let largest = |of: &mut dyn Iterator<Item = &(usize, f64)>| {
                of.fold(None, |best: Option<(usize, f64)>, next| match best {
                    Some(best) if best.1 >= next.1 => Some(best),
                    _ => Some(*next),
                })
            };
            let Some(best) = largest(&mut worths.iter()) else { break };
            let mut served = worths.iter().filter(|w| w.1 >= NEARLY * best.1 && is_served(&places, w.0));
            let (next, _) = largest(&mut served).unwrap_or(best);
            let half_width = self.of(&laws, next).unwrap_or(0.0);
            if let Some(Candidate::Known { law, whole, prefill }) = self.candidates.get(next)
                && let Some(law) = laws.get_mut(*law)
            {
                law.measure(prefill);
                if prefill != whole {
                    law.measure(whole);
                }
            }
            chosen.push((next, half_width));
            places.push(next);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two parameters, known to 1 and to `second`, rows that scatter by 0.1, and candidates that hang on one of them each.
    fn doubts(second: f64, gradients: &[[f64; 2]]) -> Doubts {
        let law = LawDoubt {
            deviation: DVector::from_vec(vec![1.0, second]),
            correlation: DMatrix::identity(2, 2),
            row_variance: 0.01,
            reach: 2.0,
        };
        let mut doubts = Doubts { laws: vec![law], candidates: Vec::new() };
        for gradient in gradients {
            doubts.push(Some(Known { law: 0, whole: gradient.to_vec(), prefill: gradient.to_vec() }));
        }
        doubts
    }

    fn places(chosen: &[(usize, f64)]) -> Vec<usize> {
        chosen.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn half_widths_are_as_by_hand() {
        let doubts = doubts(0.1, &[[0.1, 0.0], [0.0, 0.5]]);
        // exp(2 * 0.1) - 1 and exp(2 * 0.05) - 1.
        assert!((doubts.half_width(1.0).unwrap() - 0.221_402_758).abs() < 1e-9);
        assert!((doubts.half_width(0.5).unwrap() - 0.105_170_918).abs() < 1e-9);
    }

    #[test]
    fn what_tells_about_many_is_measured_before_what_is_least_sure_and_twins_are_not_measured_twice() {
        // The first is least sure by itself; the others share a doubt, and one of them stands for all.
        let mut gradients = vec![[0.4, 0.0]];
        gradients.extend([[0.0, 0.3]; 9]);
        let doubts = doubts(1.0, &gradients);
        let chosen = doubts.choose(2, &HashSet::new(), &|_, _| false);
        assert_eq!(places(&chosen), [1, 0]);
        // Nothing that was measured is chosen again, and the second half width has nothing to do with the first point.
        assert!((chosen[1].1 - (0.8_f64.exp() - 1.0)).abs() < 1e-12);
        assert_eq!(places(&doubts.choose(1, &HashSet::from([1]), &|_, _| false)), [2]);
        assert_eq!(doubts.choose(99, &HashSet::new(), &|_, _| false).len(), 10, "and then they are all");
    }

    #[test]
    fn measuring_leaves_the_conditional_variance() {
        let mut law = doubts(1.0, &[]).laws.remove(0);
        let gradient = DVector::from_vec(vec![0.3, 0.4]);
        law.measure(&gradient);
        // 0.25 - 0.25^2 / 0.26.
        let left = gradient.dot(&(&law.correlation * &gradient));
        assert!((left - (0.25 - 0.0625 / 0.26)).abs() < 1e-12);
    }

    #[test]
    fn servers_that_are_up_decide_between_points_that_are_nearly_as_good() {
        let served_last = |_: &[usize], place: usize| place == 2;
        let nearly = doubts(1.0, &[[0.4, 0.0], [0.395, 0.0], [0.39, 0.0]]);
        assert_eq!(places(&nearly.choose(1, &HashSet::new(), &served_last)), [2]);
        let far = doubts(1.0, &[[0.4, 0.0], [0.39, 0.0], [0.1, 0.0]]);
        assert_eq!(places(&far.choose(1, &HashSet::new(), &served_last)), [0]);
    }

    #[test]
    fn what_is_left_out_is_neither_counted_nor_chosen() {
        let mut doubts = doubts(1.0, &[[0.4, 0.0], [0.1, 0.0]]);
        doubts.leave_out(0);
        assert!((doubts.half_width(1.0).unwrap() - 0.221_402_758).abs() < 1e-9);
        assert_eq!(places(&doubts.choose(5, &HashSet::new(), &|_, _| true)), [1]);
        doubts.push(None);
        assert_eq!((doubts.unknown(&[]), doubts.unknown(&[2])), (Some(2), None));
    }
}
