//! How likely is each contender to be the best, given what the law does not know?
//!
//! Every draw shifts the parameters of a law once, for all contenders alike: what two configurations share cancels
//! between them, which is why intervals that overlap can still leave no doubt about the order. On top comes each
//! configuration's own misfit, drawn from the law's residuals. The logarithm of a prediction is taken to be linear in the
//! parameters, as it is for the law's own intervals; exact sums of drawn coefficients would need coefficients >= 0,
//! and cutting each at zero by itself would destroy the correlations that hold their sum together.

use std::thread;

use nalgebra::{DMatrix, SymmetricEigen};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::search::threads;
use super::spread::idle_sigma_log;
use crate::law::{Law, RowKind};

/// Draws behind every probability: a standard error of at most 1.1 percentage points.
pub(super) const DRAWS: usize = 2_000;

/// Beyond this many degrees of freedom a Student distribution is a normal one.
const NORMAL_FROM: f64 = 200.0;

/// One configuration in the draws.
pub(super) struct Contender<'a> {
    pub(super) law: &'a Law,
    /// Tells laws apart: contenders of one law share its draws.
    pub(super) law_index: usize,
    /// How the logarithm of its energy moves with the law's parameters.
    pub(super) gradient: Vec<f64>,
    /// The part of the objective that moves with the energy, and the part that does not move at all.
    pub(super) moving: f64,
    pub(super) fixed: f64,
    /// Whether the law was fitted on rows of this model.
    pub(super) known_model: bool,
    /// The parts that move with the duration, where there are any.
    pub(super) timed: Option<Timed<'a>>,
}

/// What the duration does to the objective of a contender.
pub(super) struct Timed<'a> {
    /// The law of durations.
    pub(super) law: &'a Law,
    pub(super) law_index: usize,
    pub(super) gradient: Vec<f64>,
    /// By which power of the duration the energy goes: under a given load a longer batch holds more requests.
    pub(super) moving_power: f64,
    /// GPU hours that are paid for as long as a batch takes.
    pub(super) rented: f64,
    /// What waiting takes, and the share of time in which there is work.
    pub(super) waiting: f64,
    pub(super) busy_share: f64,
}

impl Timed<'_> {
    /// What GPU hours and waiting come to where the logarithms of duration and idle power are off by so much.
    fn value(&self, duration_log: f64, idle_log: f64) -> f64 {
        let waiting = if self.waiting > 0.0 && self.busy_share < 1.0 {
            let idle_share = (1.0 - self.busy_share * duration_log.exp()).max(0.0) / (1.0 - self.busy_share);
            self.waiting * idle_share * idle_log.exp()
        } else {
            0.0
        };
        self.rented * duration_log.exp() + waiting
    }

    /// How its part of the objective, of which `moving` goes with the energy, moves with the logarithm of the duration.
    fn slope(&self, moving: f64) -> f64 {
        let waiting =
            if self.busy_share < 1.0 { self.waiting * self.busy_share / (1.0 - self.busy_share) } else { 0.0 };
        moving * self.moving_power + self.rented - waiting
    }
}

impl Contender<'_> {
    /// What is made small, by the point prediction.
    pub(super) fn objective(&self) -> f64 {
        self.moving + self.fixed + self.timed.as_ref().map_or(0.0, |t| t.rented + t.waiting)
    }

    /// The laws that move it: index, how the logarithm of the objective goes with that of the law, gradient, law.
    pub(super) fn exposures(&self) -> impl Iterator<Item = (usize, f64, &[f64], &Law)> {
        let all = self.objective();
        let timed = self.timed.as_ref();
        let timed = timed.map(|t| (t.law_index, t.slope(self.moving) / all, t.gradient.as_slice(), t.law));
        [(self.law_index, self.moving / all, self.gradient.as_slice(), self.law)].into_iter().chain(timed)
    }
}

