//! Reasons to doubt a phase: what the recording shows, what the report prints and the fitter obeys.

use std::fmt;
use std::str::FromStr;

use crate::schema::Phase;

/// A relative standard uncertainty above which a phase says too little to be fitted.
pub const MAX_RELATIVE_STD: f64 = 0.25;

/// Fewer counter edges inside a window than this, and its energy rests on assumptions about its neighbours.
pub const MIN_EDGES_INSIDE: u64 = 3;

/// Why a phase is doubted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The counter started again below its last value, and no wrap explains it.
    CounterReset,
    /// The counter jumped by more than 1.5 times the power limit allows.
    ImplausibleCounter,
    /// The counter stood still while the clock went on.
    FrozenCounter,
    /// Fewer than [`MIN_EDGES_INSIDE`] counter refreshes fell into the window.
    WindowShorterThanRefreshes,
    /// The recording does not cover the window, or has a hole at its edge.
    LostSamples,
    /// A device of the run has neither counter nor power readings.
    NoEnergySource,
    /// The standard uncertainty exceeds [`MAX_RELATIVE_STD`] of the energy.
    TooUncertain,
    /// The energy was integrated from power readings.
    PowerIntegrated,
    /// The run itself failed.
    RunFailed,
    /// The begin or end mark of the phase is missing.
    MissingMark,
    /// Heat or the supply held a device's clocks down.
    Throttled,
    /// A device's clock changed by more than 5 % from one half of the window to the other.
    ClockDrift,
    /// A device's temperature changed by more than 5 °C within the window.
    ThermalDrift,
    /// A device was in use while it should have been idle before the run.
    BusyBefore,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::CounterReset,
        Self::ImplausibleCounter,
        Self::FrozenCounter,
        Self::WindowShorterThanRefreshes,
        Self::LostSamples,
        Self::NoEnergySource,
        Self::TooUncertain,
        Self::PowerIntegrated,
        Self::RunFailed,
        Self::MissingMark,
        Self::Throttled,
        Self::ClockDrift,
        Self::ThermalDrift,
        Self::BusyBefore,
    ];

    /// The spelling in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CounterReset => "counter_reset",
            Self::ImplausibleCounter => "implausible_counter",
            Self::FrozenCounter => "frozen_counter",
            Self::WindowShorterThanRefreshes => "window_shorter_than_refreshes",
            Self::LostSamples => "lost_samples",
            Self::NoEnergySource => "no_energy_source",
            Self::TooUncertain => "too_uncertain",
            Self::PowerIntegrated => "power_integrated",
            Self::RunFailed => "run_failed",
            Self::MissingMark => "missing_mark",
            Self::Throttled => "throttled",
            Self::ClockDrift => "clock_drift",
            Self::ThermalDrift => "thermal_drift",
            Self::BusyBefore => "busy_before",
        }
    }

    /// Whether a row with this reason must not be fitted; the others only qualify it.
    pub fn rejects(self) -> bool {
        !matches!(
            self,
            Self::PowerIntegrated | Self::Throttled | Self::ClockDrift | Self::ThermalDrift | Self::BusyBefore
        )
    }

    /// What to do about it, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::CounterReset => "the driver was reloaded during the run; turn persistence mode on and repeat it",
            Self::ImplausibleCounter => "the driver reported a value no device can reach; repeat the run",
            Self::FrozenCounter => "the driver stopped counting; check the device and repeat the run",
            Self::WindowShorterThanRefreshes => "measure longer windows (min_window_s)",
            Self::LostSamples => "record from before the window to after it; see the recording's loss count",
            Self::NoEnergySource => "see `energylens doctor` for what this node can measure",
            Self::TooUncertain => "measure longer windows (min_window_s)",
            Self::PowerIntegrated => "power readings stand in for a counter; expect several per cent of bias",
            Self::RunFailed => "see the run's error in runs.parquet",
            Self::MissingMark => "the workload did not mark begin and end of the phase",
            Self::Throttled => "see the node's cooling and power supply; `telemetry` says when and why",
            Self::ClockDrift => "lock the clocks, or warm up for longer (warmup_batches)",
            Self::ThermalDrift => "warm up for longer (warmup_batches), or measure longer windows (min_window_s)",
            Self::BusyBefore => "somebody else computed on the device; have the node to yourself",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|r| r.as_str() == s).ok_or_else(|| format!("quality {s} is unknown"))
    }
}

/// The first word of a row's quality that forbids fitting it. A word this version does not know forbids it as well:
/// somebody doubted the row.
pub fn rejecting(quality: &[String]) -> Option<&str> {
    quality.iter().map(String::as_str).find(|word| word.parse().map_or(true, Reason::rejects))
}

/// Which run and phase is doubted why, and what to do about it.
pub fn describe(run_id: &str, phase: Phase, word: &str) -> String {
    match word.parse::<Reason>() {
        Ok(reason) => format!("run {run_id}, phase {phase}: {reason}; {}", reason.advice()),
        Err(_) => format!("run {run_id}, phase {phase}: {word}"),
    }
}

/// Whether an energy is positive and known to better than [`MAX_RELATIVE_STD`].
pub fn is_certain(energy_j: f64, std_j: f64) -> bool {
    energy_j > 0.0 && std_j <= MAX_RELATIVE_STD * energy_j
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_parse_what_they_print() {
        for reason in Reason::ALL {
            assert_eq!(reason.to_string().parse(), Ok(reason));
        }
    }

    #[test]
    fn integrated_power_qualifies_and_a_strange_doubt_forbids() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(rejecting(&words(&[])), None);
        assert_eq!(rejecting(&words(&["power_integrated"])), None);
        assert_eq!(rejecting(&words(&["power_integrated", "counter_reset"])), Some("counter_reset"));
        assert_eq!(rejecting(&words(&["co_tenant"])), Some("co_tenant"));
    }
}
