//! What the simulated node's counters show, faults included.
//!
//! ```text
//! true energy    _____/‾‾‾‾‾‾‾ rises all the time
//! counter        |__|__|¯¯|¯¯|  moves at each refresh to the true energy of that instant, rounded down
//! ```
//!
//! Refresh instants are a function of the device and its seed, not of who reads: two readers see the same edges.

use std::sync::{Arc, PoisonError};

use super::hardware::Quantum;
use super::{GpuState, SimNode};
use crate::card::Vendor;
use crate::clock::{Clock, SimClock};
use crate::source::{CounterSource, Device, ReadError, Reading};

/// A counter's share of one refresh period by which each refresh may come early or late.
const REFRESH_JITTER: f64 = 0.03;
/// How far the true refresh period of one device lies from the nominal one, at most.
const PERIOD_TOLERANCE: f64 = 0.01;
/// Power is the mean of this window before each refresh: the A100's 25 ms of every 100 ms (arXiv 2312.02741).
const POWER_WINDOW_NS: i64 = 25_000_000;
/// Reading needs the timeline this far back: the longest refresh period, its jitter, and the power window.
pub(super) const HISTORY_NS: i64 = 300_000_000;

/// Something that goes wrong with one counter. Instants are `t_mono_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The counter starts again at 0 whenever it reaches the modulus, which the device announces.
    Wrap {
        /// Value at which it starts again, µJ.
        modulus_uj: u64,
    },
    /// From `t_ns` on the counter counts from 0: the driver was reloaded.
    Reset {
        /// When.
        t_ns: i64,
    },
    /// From `t_ns` on the counter shows `by_uj` less.
    BackwardStep {
        /// When.
        t_ns: i64,
        /// How far it falls, µJ.
        by_uj: u64,
    },
    /// The counter stops moving.
    Frozen {
        /// When.
        t_ns: i64,
    },
    /// One refresh shows a value that has nothing to do with energy.
    Garbage {
        /// An instant within the refresh that does.
        t_ns: i64,
    },
    /// Reads fail, but asking again later helps.
    Transient {
        /// First failing instant.
        from_ns: i64,
        /// First instant that answers again.
        until_ns: i64,
    },
    /// The device leaves for good.
    Gone {
        /// When.
        t_ns: i64,
    },
}

impl Fault {
    /// The instant at which the true energy must be remembered for the fault, before the timeline forgets it.
    fn capture_at(self, schedule: &Schedule) -> Option<i64> {
        match self {
            Self::Reset { t_ns } => Some(t_ns),
            Self::Frozen { t_ns } => Some(schedule.last_refresh(t_ns)),
            _ => None,
        }
    }
}

/// A fault and what had to be remembered when it struck.
#[derive(Debug, Clone, Copy)]
pub(super) struct ActiveFault {
    pub(super) fault: Fault,
    energy_j: Option<f64>,
}

impl ActiveFault {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, energy_j: None }
    }

    /// Remembers the energy at the fault's instant once the timeline reaches it.
    pub(super) fn observe(&mut self, schedule: &Schedule, energy_at: impl Fn(i64) -> Option<f64>) {
        if self.energy_j.is_none() {
            self.energy_j = self.fault.capture_at(schedule).and_then(energy_at);
        }
    }
}

/// When one device's counter refreshes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Schedule {
    t_start_ns: i64,
    period_ns: f64,
    seed: u64,
}

impl Schedule {
    pub(super) fn new(t_start_ns: i64, nominal_period_ns: i64, seed: u64) -> Self {
        let period_ns = nominal_period_ns as f64 * (1.0 + PERIOD_TOLERANCE * (2.0 * unit(seed) - 1.0));
        // The first refresh lies anywhere within a period, so devices are not in step.
        let phase_ns = (unit(seed ^ 0x5eed) * period_ns) as i64;
        Self { t_start_ns: t_start_ns + phase_ns, period_ns, seed }
    }

    fn refresh(&self, k: i64) -> i64 {
        let jitter = REFRESH_JITTER * (2.0 * unit(self.seed.wrapping_add(k as u64)) - 1.0);
        self.t_start_ns.saturating_add(((k as f64 + jitter) * self.period_ns) as i64)
    }

    /// The latest refresh at or before `t_ns`. Refreshes go back beyond the node's start.
    pub(super) fn last_refresh(&self, t_ns: i64) -> i64 {
        let k = ((t_ns - self.t_start_ns) as f64 / self.period_ns).floor() as i64;
        // Jitter is far below a period, so only the neighbours come into question.
        let candidate = [k + 1, k].into_iter().map(|k| self.refresh(k)).find(|refresh| *refresh <= t_ns);
        candidate.unwrap_or_else(|| self.refresh(k - 1))
    }
}

