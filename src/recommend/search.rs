//! From a request to the ranked answer.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::Error;
use super::answer::Recommendation;
use super::fold::Folded;
use super::limit::Quantity;
use super::platform::{Platform, platforms};
use super::request::Request;
use crate::law::{Model, Target};

/// Batch sizes that are searched where the request leaves it open.
const SEARCHED_BATCHES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Configurations that are accepted in one search; a second or so of arithmetic.
const MOST_CANDIDATES: u64 = 5_000_000;

/// One configuration while it is only numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) platform: usize,
    pub(super) tensor: u32,
    pub(super) pipeline: u32,
    pub(super) replicas: u32,
    pub(super) batch: f64,
    pub(super) energy_per_token_j: f64,
    pub(super) latency: f64,
}

impl Point {
    pub(super) fn num_gpus(&self) -> u32 {
        self.tensor * self.pipeline * self.replicas
    }

    /// Least energy first; what is equal is ordered by fewer GPUs, then by degrees, so that an answer is one answer.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |p: &Self| (p.num_gpus(), p.tensor, p.pipeline, p.platform);
        self.energy_per_token_j
            .total_cmp(&other.energy_per_token_j)
            .then_with(|| key(self).cmp(&key(other)))
            .then_with(|| self.batch.total_cmp(&other.batch))
    }
}

/// How many configurations something excluded, and which came closest.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) count: usize,
    /// Factor by which the closest missed, and the closest in words' raw material: point and figure.
    pub(super) closest: Option<(f64, Point, f64)>,
}

impl Tally {
    fn add(&mut self, count: usize, excess: f64, point: Point, value: f64) {
        self.count += count;
        if self.closest.is_none_or(|(least, ..)| excess < least) {
            self.closest = Some((excess, point, value));
        }
    }
}

/// What a search leaves behind.
pub(super) struct Search<'a> {
    pub(super) request: &'a Request,
    pub(super) platforms: Vec<Platform<'a>>,
    pub(super) latency: Option<Target>,
    pub(super) candidates: usize,
    pub(super) feasible: Vec<Point>,
    pub(super) outside: Vec<Point>,
    pub(super) memory: Tally,
    pub(super) range: Tally,
    pub(super) limits: Vec<Tally>,
}

/// Ranks the configurations that `request` allows by predicted energy.
pub fn recommend(model: &Model, request: &Request) -> Result<Recommendation, Error> {
    check(request)?;
    let platforms = platforms(model, request)?;
    let mut search = Search::new(request, platforms);
    search.run()?;
    search.feasible.sort_unstable_by(Point::order);
    search.outside.sort_unstable_by(Point::order);
    search.answer()
}

fn check(request: &Request) -> Result<(), Error> {
    for (name, value) in [("input_tokens", request.input_tokens), ("output_tokens", request.output_tokens)]
        .into_iter()
        .chain(request.batch_size.map(|b| ("batch_size", b)))
    {
        if !(value.is_finite() && value >= 1.0) {
            return Err(Error::Workload(format!("{name} should be a number of at least 1, found {value}")));
        }
    }
    if request.max_gpus == 0 {
        return Err(Error::Workload("max_gpus should be at least 1, found 0".to_owned()));
    }
    if let Some(limit) = request.limits.iter().find(|l| l.quantity == Quantity::MeanTpotS)
        && request.output_tokens < 2.0
    {
        let problem = "a time per output token after the first needs at least 2 output_tokens".to_owned();
        return Err(Error::Limit { text: limit.to_string(), problem });
    }
    Ok(())
}

impl<'a> Search<'a> {
    fn new(request: &'a Request, platforms: Vec<Platform<'a>>) -> Self {
        let known = |target: &Target| platforms.iter().all(|p| p.law(*target).is_some());
        let latency = [Target::MeanTpotS, Target::DurationS, Target::MeanTtftS].into_iter().find(known);
        Self {
            request,
            latency,
            candidates: 0,
            feasible: Vec::new(),
            outside: Vec::new(),
            memory: Tally::default(),
            range: Tally::default(),
            limits: request.limits.iter().map(|_| Tally::default()).collect(),
            platforms,
        }
    }

    fn run(&mut self) -> Result<(), Error> {
        let plans: Vec<(usize, Vec<(u32, u32)>)> =
            self.platforms.iter().enumerate().map(|(i, p)| (i, p.degrees(self.request.max_gpus))).collect();
        let batches: Vec<f64> = self.request.batch_size.map_or(SEARCHED_BATCHES.to_vec(), |b| vec![b]);
        let most_replicas = |t: u32, p: u32, batch: f64| (self.request.max_gpus / (t * p)).min(batch as u32);
        let count: u64 = plans
            .iter()
            .flat_map(|(_, degrees)| degrees)
            .flat_map(|(t, p)| batches.iter().map(|b| u64::from(most_replicas(*t, *p, *b))))
            .sum();
        if count > MOST_CANDIDATES {
            return Err(Error::TooMany { count, most: MOST_CANDIDATES });
        }
        for (index, degrees) in plans {
            for (tensor, pipeline) in degrees {
                let reach: Vec<(f64, u32)> =
                    batches.iter().map(|b| (*b, most_replicas(tensor, pipeline, *b))).collect();
                self.pair(index, tensor, pipeline, &reach)?;
            }
        }
        Ok(())
    }

