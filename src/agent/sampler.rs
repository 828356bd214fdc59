//! Reads counters, and says which moved between which two polls.

use std::sync::Arc;

use hdrhistogram::Histogram;

use super::recording::{DeviceRecording, ReadCost};
use super::schedule::{Cadence, Schedule};
use super::tally::Tally;
use crate::clock::Clock;
use crate::schema::EnergySource;
use crate::source::{CounterSource, Device, ReadError, Reading};
use crate::store::SampleRow;
use crate::units::{NS_PER_MS, NS_PER_S};

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
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            cadence: Cadence::PhaseLocked { resolution_ns: NS_PER_MS },
            heartbeat_ns: 1_000 * NS_PER_MS,
            power_interval_ns: 1_000 * NS_PER_MS,
        }
    }
}

/// Polls the devices of several sources, each on its own schedule, from one thread.
pub struct Sampler {
    sources: Vec<Box<dyn CounterSource>>,
    clock: Arc<dyn Clock>,
    options: SamplerOptions,
    devices: Vec<Watched>,
    late_polls: u64,
    read_ns: Histogram<u64>,
}

struct Watched {
    source: usize,
    index: usize,
    id: Arc<str>,
    kind: EnergySource,
    schedule: Schedule,
    quantum_ns: i64,
    next_poll_ns: i64,
    last: Option<Seen>,
    last_row_ns: i64,
    last_power_ns: Option<i64>,
    polls: u64,
    edges: u64,
    rows: u64,
    read_errors: u64,
    last_error: Option<String>,
    gone: bool,
    tally: Tally,
}

/// The last value that was read, and an instant at which it was surely still there.
#[derive(Clone, Copy)]
struct Seen {
    value: Value,
    still_at_ns: i64,
}

/// What must differ for a reading to have moved.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    Counter(u64),
    /// Bits: a NaN that stays is no movement.
    Power(u64),
}

impl Sampler {
    /// A sampler whose first poll of every device is due at once.
    pub fn new(sources: Vec<Box<dyn CounterSource>>, clock: Arc<dyn Clock>, options: SamplerOptions) -> Self {
        let now = clock.now();
        let schedule = &Schedule::new(options.cadence, now);
        let devices = sources.iter().enumerate().flat_map(|(source, s)| {
            s.devices().iter().enumerate().map(move |(index, device)| Watched {
                source,
                index,
                id: Arc::from(device.id.as_str()),
                kind: device.energy_source,
                quantum_ns: quantum_ns(schedule),
                schedule: schedule.clone(),
                next_poll_ns: now,
                last: None,
                last_row_ns: now,
                last_power_ns: None,
                polls: 0,
                edges: 0,
                rows: 0,
                read_errors: 0,
                last_error: None,
                gone: false,
                tally: Tally::of(device),
            })
        });
        let devices = devices.collect();
        // 1 ns to 10 s, two digits; slower reads count as 10 s.
        let read_ns = Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("constant bounds in the right order");
        Self { sources, clock, options, devices, late_polls: 0, read_ns }
    }

    /// The devices of all sources.
    pub fn devices(&self) -> Vec<Device> {
        self.sources.iter().flat_map(|s| s.devices()).cloned().collect()
    }

    /// Polls whatever falls due up to and including `t_mono_ns`, gives every row to `emit`, and returns when the clock
    /// shows `t_mono_ns`.
    pub fn run_until(&mut self, t_mono_ns: i64, emit: &mut dyn FnMut(SampleRow)) {
        while let Some(due) = self.next_due_ns().filter(|due| *due <= t_mono_ns) {
            self.clock.sleep_until(due);
            self.poll_due(due, emit);
        }
        self.clock.sleep_until(t_mono_ns);
    }

    /// Whether any device is left to poll.
    pub fn is_alive(&self) -> bool {
        self.devices.iter().any(|d| !d.gone)
    }

    fn next_due_ns(&self) -> Option<i64> {
        self.devices.iter().filter(|d| !d.gone).map(|d| d.next_poll_ns).min()
    }

    fn poll_due(&mut self, due_ns: i64, emit: &mut dyn FnMut(SampleRow)) {
        let mut before_ns = self.clock.now();
        // Everything that is due by now: two devices whose instants differ by less than the wake-up took go together.
        let horizon_ns = before_ns.max(due_ns);
        let mut fatal: Option<(usize, String)> = None;
        for device in self.devices.iter_mut().filter(|d| !d.gone && d.next_poll_ns <= horizon_ns) {
            let Some(source) = self.sources.get_mut(device.source) else { continue };
            if before_ns - device.next_poll_ns > device.schedule.step_ns() {
                self.late_polls += 1;
            }
            device.polls += 1;
            let reading = source.read(device.index);
            let after_ns = self.clock.now();
            self.read_ns.saturating_record(u64::try_from(after_ns - before_ns).unwrap_or(0).max(1));
            match reading {
                Ok(reading) => {
                    if let Some(row) = device.take(reading, before_ns, after_ns, &self.options) {
                        emit(row);
                    }
                }
                Err(ReadError::Transient(message)) => device.failed(message, after_ns),
                Err(e @ ReadError::Gone(_)) => device.leave(e.to_string()),
                Err(ReadError::Fatal(message)) => {
                    device.leave(message.clone());
                    fatal = Some((device.source, message));
                }
            }
            before_ns = after_ns;
        }
        if let Some((source, message)) = fatal {
            self.devices.iter_mut().filter(|d| d.source == source && !d.gone).for_each(|d| d.leave(message.clone()));
        }
    }

