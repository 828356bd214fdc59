//! How sure a law is of its own value at each candidate, and which of them would make it surest.
//!
//! With `g = d ln f / d parameters` and the covariance `C` of the parameters, the variance of the logarithm of the law's
//! value is `g' C g`. The scatter of single rows is no part of it: measuring does not make that smaller. Measuring a
//! point with rows that scatter by `s` leaves `C - (C g)(C g)' / (g' C g + s^2)`, whatever comes out.

use std::collections::HashSet;

use nalgebra::{DMatrix, DVector};

use crate::law::{Law, quantile};

/// Probability of the intervals: that of predictions.
const LEVEL: f64 = 0.90;
/// A candidate whose doubt is at least this share of the largest is as good as that, if its servers are up.
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
        let one_sided = quantile(LEVEL, law.degrees_of_freedom);
        let deviation = DVector::from_fn(n, |i, _| match (entry(i, i), law.coefficients.get(i)) {
            (variance, _) if variance > 0.0 => variance.sqrt(),
            // A coefficient that came out as zero may be as large as the upper end of its interval, and matter where
            // nothing was measured yet.
            (_, Some(held)) if held.value == 0.0 => held.high.unwrap_or(0.0) / one_sided,
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
        let reach = quantile(LEVEL, law.degrees_of_freedom);
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

    /// Up to `count` candidates that are not `taken`, with their half widths: always the one of which the law is least
    /// sure, as if those before it had been measured; or one that is nearly as good and served by what is up, which
    /// `is_served` says of a candidate, given those that were chosen before.
    pub(super) fn choose(
        &self,
        count: usize,
        taken: &HashSet<usize>,
        is_served: &dyn Fn(&[usize], usize) -> bool,
    ) -> Vec<(usize, f64)> {
        let mut laws = self.laws.clone();
        let (mut chosen, mut places): (Vec<(usize, f64)>, Vec<usize>) = Default::default();
        while chosen.len() < count {
            let free = (0..self.candidates.len()).filter(|place| !taken.contains(place) && !places.contains(place));
            let doubts: Vec<(usize, f64)> = free.filter_map(|place| Some((place, self.of(&laws, place)?))).collect();
            // Of equals the first.
            let largest = |of: &mut dyn Iterator<Item = &(usize, f64)>| {
                of.fold(None, |best: Option<(usize, f64)>, next| match best {
                    Some(best) if best.1 >= next.1 => Some(best),
                    _ => Some(*next),
                })
            };
            let Some(best) = largest(&mut doubts.iter()) else { break };
            let mut served = doubts.iter().filter(|d| d.1 >= NEARLY * best.1 && is_served(&places, d.0));
            let next = largest(&mut served).unwrap_or(best);
            if let Some(Candidate::Known { law, whole, prefill }) = self.candidates.get(next.0)
                && let Some(law) = laws.get_mut(*law)
            {
                law.measure(prefill);
                if prefill != whole {
                    law.measure(whole);
                }
            }
            chosen.push(next);
            places.push(next.0);
        }
        chosen
    }
}
