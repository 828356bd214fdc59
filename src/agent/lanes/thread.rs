//! The loop of one lane's thread: sleeps until the first of its sources is due, polls what is due, and looks ten times
//! a second whether its sources still fit together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, TryLockError};

use rustix::time::{ClockId, clock_gettime};

use super::{Lanes, NOBODY};
use crate::store::SampleRow;
use crate::units::NS_PER_MS;

/// How long a lane goes on before it looks whether it shall stop, and whether its sources fit together.
const SLICE_NS: i64 = 100 * NS_PER_MS;

/// A source that a lane owns, as far as the lane knows.
pub(super) struct Held {
    pub(super) slot: usize,
    pub(super) due_ns: i64,
}

/// What became of an attempt to poll a source.
pub(super) enum Polled {
    /// When it is due next; `None` once all of its devices have left.
    Next(Option<i64>),
    /// Another lane has it now.
    Lost,
}

pub(super) fn run_lane(lanes: &Arc<Lanes>, id: usize, cpu_ns: &AtomicU64) {
    // Whoever starts a lane holds this until it has given the lane its sources.
    drop(lanes.registry());
    lanes.standing.apply().into_iter().for_each(|refused| lanes.notices.say(refused));
    let mut held: Vec<Held> = Vec::new();
    let mut seen_moves = u64::MAX;
    let mut calm_since_ns = lanes.clock.now();
    let emit = |row| {
        if let Some(ring) = lanes.ring.upgrade() {
            ring.push(SampleRow { job_id: lanes.jobs.label(), ..row });
        }
    };
    while !lanes.stop.load(Ordering::Acquire) {
        let slice_end_ns = lanes.clock.now() + SLICE_NS;
        loop {
            let moves = lanes.moves.load(Ordering::Acquire);
            if moves != seen_moves {
                seen_moves = moves;
                let now_ns = lanes.clock.now();
                let known = std::mem::take(&mut held);
                let due_ns = |slot| known.iter().find(|h| h.slot == slot).map_or(now_ns, |h| h.due_ns);
                held = lanes.owned_by(id).map(|slot| Held { slot, due_ns: due_ns(slot) }).collect();
            }
            let due_ns = held.iter().map(|h| h.due_ns).min().unwrap_or(i64::MAX);
            if due_ns > slice_end_ns {
                break;
            }
            use_gap(lanes, id, &held, due_ns);
            lanes.clock.sleep_until(due_ns);
            poll_due(lanes, id, &mut held, due_ns, &emit);
        }
        if held.is_empty() && lanes.may_end(id) {
            break;
        }
        let now_ns = lanes.clock.now();
        publish_cpu(cpu_ns);
        lanes.thin_out(id, &held, now_ns);
        match held.as_slice() {
            [only] => {
                let slow = lanes.try_station(only.slot).is_none_or(|s| s.is_slow(now_ns));
                calm_since_ns = if slow { now_ns } else { calm_since_ns };
                lanes.go_home(id, only, now_ns - calm_since_ns);
            }
            _ => calm_since_ns = now_ns,
        }
        if held.iter().all(|h| h.due_ns > slice_end_ns) {
            use_gap(lanes, id, &held, slice_end_ns);
            lanes.clock.sleep_until(slice_end_ns);
        }
    }
    publish_cpu(cpu_ns);
}

/// Makes use of the time until `gap_ends_ns` for the telemetry of one device.
fn use_gap(lanes: &Lanes, id: usize, held: &[Held], gap_ends_ns: i64) {
    held.iter().filter(|h| lanes.owner(h.slot) == id).any(|h| {
        let Some(mut station) = lanes.try_station(h.slot) else { return false };
        lanes.owner(h.slot) == id && station.use_gap(lanes.clock.as_ref(), gap_ends_ns)
    });
}

/// Polls what is due by now in one wake-up.
fn poll_due(lanes: &Lanes, id: usize, held: &mut Vec<Held>, due_ns: i64, emit: &impl Fn(SampleRow)) {
    let mut now_ns = lanes.clock.now();
    let horizon_ns = now_ns.max(due_ns);
    let doublings = lanes.doublings.load(Ordering::Relaxed);
    held.retain_mut(|h| {
        if h.due_ns > horizon_ns {
            return true;
        }
        match poll(lanes, id, h.slot, horizon_ns, &mut now_ns, doublings, emit) {
            Polled::Next(Some(next_ns)) => h.due_ns = next_ns,
            Polled::Next(None) => {
                if let Some(slot) = lanes.slots.get(h.slot) {
                    // Under no lock: only the owner gives a source up, and this is its thread.
                    let _ = slot.owner.compare_exchange(id, NOBODY, Ordering::AcqRel, Ordering::Acquire);
                }
                return false;
            }
            Polled::Lost => return false,
        }
        true
    });
}

pub(super) fn poll(
    lanes: &Lanes,
    id: usize,
    slot: usize,
    horizon_ns: i64,
    now_ns: &mut i64,
    doublings: u32,
    emit: &impl Fn(SampleRow),
) -> Polled {
    let Some(found) = lanes.slots.get(slot) else { return Polled::Lost };
    let mut station = loop {
        if lanes.owner(slot) != id {
            return Polled::Lost;
        }
        match found.station.try_lock() {
            Ok(station) => break station,
            // Somebody counts or moves it, which takes microseconds. To yield would not do: a real-time thread would
            // yield to nobody but itself.
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_micros(20)),
            Err(TryLockError::Poisoned(_)) => return Polled::Lost,
        }
    };
    if lanes.owner(slot) != id {
        return Polled::Lost;
    }
    station.set_doublings(doublings);
    *now_ns = station.poll_due(horizon_ns, *now_ns, lanes.clock.as_ref(), &lanes.options, &mut |row| emit(row));
    Polled::Next(station.next_due_ns())
}

fn publish_cpu(cpu_ns: &AtomicU64) {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let used_ns = used.tv_sec.saturating_mul(1_000_000_000).saturating_add(used.tv_nsec);
    cpu_ns.store(used_ns.unsigned_abs(), Ordering::Relaxed);
}