/// For each contender how the logarithm of what each of its laws says moves with the independent standard shifts of that
/// law, in the order of its [`exposures`](Contender::exposures).
pub(super) fn slopes(contenders: &[Contender<'_>]) -> Vec<Vec<Vec<f64>>> {
    let factors: Vec<Option<DMatrix<f64>>> =
        laws(contenders).into_iter().map(|law| law.map(|law| factor(&law.covariance))).collect();
    let slope = |index: usize, gradient: &[f64]| match factors.get(index) {
        Some(Some(factor)) if factor.nrows() == gradient.len() => {
            let columns = factor.column_iter();
            columns.map(|column| column.iter().zip(gradient).map(|(f, g)| f * g).sum()).collect()
        }
        _ => Vec::new(),
    };
    contenders.iter().map(|c| c.exposures().map(|(index, _, gradient, _)| slope(index, gradient)).collect()).collect()
}

/// The laws by their index; an index that no contender has is empty.
fn laws<'a>(contenders: &'a [Contender<'_>]) -> Vec<Option<&'a Law>> {
    let mut laws = Vec::new();
    for (index, _, _, law) in contenders.iter().flat_map(|c| c.exposures()) {
        if laws.len() <= index {
            laws.resize(index + 1, None);
        }
        if let Some(place) = laws.get_mut(index) {
            *place = Some(law);
        }
    }
    laws
}

/// For each contender the share of draws in which it came out lowest. The draws are shared out among threads: each takes
/// up the one sequence of random numbers where its part begins, so that the outcome does not depend on their number.
pub(super) fn probabilities(contenders: &[Contender<'_>], seed: u64) -> Vec<f64> {
    let draws = Draws::of(contenders);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut scratch = draws.scratch();
    let first = draws.winner(&mut rng, &mut scratch);
    // Every draw takes as many random numbers as the first.
    let words = rng.get_word_pos();
    let part = |from: usize, to: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_word_pos(words * from as u128);
        let mut scratch = draws.scratch();
        (from..to).filter_map(|_| draws.winner(&mut rng, &mut scratch)).collect::<Vec<usize>>()
    };
    let share = DRAWS.div_ceil(threads(if contenders.len() < FEW { 1 } else { DRAWS }));
    let winners: Vec<usize> = thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (1 + share..DRAWS)
            .step_by(share)
            .map(|from| scope.spawn(move || part(from, (from + share).min(DRAWS))))
            .collect();
        let mut winners = part(1, (1 + share).min(DRAWS));
        for other in parts {
            // A thread that panicked has a bug that must not pass for an answer.
            winners.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        winners
    });
    let mut wins = vec![0_usize; contenders.len()];
    for winner in first.into_iter().chain(winners) {
        if let Some(count) = wins.get_mut(winner) {
            *count += 1;
        }
    }
    wins.into_iter().map(|count| count as f64 / DRAWS as f64).collect()
}

/// Contenders below which threads are not worth their start.
const FEW: usize = 16;

/// What is the same in every draw.
struct Draws<'a, 'b> {
    contenders: &'a [Contender<'b>],
    slopes: Vec<Vec<Vec<f64>>>,
    /// Degrees of freedom of each law.
    freedom: Vec<f64>,
    widest: usize,
    /// Whether any contender waits.
    waits: bool,
}

/// What one draw shifts: the parameters of each law, how much a Student distribution is wider than a normal one, and the
/// idle power of each platform's GPU.
struct Scratch {
    shifts: Vec<Vec<f64>>,
    stretch: Vec<f64>,
    idle: Vec<f64>,
}

impl<'a, 'b> Draws<'a, 'b> {
    fn of(contenders: &'a [Contender<'b>]) -> Self {
        let slopes = slopes(contenders);
        let of_law = |law: Option<&Law>| law.map_or(f64::INFINITY, |law| law.degrees_of_freedom);
        let freedom = laws(contenders).into_iter().map(of_law).collect();
        let widest = slopes.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let waits = contenders.iter().filter_map(|c| c.timed.as_ref()).any(|t| t.waiting > 0.0);
        Self { contenders, slopes, freedom, widest, waits }
    }

    fn scratch(&self) -> Scratch {
        let laws = self.freedom.len();
        let idle = if self.waits { laws } else { 0 };
        Scratch { shifts: vec![vec![0.0; self.widest + 1]; laws], stretch: vec![1.0; laws], idle: vec![0.0; idle] }
    }

    /// Which contender comes out lowest in the next draw.
    fn winner(&self, rng: &mut ChaCha8Rng, scratch: &mut Scratch) -> Option<usize> {
        for shift in scratch.shifts.iter_mut().flatten() {
            *shift = normal(rng);
        }
        for (stretch, freedom) in scratch.stretch.iter_mut().zip(&self.freedom) {
            *stretch = student_stretch(rng, *freedom);
        }
        for idle in &mut scratch.idle {
            *idle = idle_sigma_log() * normal(rng);
        }
        let mut lowest = (f64::INFINITY, None);
        for (i, (contender, slopes)) in self.contenders.iter().zip(&self.slopes).enumerate() {
            let mut slopes = slopes.iter();
            let mut shift = |law: &Law, index: usize| {
                let slope = slopes.next()?;
                scratch.of(law, index, slope, contender.known_model, rng)
            };
            let Some(energy) = shift(contender.law, contender.law_index) else { continue };
            let drawn = match &contender.timed {
                None => contender.moving * energy.exp() + contender.fixed,
                Some(timed) => {
                    let Some(duration) = shift(timed.law, timed.law_index) else { continue };
                    let idle = scratch.idle.get(contender.law_index).copied().unwrap_or(0.0);
                    contender.moving * (energy + timed.moving_power * duration).exp()
                        + timed.value(duration, idle)
                        + contender.fixed
                }
            };
            if drawn < lowest.0 {
                lowest = (drawn, Some(i));
            }
        }
        lowest.1
    }
}

