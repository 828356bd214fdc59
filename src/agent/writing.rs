//! The writer's thread: takes rows out of the ring, flushes each second, and outlives a disk that is full for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::Result;
use super::recording::Recording;
use super::ring::{RingReader, Waited};
use super::writer::SampleWriter;
use crate::store::SampleRow;

/// Rows are flushed this often: what `kill -9` can lose.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Writes what comes out of `ring` until its other end is gone, or `stop` is set while the disk refuses.
pub(super) fn write_until_ended(
    mut writer: SampleWriter,
    ring: &RingReader<SampleRow>,
    shared: &Mutex<Recording>,
    stop: &AtomicBool,
) -> Result<Recording> {
    let latest = || {
        let mut recording = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        recording.lost_rows = ring.lost();
        recording
    };
    let mut next_flush = Instant::now() + FLUSH_EVERY;
    let mut refused = false;
    loop {
        let wait = next_flush.saturating_duration_since(Instant::now());
        if writer.is_stuck() {
            // The disk refuses. The ring fills meanwhile, and counts what it must refuse.
            std::thread::sleep(wait);
        } else {
            match ring.pop_within(wait) {
                Waited::Item(row) => writer.push(row),
                Waited::TimedOut => {}
                Waited::Ended => return writer.finish(&latest),
            }
        }
        let due = Instant::now() >= next_flush;
        // While the disk refuses, once a second is often enough to ask.
        if due || (writer.is_batch_full() && !refused) {
            refused = writer.flush(&latest).is_err();
            if due || refused {
                next_flush = Instant::now() + FLUSH_EVERY;
            }
        }
        if refused && writer.is_stuck() && stop.load(Ordering::Acquire) {
            return writer.finish(&latest);
        }
    }
}
