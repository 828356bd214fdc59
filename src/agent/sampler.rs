//! Reads counters, and says which moved between which two polls.

use std::sync::Arc;

use super::budget::{CpuBudget, CpuMeter};
use super::recording::{BackOff, DeviceRecording, ReadCost, Tally};
use super::ring::RingWriter;
use super::schedule::{Cadence, Schedule};
use super::station::Station;
use super::telemetry::TelemetryCost;
use crate::clock::Clock;
use crate::source::{CounterSource, Device};
use crate::store::{SampleRow, TelemetryRow};
use crate::units::NS_PER_MS;

/// How a [`Sampler`] polls and what it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerOptions {
    /// When counters are read.
    pub cadence: Cadence,
    /// A row is emitted after this long even if nothing moved, so that silence and standstill differ.
    pub heartbeat_ns: i64,
    /// Power stands beside a counter at most this often: it can be had from the counter's differences, and its noise
    /// would be half of the file. Devices without a counter always have it.
    pub power_interval_ns: i64,
    /// Processor time that sampling may cost, as a share of one core. Beyond it polls come farther apart.
    pub max_cpu_share: Option<f64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            cadence: Cadence::PhaseLocked { resolution_ns: NS_PER_MS },
            heartbeat_ns: 1_000 * NS_PER_MS,
            power_interval_ns: 1_000 * NS_PER_MS,
            max_cpu_share: None,
        }
    }
}

/// Polls the devices of several sources, each on its own schedule, from the thread that calls it. Right where reads
/// are quick or time is simulated; a [`Recorder`](super::Recorder) spreads slow sources over threads.
pub struct Sampler {
    stations: Vec<Station>,
    clock: Arc<dyn Clock>,
    options: SamplerOptions,
    budget: Option<(CpuBudget, CpuMeter)>,
}

impl Sampler {
    /// A sampler whose first poll of every device is due at once.
    pub fn new(sources: Vec<Box<dyn CounterSource>>, clock: Arc<dyn Clock>, options: SamplerOptions) -> Self {
        let stations = stations(sources, &options, clock.now());
        Self { stations, clock, options, budget: None }
    }

    /// Keeps to [`max_cpu_share`](SamplerOptions::max_cpu_share) as `meter` tells the processor time used so far.
    pub fn with_cpu_meter(mut self, meter: CpuMeter) -> Self {
        let budget = CpuBudget::new(&self.options, self.clock.now());
        self.budget = budget.map(|budget| (budget, meter));
        self
    }

    /// Also reads what else the devices tell, each every `every_ns`, into `sink`.
    pub fn with_telemetry(mut self, every_ns: i64, sink: &Arc<RingWriter<TelemetryRow>>) -> Self {
        let now_ns = self.clock.now();
        self.stations.iter_mut().for_each(|station| station.set_telemetry(every_ns, now_ns, sink));
        self
    }

    /// What reading telemetry cost so far.
    pub fn telemetry_cost(&self) -> TelemetryCost {
        self.tally().telemetry
    }

    /// The devices of all sources.
    pub fn devices(&self) -> Vec<Device> {
        self.stations.iter().flat_map(Station::devices).cloned().collect()
    }

    /// Polls whatever falls due up to and including `t_mono_ns`, gives every row to `emit`, and returns when the clock
    /// shows `t_mono_ns`.
    pub fn run_until(&mut self, t_mono_ns: i64, emit: &mut dyn FnMut(SampleRow)) {
        while let Some(due_ns) = self.next_due_ns().filter(|due| *due <= t_mono_ns) {
            self.wait_until(due_ns);
            let mut now_ns = self.clock.now();
            // Everything that is due by now: two devices whose instants differ by less than the wake-up took go together.
            let horizon_ns = now_ns.max(due_ns);
            for station in &mut self.stations {
                now_ns = station.poll_due(horizon_ns, now_ns, self.clock.as_ref(), &self.options, emit);
            }
        }
        self.wait_until(t_mono_ns);
        if let Some((budget, meter)) = &mut self.budget {
            budget.observe(self.clock.now(), meter());
            self.stations.iter_mut().for_each(|s| s.set_doublings(budget.doublings()));
        }
    }

    /// Sleeps, after making use of the time for telemetry.
    fn wait_until(&mut self, t_mono_ns: i64) {
        let clock = self.clock.as_ref();
        self.stations.iter_mut().any(|station| station.use_gap(clock, t_mono_ns));
        clock.sleep_until(t_mono_ns);
    }

    /// Whether any device is left to poll.
    pub fn is_alive(&self) -> bool {
        self.next_due_ns().is_some()
    }

    fn next_due_ns(&self) -> Option<i64> {
        self.stations.iter().filter_map(Station::next_due_ns).min()
    }

    /// Polls that began more than one step after they were due.
    pub fn late_polls(&self) -> u64 {
        self.stations.iter().map(Station::late_polls).sum()
    }

    /// What reading cost so far.
    pub fn read_cost(&self) -> ReadCost {
        self.tally().read_cost()
    }

    /// What each device did so far.
    pub fn device_recordings(&self) -> Vec<DeviceRecording> {
        self.stations.iter().flat_map(Station::device_recordings).collect()
    }

    /// Whether the budget of processor time has been exceeded, and what was done about it.
    pub fn back_off(&self) -> Option<BackOff> {
        self.budget.as_ref().and_then(|(budget, _)| budget.back_off())
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.stations.iter().for_each(|station| tally.add(station));
        tally
    }
}

/// One station per source, all devices due at `now_ns`.
pub(super) fn stations(sources: Vec<Box<dyn CounterSource>>, options: &SamplerOptions, now_ns: i64) -> Vec<Station> {
    let schedule = Schedule::new(options.cadence, now_ns);
    sources.into_iter().map(|source| Station::new(source, &schedule, now_ns)).collect()
}
