//! How far off is a figure that follows from more than the law of energy?
//!
//! Money with rented GPUs follows from energy and duration, and under an arrival rate so does energy itself: how many
//! requests are in flight, and how long the GPUs wait, follow from the law of durations. What a GPU draws while it waits is
//! known to some factor. An interval takes the worst case, in which all of them err the same way; the draws behind
//! P(best) shift energy and duration apart, as their laws were fitted apart.

use super::Error;
use super::answer::Estimate;
use super::probability::Timed;
use super::search::{Point, Search};
use crate::law::{Prediction, Target};

/// The usual idle power of a GPU is known to this factor, nine times in ten. Cards give typical readings, good to some
/// 20 %; those that arXiv:2605.23918 measured with a context loaded (A100 80 W, H100 122 W, L40S 102 W) lie 6 to 28 % above
/// them. A driver that lowers the clocks of a waiting GPU draws less still, and is not covered.
pub(super) const IDLE_FACTOR: f64 = 1.3;

/// Standard deviations between the middle and the end of a 90 % interval of a normal distribution.
const REACH_90: f64 = 1.645;

/// Step in the logarithm of the duration at which it is seen how the energy goes with it.
const STEP: f64 = 0.05;

/// Standard deviation of the logarithm of the idle power.
pub(super) fn idle_sigma_log() -> f64 {
    IDLE_FACTOR.ln() / REACH_90
}

fn idle(idle_j: f64) -> Estimate {
    Estimate { value: idle_j, low: idle_j / IDLE_FACTOR, high: idle_j * IDLE_FACTOR }
}

impl Search<'_> {
    /// Energy of a request with what the GPUs draw while they wait for it, `energy` being that of a batch. Under an
    /// arrival rate the ends of the duration's interval each make a batch and a waiting of their own.
    pub(super) fn request_energy(
        &self,
        point: &Point,
        energy: &Prediction,
        duration_s: Option<Estimate>,
    ) -> Result<Estimate, Error> {
        let mut estimate = Estimate::of(energy, point.batch).plus(idle(point.idle_j));
        let (Some(_), Some(duration)) = (self.request.arrival_rate, duration_s) else { return Ok(estimate) };
        for end_s in [duration.low, duration.high] {
            let Some(there) = self.slowed(point, end_s / duration.value) else { continue };
            let Some(energy) = self.predict(&there, Target::EnergyJ)? else { continue };
            let at_end = Estimate::of(&energy, there.batch).plus(idle(there.idle_j));
            estimate = Estimate { low: estimate.low.min(at_end.low), high: estimate.high.max(at_end.high), ..estimate };
        }
        Ok(estimate)
    }

    /// GPU seconds that a request keeps: all GPUs all the time where requests come at a rate, else its share of a batch.
    pub(super) fn gpu_seconds(&self, point: &Point, duration_s: Option<Estimate>) -> Option<Estimate> {
        let gpus = f64::from(point.num_gpus());
        match self.request.arrival_rate {
            Some(rate) => Some(Estimate::exactly(gpus / rate)),
            None => duration_s.map(|d| d.times(gpus / point.batch)),
        }
    }

    /// What of the objective moves with the duration; `None` where nothing does.
    pub(super) fn timed(&self, point: &Point) -> Result<Option<Timed<'_>>, Error> {
        let under_load = self.request.arrival_rate.is_some();
        let waiting = self.scale.of_idle(point.idle_j);
        let rented = if under_load { 0.0 } else { point.objective_fixed - waiting };
        if !under_load && rented <= 0.0 {
            return Ok(None);
        }
        let Some((law, cases)) = self.law_and_cases(point, Target::DurationS)? else { return Ok(None) };
        Ok(Some(Timed {
            law,
            // Behind those of energy.
            law_index: self.platforms.len() + point.platform,
            gradient: law.mean_and_gradient(&cases).1,
            moving_power: if under_load { self.energy_against_duration(point) } else { 0.0 },
            rented,
            waiting,
            busy_share: point.busy_share,
        }))
    }

    /// By which power of the duration the energy of a request goes, as the batch follows from the duration.
    fn energy_against_duration(&self, point: &Point) -> f64 {
        let log_j = |shift: f64| {
            let there = self.slowed(point, shift.exp())?;
            Some(self.energy_of_request(&there)?.ln())
        };
        let power = log_j(STEP).zip(log_j(-STEP)).map(|(slow, fast)| (slow - fast) / (2.0 * STEP));
        power.filter(|p| p.is_finite()).unwrap_or(0.0)
    }
}
