//! Which differences of a counter are energy at all.
//!
//! A counter that fell has either wrapped (its register is full) or been reset (the driver was reloaded), and the two
//! must not be confused: a reset taken for a wrap invents up to 1.8e16 J. So a fall is a wrap only where the register's
//! modulus is known *and* the wrapped difference is one that the device could have drawn; anything else is a gap. A rise
//! that the device could not have drawn is a gap too. Across a gap there are no joules, only two counts that begin anew.
//!
//! ```text
//! plausible:  difference <= 1.5 x power limit x longest time there can have been between the two edges
//! ```
//!
//! Limit: with a modulus and a hole in the recording so long that a whole turn fits into it, even a plausible rise may
//! hide a wrap; that is a gap as well.

use super::quality::Reason;
use crate::units::{UJ_PER_J, ns_to_s};

/// Taken for devices that do not say their limit: more than any module, card or package draws.
const UNKNOWN_LIMIT_W: f64 = 5_000.0;

/// Counters integrate a filtered power and lag behind a little; a short excursion above the limit is real.
const LIMIT_FACTOR: f64 = 1.5;

/// A moment at which a counter moved, and what it had counted by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Last poll that still saw the value before.
    pub t_earliest_ns: i64,
    /// First poll that saw this value.
    pub t_latest_ns: i64,
    /// Energy since the first edge after the last gap, uJ. 128 bits: a wrapping 64-bit counter may pass 2^64.
    pub energy_uj: u128,
}

/// What a sample turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first value of a device: a starting point, no energy.
    First(Edge),
    /// The counter rose.
    Advanced(Edge),
    /// The counter fell because its register was full.
    Wrapped(Edge),
    /// The counter started again: a gap, then a new starting point.
    Reset(Edge),
    /// The counter cannot have moved like this: a gap, then a new starting point.
    Implausible(Edge),
    /// The value stood still (a heartbeat).
    Unchanged,
    /// The sample is older than the one before: of no use.
    OutOfOrder,
}

impl Step {
    /// The edge, and why it does not connect to the one before if it does not.
    pub fn edge(self) -> Option<(Edge, Option<Reason>)> {
        match self {
            Self::First(edge) | Self::Advanced(edge) | Self::Wrapped(edge) => Some((edge, None)),
            Self::Reset(edge) => Some((edge, Some(Reason::CounterReset))),
            Self::Implausible(edge) => Some((edge, Some(Reason::ImplausibleCounter))),
            Self::Unchanged | Self::OutOfOrder => None,
        }
    }
}

/// Turns the samples of one device, in time order, into edges.
#[derive(Debug, Clone)]
pub struct Unwrapper {
    modulus_uj: Option<u64>,
    limit_w: f64,
    last: Option<(u64, Edge)>,
}

impl Unwrapper {
    /// For a counter that starts again at 0 when it reaches `modulus_uj`, on a device of this power limit.
    pub fn new(modulus_uj: Option<u64>, power_limit_w: Option<f64>) -> Self {
        let limit_w = power_limit_w.filter(|w| w.is_finite() && *w > 0.0).unwrap_or(UNKNOWN_LIMIT_W);
        Self { modulus_uj: modulus_uj.filter(|m| *m > 0), limit_w, last: None }
    }

