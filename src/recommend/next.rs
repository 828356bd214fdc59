//! What should be measured next?
//!
//! The law's doubt about the contenders is a normal distribution of their logarithms: the shared doubt of its parameters,
//! and each configuration's own misfit. Measuring one of them moves its neighbours too, by as much as they have in common. A
//! measurement is worth what it is expected to save: the least mean after it, against the least mean now (the knowledge
//! gradient). One configuration is taken after the other, each given that those before it will have been measured.

use serde::Serialize;

use super::Error;
use super::label::Varies;
use super::limit::Objective;
use super::probability::{Contender, slopes};
use super::request::Request;
use super::search::{Point, Search};
use super::sweep_file::{Measured, Sweep, sweep_file};
use crate::law::{Model, RowKind};

/// Contenders that are weighed against each other.
const MOST: usize = 96;

/// Standard deviation of the logarithm of one measurement when it is repeated.
const NOISE: f64 = 0.01;

/// The normal distribution as so many points from -4 to 4 standard deviations.
const POINTS: usize = 161;

/// Below it a measurement is not expected to change anything.
const NOTHING: f64 = 1e-9;

/// One configuration that is worth measuring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextMeasurement {
    /// GPU.
    pub gpu_model: String,
    /// Engine, where known.
    pub engine: Option<String>,
    /// Precision, where known.
    pub precision: Option<String>,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Data-parallel degree.
    pub data_parallel: u32,
    /// Sequences in flight over all replicas, a whole number.
    pub batch_size: u64,
    /// How much less of what is made small is expected to be needed once it is known, %.
    pub expected_saving_percent: f64,
    /// How uncertain its figure is now, standard deviation in %.
    pub uncertainty_percent: f64,
    /// Whether the sweep holds it: a sweep has one engine, and names precisions that it knows.
    pub in_sweep: bool,
}

/// What to measure next, and the sweep that does it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextMeasurements {
    /// In the order in which they are worth it.
    pub points: Vec<NextMeasurement>,
    /// What is made small.
    pub objective: Objective,
    /// Whether any of them is expected to change the answer; else they are those that say most about the first.
    pub may_change: bool,
    /// What differs among the platforms that were looked at.
    pub varies: Varies,
    /// What the sweep cannot say, in words.
    pub notes: Vec<String>,
    /// A Lua sweep of exactly those of the configurations that are `in_sweep`.
    pub sweep: String,
}

impl NextMeasurements {
    /// What the list is, in words.
    pub fn heading(&self) -> &'static str {
        if self.may_change {
            "worth measuring next, the most useful first"
        } else {
            "no measurement is expected to change the choice; these say most about the first"
        }
    }
}

/// The `count` configurations whose measurement is expected to improve the choice most.
pub fn measure_next(model: &Model, request: &Request, count: usize) -> Result<NextMeasurements, Error> {
    let search = Search::run(model, request)?;
    let best = search.points(&search.found.best.sorted());
    if best.is_empty() {
        return Err(search.nothing()?);
    }
    let kinds = search.kinds(&best, MOST);
    let contenders = search.contenders(&kinds)?;
    let mut doubt = Doubt::of(&contenders);
    let mut points: Vec<(Point, NextMeasurement)> = Vec::new();
    let mut may_change = false;
    let mut tried = vec![false; contenders.len()];
    while points.len() < count {
        let Some((place, saving)) = doubt.best_measurement(&tried) else { break };
        if let Some(tried) = tried.get_mut(place) {
            *tried = true;
        }
        let variance = doubt.variance(place);
        doubt.measure(place);
        let Some((point, _)) = kinds.get(place) else { break };
        let replicas = u64::from(point.replicas.max(1));
        // Every replica gets the same whole number of sequences.
        let batch_size = ((point.batch / replicas as f64).round().max(1.0) as u64).saturating_mul(replicas);
        let same = |(other, known): &(Point, NextMeasurement)| {
            (other.platform, other.tensor, other.pipeline, other.replicas)
                == (point.platform, point.tensor, point.pipeline, point.replicas)
                && known.batch_size == batch_size
        };
        if points.iter().any(same) {
            continue;
        }
        let Some(platform) = search.platforms.get(point.platform) else { break };
        may_change |= saving > NOTHING;
        let measurement = NextMeasurement {
            gpu_model: platform.gpu_model().to_owned(),
            engine: platform.engine().map(str::to_owned),
            precision: platform.precision().map(str::to_owned),
            tensor_parallel: point.tensor,
            pipeline_parallel: point.pipeline,
            data_parallel: point.replicas,
            batch_size,
            expected_saving_percent: 100.0 * -(-saving).exp_m1(),
            uncertainty_percent: 100.0 * variance.sqrt(),
            in_sweep: true,
        };
        points.push((*point, measurement));
    }
    let platforms =
        points.iter().filter_map(|(p, m)| Some(Measured { platform: search.platforms.get(p.platform)?, point: m }));
    let Sweep { text, notes, kept } = sweep_file(&platforms.collect::<Vec<_>>(), request)?;
    let points = points.into_iter().zip(kept).map(|((_, m), in_sweep)| NextMeasurement { in_sweep, ..m });
    Ok(NextMeasurements {
        points: points.collect(),
        objective: search.objective,
        may_change,
        varies: search.varies,
        notes,
        sweep: text,
    })
}