/// A number in [0, 1) that depends on nothing but `x` (SplitMix64's finaliser).
fn unit(x: u64) -> f64 {
    (scramble(x) >> 11) as f64 / (1_u64 << 53) as f64
}

fn scramble(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The counter's value for `energy_j` joules, µJ, as the maker's register and driver give it.
pub(super) fn quantise_uj(quantum: Quantum, energy_j: f64) -> u64 {
    match quantum {
        Quantum::Millijoule => (energy_j * 1e3).floor() as u64 * 1_000,
        // The register counts 2^-16 J; drivers multiply by 15.259 µJ, exactly 10^6/2^16.
        Quantum::TwoPowMinus16Joule => {
            let raw = (energy_j * 65_536.0).floor() as u128;
            u64::try_from(raw * 1_000_000 / 65_536).unwrap_or(u64::MAX)
        }
        Quantum::Microjoule => (energy_j * 1e6).floor() as u64,
    }
}

/// The counters of a [`SimNode`] as they stand at the reader's own time, which lags behind the node's.
#[derive(Debug)]
pub struct SimSource {
    node: SimNode,
    clock: Arc<SimClock>,
    devices: Vec<Device>,
}

impl SimSource {
    pub(super) fn new(node: SimNode, clock: Arc<SimClock>, devices: Vec<Device>) -> Self {
        Self { node, clock, devices }
    }
}

impl CounterSource for SimSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let state = self.node.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gpu) = state.gpus.get(index) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; the simulated node has {} devices",
                state.gpus.len()
            )));
        };
        // A reader ahead of the node sees it as it stood at the end of what has been laid out.
        read(gpu, state.t_start_ns, self.clock.now().min(gpu.timeline.end_ns()))
    }
}

fn read(gpu: &GpuState, t_start_ns: i64, t_ns: i64) -> Result<Reading, ReadError> {
    let mut frozen = None;
    for active in &gpu.faults {
        match active.fault {
            Fault::Gone { t_ns: gone_ns } if t_ns >= gone_ns => {
                return Err(ReadError::Gone("the simulated GPU fell off the bus".to_owned()));
            }
            Fault::Transient { from_ns, until_ns } if (from_ns..until_ns).contains(&t_ns) => {
                return Err(ReadError::Transient("the simulated driver is busy".to_owned()));
            }
            Fault::Frozen { t_ns: frozen_ns } if t_ns >= frozen_ns => {
                frozen = Some((gpu.schedule.last_refresh(frozen_ns), active.energy_j.unwrap_or(0.0)));
            }
            _ => {}
        }
    }
    // Before the first refresh the counter shows the start.
    let live_ns = gpu.schedule.last_refresh(t_ns).max(t_start_ns);
    let forgotten = || ReadError::Fatal("the simulated node has forgotten the instant that is read".to_owned());
    let live_j = gpu.timeline.energy_j(live_ns).ok_or_else(forgotten)?;
    let (refresh_ns, energy_j) = frozen.unwrap_or((live_ns, live_j));

    let mut counter_uj = quantise_uj(gpu.hardware.quantum, gpu.counter_offset_j + energy_j);
    for active in &gpu.faults {
        match active.fault {
            Fault::Reset { t_ns } if refresh_ns >= t_ns => {
                let since_j = energy_j - active.energy_j.unwrap_or(0.0);
                counter_uj = quantise_uj(gpu.hardware.quantum, since_j.max(0.0));
            }
            Fault::BackwardStep { t_ns, by_uj } if refresh_ns >= t_ns => counter_uj = counter_uj.saturating_sub(by_uj),
            _ => {}
        }
    }
    for active in &gpu.faults {
        match active.fault {
            Fault::Wrap { modulus_uj } if modulus_uj > 0 => counter_uj %= modulus_uj,
            Fault::Garbage { t_ns } if gpu.schedule.last_refresh(t_ns) == refresh_ns => {
                counter_uj = scramble(gpu.schedule.seed ^ refresh_ns as u64);
            }
            _ => {}
        }
    }
    let window_ns = POWER_WINDOW_NS.min(live_ns - t_start_ns);
    let power_w = (window_ns > 0)
        .then(|| gpu.timeline.energy_j(live_ns - window_ns))
        .flatten()
        .map(|before_j| (live_j - before_j) / crate::units::ns_to_s(window_ns));
    // NVML gives no timestamp with its energy counter; AMD and Intel do, on a base of their own.
    let stamped = !matches!(gpu.hardware.card.vendor, Vendor::Nvidia);
    Ok(Reading {
        energy_counter_uj: Some(counter_uj),
        power_w: power_w.or(Some(gpu.hardware.card.idle_power_w)),
        t_device_ns: stamped.then_some(refresh_ns - t_start_ns),
    })
}
