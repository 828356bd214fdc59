//! A recording as a source: its devices show what they showed, at the recorded distances in time.
//!
//! Start at [`ReplaySource`] over a [`Trace`], which `store::read_trace` reads from a campaign or a file. The first read
//! starts the clock of the replay; a device that has shown its last value is gone, so that whoever records stops by
//! itself.
//!
//! ```text
//! recorded   ...a a a a]     [b b b ...      the counter moved inside the bracket (t_prev_poll_ns, t_mono_ns]
//! replayed   ...a a a a a a|b b b b b ...    and moves here in its middle: late and early by half a bracket at most
//! ```
//!
//! Limits. Within a bracket the recording does not say where the edge was, and the replay must put it somewhere: a
//! recording of a replay of a blurred edge looks sharper than it is. All readings are held in memory, some 60 bytes each.

use std::sync::Arc;

use super::{CounterSource, Device, ReadError, Reading};
use crate::clock::Clock;
use crate::units::NS_PER_MS;

/// A device shows its last value for so long, so that a poller sees it before the device is gone.
const LINGER_NS: i64 = 200 * NS_PER_MS;

/// A value that one device showed from some instant on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// From when, on the clock of the recording.
    pub t_mono_ns: i64,
    /// What.
    pub reading: Reading,
}

/// What the devices of one recording showed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// The devices, from the recording's metadata.
    pub devices: Vec<Device>,
    /// What each of them showed, in the order of time.
    pub shown: Vec<Vec<Shown>>,
    /// The driver that was recorded, as its metadata names it; empty where there is none.
    pub driver: String,
    /// Where the recording comes from, in words.
    pub origin: String,
}

impl Trace {
    /// How long the recording is, ns.
    pub fn duration_ns(&self) -> i64 {
        let last = self.shown.iter().filter_map(|s| s.last()).map(|s| s.t_mono_ns).max();
        self.begin_ns().zip(last).map_or(0, |(first, last)| last.saturating_sub(first))
    }

    fn begin_ns(&self) -> Option<i64> {
        self.shown.iter().filter_map(|s| s.first()).map(|s| s.t_mono_ns).min()
    }
}

/// Shows a trace again.
pub struct ReplaySource {
    trace: Arc<Trace>,
    clock: Arc<dyn Clock>,
    /// What turns the clock's instants into the recording's; known from the first read on.
    shift_ns: Option<i64>,
    /// What each device shows, by place in the trace.
    present: Vec<usize>,
}

impl ReplaySource {
    /// Shows `trace` in the time of `clock`.
    pub fn new(trace: Arc<Trace>, clock: Arc<dyn Clock>) -> Self {
        let present = vec![0; trace.devices.len()];
        Self { trace, clock, shift_ns: None, present }
    }
}

impl CounterSource for ReplaySource {
    fn devices(&self) -> &[Device] {
        &self.trace.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let now_ns = self.clock.now();
        let begin_ns = self.trace.begin_ns();
        let shift_ns = *self.shift_ns.get_or_insert_with(|| begin_ns.unwrap_or(0).saturating_sub(now_ns));
        let t_ns = now_ns.saturating_add(shift_ns);
        let (Some(shown), Some(present)) = (self.trace.shown.get(index), self.present.get_mut(index)) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; the recording has {} devices",
                self.trace.devices.len()
            )));
        };
        while shown.get(*present + 1).is_some_and(|next| next.t_mono_ns <= t_ns) {
            *present += 1;
        }
        let Some(now) = shown.get(*present) else {
            return Err(ReadError::Gone("the recording has no readings of this device".to_owned()));
        };
        if *present + 1 == shown.len() && t_ns > now.t_mono_ns.saturating_add(LINGER_NS) {
            return Err(ReadError::Gone("the recording ends here".to_owned()));
        }
        Ok(now.reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::schema::EnergySource;
    use crate::source::Scope;

    fn trace() -> Trace {
        let device = |id: &str| Device {
            id: id.to_owned(),
            name: id.to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        };
        let shown = |values: &[(i64, u64)]| {
            let one = |(ms, uj): &(i64, u64)| Shown {
                t_mono_ns: ms * NS_PER_MS,
                reading: Reading { energy_counter_uj: Some(*uj), ..Reading::default() },
            };
            values.iter().map(one).collect::<Vec<_>>()
        };
        Trace {
            devices: vec![device("a"), device("b")],
            shown: vec![shown(&[(5_000, 1), (5_100, 2), (5_200, 3)]), shown(&[(5_050, 7)])],
            ..Trace::default()
        }
    }

    #[test]
    fn values_come_at_their_distance_from_the_first_read_and_then_the_device_is_gone() {
        let clock = SimClock::starting_at(77);
        let mut source = ReplaySource::new(Arc::new(trace()), Arc::new(clock.clone()));
        let mut at = |ms: i64, index| {
            clock.sleep_until(77 + ms * NS_PER_MS);
            source.read(index).map(|r| r.energy_counter_uj)
        };
        assert_eq!(at(0, 0), Ok(Some(1)));
        assert_eq!(at(99, 0), Ok(Some(1)));
        assert_eq!(at(100, 0), Ok(Some(2)));
        assert_eq!(at(399, 0), Ok(Some(3)));
        assert!(matches!(at(401, 0), Err(ReadError::Gone(_))));
        assert!(matches!(at(401, 1), Err(ReadError::Gone(_))), "each device ends with its own last value");
    }

    #[test]
    fn a_poller_that_slept_sees_the_latest_value() {
        let clock = SimClock::starting_at(0);
        let mut source = ReplaySource::new(Arc::new(trace()), Arc::new(clock.clone()));
        assert_eq!(source.read(1).unwrap().energy_counter_uj, Some(7));
        clock.sleep_until(250 * NS_PER_MS);
        assert_eq!(source.read(0).unwrap().energy_counter_uj, Some(3));
        assert_eq!(trace().duration_ns(), 200 * NS_PER_MS);
    }

    #[test]
    fn an_empty_trace_has_nothing_to_show() {
        let mut source = ReplaySource::new(Arc::new(Trace::default()), Arc::new(SimClock::starting_at(0)));
        assert!(matches!(source.read(0), Err(ReadError::Fatal(_))));
    }
}