/// Means and covariance of the logarithms of the contenders' objectives.
struct Doubt {
    mean: Vec<f64>,
    covariance: Vec<Vec<f64>>,
}

/// How the logarithm of a contender's objective goes with one law. A measurement says energy and duration; what a GPU draws
/// while it waits it does not say, so that this is no part of the doubt.
struct Exposure {
    law_index: usize,
    /// How far it goes with the logarithm of what the law says.
    share: f64,
    slope: Vec<f64>,
    /// Variance that all configurations of a model that was never fitted have in common.
    model_variance: f64,
    /// Variance of its own.
    own_variance: f64,
}

impl Exposure {
    fn all((contender, slopes): (&Contender<'_>, Vec<Vec<f64>>)) -> Vec<Self> {
        let laws = contender.exposures().zip(slopes);
        laws.map(|((law_index, share, _, law), slope)| Self {
            law_index,
            share,
            slope,
            model_variance: if contender.known_model { 0.0 } else { law.sigma_model_log.powi(2) },
            own_variance: law.scatter_of(RowKind::Batch).sigma_log.powi(2),
        })
        .collect()
    }

    /// What it has in common with another of the same law.
    fn covariance(&self, other: &Self) -> f64 {
        let shared: f64 = self.slope.iter().zip(&other.slope).map(|(x, y)| x * y).sum();
        self.share * other.share * (shared + self.model_variance)
    }

    fn scatter(&self) -> f64 {
        self.share * self.share * self.own_variance
    }
}

impl Doubt {
    fn of(contenders: &[Contender<'_>]) -> Self {
        let exposures: Vec<Vec<Exposure>> = contenders.iter().zip(slopes(contenders)).map(Exposure::all).collect();
        let between = |i: usize, j: usize| -> f64 {
            let pairs = exposures.get(i).into_iter().flatten().flat_map(|own| {
                let others = exposures.get(j).into_iter().flatten();
                others.filter(|other| other.law_index == own.law_index).map(move |other| (own, other))
            });
            pairs.map(|(own, other)| own.covariance(other) + if i == j { own.scatter() } else { 0.0 }).sum()
        };
        let places = || 0..contenders.len();
        Self {
            mean: contenders.iter().map(|c| c.objective().ln()).collect(),
            covariance: places().map(|i| places().map(|j| between(i, j)).collect()).collect(),
        }
    }

    fn variance(&self, place: usize) -> f64 {
        self.covariance.get(place).and_then(|row| row.get(place)).copied().unwrap_or(0.0).max(0.0)
    }

    /// How far every mean moves per standard deviation of what measuring `place` may say.
    fn moves(&self, place: usize) -> Vec<f64> {
        let scale = (self.variance(place) + NOISE * NOISE).sqrt();
        self.covariance.get(place).into_iter().flatten().map(|c| c / scale).collect()
    }

    /// The untried contender whose measurement saves most, and what; where none saves anything, the one that says most
    /// about the first.
    fn best_measurement(&self, tried: &[bool]) -> Option<(usize, f64)> {
        let untried = || tried.iter().enumerate().filter(|(_, tried)| !**tried).map(|(i, _)| i);
        let saving = untried().map(|i| (i, expected_saving(&self.mean, &self.moves(i))));
        let best = saving.fold(None, |best: Option<(usize, f64)>, (i, saving)| match best {
            Some((_, most)) if most >= saving => best,
            _ => Some((i, saving)),
        })?;
        if best.1 > NOTHING {
            return Some(best);
        }
        let says = |i: usize| self.moves(i).first().map_or(0.0, |m| m.abs());
        untried().max_by(|a, b| says(*a).total_cmp(&says(*b)).then(b.cmp(a))).map(|i| (i, 0.0))
    }

    /// The doubt that is left once `place` has been measured.
    fn measure(&mut self, place: usize) {
        let moves = self.moves(place);
        for (row, own) in self.covariance.iter_mut().zip(&moves) {
            for (entry, other) in row.iter_mut().zip(&moves) {
                *entry -= own * other;
            }
        }
    }
}

/// `min(mean) - E[min(mean + moves z)]` for a standard normal `z`: never negative.
fn expected_saving(mean: &[f64], moves: &[f64]) -> f64 {
    let least = |z: f64| mean.iter().zip(moves).map(|(m, b)| m + b * z).fold(f64::INFINITY, f64::min);
    let (mut sum, mut weights) = (0.0, 0.0);
    for i in 0..POINTS {
        let z = 8.0 * (i as f64 / (POINTS - 1) as f64) - 4.0;
        let weight = (-0.5 * z * z).exp();
        sum += weight * least(z);
        weights += weight;
    }
    (least(0.0) - sum / weights).max(0.0)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_saving_of_two_alike_is_the_mean_of_a_half_normal() {
        // Equal means, one moves by 0.1 z: E[min(0, 0.1 z)] = -0.1 / sqrt(2 pi).
        let saving = expected_saving(&[1.0, 1.0], &[0.0, 0.1]);
        assert!((saving - 0.1 / std::f64::consts::TAU.sqrt()).abs() < 1e-4, "{saving}");
        // What moves all alike changes no choice, nor does one that is far off.
        assert!(expected_saving(&[1.0, 1.2], &[0.3, 0.3]) < 1e-12);
        assert!(expected_saving(&[1.0, 9.0], &[0.1, 0.1]) < 1e-12);
    }

    #[test]
    fn measuring_leaves_the_conditional_covariance() {
        // Variances 0.04 and 0.09, correlation 0.5: measuring the second with noise 0.01 leaves 0.04 - 0.03^2 / 0.0901.
        let mut doubt = Doubt { mean: vec![0.0, 0.1], covariance: vec![vec![0.04, 0.03], vec![0.03, 0.09]] };
        doubt.measure(1);
        assert!((doubt.variance(0) - (0.04 - 9e-4 / 0.0901)).abs() < 1e-12);
        assert!((doubt.variance(1) - (0.09 - 0.0081 / 0.0901)).abs() < 1e-12);
    }

    #[test]
    fn the_saving_is_what_brute_force_says() {
        let doubt = Doubt {
            mean: vec![0.0, 0.02, 0.05],
            covariance: vec![vec![0.01, 0.004, 0.0], vec![0.004, 0.02, 0.001], vec![0.0, 0.001, 0.03]],
        };
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for place in 0..3 {
            let moves = doubt.moves(place);
            let draws = 200_000;
            let sum: f64 = (0..draws)
                .map(|_| {
                    let z: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
                    doubt.mean.iter().zip(&moves).map(|(m, b)| m + b * z).fold(f64::INFINITY, f64::min)
                })
                .sum();
            let (got, want) = (expected_saving(&doubt.mean, &moves), -sum / f64::from(draws));
            assert!((got - want).abs() < 1.5e-3, "{place}: {got} is not {want}");
        }
    }

    #[test]
    fn what_settles_the_choice_is_measured_and_what_is_sure_is_not() {
        // Two rivals, of which the second is in doubt; the third is uncertain and hopeless.
        let doubt = Doubt {
            mean: vec![0.0, 0.01, 3.0],
            covariance: vec![vec![1e-6, 0.0, 0.0], vec![0.0, 0.04, 0.0], vec![0.0, 0.0, 0.25]],
        };
        assert_eq!(doubt.best_measurement(&[false; 3]).map(|b| b.0), Some(1));
        // Nothing left to settle: the first itself.
        let sure = Doubt { mean: vec![0.0, 5.0], covariance: vec![vec![1e-4, 0.0], vec![0.0, 1e-4]] };
        assert_eq!(sure.best_measurement(&[false; 2]), Some((0, 0.0)));
        assert_eq!(sure.best_measurement(&[true; 2]), None);
    }
}
