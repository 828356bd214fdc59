//! Joules and watts of a device while it is being recorded: for live views and monitoring, never for results.
//!
//! The same rule as for results holds: joules are not invented. A counter that fell is a wrap only where its modulus is
//! known and the device could have drawn the difference; anything else adds nothing and is counted as a gap.

use crate::source::{Device, Reading};
use crate::units::{NS_PER_S, UJ_PER_J, ns_to_s};

/// Taken for devices that do not say their limit: more than any module, card or package draws.
const UNKNOWN_LIMIT_W: f64 = 5_000.0;
/// Counters lag a little behind a filtered power; a short excursion above the limit is real.
const LIMIT_FACTOR: f64 = 1.5;
/// Power is the mean over at least this long: between two edges of a coarse counter it would mostly be noise.
const POWER_OVER_NS: i64 = NS_PER_S as i64;
/// A counter that has not moved for this long says nothing of the present power.
const STALE_AFTER_NS: i64 = 10 * NS_PER_S as i64;
/// Readings of power further apart than this are not joined: nobody knows what was drawn in between.
const LONGEST_HOLE_NS: i64 = 3 * NS_PER_S as i64;

/// Running sum over the readings of one device.
#[derive(Debug, Clone)]
pub(super) struct EnergyMeter {
    modulus_uj: Option<u64>,
    limit_w: f64,
    energy_uj: Option<f64>,
    power_w: Option<f64>,
    gaps: u64,
    polled_ns: i64,
    counter: Option<Edge>,
    /// Edge at which the mean power now being formed begins, and the energy by then.
    anchor: Option<(i64, f64)>,
    last_power: Option<(i64, f64)>,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    counter_uj: u64,
    /// Last poll before it.
    t_earliest_ns: i64,
    t_latest_ns: i64,
}

impl EnergyMeter {
    pub(super) fn of(device: &Device) -> Self {
        Self {
            modulus_uj: device.counter_modulus_uj.filter(|m| *m > 0),
            limit_w: device.power_limit_w.filter(|w| w.is_finite() && *w > 0.0).unwrap_or(UNKNOWN_LIMIT_W),
            energy_uj: None,
            power_w: None,
            gaps: 0,
            polled_ns: 0,
            counter: None,
            anchor: None,
            last_power: None,
        }
    }

    /// Energy since the first reading, J; missing before it.
    pub(super) fn energy_j(&self) -> Option<f64> {
        self.energy_uj.map(|uj| uj / UJ_PER_J)
    }

    /// Mean power of about the last second, W, as far as it is known.
    pub(super) fn power_w(&self) -> Option<f64> {
        self.power_w
    }

    /// Places where the energy in between is unknown and not counted.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Takes in a reading made between these instants.
    pub(super) fn take(&mut self, reading: &Reading, before_ns: i64, after_ns: i64) {
        match (reading.energy_counter_uj, reading.power_w) {
            (Some(counter_uj), _) => self.take_counter(counter_uj, after_ns),
            (None, Some(power_w)) if power_w.is_finite() && power_w >= 0.0 => self.take_power(power_w, after_ns),
            (None, _) => {}
        }
        self.polled_ns = before_ns;
    }

    fn take_counter(&mut self, counter_uj: u64, now_ns: i64) {
        let Some(last) = self.counter else {
            self.energy_uj.get_or_insert(0.0);
            self.counter = Some(Edge { counter_uj, t_earliest_ns: now_ns, t_latest_ns: now_ns });
            return;
        };
        if counter_uj == last.counter_uj {
            if now_ns - last.t_latest_ns > STALE_AFTER_NS {
                self.power_w = None;
                self.anchor = None;
            }
            return;
        }
        // The very first value may have been there for long: what the first edge adds is bounded by the wait for it.
        let most_uj = LIMIT_FACTOR * self.limit_w * ns_to_s((now_ns - last.t_earliest_ns).max(0)) * UJ_PER_J;
        let risen_uj = match (counter_uj.checked_sub(last.counter_uj), self.modulus_uj) {
            (Some(rise_uj), _) => Some(rise_uj),
            (None, Some(modulus_uj)) => modulus_uj.checked_sub(last.counter_uj).and_then(|r| r.checked_add(counter_uj)),
            (None, None) => None,
        };
        // The power between two refreshes that both lie in short brackets may look larger than it is by a bracket.
        match risen_uj.map(|uj| uj as f64).filter(|uj| *uj <= most_uj.max(self.least_plausible_uj(last, now_ns))) {
            Some(risen_uj) => {
                let energy_uj = self.energy_uj.unwrap_or(0.0) + risen_uj;
                self.energy_uj = Some(energy_uj);
                self.note_power(energy_uj, now_ns);
            }
            None => {
                self.gaps += 1;
                self.anchor = None;
                self.power_w = None;
            }
        }
        self.counter = Some(Edge { counter_uj, t_earliest_ns: self.polled_ns, t_latest_ns: now_ns });
    }

    /// The first edge after the first reading covers a refresh period that began before the recording did.
    fn least_plausible_uj(&self, last: Edge, now_ns: i64) -> f64 {
        if last.t_earliest_ns == last.t_latest_ns {
            LIMIT_FACTOR * self.limit_w * (ns_to_s(now_ns - last.t_latest_ns) + 0.2) * UJ_PER_J
        } else {
            0.0
        }
    }

