//! The writer's thread: takes rows out of the rings, flushes each second, and outlives a disk that is full for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::Result;
use super::keeper::Keeper;
use super::recording::Recording;
use super::ring::{RingReader, Waited};
use crate::store::{SampleRow, TelemetryRow};

/// Rows are flushed this often: what `kill -9` can lose.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// The rings are emptied this often. Waking for every row would cost more than writing it.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// What the writer's thread is told while it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders {
    /// End, even if the disk refuses to take what waits.
    pub(super) stop: Arc<AtomicBool>,
    /// Seal what there is and go on in new segments.
    pub(super) reopen: Arc<AtomicBool>,
    /// Hand over what there is, for somebody who waits for it.
    pub(super) flush: Arc<FlushOrder>,
}

/// Requests to flush, numbered, and the last of them that was carried out.
#[derive(Debug, Default)]
pub(super) struct FlushOrder {
    asked: AtomicU64,
    done: AtomicU64,
}

impl FlushOrder {
    /// Asks for a flush of everything that is in the rings by now; gives the request's number.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether that request was carried out.
    pub(super) fn is_done(&self, number: u64) -> bool {
        self.done.load(Ordering::Acquire) >= number
    }
}

/// The reading ends of a recording's rings.
pub(super) struct Rings {
    pub(super) samples: RingReader<SampleRow>,
    pub(super) telemetry: RingReader<TelemetryRow>,
}

impl Rings {
    /// Moves rows to the keeper while it takes them. Says whether there will never be more.
    fn drain(&self, keeper: &mut Keeper) -> bool {
        while !keeper.is_telemetry_stuck() {
            let Some(row) = self.telemetry.try_pop() else { break };
            keeper.push_telemetry(row);
        }
        while !keeper.is_stuck() {
            match self.samples.pop_within(Duration::ZERO) {
                Waited::Item(row) => keeper.push(row),
                Waited::TimedOut => return false,
                Waited::Ended => return true,
            }
        }
        false
    }
}

/// Writes what comes out of the rings until the samplers are gone, or `stop` is set while the disk refuses.
pub(super) fn write_until_ended(
    mut keeper: Keeper,
    rings: &Rings,
    shared: &Mutex<Recording>,
    orders: &Orders,
) -> Result<Recording> {
    let latest = || {
        let mut recording = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recording.lost_rows = rings.samples.lost();
        recording.telemetry.lost_rows = rings.telemetry.lost();
        recording
    };
    let mut next_flush = Instant::now() + FLUSH_EVERY;
    loop {
        // Looked at before the rings are emptied: what was in them when somebody asked is written when he is answered.
        let asked = orders.flush.asked.load(Ordering::Acquire);
        if rings.drain(&mut keeper) {
            return keeper.finish(0, &latest);
        }
        let is_awaited = !orders.flush.is_done(asked);
        let due = Instant::now() >= next_flush || (is_awaited && !keeper.is_paused());
        if orders.reopen.swap(false, Ordering::AcqRel) {
            // A failure is told as a pause, or tried again as a sealing; there is nobody here to tell it to.
            let _ = keeper.reopen(&latest);
            next_flush = Instant::now() + FLUSH_EVERY;
        } else if due || (keeper.is_batch_full() && !keeper.is_paused()) {
            // While the disk refuses, once a second is often enough to ask.
            let refused = keeper.flush(&latest).is_err();
            if due || refused {
                next_flush = Instant::now() + FLUSH_EVERY;
            }
            if !refused {
                // A ring that could not be emptied holds rows that nobody has written.
                if !keeper.is_stuck() {
                    orders.flush.done.fetch_max(asked, Ordering::AcqRel);
                }
                // What gathered in the ring meanwhile comes first.
                continue;
            }
        }
        if keeper.is_paused() && keeper.is_stuck() && orders.stop.load(Ordering::Acquire) {
            return keeper.finish(rings.samples.len(), &latest);
        }
        std::thread::sleep(DRAIN_EVERY.min(next_flush.saturating_duration_since(Instant::now())));
    }
}

#[cfg(test)]
mod tests;
