//! Monotonic time, its anchor to the wall clock, and a clock that only tests and simulations advance.
//!
//! All instants inside energylens are `t_mono_ns`: nanoseconds of `CLOCK_MONOTONIC`. A file's [`ClockAnchor`] says
//! which wall-clock instant one of them was, so that the recordings of several nodes can be joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

/// Where time comes from. Two methods: a third would be a second responsibility.
pub trait Clock: Send + Sync {
    /// The present instant, `t_mono_ns`.
    fn now(&self) -> i64;
    /// Sleeps until the absolute instant `t_mono_ns`; returns at once if it has passed.
    fn sleep_until(&self, t_mono_ns: i64);
}

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAnchor {
    /// The instant on the monotonic clock of the host.
    pub t_mono_ns: i64,
    /// The same instant, nanoseconds since the Unix epoch.
    pub t_unix_ns: i64,
}

impl ClockAnchor {
    /// Reads both clocks now; the wall clock between two monotonic reads, so a preemption cannot shift the anchor unseen.
    pub fn now(clock: &dyn Clock) -> Self {
        let before = clock.now();
        let t_unix_ns =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        let after = clock.now();
        Self { t_mono_ns: before + (after - before) / 2, t_unix_ns }
    }

    /// The wall-clock instant of `t_mono_ns`, nanoseconds since the Unix epoch.
    pub fn unix_ns(&self, t_mono_ns: i64) -> i64 {
        self.t_unix_ns.saturating_add(t_mono_ns.saturating_sub(self.t_mono_ns))
    }
}

/// `CLOCK_MONOTONIC` of this host: the same instants in every process, which is what lets marks and samples meet.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        let t = clock_gettime(ClockId::Monotonic);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    }

    fn sleep_until(&self, t_mono_ns: i64) {
        let deadline =
            Timespec { tv_sec: t_mono_ns.div_euclid(1_000_000_000), tv_nsec: t_mono_ns.rem_euclid(1_000_000_000) };
        // Absolute, so that a late wake-up does not delay every later one; a signal is no reason to wake early.
        while let Err(rustix::io::Errno::INTR) = clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &deadline)
        {
        }
    }
}

/// A clock that stands still until somebody sleeps on it: sleeping *is* advancing. Clones share the instant.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    now_ns: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that shows `t_mono_ns`.
    pub fn starting_at(t_mono_ns: i64) -> Self {
        Self { now_ns: Arc::new(AtomicI64::new(t_mono_ns)) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> i64 {
        self.now_ns.load(Ordering::Acquire)
    }

    fn sleep_until(&self, t_mono_ns: i64) {
        self.now_ns.fetch_max(t_mono_ns, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_sleeps_to_the_deadline_and_not_before() {
        let clock = SystemClock;
        let deadline = clock.now() + 2_000_000;
        clock.sleep_until(deadline);
        assert!(clock.now() >= deadline);
        clock.sleep_until(0);
    }

    #[test]
    fn a_simulated_clock_never_goes_back() {
        let clock = SimClock::starting_at(100);
        let twin = clock.clone();
        clock.sleep_until(500);
        twin.sleep_until(200);
        assert_eq!(clock.now(), 500);
    }

    #[test]
    fn an_anchor_maps_later_instants_to_the_wall_clock() {
        let anchor = ClockAnchor { t_mono_ns: 1_000, t_unix_ns: 50_000 };
        assert_eq!(anchor.unix_ns(1_500), 50_500);
        assert_eq!(anchor.unix_ns(400), 49_400);
    }
}