    fn note_power(&mut self, energy_uj: f64, now_ns: i64) {
        match self.anchor {
            Some((begin_ns, begin_uj)) if now_ns - begin_ns >= POWER_OVER_NS => {
                let power_w = (energy_uj - begin_uj) / UJ_PER_J / ns_to_s(now_ns - begin_ns);
                // Whole milliwatts: more digits than a counter has say nothing, and do not survive JSON.
                self.power_w = Some((power_w * 1e3).round() / 1e3);
                self.anchor = Some((now_ns, energy_uj));
            }
            Some(_) => {}
            None => self.anchor = Some((now_ns, energy_uj)),
        }
    }

    fn take_power(&mut self, power_w: f64, now_ns: i64) {
        let energy_uj = self.energy_uj.unwrap_or(0.0);
        let drawn_uj = match self.last_power {
            Some((then_ns, then_w)) if now_ns - then_ns <= LONGEST_HOLE_NS => {
                (then_w + power_w) / 2.0 * ns_to_s(now_ns - then_ns) * UJ_PER_J
            }
            Some(_) => {
                self.gaps += 1;
                0.0
            }
            None => 0.0,
        };
        self.energy_uj = Some(energy_uj + drawn_uj);
        self.power_w = Some(power_w);
        self.last_power = Some((now_ns, power_w));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::EnergySource;
    use crate::source::Scope;

    const MS: i64 = 1_000_000;

    fn meter(modulus_uj: Option<u64>) -> EnergyMeter {
        EnergyMeter::of(&Device {
            id: "fake:0".to_owned(),
            name: "fake".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: modulus_uj,
            counter_step_uj: None,
            power_limit_w: Some(400.0),
            memory_bytes: None,
        })
    }

    fn count(meter: &mut EnergyMeter, t_ms: i64, counter_uj: u64) {
        let reading = Reading { energy_counter_uj: Some(counter_uj), ..Reading::default() };
        meter.take(&reading, t_ms * MS, t_ms * MS + 1_000);
    }

    #[test]
    fn a_steady_counter_gives_joules_and_the_mean_power_of_a_second() {
        let mut meter = meter(None);
        assert_eq!((meter.energy_j(), meter.power_w()), (None, None));
        // 200 W, refreshed each 100 ms: 20 J at a time, read each 10 ms for 2.5 s.
        for t_ms in (0..=2_500).step_by(10) {
            count(&mut meter, t_ms, 7_000_000_000 + (t_ms as u64 / 100) * 20_000_000);
        }
        assert_eq!(meter.energy_j(), Some(500.0));
        assert!((meter.power_w().unwrap() - 200.0).abs() < 1e-9, "{:?}", meter.power_w());
        assert_eq!(meter.gaps(), 0);
    }

    #[test]
    fn a_reset_a_leap_and_a_backward_step_add_nothing_and_a_wrap_adds_its_difference() {
        let mut plain = meter(None);
        // Up by 10 J, back to 1 J (driver reload), up by 10 J, a leap to nonsense, up by 10 J again.
        let leap = u64::MAX / 2;
        for (i, counter) in [50_000_000, 60_000_000, 1_000_000, 11_000_000, leap, leap + 10_000_000].iter().enumerate()
        {
            count(&mut plain, i as i64 * 100, *counter);
        }
        assert_eq!((plain.energy_j(), plain.gaps()), (Some(30.0), 2));
        let mut wrapping = meter(Some(262_143_328_850));
        count(&mut wrapping, 0, 262_138_328_850); // 5 J below its modulus.
        count(&mut wrapping, 100, 5_000_000);
        assert_eq!((wrapping.energy_j(), wrapping.gaps()), (Some(10.0), 0));
        // From the middle of the register down to nearly 0 it would be 131 kJ in 0.1 s: no wrap.
        count(&mut wrapping, 200, 25_000_000);
        count(&mut wrapping, 300, 1_000_000);
        assert_eq!((wrapping.energy_j(), wrapping.gaps()), (Some(30.0), 1));
    }

    #[test]
    fn a_frozen_counter_has_no_power_and_a_power_sensor_is_integrated_up_to_holes() {
        let mut frozen = meter(None);
        for t_ms in (0..=12_000).step_by(100) {
            count(&mut frozen, t_ms, 1_000_000 + t_ms.min(1_500) as u64 * 100_000);
        }
        assert_eq!((frozen.energy_j(), frozen.power_w()), (Some(150.0), None));
        let mut sensor = meter(None);
        let mut draw = |t_ms: i64, power_w: f64| {
            sensor.take(&Reading { power_w: Some(power_w), ..Reading::default() }, t_ms * MS, t_ms * MS);
        };
        draw(0, 100.0);
        draw(1_000, 300.0); // 200 J
        draw(9_000, 300.0); // A hole.
        draw(9_500, 100.0); // 100 J
        draw(9_600, f64::NAN);
        assert_eq!((sensor.energy_j(), sensor.power_w(), sensor.gaps()), (Some(300.0), Some(100.0), 1));
    }
}