    /// Polls that began more than one step after they were due.
    pub fn late_polls(&self) -> u64 {
        self.late_polls
    }

    /// What reading cost so far.
    pub fn read_cost(&self) -> ReadCost {
        ReadCost::from_ns(&self.read_ns)
    }

    /// What each device did so far.
    pub fn device_recordings(&self) -> Vec<DeviceRecording> {
        self.devices.iter().map(Watched::recording).collect()
    }
}

impl Watched {
    /// Takes in a reading made between `before_ns` and `after_ns`; gives a row if it is worth one.
    fn take(&mut self, reading: Reading, before_ns: i64, after_ns: i64, options: &SamplerOptions) -> Option<SampleRow> {
        let value = match (reading.energy_counter_uj, reading.power_w) {
            (Some(counter), _) => Value::Counter(counter),
            (None, Some(power)) => Value::Power(power.to_bits()),
            (None, None) => {
                self.failed("the driver gave neither energy nor power".to_owned(), after_ns);
                return None;
            }
        };
        self.tally.take(&reading, before_ns, after_ns);
        // The value was there at some instant of the read: if it is new, the edge was before the read ended; if it is
        // old, the edge comes after the read began.
        let previous = self.last.replace(Seen { value, still_at_ns: before_ns });
        let moved = previous.is_some_and(|p| p.value != value);
        let still_at_ns = previous.map_or(before_ns, |p| p.still_at_ns);
        self.next_poll_ns = if moved {
            self.edges += 1;
            self.schedule.after_edge(still_at_ns, after_ns)
        } else {
            self.schedule.after_standstill(after_ns)
        };
        let row = if moved || previous.is_none() || after_ns - self.last_row_ns >= options.heartbeat_ns {
            self.last_row_ns = after_ns;
            self.rows += 1;
            Some(SampleRow {
                device: self.id.clone(),
                t_mono_ns: rounded_up(after_ns, self.quantum_ns),
                t_prev_poll_ns: rounded_down(still_at_ns, self.quantum_ns),
                energy_counter_uj: reading.energy_counter_uj,
                power_w: reading.power_w.filter(|_| self.power_is_due(value, after_ns, options)),
                t_device_ns: reading.t_device_ns,
                source: if matches!(value, Value::Power(_)) && self.kind == EnergySource::Counter {
                    EnergySource::Power
                } else {
                    self.kind
                },
                job_id: None,
            })
        } else {
            None
        };
        self.next_poll_ns = self.next_poll_ns.min(self.last_row_ns + options.heartbeat_ns);
        row
    }

    fn power_is_due(&mut self, value: Value, now_ns: i64, options: &SamplerOptions) -> bool {
        let due = self.last_power_ns.is_none_or(|last| now_ns - last >= options.power_interval_ns);
        if due {
            self.last_power_ns = Some(now_ns);
        }
        due || matches!(value, Value::Power(_))
    }

    fn failed(&mut self, message: String, now_ns: i64) {
        self.read_errors += 1;
        self.last_error = Some(message);
        self.next_poll_ns = self.schedule.after_standstill(now_ns);
    }

    fn leave(&mut self, message: String) {
        self.read_errors += 1;
        self.last_error = Some(message);
        self.gone = true;
    }

    fn recording(&self) -> DeviceRecording {
        DeviceRecording {
            device: self.id.to_string(),
            polls: self.polls,
            edges: self.edges,
            blurred_edges: self.schedule.blurred(),
            rows: self.rows,
            read_errors: self.read_errors,
            last_error: self.last_error.clone(),
            gone: self.gone,
            refresh_period_s: self.schedule.period_ns().map(|ns| ns / NS_PER_S),
            energy_j: self.tally.energy_j(),
            power_w: self.tally.power_w(),
            gaps: self.tally.gaps(),
        }
    }
}

/// Brackets are stored rounded outward to this power of two, at most a hundredth of the distance of polls. Below it
/// stands the noise of wake-ups, which says nothing of the counter and would be a third of the file: 8.6 bytes per row
/// against 5.6 (8 devices, 1 ms; see `a_sample_of_eight_devices_costs_at_most_six_bytes`).
fn quantum_ns(schedule: &Schedule) -> i64 {
    1 << (schedule.step_ns() / 100).max(1).ilog2()
}

fn rounded_down(t_ns: i64, quantum_ns: i64) -> i64 {
    t_ns.div_euclid(quantum_ns) * quantum_ns
}

fn rounded_up(t_ns: i64, quantum_ns: i64) -> i64 {
    -rounded_down(-t_ns, quantum_ns)
}