    /// Takes the next sample: the counter, the poll that saw it first, the last poll that saw the value before.
    pub fn push(&mut self, counter_uj: u64, t_mono_ns: i64, t_prev_poll_ns: i64) -> Step {
        let fresh = Edge { t_earliest_ns: t_prev_poll_ns.min(t_mono_ns), t_latest_ns: t_mono_ns, energy_uj: 0 };
        let Some((last_uj, last)) = self.last else {
            self.last = Some((counter_uj, fresh));
            return Step::First(fresh);
        };
        if t_mono_ns < last.t_latest_ns {
            return Step::OutOfOrder;
        }
        if counter_uj == last_uj {
            return Step::Unchanged;
        }
        // Two edges cannot overlap, whatever a recording claims.
        let edge = Edge { t_earliest_ns: fresh.t_earliest_ns.max(last.t_latest_ns), ..fresh };
        let longest_s = ns_to_s(t_mono_ns.saturating_sub(last.t_earliest_ns));
        let most_uj = LIMIT_FACTOR * self.limit_w * longest_s * UJ_PER_J;
        let is_possible = |difference_uj: u64| difference_uj as f64 <= most_uj;
        let fits_register = self.modulus_uj.is_none_or(|m| counter_uj < m && last_uj < m && most_uj < m as f64);
        let step = match counter_uj.checked_sub(last_uj) {
            Some(rise_uj) if fits_register && is_possible(rise_uj) => {
                Step::Advanced(Edge { energy_uj: last.energy_uj + u128::from(rise_uj), ..edge })
            }
            Some(_) => Step::Implausible(edge),
            None => match self.modulus_uj {
                Some(modulus_uj) if fits_register && is_possible(modulus_uj - last_uj + counter_uj) => {
                    let turned_uj = modulus_uj - last_uj + counter_uj;
                    Step::Wrapped(Edge { energy_uj: last.energy_uj + u128::from(turned_uj), ..edge })
                }
                _ => Step::Reset(edge),
            },
        };
        if let Some((edge, _)) = step.edge() {
            self.last = Some((counter_uj, edge));
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    /// Pushes (t_ms, counter) pairs polled every millisecond; names what each turned out to be.
    fn steps(unwrapper: &mut Unwrapper, samples: &[(i64, u64)]) -> Vec<(&'static str, u128)> {
        samples
            .iter()
            .map(|(t_ms, uj)| match unwrapper.push(*uj, t_ms * MS, (t_ms - 1) * MS) {
                Step::First(e) => ("first", e.energy_uj),
                Step::Advanced(e) => ("advanced", e.energy_uj),
                Step::Wrapped(e) => ("wrapped", e.energy_uj),
                Step::Reset(e) => ("reset", e.energy_uj),
                Step::Implausible(e) => ("implausible", e.energy_uj),
                Step::Unchanged => ("unchanged", 0),
                Step::OutOfOrder => ("out of order", 0),
            })
            .collect()
    }

    #[test]
    fn a_rise_is_energy_and_a_heartbeat_is_none() {
        // 30 J in 100 ms are 300 W.
        let got =
            steps(&mut Unwrapper::new(None, Some(400.0)), &[(0, 5_000_000), (100, 35_000_000), (900, 35_000_000)]);
        assert_eq!(got, [("first", 0), ("advanced", 30_000_000), ("unchanged", 0)]);
    }

    #[test]
    fn a_full_register_is_a_wrap_and_a_restarted_driver_is_not() {
        let modulus = 262_143_328_850_u64;
        let table = [
            (
                "wrap to a small value",
                Some(modulus),
                [(0, modulus - 10_000_000), (100, 5_000_000)],
                ("wrapped", 15_000_000),
            ),
            ("wrap to zero", Some(modulus), [(0, modulus - 10_000_000), (100, 0)], ("wrapped", 10_000_000)),
            ("restart in mid range", Some(modulus), [(0, modulus / 2), (100, 0)], ("reset", 0)),
            ("no modulus, however near the top", None, [(0, u64::MAX - 5), (100, 5)], ("reset", 0)),
            ("backward step of a microjoule", None, [(0, 50_000_000), (100, 49_999_999)], ("reset", 0)),
            ("a value outside the register", Some(modulus), [(0, 5), (100, modulus + 7)], ("implausible", 0)),
        ];
        for (what, modulus, samples, expected) in table {
            let got = steps(&mut Unwrapper::new(modulus, Some(300.0)), &samples);
            assert_eq!(got[1], expected, "{what}");
        }
    }

    #[test]
    fn a_jump_no_device_can_make_is_a_gap_and_so_is_the_way_back() {
        let got = steps(
            &mut Unwrapper::new(None, Some(400.0)),
            &[(0, 1_000_000), (100, 31_000_000), (200, 9_000_000_000_000), (300, 91_000_000), (400, 121_000_000)],
        );
        let names: Vec<_> = got.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["first", "advanced", "implausible", "reset", "advanced"]);
        assert_eq!(got[4].1, 30_000_000, "counting begins anew after the gap");
    }

    #[test]
    fn a_hole_into_which_a_whole_turn_fits_is_no_energy() {
        // 1.5 x 300 W empty a register of 1000 J within 2.3 s.
        let got =
            steps(&mut Unwrapper::new(Some(1_000_000_000), Some(300.0)), &[(0, 10_000_000), (3_000, 500_000_000)]);
        assert_eq!(got[1].0, "implausible");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_counter_says_energy_never_falls_and_never_exceeds_the_limit(
            samples in prop::collection::vec((0_u64..u64::MAX, 0_i64..1 << 40, 0_i64..1 << 30), 1..60),
            modulus in prop::option::of(1_u64..u64::MAX),
            limit_w in 1.0..2000.0,
        ) {
            let mut unwrapper = Unwrapper::new(modulus, Some(limit_w));
            let (mut t, mut last): (i64, Option<Edge>) = (0, None);
            for (value, dt, back) in samples {
                t += dt;
                if let Some((edge, gap)) = unwrapper.push(value, t, t - back).edge() {
                    prop_assert!(edge.t_earliest_ns <= edge.t_latest_ns);
                    if let (Some(last), None) = (last, gap) {
                        prop_assert!(edge.energy_uj >= last.energy_uj);
                        let most_uj = 1.5 * limit_w * (edge.t_latest_ns - last.t_earliest_ns) as f64 / 1e3;
                        prop_assert!((edge.energy_uj - last.energy_uj) as f64 <= most_uj * 1.000_001 + 1.0);
                    }
                    last = Some(edge);
                }
            }
        }

        #[test]
        fn a_wrapping_counter_counts_what_an_endless_one_does(
            powers_w in prop::collection::vec(0.0..400.0_f64, 2..80),
            modulus in 60_000_000_u64..500_000_000,
        ) {
            let mut unwrapper = Unwrapper::new(Some(modulus), Some(400.0));
            let (mut endless_uj, mut counted_uj) = (modulus / 2, 0);
            unwrapper.push(endless_uj, 0, 0);
            for (i, power_w) in powers_w.iter().enumerate() {
                endless_uj += (power_w * 0.05 * 1e6) as u64;
                let t = (i as i64 + 1) * 50 * MS;
                if let Some((edge, gap)) = unwrapper.push(endless_uj % modulus, t, t - MS).edge() {
                    prop_assert_eq!(gap, None);
                    counted_uj = edge.energy_uj;
                }
            }
            prop_assert_eq!(counted_uj, u128::from(endless_uj - modulus / 2));
        }
    }
}
