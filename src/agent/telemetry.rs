//! Reads temperatures, clocks and the like between the polls of counters, and never at their expense.
//!
//! A telemetry read can take milliseconds where a counter takes microseconds, and drivers serialise the two. So it is
//! made only in the gap before the next poll, one device per gap, and only when the gap is twice as long as such a read
//! was before. A device that never finds a gap is skipped, and that is counted: its energy is what matters.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ring::RingWriter;
use super::station::InFlight;
use crate::clock::Clock;
use crate::source::CounterSource;
use crate::store::TelemetryRow;

/// A read is dared when the gap is this many times as long as it is expected to take.
const ROOM: i64 = 2;
/// What is expected of a device's first read.
const FIRST_COST_NS: i64 = 200_000;
/// What is expected shrinks by this fraction with each period that was skipped: one slow answer is no verdict.
const FORGET: i64 = 64;
/// A device that tells nothing is asked ever more rarely, down to once in this many periods.
const MAX_SILENCE: i64 = 63;

/// What telemetry did to a recording, and what it cost; apart from the cost of reading counters.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TelemetryCost {
    /// Reads.
    pub reads: u64,
    /// Time spent in them, s.
    pub total_read_s: f64,
    /// The slowest, ns.
    pub max_read_ns: u64,
    /// Reads that were left out because no gap between polls was long enough.
    pub skipped: u64,
    /// Rows that the full ring refused.
    pub lost_rows: u64,
}

impl TelemetryCost {
    /// Adds what another reader did.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.total_read_s += other.total_read_s;
        self.max_read_ns = self.max_read_ns.max(other.max_read_ns);
        self.skipped += other.skipped;
        self.lost_rows += other.lost_rows;
    }
}

/// Reads the telemetry of one source's devices.
pub struct TelemetryReader {
    every_ns: i64,
    devices: Vec<Told>,
    sink: Arc<RingWriter<TelemetryRow>>,
    cost: TelemetryCost,
}

struct Told {
    index: usize,
    id: Arc<str>,
    due_ns: i64,
    expected_ns: i64,
    /// Periods that are left out because the device told nothing.
    silence: i64,
}

impl TelemetryReader {
    /// A reader for all devices of `source`, each read every `every_ns` into `sink`. The first reads are spread over
    /// the first period, so that the devices never fall due together.
    pub fn new(source: &dyn CounterSource, every_ns: i64, now_ns: i64, sink: Arc<RingWriter<TelemetryRow>>) -> Self {
        let every_ns = every_ns.max(1);
        let count = i64::try_from(source.devices().len()).unwrap_or(1).max(1);
        let told = |(index, device): (usize, &crate::source::Device)| Told {
            index,
            id: Arc::from(device.id.as_str()),
            due_ns: now_ns + every_ns / count * i64::try_from(index).unwrap_or(0),
            expected_ns: FIRST_COST_NS,
            silence: 0,
        };
        let devices = source.devices().iter().enumerate().map(told).collect();
        Self { every_ns, devices, sink, cost: TelemetryCost::default() }
    }

    /// To be called before sleeping until `gap_ends_ns`, when the next counter is due: reads at most one device, if one
    /// is due and there is room. Says whether it did, so that the caller asks no other source in the same gap.
    pub(super) fn use_gap(
        &mut self,
        source: &mut dyn CounterSource,
        in_flight: &InFlight,
        clock: &dyn Clock,
        gap_ends_ns: i64,
    ) -> bool {
        // The first look is at the list alone: most gaps have nothing to do and shall cost nothing, not even a clock.
        let Some(told) = self.devices.iter_mut().min_by_key(|d| d.due_ns) else { return false };
        if told.due_ns > gap_ends_ns {
            return false;
        }
        let now_ns = clock.now();
        if told.due_ns > now_ns {
            return false;
        }
        if gap_ends_ns - now_ns < ROOM * told.expected_ns {
            if now_ns - told.due_ns >= self.every_ns {
                self.cost.skipped += 1;
                told.due_ns += self.every_ns;
                told.expected_ns -= told.expected_ns / FORGET;
            }
            return false;
        }
        let index = told.index;
        in_flight.begin(index, now_ns);
        let answer = source.telemetry(index);
        in_flight.end();
        let after_ns = clock.now();
        let took_ns = (after_ns - now_ns).max(0);
        told.expected_ns = took_ns.max(told.expected_ns - told.expected_ns / FORGET);
        // On the grid of its own first instant; instants that have passed are skipped, not made up for.
        let periods = (now_ns - told.due_ns) / self.every_ns + 1;
        told.silence = if answer.is_some() { 0 } else { (told.silence * 2 + 1).min(MAX_SILENCE) };
        told.due_ns += (periods + told.silence) * self.every_ns;
        let Some(answer) = answer else { return true };
        self.cost.reads += 1;
        self.cost.total_read_s += took_ns as f64 / 1e9;
        self.cost.max_read_ns = self.cost.max_read_ns.max(took_ns.unsigned_abs());
        if let Some(device) = source.devices().get(index) {
            self.sink.push(TelemetryRow::of(device, told.id.clone(), now_ns, answer));
        }
        true
    }

    /// What it did so far. Rows lost are the ring's to know, and not in here.
    pub fn cost(&self) -> TelemetryCost {
        self.cost
    }
}

#[cfg(test)]
mod tests;
