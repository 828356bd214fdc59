//! What one candidate comes to: its figures, and whether the answer may have it.

use std::ops::RangeInclusive;

use super::Error;
use super::arrivals::{Balance, balance};
use super::bill::requests_per_day;
use super::fold::Folded;
use super::limit::{Objective, Quantity};
use super::platform::Platform;
use super::powers::Mean;
use super::request::Request;
use super::search::{Point, Search, Setting};
use super::select::{Entry, Found};
use crate::law::Target;

/// One pair of degrees on one platform, ready for arithmetic.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) bare: Point,
    energy: Mean,
    ttft: Option<Mean>,
    tpot: Option<Mean>,
    duration: Option<Mean>,
    latency: Option<Target>,
    /// Whether the laws were fitted on such degrees.
    measured: bool,
    /// The batches of one replica that they were fitted on.
    batch_range: (f64, f64),
    idle_power_w: f64,
}

/// What turns joules and GPU seconds of a request into the objective.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scale {
    per_joule: f64,
    per_gpu_second: f64,
}

impl Scale {
    pub(super) fn of(objective: Objective, request: &Request, mean_output_tokens: f64) -> Self {
        let prices = &request.prices;
        let (per_joule, per_gpu_second) = match objective {
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

    /// Whether everything comes to nothing: energy that is free, or without carbon.
    pub(super) fn is_zero(&self) -> bool {
        self.per_joule <= 0.0 && self.per_gpu_second <= 0.0
    }

    /// What joules drawn while waiting come to.
    pub(super) fn of_idle(&self, idle_j: f64) -> f64 {
        idle_j * self.per_joule
    }
}

/// A candidate worked out.
enum Worked {
    /// Its figures, the energy of a batch, and whether it lies inside the measured range.
    At { point: Point, energy_j: f64, measured: bool },
    /// Requests pile up: so many per second are finished by all replicas.
    Overrun { point: Point, finished_per_s: f64 },
    /// The law has no figure for it.
    Nothing { point: Point },
}

impl Pair {
    /// `None` where there is no law of energy.
    pub(super) fn new(platform: &Platform<'_>, bare: Point, latency: Option<Target>) -> Result<Option<Self>, Error> {
        let base = platform.case(bare.tensor, bare.pipeline, 1, 1.0)?;
        let fold = |target: Target| {
            let law = platform.law(target)?;
            let cases = platform.cases(target, base);
            Some(Mean::new(cases.into_iter().map(|(share, case)| (share, Folded::new(law, &case))).collect()))
        };
        let Some(energy) = fold(Target::EnergyJ) else { return Ok(None) };
        let [ttft, tpot, duration] = [Target::MeanTtftS, Target::MeanTpotS, Target::DurationS].map(fold);
        Ok(Some(Self {
            bare,
            energy,
            ttft,
            tpot,
            duration,
            latency,
            measured: platform.covers("t", f64::from(bare.tensor)) && platform.covers("p", f64::from(bare.pipeline)),
            batch_range: platform.range("B"),
            idle_power_w: platform.idle_power_w().unwrap_or(0.0),
        }))
    }

    fn time(&self, target: Target, batch: f64) -> f64 {
        let law = match target {
            Target::MeanTtftS => &self.ttft,
            Target::MeanTpotS => &self.tpot,
            Target::DurationS => &self.duration,
            Target::EnergyJ => return f64::NAN,
        };
        law.as_ref().map_or(f64::NAN, |law| law.value(batch, 1.0))
    }

    fn has_batch(&self, per_replica: f64) -> bool {
        (self.batch_range.0..=self.batch_range.1).contains(&per_replica)
    }
}

impl Search<'_> {
    /// Looks at the candidates of one setting with so many replicas.
    pub(super) fn piece(&self, setting: usize, replicas: RangeInclusive<u32>, found: &mut Found) {
        let Some((pair, batch)) = self.setting(setting) else { return };
        let place = self.settings.get(setting).and_then(|s| s.choice).unwrap_or(0);
        for replicas in replica_counts(batch, replicas) {
            found.candidates += 1;
            match self.worked(pair, Point { setting, replicas, ..pair.bare }, batch) {
                Worked::At { point, energy_j, measured } => {
                    self.judge(pair, &point, energy_j, measured, place, found);
                }
                Worked::Overrun { point, finished_per_s } => {
                    let rate = self.request.arrival_rate.unwrap_or(f64::NAN);
                    found.overrun.add(1, rate / finished_per_s, &point, finished_per_s);
                }
                Worked::Nothing { point } => found.range.add(1, f64::INFINITY, &point, f64::NAN),
            }
        }
    }

    /// The candidate behind an entry, worked out again.
    pub(super) fn point(&self, entry: &Entry) -> Option<Point> {
        let setting = entry.setting as usize;
        let (pair, batch) = self.setting(setting)?;
        let replicas = entry.num_gpus / (pair.bare.tensor * pair.bare.pipeline).max(1);
        match self.worked(pair, Point { setting, replicas, ..pair.bare }, batch) {
            Worked::At { point, .. } => Some(point),
            Worked::Overrun { .. } | Worked::Nothing { .. } => None,
        }
    }

    /// A pair of degrees and the batch that it is asked for; none where arrivals decide on it.
    fn setting(&self, setting: usize) -> Option<(&Pair, Option<f64>)> {
        let Setting { pair, choice } = self.settings.get(setting)?;
        let batch = choice.and_then(|i| self.batches.get(i).copied());
        Some((self.pairs.get(*pair)?, batch))
    }

    fn worked(&self, pair: &Pair, bare: Point, batch: Option<f64>) -> Worked {
        let count = f64::from(bare.replicas);
        let (point, measured) = match batch {
            Some(batch) => {
                // A batch that was asked for is answered wherever it lies.
                let is_free = self.request.batch_size.is_none();
                (Point { batch, ..bare }, !is_free || pair.has_batch(batch / count))
            }
            None => match self.under_load(pair, bare, 1.0) {
                Ok(point) => (point, pair.has_batch(point.batch / count)),
                Err(overrun) => return overrun,
            },
        };
        self.figures(pair, point, measured && pair.measured)
    }

    /// The point as it is under the given load where durations are `slower` times as long: as many leave as come, or as many
    /// are in flight as may be.
    pub(super) fn slowed(&self, point: &Point, slower: f64) -> Option<Point> {
        let (pair, _) = self.setting(point.setting)?;
        let bare = Point { setting: point.setting, replicas: point.replicas, ..pair.bare };
        Some(match self.under_load(pair, bare, slower) {
            Ok(point) => point,
            Err(Worked::At { point, .. } | Worked::Overrun { point, .. } | Worked::Nothing { point }) => point,
        })
    }

    /// Energy of a request at the batch of `point`, without waiting.
    pub(super) fn energy_of_request(&self, point: &Point) -> Option<f64> {
        let (pair, _) = self.setting(point.setting)?;
        let replicas = f64::from(point.replicas);
        Some(pair.energy.value(point.batch / replicas, replicas) / point.batch)
    }

    /// The batch that follows from the requests that come in, and the waiting, where durations are `slower` times as long.
    fn under_load(&self, pair: &Pair, bare: Point, slower: f64) -> Result<Point, Worked> {
        let count = f64::from(bare.replicas);
        let own_rate = self.request.arrival_rate.unwrap_or(f64::NAN) / count;
        let mut most = pair.batch_range.1;
        if self.request.allow_outside || !most.is_finite() {
            most = most.clamp(1024.0, 1e6);
        }
        let most = self.request.batch_size.map_or(most, |asked| most.min(asked / count));
        let solved = || pair.duration.as_ref().and_then(|law| law.batch_at_rate(own_rate * slower));
        match balance(|batch| slower * pair.time(Target::DurationS, batch), solved, own_rate, most) {
            Balance::At { batch, busy_share } => {
                let idle_w = (1.0 - busy_share) * pair.idle_power_w * f64::from(bare.tensor * bare.pipeline);
                Ok(Point { batch: batch * count, busy_share, idle_j: idle_w / own_rate, ..bare })
            }
            Balance::Overrun { finished_per_s } => {
                let point = Point { batch: most * count, ..bare };
                Err(Worked::Overrun { point, finished_per_s: finished_per_s * count })
            }
        }
    }

    fn figures(&self, pair: &Pair, mut point: Point, measured: bool) -> Worked {
        let replicas = f64::from(point.replicas);
        let per_replica = point.batch / replicas;
        let energy_j = pair.energy.value(per_replica, replicas);
        if !(energy_j.is_finite() && energy_j > 0.0) {
            return Worked::Nothing { point };
        }
        let scale = &self.scale;
        point.request_j = energy_j / point.batch;
        let gpu_s = match scale.per_gpu_second > 0.0 {
            true => self.gpu_s(&point, || pair.time(Target::DurationS, per_replica)),
            false => 0.0,
        };
        point.objective_fixed = scale.of_idle(point.idle_j) + gpu_s * scale.per_gpu_second;
        point.objective = point.request_j * scale.per_joule + point.objective_fixed;
        point.latency = pair.latency.map_or(f64::NAN, |target| pair.time(target, per_replica));
        Worked::At { point, energy_j, measured }
    }

    /// Holds a candidate against the limits and puts it where it belongs.
    fn judge(&self, pair: &Pair, point: &Point, energy_j: f64, measured: bool, place: usize, found: &mut Found) {
        let request = self.request;
        let mut holds = true;
        for (i, limit) in request.limits.iter().enumerate() {
            let value = self.value(pair, point, energy_j, limit.quantity);
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
        let entry = Entry::of(point);
        if !(measured || request.allow_outside) {
            found.range.add(1, f64::INFINITY, point, f64::NAN);
            if holds {
                found.outside.add(entry);
            }
        } else if holds {
            found.add(entry, place);
        }
    }

    /// The figure that a limit is about.
    fn value(&self, pair: &Pair, point: &Point, energy_j: f64, quantity: Quantity) -> f64 {
        let (replicas, batch) = (f64::from(point.replicas), point.batch);
        let (request, prices) = (self.request, &self.request.prices);
        let time = |target: Target| match pair.latency {
            Some(known) if known == target => point.latency,
            _ => pair.time(target, batch / replicas),
        };
        let tokens = || batch * self.mean_output_tokens;
        let request_j = point.request_j + point.idle_j;
        match quantity {
            Quantity::MeanTtftS => time(Target::MeanTtftS),
            Quantity::MeanTpotS => time(Target::MeanTpotS),
            Quantity::DurationS => time(Target::DurationS),
            Quantity::MeanPowerW => match request.arrival_rate {
                Some(rate) => rate * request_j,
                None => energy_j / time(Target::DurationS),
            },
            Quantity::ThroughputTokS => match request.arrival_rate {
                // Served is what comes, whatever could be.
                Some(rate) => rate * self.mean_output_tokens,
                None => tokens() / time(Target::DurationS),
            },
            Quantity::EnergyJ => energy_j,
            Quantity::EnergyPerTokenJ => request_j * batch / tokens(),
            Quantity::EnergyPerRequestJ => request_j,
            Quantity::EnergyPerDayKwh => {
                requests_per_day(request.arrival_rate.unwrap_or(f64::NAN)) * request_j * prices.pue / 3.6e6
            }
            Quantity::CostPerRequest => {
                let rent = || self.gpu_s(point, || time(Target::DurationS)) * prices.per_gpu_second();
                request_j * prices.per_joule() + if prices.price_per_gpu_hour.is_some() { rent() } else { 0.0 }
            }
            Quantity::CarbonPerRequestG => request_j * prices.carbon_g_per_joule(),
            Quantity::NumGpus => f64::from(point.num_gpus()),
            Quantity::TensorParallel => f64::from(point.tensor),
            Quantity::PipelineParallel => f64::from(point.pipeline),
            Quantity::DataParallel => replicas,
            Quantity::BatchSize => batch,
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
pub(super) fn replica_counts(batch: Option<f64>, counts: RangeInclusive<u32>) -> impl Iterator<Item = u32> {
    let whole = batch.filter(|b| b.fract() == 0.0);
    counts.filter(move |replicas| whole.is_none_or(|b| b % f64::from(*replicas) == 0.0))
}
