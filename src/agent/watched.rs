//! One device as the sampler sees it: its schedule, its last value, its counts.

use std::sync::Arc;

use super::energy_meter::EnergyMeter;
use super::recording::DeviceRecording;
use super::sampler::SamplerOptions;
use super::schedule::Schedule;
use crate::schema::EnergySource;
use crate::source::{Device, Reading};
use crate::store::SampleRow;
use crate::units::NS_PER_S;

pub(super) struct Watched {
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
    longest_read_ns: u64,
    last_error: Option<String>,
    gone: bool,
    meter: EnergyMeter,
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

impl Watched {
    /// A device whose first poll is due at once.
    pub(super) fn new(device: &Device, schedule: Schedule, now_ns: i64) -> Self {
        Self {
            id: Arc::from(device.id.as_str()),
            kind: device.energy_source,
            quantum_ns: quantum_ns(&schedule),
            schedule,
            next_poll_ns: now_ns,
            last: None,
            last_row_ns: now_ns,
            last_power_ns: None,
            polls: 0,
            edges: 0,
            rows: 0,
            read_errors: 0,
            longest_read_ns: 0,
            last_error: None,
            gone: false,
            meter: EnergyMeter::of(device),
        }
    }

    /// When it wants to be polled; `None` once it has left.
    pub(super) fn due_ns(&self) -> Option<i64> {
        (!self.gone).then_some(self.next_poll_ns)
    }

    /// A poll begins at `now_ns`; gives how late it is, in whole polls.
    pub(super) fn begin_poll(&mut self, now_ns: i64) -> u64 {
        self.polls += 1;
        let late_ns = now_ns - self.next_poll_ns;
        if late_ns > self.schedule.step_ns() { (late_ns / self.schedule.step_ns()).unsigned_abs() } else { 0 }
    }

    pub(super) fn note_read_ns(&mut self, read_ns: u64) {
        self.longest_read_ns = self.longest_read_ns.max(read_ns);
    }

    /// Takes in a reading made between `before_ns` and `after_ns`; gives a row if it is worth one.
    pub(super) fn take(
        &mut self,
        reading: Reading,
        before_ns: i64,
        after_ns: i64,
        options: &SamplerOptions,
    ) -> Option<SampleRow> {
        let value = match (reading.energy_counter_uj, reading.power_w) {
            (Some(counter), _) => Value::Counter(counter),
            (None, Some(power)) => Value::Power(power.to_bits()),
            (None, None) => {
                self.failed("the driver gave neither energy nor power".to_owned(), after_ns);
                return None;
            }
        };
        self.meter.take(&reading, before_ns, after_ns);
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
                // The lane knows it.
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

    /// A read gave nothing this once.
    pub(super) fn failed(&mut self, message: String, now_ns: i64) {
        self.read_errors += 1;
        self.last_error = Some(message);
        self.next_poll_ns = self.schedule.after_standstill(now_ns);
    }

    /// The device is not to be read again.
    pub(super) fn leave(&mut self, message: String) {
        if !self.gone {
            self.read_errors += 1;
            self.last_error = Some(message);
            self.gone = true;
        }
    }

    /// From now on polls are `step_ns` apart where they are dense.
    pub(super) fn set_step_ns(&mut self, step_ns: i64) {
        self.schedule.set_step_ns(step_ns);
        self.quantum_ns = quantum_ns(&self.schedule);
    }

    pub(super) fn recording(&self) -> DeviceRecording {
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
            energy_j: self.meter.energy_j(),
            power_w: self.meter.power_w(),
            gaps: self.meter.gaps(),
            longest_read_ns: self.longest_read_ns,
            stuck_since_mono_ns: None,
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
