//! From a request to the candidates that are feasible: arithmetic only.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering as Memory};
use std::thread;

use super::Error;
use super::answer::Recommendation;
use super::arrivals::{Balance, balance};
use super::bill::requests_per_day;
use super::fold::Folded;
use super::lengths::Lengths;
use super::limit::{Objective, Quantity};
use super::platform::{Platform, has_second_token, platforms};
use super::request::Request;
use super::select::Found;
use crate::law::{Model, Target};

/// Batch sizes that are searched where the request leaves it open.
const SEARCHED_BATCHES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Configurations that are accepted in one search; a second or so of arithmetic.
const MOST_CANDIDATES: u64 = 5_000_000;

/// Configurations that take part in the draws: the best by point prediction. Further down nothing has a chance that
/// 2,000 draws could show, unless hundreds are alike, and then their order says nothing anyway.
pub(super) const CONTENDERS: usize = 256;

/// Points kept for each contender: some differ in the number of replicas alone.
const POINTS_PER_CONTENDER: usize = 16;

/// Replica counts that one thread looks at before it takes the next piece.
const PIECE: u32 = 16_384;

/// Candidates below which threads are not worth their start.
const ALONE: u64 = 30_000;

/// Threads at most.
const THREADS: usize = 16;

/// One configuration while it is only numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) platform: usize,
    pub(super) tensor: u32,
    pub(super) pipeline: u32,
    pub(super) replicas: u32,
    /// Sequences in flight over all replicas.
    pub(super) batch: f64,
    /// Energy of a request while there is work.
    pub(super) request_j: f64,
    /// Energy that the GPUs draw for each request while they wait for the next.
    pub(super) idle_j: f64,
    /// Share of the time in which there is work.
    pub(super) busy_share: f64,
    /// What is made small, and the part of it that does not move with the law of energy.
    pub(super) objective: f64,
    pub(super) objective_fixed: f64,
    pub(super) latency: f64,
}

impl Point {
    /// Degrees alone, nothing known yet.
    pub(super) fn of_degrees(platform: usize, tensor: u32, pipeline: u32) -> Self {
        Self {
            platform,
            tensor,
            pipeline,
            replicas: 1,
            batch: 1.0,
            request_j: f64::NAN,
            idle_j: 0.0,
            busy_share: 1.0,
            objective: f64::NAN,
            objective_fixed: 0.0,
            latency: f64::NAN,
        }
    }

    pub(super) fn num_gpus(&self) -> u32 {
        self.tensor * self.pipeline * self.replicas
    }

    /// Where it stands among all candidates, whatever its figures.
    pub(super) fn place(&self) -> (usize, u32, u32, u32, u64) {
        (self.platform, self.tensor, self.pipeline, self.replicas, self.batch.to_bits())
    }

    /// Least first; what is equal is ordered by fewer GPUs, then by degrees, so that an answer is one answer.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |p: &Self| (p.num_gpus(), p.tensor, p.pipeline, p.platform);
        self.objective
            .total_cmp(&other.objective)
            .then_with(|| key(self).cmp(&key(other)))
            .then_with(|| self.batch.total_cmp(&other.batch))
    }
}

/// What a search leaves behind.
pub(super) struct Search<'a> {
    pub(super) request: &'a Request,
    pub(super) lengths: Lengths,
    pub(super) platforms: Vec<Platform<'a>>,
    pub(super) latency: Option<Target>,
    pub(super) batches: Vec<f64>,
    pub(super) found: Found,
}

