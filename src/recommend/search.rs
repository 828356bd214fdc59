//! From a request to the candidates that are feasible: arithmetic only.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Error;
use super::answer::{Recommendation, figure};
use super::judge::{Pair, Scale, replica_counts};
use super::label::Varies;
use super::lengths::Lengths;
use super::limit::{Objective, Quantity};
use super::platform::{Platform, Platforms, has_second_token, platforms};
use super::request::Request;
use super::select::{Entry, Found};
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
    pub(super) setting: usize,
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
            setting: 0,
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
}

/// What a row of candidates has in common: all but the number of replicas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) pair: usize,
    /// Which of the batches; none where arrivals decide on it.
    pub(super) choice: Option<usize>,
}

/// What a search leaves behind.
pub(super) struct Search<'a> {
    pub(super) request: &'a Request,
    pub(super) lengths: Lengths,
    pub(super) mean_output_tokens: f64,
    /// What is made small: what was asked, or energy where that is nothing for all.
    pub(super) objective: Objective,
    pub(super) scale: Scale,
    pub(super) platforms: Vec<Platform<'a>>,
    pub(super) varies: Varies,
    pub(super) not_judged: Vec<String>,
    /// What the laws that the answer rests on predict.
    pub(super) used: Vec<Target>,
    pub(super) pairs: Vec<Pair>,
    /// By degrees, platform and batch, which is the order among equals.
    pub(super) settings: Vec<Setting>,
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
    if let Some(rate) = request.arrival_rate {
        let tokens = request.lengths().mean_output_tokens();
        let served = rate * tokens;
        let floors = request.limits.iter().filter(|l| l.quantity == Quantity::ThroughputTokS);
        if let Some(limit) = floors.into_iter().find(|l| !l.holds(served)) {
            let problem = format!(
                "under an arrival rate what is served is what comes, {} requests of {} tokens a second, which are {} \
                 tokens; for a deployment with room for more give the rate that it has to stand, --arrival-rate {}",
                figure(rate),
                figure(tokens),
                figure(served),
                // Rounded up, or else it would not do.
                figure(1.0005 * limit.bound / tokens)
            );
            return Err(Error::Limit { text: limit.to_string(), problem });
        }
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

/// A piece of work: a setting and replica counts.
type Piece = (usize, RangeInclusive<u32>);

impl<'a> Search<'a> {
    /// Looks at every candidate.
    pub(super) fn run(model: &'a Model, request: &'a Request) -> Result<Self, Error> {
        check(request)?;
        let Platforms { judged: platforms, varies, not_judged } = platforms(model, request)?;
        let known = |target: &Target| platforms.iter().all(|p| p.law(*target).is_some());
        let latency = [Target::MeanTpotS, Target::DurationS, Target::MeanTtftS].into_iter().find(known);
        let batches = match (request.arrival_rate, request.batch_size) {
            (Some(_), _) => Vec::new(),
            (None, Some(batch)) => vec![batch],
            (None, None) => SEARCHED_BATCHES.to_vec(),
        };
        let lengths = request.lengths();
        let mean_output_tokens = lengths.mean_output_tokens();
        let found = nothing(request, &batches);
        let mut objective = request.objective;
        let mut scale = Scale::of(objective, request, mean_output_tokens);
        if scale.is_zero() {
            objective = Objective::EnergyPerRequest;
            scale = Scale::of(objective, request, mean_output_tokens);
        }
        let mut used: Vec<Target> = vec![Target::EnergyJ];
        used.extend(request.needed_laws().into_iter().map(|(_, target)| target).chain(latency));
        used.sort();
        used.dedup();
        let mut search = Self {
            request,
            lengths,
            mean_output_tokens,
            objective,
            scale,
            platforms,
            varies,
            not_judged,
            used,
            pairs: Vec::new(),
            settings: Vec::new(),
            latency,
            batches,
            found,
        };
        search.look()?;
        Ok(search)
    }

    fn look(&mut self) -> Result<(), Error> {
        let request = self.request;
        let degrees = self.platforms.iter().enumerate();
        let degrees = degrees.flat_map(|(i, p)| p.degrees(request.max_gpus).into_iter().map(move |(t, p)| (t, p, i)));
        let mut degrees: Vec<(u32, u32, usize)> = degrees.collect();
        degrees.sort_unstable();
        let most_replicas = |t: u32, p: u32, batch: Option<f64>| {
            let by_gpus = request.max_gpus / (t * p);
            // Where arrivals decide on the batch, what was asked is the most in flight: each replica holds one at least.
            batch.or(request.batch_size).map_or(by_gpus, |batch| by_gpus.min(batch as u32))
        };
        let choices: Vec<Option<usize>> = match self.batches.len() {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        let batch_of = |choice: &Option<usize>| choice.and_then(|i| self.batches.get(i).copied());
        let count: u64 = degrees
            .iter()
            .flat_map(|(t, p, _)| choices.iter().map(|c| u64::from(most_replicas(*t, *p, batch_of(c)))))
            .sum();
        if count > MOST_CANDIDATES {
            return Err(Error::TooMany { count, most: MOST_CANDIDATES });
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for (t, p, index) in degrees {
            let reach: Vec<(Option<usize>, u32)> =
                choices.iter().map(|c| (*c, most_replicas(t, p, batch_of(c)))).collect();
            let Some(platform) = self.platforms.get(index) else { continue };
            let bare = Point::of_degrees(index, t, p);
            if let Some((needed, there)) = platform.memory_shortage(t, p) {
                let counts = reach.iter().map(|(c, most)| replica_counts(batch_of(c), 1..=*most).count());
                let count = counts.sum::<usize>();
                if count > 0 {
                    self.found.candidates += count;
                    self.found.memory.add(count, needed / there, &bare, needed / there);
                }
                continue;
            }
            let Some(pair) = Pair::new(platform, bare, self.latency)? else { continue };
            let place = self.pairs.len();
            self.pairs.push(pair);
            for (choice, most) in reach {
                let setting = self.settings.len();
                self.settings.push(Setting { pair: place, choice });
                let starts = (1..=most).step_by(PIECE as usize);
                pieces.extend(starts.map(|from| (setting, from..=from.saturating_add(PIECE - 1).min(most))));
            }
        }
        let found = self.share_out(&pieces, count);
        self.found.join(found);
        Ok(())
    }

    /// Looks at the pieces on as many threads as are worth it.
    fn share_out(&self, pieces: &[Piece], count: u64) -> Found {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = nothing(self.request, &self.batches);
            while let Some((setting, replicas)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.piece(*setting, replicas.clone(), &mut found);
            }
            found
        };
        let threads = threads(pieces.len());
        if count < ALONE || threads < 2 {
            return work();
        }
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = work();
            for other in others {
                // A thread that panicked has a bug that must not pass for an answer.
                found.join(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            found
        })
    }

    /// The points behind the first so many entries.
    pub(super) fn points<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) -> Vec<Point> {
        entries.into_iter().filter_map(|entry| self.point(entry)).collect()
    }
}

/// Nothing found yet.
fn nothing(request: &Request, batches: &[f64]) -> Found {
    let most = request.top.max(CONTENDERS).saturating_mul(POINTS_PER_CONTENDER);
    Found::new(request.limits.len(), batches.len(), most)
}

/// Threads for so many pieces of work.
pub(super) fn threads(pieces: usize) -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(pieces)
}

/// Degrees worth looking at: powers of two up to `most`, and whatever else was measured.
pub(super) fn degrees_up_to(most: u32, measured: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let powers = std::iter::successors(Some(1_u32), |d| d.checked_mul(2)).take_while(|d| *d <= most);
    powers.chain(measured.into_iter().filter(|d| (1..=most).contains(d))).collect()
}