    /// All batches and replica counts of one pair of degrees: arithmetic only.
    fn pair(&mut self, index: usize, tensor: u32, pipeline: u32, reach: &[(f64, u32)]) -> Result<(), Error> {
        let Some(platform) = self.platforms.get(index) else { return Ok(()) };
        let request = self.request;
        let case = platform.case(tensor, pipeline, 1, 1.0)?;
        let fold = |target: Target| platform.law(target).map(|law| Folded::new(law, &case));
        let Some(energy) = fold(Target::EnergyJ) else { return Ok(()) };
        let [ttft, tpot, duration] = [Target::MeanTtftS, Target::MeanTpotS, Target::DurationS].map(fold);
        let latency = match self.latency {
            Some(Target::MeanTpotS) => tpot.as_ref(),
            Some(Target::DurationS) => duration.as_ref(),
            Some(Target::MeanTtftS) => ttft.as_ref(),
            _ => None,
        };
        let count: usize = reach.iter().map(|(batch, most)| replica_counts(*batch, *most).count()).sum();
        self.candidates += count;
        let bare = Point {
            platform: index,
            tensor,
            pipeline,
            replicas: 1,
            batch: reach.first().map_or(1.0, |r| r.0),
            energy_per_token_j: f64::NAN,
            latency: f64::NAN,
        };
        if let Some((needed, there)) = platform.memory_shortage(tensor, pipeline)
            && count > 0
        {
            self.memory.add(count, needed / there, bare, needed / there);
            return Ok(());
        }
        let degrees_measured = platform.covers("t", f64::from(tensor)) && platform.covers("p", f64::from(pipeline));
        for (batch, most_replicas) in reach {
            for replicas in replica_counts(*batch, *most_replicas) {
                let per_replica = batch / f64::from(replicas);
                let energy_j = energy.value(per_replica, f64::from(replicas));
                let tokens = batch * request.output_tokens;
                let mut point = Point { replicas, batch: *batch, energy_per_token_j: energy_j / tokens, ..bare };
                if !(energy_j.is_finite() && energy_j > 0.0) {
                    self.range.add(1, f64::INFINITY, point, energy_j);
                    continue;
                }
                point.latency = latency.map_or(f64::NAN, |l| l.value(per_replica, 1.0));
                let mut holds = true;
                for (limit, tally) in request.limits.iter().zip(&mut self.limits) {
                    let time = |law: &Option<Folded>| law.as_ref().map_or(f64::NAN, |l| l.value(per_replica, 1.0));
                    let value = match limit.quantity {
                        Quantity::MeanTtftS => time(&ttft),
                        Quantity::MeanTpotS => time(&tpot),
                        Quantity::DurationS => time(&duration),
                        Quantity::MeanPowerW => energy_j / time(&duration),
                        Quantity::ThroughputTokS => tokens / time(&duration),
                        Quantity::EnergyJ => energy_j,
                        Quantity::EnergyPerTokenJ => energy_j / tokens,
                        Quantity::EnergyPerRequestJ => energy_j / batch,
                        Quantity::NumGpus => f64::from(point.num_gpus()),
                        Quantity::TensorParallel => f64::from(tensor),
                        Quantity::PipelineParallel => f64::from(pipeline),
                        Quantity::DataParallel => f64::from(replicas),
                        Quantity::BatchSize => *batch,
                    };
                    if !limit.holds(value) {
                        holds = false;
                        // What the measured range excludes anyway is no hint on how far to move a limit.
                        if degrees_measured || request.allow_outside {
                            tally.add(1, limit.excess(value), point, value);
                        }
                    }
                }
                let searched = request.batch_size.is_none();
                let measured = degrees_measured && (!searched || platform.covers("B", per_replica));
                if !(measured || request.allow_outside) {
                    self.range.add(1, f64::INFINITY, point, f64::NAN);
                    if holds {
                        self.outside.push(point);
                    }
                } else if holds {
                    self.feasible.push(point);
                }
            }
        }
        Ok(())
    }
}

/// Replicas that a batch can be shared among: a whole number of sequences goes to each alike. A mean batch, which is no
/// whole number, is shared by any.
fn replica_counts(batch: f64, most: u32) -> impl Iterator<Item = u32> {
    let is_whole = batch.fract() == 0.0;
    (1..=most).filter(move |replicas| !is_whole || batch % f64::from(*replicas) == 0.0)
}

/// Degrees worth looking at: powers of two up to `most`, and whatever else was measured.
pub(super) fn degrees_up_to(most: u32, measured: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let powers = std::iter::successors(Some(1_u32), |d| d.checked_mul(2)).take_while(|d| *d <= most);
    powers.chain(measured.into_iter().filter(|d| (1..=most).contains(d))).collect()
}