/// Ranks the configurations that `request` allows by what it makes small.
pub fn recommend(model: &Model, request: &Request) -> Result<Recommendation, Error> {
    Search::run(model, request)?.answer()
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
    if let Some(rate) = request.arrival_rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        return Err(Error::Workload(format!("the arrival rate should be a number above 0, found {rate}")));
    }
    if !(request.prices.pue.is_finite() && request.prices.pue >= 1.0) {
        return Err(Error::Workload(format!("the PUE should be a number from 1, found {}", request.prices.pue)));
    }
    if let Some(limit) = request.limits.iter().find(|l| l.quantity == Quantity::MeanTpotS)
        && !has_second_token(&request.lengths())
    {
        let problem = "a time per output token after the first needs at least 2 output_tokens".to_owned();
        return Err(Error::Limit { text: limit.to_string(), problem });
    }
    let asked = request.limits.iter().map(|l| l.quantity).chain([request.objective.into()]);
    for quantity in asked {
        let (known, needs) = match quantity {
            Quantity::EnergyPerDayKwh => (request.arrival_rate.is_some(), "an arrival rate (--arrival-rate)"),
            Quantity::CostPerRequest => {
                (request.prices.know_cost(), "a price (--price-per-kwh or --price-per-gpu-hour)")
            }
            Quantity::CarbonPerRequestG => {
                (request.prices.carbon_g_per_kwh.is_some(), "the grid's carbon intensity (--carbon-g-per-kwh)")
            }
            _ => (true, ""),
        };
        if !known {
            return Err(Error::Unpriced { quantity, needs });
        }
    }
    Ok(())
}

/// The mean of a law over the classes of lengths.
struct Mean(Vec<(f64, Folded)>);

impl Mean {
    fn value(&self, batch: f64, replicas: f64) -> f64 {
        self.0.iter().map(|(share, folded)| share * folded.value(batch, replicas)).sum()
    }
}

/// One pair of degrees on one platform, ready for arithmetic.
struct Pair {
    bare: Point,
    energy: Mean,
    ttft: Option<Mean>,
    tpot: Option<Mean>,
    duration: Option<Mean>,
    latency: Option<Target>,
    /// Whether the law was fitted on such degrees.
    measured: bool,
    /// Largest batch of one replica that the law was fitted on, and what to hold the others against.
    batch_range: (f64, f64),
    idle_power_w: f64,
}

/// What turns joules and GPU seconds of a request into the objective.
struct Scale {
    per_joule: f64,
    per_gpu_second: f64,
}

impl Scale {
    fn of(request: &Request, mean_output_tokens: f64) -> Self {
        let prices = &request.prices;
        let (per_joule, per_gpu_second) = match request.objective {
            Objective::EnergyPerToken => (1.0 / mean_output_tokens, 0.0),
            Objective::EnergyPerRequest => (1.0, 0.0),
            Objective::EnergyPerDay => {
                (requests_per_day(request.arrival_rate.unwrap_or(1.0)) * prices.pue / 3.6e6, 0.0)
            }
            Objective::Cost => (prices.per_joule(), prices.per_gpu_second()),
            Objective::Carbon => (prices.carbon_g_per_joule(), 0.0),
        };
        Self { per_joule, per_gpu_second }
    }
}

/// A piece of work: a pair, a batch (`None` where arrivals decide), and replica counts.
type Piece = (usize, Option<usize>, RangeInclusive<u32>);

impl<'a> Search<'a> {
    /// Looks at every candidate.
    pub(super) fn run(model: &'a Model, request: &'a Request) -> Result<Self, Error> {
        check(request)?;
        let platforms = platforms(model, request)?;
        let known = |target: &Target| platforms.iter().all(|p| p.law(*target).is_some());
        let latency = [Target::MeanTpotS, Target::DurationS, Target::MeanTtftS].into_iter().find(known);
        let batches = match (request.arrival_rate, request.batch_size) {
            (Some(_), _) => Vec::new(),
            (None, Some(batch)) => vec![batch],
            (None, None) => SEARCHED_BATCHES.to_vec(),
        };
        let most = request.top.max(CONTENDERS).saturating_mul(POINTS_PER_CONTENDER);
        let found = Found::new(request.limits.len(), batches.len(), most);
        let mut search = Self { request, lengths: request.lengths(), latency, batches, found, platforms };
        search.look()?;
        Ok(search)
    }