impl Scratch {
    /// By how much the logarithm of what `law` says of one configuration is off in this draw.
    fn of(&self, law: &Law, index: usize, slope: &[f64], known_model: bool, rng: &mut ChaCha8Rng) -> Option<f64> {
        let (shift, stretch) = self.shifts.get(index).zip(self.stretch.get(index))?;
        let shared: f64 = slope.iter().zip(shift).map(|(s, z)| s * z).sum();
        let model = match shift.last() {
            Some(z) if !known_model => law.sigma_model_log * z,
            _ => 0.0,
        };
        let own = law.scatter_of(RowKind::Batch).sigma_log * normal(rng);
        Some(stretch * (shared + own) + model)
    }
}

/// `F` with `F F' = covariance`, from the eigenvectors of the correlation matrix: variances of a law's parameters span
/// twenty decades, of which nothing would be left if the covariance itself were decomposed.
fn factor(covariance: &[Vec<f64>]) -> DMatrix<f64> {
    let n = covariance.len();
    let entry = |i: usize, j: usize| covariance.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0.0);
    let deviation: Vec<f64> = (0..n).map(|i| entry(i, i)).map(|v| if v > 0.0 { v.sqrt() } else { 0.0 }).collect();
    let correlation = DMatrix::from_fn(n, n, |i, j| {
        let scale = deviation.get(i).zip(deviation.get(j)).map_or(0.0, |(a, b)| a * b);
        let value = (entry(i, j) + entry(j, i)) / 2.0 / scale;
        if scale > 0.0 && value.is_finite() { value.clamp(-1.0, 1.0) } else { 0.0 }
    });
    let eigen = SymmetricEigen::new(correlation);
    let mut factor = eigen.eigenvectors;
    for (mut column, value) in factor.column_iter_mut().zip(eigen.eigenvalues.iter()) {
        column *= value.max(0.0).sqrt();
    }
    for (mut row, deviation) in factor.row_iter_mut().zip(&deviation) {
        row *= *deviation;
    }
    factor
}

/// A standard normal draw (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// What turns a normal draw into a Student one: `sqrt(n / chi2_n)`, one per draw and law.
fn student_stretch(rng: &mut ChaCha8Rng, degrees_of_freedom: f64) -> f64 {
    if !degrees_of_freedom.is_finite() || degrees_of_freedom > NORMAL_FROM {
        return 1.0;
    }
    let n = degrees_of_freedom.round().max(1.0);
    let chi2: f64 = (0..n as usize).map(|_| normal(rng).powi(2)).sum();
    (n / chi2.max(f64::MIN_POSITIVE)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_squares_to_the_covariance_over_twenty_decades() {
        let covariance = vec![vec![4e-24, 1.8e-13, 0.0], vec![1.8e-13, 0.01, 0.0], vec![0.0, 0.0, 0.0]];
        let f = factor(&covariance);
        let square = &f * f.transpose();
        for (i, row) in covariance.iter().enumerate() {
            for (j, want) in row.iter().enumerate() {
                let scale = (covariance[i][i] * covariance[j][j]).sqrt();
                assert!((square[(i, j)] - want).abs() <= 1e-9 * scale, "{i},{j}: {} is not {want}", square[(i, j)]);
            }
        }
    }

    #[test]
    fn draws_that_are_shared_out_are_those_of_one_sequence() {
        let mut law = crate::recommend::fixture::law(crate::law::Target::EnergyJ);
        law.degrees_of_freedom = 7.0;
        let contender = |i: u32| {
            let gradient = (0..12).map(|j| f64::from((i * 7 + j * 3) % 5) / 4.0).collect();
            let moving = 1.0 + f64::from(i) / 200.0;
            Contender { law: &law, law_index: 0, gradient, moving, fixed: 0.1, known_model: true, timed: None }
        };
        let contenders: Vec<Contender<'_>> = (0..40).map(contender).collect();
        let draws = Draws::of(&contenders);
        let (mut rng, mut scratch) = (ChaCha8Rng::seed_from_u64(5), draws.scratch());
        let mut wins = vec![0.0; contenders.len()];
        for _ in 0..DRAWS {
            wins[draws.winner(&mut rng, &mut scratch).unwrap()] += 1.0;
        }
        let want: Vec<f64> = wins.iter().map(|count| count / DRAWS as f64).collect();
        assert!(want.iter().filter(|p| **p > 0.0).count() > 5);
        assert_eq!(probabilities(&contenders, 5), want);
    }

    #[test]
    fn draws_are_standard_normal() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let draws: Vec<f64> = (0..40_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 40_000.0;
        // Five standard errors: 5/200 of the mean, 5*sqrt(2)/200 of the variance.
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.036, "{mean} {variance}");
    }
}