    fn look(&mut self) -> Result<(), Error> {
        let request = self.request;
        let degrees = self.platforms.iter().enumerate();
        let degrees = degrees.flat_map(|(i, p)| p.degrees(request.max_gpus).into_iter().map(move |(t, p)| (i, t, p)));
        let degrees: Vec<(usize, u32, u32)> = degrees.collect();
        let most_replicas = |t: u32, p: u32, batch: Option<f64>| {
            let by_gpus = request.max_gpus / (t * p);
            batch.map_or(by_gpus, |batch| by_gpus.min(batch as u32))
        };
        let choices: Vec<Option<usize>> = match self.batches.len() {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        let batch_of = |choice: &Option<usize>| choice.and_then(|i| self.batches.get(i).copied());
        let count: u64 = degrees
            .iter()
            .flat_map(|(_, t, p)| choices.iter().map(|c| u64::from(most_replicas(*t, *p, batch_of(c)))))
            .sum();
        if count > MOST_CANDIDATES {
            return Err(Error::TooMany { count, most: MOST_CANDIDATES });
        }
        let mut pairs: Vec<Pair> = Vec::new();
        let mut pieces: Vec<Piece> = Vec::new();
        for (index, t, p) in degrees {
            let reach: Vec<(Option<usize>, u32)> =
                choices.iter().map(|c| (*c, most_replicas(t, p, batch_of(c)))).collect();
            let Some(platform) = self.platforms.get(index) else { continue };
            let bare = Point::of_degrees(index, t, p);
            if let Some((needed, there)) = platform.memory_shortage(t, p) {
                let counts = reach.iter().map(|(c, most)| replica_counts(batch_of(c), 1..=*most).count());
                let count = counts.sum::<usize>();
                if count > 0 {
                    self.found.candidates += count;
                    self.found.memory.add(count, needed / there, bare, needed / there);
                }
                continue;
            }
            pairs.extend(self.pair(platform, bare)?);
            let place = pairs.len().saturating_sub(1);
            for (choice, most) in reach {
                let starts = (1..=most).step_by(PIECE as usize);
                pieces.extend(starts.map(|from| (place, choice, from..=from.saturating_add(PIECE - 1).min(most))));
            }
        }
        let found = self.share_out(&pairs, &pieces, count);
        self.found.join(found);
        Ok(())
    }

    /// Looks at the pieces on as many threads as are worth it.
    fn share_out(&self, pairs: &[Pair], pieces: &[Piece], count: u64) -> Found {
        let empty = || {
            let most = self.request.top.max(CONTENDERS).saturating_mul(POINTS_PER_CONTENDER);
            Found::new(self.request.limits.len(), self.batches.len(), most)
        };
        let next = AtomicUsize::new(0);
        let scale = Scale::of(self.request, self.lengths.mean_output_tokens());
        let work = || {
            let mut found = empty();
            while let Some((pair, choice, replicas)) = pieces.get(next.fetch_add(1, Memory::Relaxed)) {
                if let Some(pair) = pairs.get(*pair) {
                    self.piece(pair, *choice, replicas.clone(), &scale, &mut found);
                }
            }
            found
        };
        let cores = thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(pieces.len());
        if count < ALONE || cores < 2 {
            return work();
        }
        thread::scope(|scope| {
            let others: Vec<_> = (1..cores).map(|_| scope.spawn(work)).collect();
            let mut found = work();
            for other in others {
                // A thread that panicked has a bug that must not pass for an answer.
                found.join(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            found
        })
    }

    fn pair(&self, platform: &Platform<'_>, bare: Point) -> Result<Option<Pair>, Error> {
        let base = platform.case(bare.tensor, bare.pipeline, 1, 1.0)?;
        let fold = |target: Target| {
            let law = platform.law(target)?;
            let cases = platform.cases(target, base);
            Some(Mean(cases.into_iter().map(|(share, case)| (share, Folded::new(law, &case))).collect()))
        };
        let Some(energy) = fold(Target::EnergyJ) else { return Ok(None) };
        let [ttft, tpot, duration] = [Target::MeanTtftS, Target::MeanTpotS, Target::DurationS].map(fold);
        Ok(Some(Pair {
            bare,
            energy,
            ttft,
            tpot,
            duration,
            latency: self.latency,
            measured: platform.covers("t", f64::from(bare.tensor)) && platform.covers("p", f64::from(bare.pipeline)),
            batch_range: platform.batch_range(),
            idle_power_w: platform.idle_power_w().unwrap_or(0.0),
        }))
    }

    fn piece(
        &self,
        pair: &Pair,
        choice: Option<usize>,
        replicas: RangeInclusive<u32>,
        scale: &Scale,
        found: &mut Found,
    ) {
        let Some((place, batch)) = choice.and_then(|i| Some((i, *self.batches.get(i)?))) else {
            replicas.for_each(|r| self.under_load(pair, r, scale, found));
            return;
        };
        for replicas in replica_counts(Some(batch), replicas) {
            found.candidates += 1;
            let point = Point { replicas, batch, ..pair.bare };
            // A batch that was asked for is answered wherever it lies.
            let is_free = self.request.batch_size.is_none();
            let per_replica = batch / f64::from(replicas);
            let inside = !is_free || (pair.batch_range.0..=pair.batch_range.1).contains(&per_replica);
            self.judge(pair, point, pair.measured && inside, place, scale, found);
        }
    }

    /// The candidate whose batch follows from the requests that come in.
    fn under_load(&self, pair: &Pair, replicas: u32, scale: &Scale, found: &mut Found) {
        let (Some(duration), Some(rate)) = (&pair.duration, self.request.arrival_rate) else { return };
        found.candidates += 1;
        let own_rate = rate / f64::from(replicas);
        let mut most = pair.batch_range.1;
        if self.request.allow_outside || !most.is_finite() {
            most = most.clamp(1024.0, 1e6);
        }
        let most = self.request.batch_size.map_or(most, |asked| most.min(asked / f64::from(replicas)));
        match balance(|batch| duration.value(batch, 1.0), own_rate, most) {
            Balance::At { batch, busy_share } => {
                let idle_w = (1.0 - busy_share) * pair.idle_power_w * f64::from(pair.bare.tensor * pair.bare.pipeline);
                let point = Point {
                    replicas,
                    batch: batch * f64::from(replicas),
                    busy_share,
                    idle_j: idle_w / own_rate,
                    ..pair.bare
                };
                let inside = (pair.batch_range.0..=pair.batch_range.1).contains(&batch);
                self.judge(pair, point, pair.measured && inside, 0, scale, found);
            }
            Balance::Overrun { finished_per_s } => {
                let all = finished_per_s * f64::from(replicas);
                let point = Point { replicas, batch: most * f64::from(replicas), ..pair.bare };
                found.overrun.add(1, rate / all, point, all);
            }
        }
    }

    /// Works out the figures of a candidate and puts it where it belongs.
    fn judge(&self, pair: &Pair, mut point: Point, measured: bool, place: usize, scale: &Scale, found: &mut Found) {
        let request = self.request;
        let (replicas, batch) = (f64::from(point.replicas), point.batch);
        let per_replica = batch / replicas;
        let energy_j = pair.energy.value(per_replica, replicas);
        if !(energy_j.is_finite() && energy_j > 0.0) {
            found.range.add(1, f64::INFINITY, point, energy_j);
            return;
        }
        let time = |law: &Option<Mean>| law.as_ref().map_or(f64::NAN, |l| l.value(per_replica, 1.0));
        point.request_j = energy_j / batch;
        let gpu_s = if scale.per_gpu_second > 0.0 { self.gpu_s(&point, || time(&pair.duration)) } else { 0.0 };
        point.objective_fixed = point.idle_j * scale.per_joule + gpu_s * scale.per_gpu_second;
        point.objective = point.request_j * scale.per_joule + point.objective_fixed;
        point.latency = match pair.latency {
            Some(Target::MeanTpotS) => time(&pair.tpot),
            Some(Target::DurationS) => time(&pair.duration),
            Some(Target::MeanTtftS) => time(&pair.ttft),
            _ => f64::NAN,
        };
        let tokens = batch * self.lengths.mean_output_tokens();
        let request_j = point.request_j + point.idle_j;
        let mut holds = true;
        for (i, limit) in request.limits.iter().enumerate() {
            let prices = &request.prices;
            let value = match limit.quantity {
                Quantity::MeanTtftS => time(&pair.ttft),
                Quantity::MeanTpotS => time(&pair.tpot),
                Quantity::DurationS => time(&pair.duration),
                Quantity::MeanPowerW => match request.arrival_rate {
                    Some(rate) => rate * request_j,
                    None => energy_j / time(&pair.duration),
                },
                Quantity::ThroughputTokS => tokens / time(&pair.duration),
                Quantity::EnergyJ => energy_j,
                Quantity::EnergyPerTokenJ => request_j * batch / tokens,
                Quantity::EnergyPerRequestJ => request_j,
                Quantity::EnergyPerDayKwh => {
                    requests_per_day(request.arrival_rate.unwrap_or(f64::NAN)) * request_j * prices.pue / 3.6e6
                }
                Quantity::CostPerRequest => {
                    let rent = || self.gpu_s(&point, || time(&pair.duration)) * prices.per_gpu_second();
                    request_j * prices.per_joule() + if prices.price_per_gpu_hour.is_some() { rent() } else { 0.0 }
                }
                Quantity::CarbonPerRequestG => request_j * prices.carbon_g_per_joule(),
                Quantity::NumGpus => f64::from(point.num_gpus()),
                Quantity::TensorParallel => f64::from(point.tensor),
                Quantity::PipelineParallel => f64::from(point.pipeline),
                Quantity::DataParallel => replicas,
                Quantity::BatchSize => batch,
            };
            if !limit.holds(value) {
                holds = false;
                // What the measured range excludes anyway is no hint on how far to move a limit.
                if (pair.measured || request.allow_outside)
                    && let Some(tally) = found.limits.get_mut(i)
                {
                    tally.add(1, limit.excess(value), point, value);
                }
            }
        }
        if !(measured || request.allow_outside) {
            found.range.add(1, f64::INFINITY, point, f64::NAN);
            if holds {
                found.outside.add(point);
            }
        } else if holds {
            found.add(point, place);
        }
    }

    /// GPU seconds that one request keeps: all GPUs all the time where requests come at a rate, else its share of a batch.
    pub(super) fn gpu_s(&self, point: &Point, duration_s: impl Fn() -> f64) -> f64 {
        let gpus = f64::from(point.num_gpus());
        match self.request.arrival_rate {
            Some(rate) => gpus / rate,
            None => gpus * duration_s() / point.batch,
        }
    }
}

/// Replicas that a batch can be shared among: a whole number of sequences goes to each alike. A mean batch, which is no
/// whole number, is shared by any, and so is one that arrivals decide on.
fn replica_counts(batch: Option<f64>, counts: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
    let whole = batch.filter(|b| b.fract() == 0.0);
    counts.filter(move |replicas| whole.is_none_or(|b| b % f64::from(*replicas) == 0.0))
}

/// Degrees worth looking at: powers of two up to `most`, and whatever else was measured.
pub(super) fn degrees_up_to(most: u32, measured: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let powers = std::iter::successors(Some(1_u32), |d| d.checked_mul(2)).take_while(|d| *d <= most);
    powers.chain(measured.into_iter().filter(|d| (1..=most).contains(d))).collect()
}
