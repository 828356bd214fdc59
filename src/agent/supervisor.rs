//! The thread that watches the lanes: finds reads that hang and lanes that crashed, keeps the budget of processor time,
//! publishes the summary, and sees the recording through to its end without waiting for a driver for ever.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::budget::CpuBudget;
use super::lanes::Lanes;
use super::recording::{Recording, Tally};
use super::ring::RingWriter;
use crate::store::SampleRow;
use crate::units::{NS_PER_MS, NS_PER_S};

/// How often it looks: some ten microseconds of processor time each.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A read under way for longer than this holds up the rest of its lane. A preempted thread is back before.
const HANGING_NS: i64 = 20 * NS_PER_MS;
/// A read that hangs is worth a sentence after this long.
const TELL_AFTER_NS: i64 = 1_000 * NS_PER_MS;
/// How often the summary is published.
const PUBLISH_EVERY_NS: i64 = 1_000 * NS_PER_MS;
/// How long the end waits for lanes that are inside of a driver.
const PATIENCE_NS: i64 = 1_500 * NS_PER_MS;

/// How sampling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As it should, though single sources may have crashed or may hang.
    Well,
    /// Every source's reader has panicked.
    Crashed,
}

pub(super) struct Supervisor {
    pub(super) lanes: Arc<Lanes>,
    pub(super) shared: Arc<Mutex<Recording>>,
    /// The only strong end: with it goes the ring, and the writer finishes.
    pub(super) ring: Arc<RingWriter<SampleRow>>,
    host: String,
    t_begin_mono_ns: i64,
    budget: Option<CpuBudget>,
    /// The latest known of each source: one that hangs cannot be asked.
    known: Vec<Tally>,
    /// Reads that were told to hang, by when they began.
    told: Vec<Option<i64>>,
    ended_lanes_cpu_ns: u64,
    most_lanes: usize,
    crashes: usize,
}

impl Supervisor {
    pub(super) fn new(
        lanes: Arc<Lanes>,
        shared: Arc<Mutex<Recording>>,
        ring: Arc<RingWriter<SampleRow>>,
        host: String,
        t_begin_mono_ns: i64,
    ) -> Self {
        let count = lanes.slots.len();
        Self {
            budget: CpuBudget::new(&lanes.options, t_begin_mono_ns),
            known: (0..count).map(|slot| lanes.try_station(slot).map(|s| Tally::of(&s)).unwrap_or_default()).collect(),
            told: vec![None; count],
            ended_lanes_cpu_ns: 0,
            most_lanes: 0,
            crashes: 0,
            lanes,
            shared,
            ring,
            host,
            t_begin_mono_ns,
        }
    }

    /// Watches until the recording ends; the last summary stands in `shared` by then.
    pub(super) fn run(mut self) -> Ended {
        let mut next_publish_ns = self.t_begin_mono_ns;
        loop {
            let alive = self.reap();
            let now_ns = self.lanes.clock.now();
            if self.lanes.stop.load(Ordering::Acquire) || alive == 0 {
                break;
            }
            self.look_for_hanging_reads(now_ns);
            self.keep_the_budget(now_ns);
            if now_ns >= next_publish_ns {
                self.lanes.jobs.look();
                self.publish(now_ns);
                next_publish_ns = now_ns + PUBLISH_EVERY_NS;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        self.wait_for_lanes();
        self.publish(self.lanes.clock.now());
        drop(self.ring);
        let all_crashed = self.crashes > 0 && (0..self.known.len()).all(|slot| self.lanes.is_crashed(slot));
        if all_crashed { Ended::Crashed } else { Ended::Well }
    }

    /// Joins lanes that have ended; gives how many have not.
    fn reap(&mut self) -> usize {
        let lanes = self.lanes.clone();
        let mut registry = lanes.registry();
        while let Some(at) = registry.lanes.iter().position(|lane| lane.thread.is_finished()) {
            let ended = registry.lanes.swap_remove(at);
            self.ended_lanes_cpu_ns += ended.cpu_ns.load(Ordering::Relaxed);
            if ended.thread.join().is_err() {
                self.crashes += 1;
                lanes.notices.say("a reader has crashed; its device is not read again, the others go on".to_owned());
                lanes.bury(&mut registry, ended.id);
            }
        }
        self.most_lanes = self.most_lanes.max(registry.lanes.len());
        registry.lanes.len()
    }

    fn look_for_hanging_reads(&mut self, now_ns: i64) {
        for slot in 0..self.known.len() {
            let Some((device, since_ns)) = self.in_flight(slot) else {
                if let Some(Some(since_ns)) = self.told.get_mut(slot).map(Option::take) {
                    let after_s = (now_ns - since_ns) as f64 / NS_PER_S;
                    self.lanes.notices.say(format!("a driver that hung answered again after about {after_s:.1} s"));
                }
                continue;
            };
            if now_ns - since_ns > HANGING_NS {
                self.lanes.rescue(slot);
            }
            let is_told = self.told.get(slot).copied().flatten() == Some(since_ns);
            if now_ns - since_ns > TELL_AFTER_NS && !is_told {
                self.lanes.notices.say(format!(
                    "{} has not answered for {:.1} s; all other sources go on without it",
                    self.device_name(slot, device),
                    (now_ns - since_ns) as f64 / NS_PER_S
                ));
                if let Some(told) = self.told.get_mut(slot) {
                    *told = Some(since_ns);
                }
            }
        }
    }

    fn in_flight(&self, slot: usize) -> Option<(usize, i64)> {
        self.lanes.slots.get(slot).and_then(|s| s.in_flight.read())
    }

    fn device_name(&self, slot: usize, device: usize) -> String {
        let known = self.known.get(slot).and_then(|tally| tally.devices.get(device));
        known.map_or_else(|| "a device".to_owned(), |d| d.device.clone())
    }

    fn cpu_s(&self) -> f64 {
        let of_lanes: u64 = self.lanes.registry().lanes.iter().map(|l| l.cpu_ns.load(Ordering::Relaxed)).sum();
        let own = clock_gettime(ClockId::ThreadCPUTime);
        (self.ended_lanes_cpu_ns + of_lanes) as f64 / NS_PER_S + own.tv_sec as f64 + own.tv_nsec as f64 / NS_PER_S
    }

    fn keep_the_budget(&mut self, now_ns: i64) {
        if self.budget.is_none() {
            return;
        }
        let cpu_s = self.cpu_s();
        if let Some(budget) = &mut self.budget {
            if let Some(said) = budget.observe(now_ns, cpu_s) {
                self.lanes.notices.say(said);
            }
            self.lanes.doublings.store(budget.doublings(), Ordering::Relaxed);
        }
    }

    fn publish(&mut self, now_ns: i64) {
        let mut sum = Tally::default();
        for slot in 0..self.known.len() {
            let tally = self.tally_of(slot, now_ns);
            sum.merge(tally);
        }
        let mut recording = sum.into_recording(&self.host, self.t_begin_mono_ns, now_ns);
        recording.sampler_cpu_s = Some(self.cpu_s());
        recording.lanes = u32::try_from(self.most_lanes).unwrap_or(u32::MAX);
        recording.backed_off = self.budget.as_ref().and_then(CpuBudget::back_off);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = recording;
    }

    /// What a source did so far: now if it can be asked, else when it last could.
    fn tally_of(&mut self, slot: usize, now_ns: i64) -> Tally {
        let lanes = self.lanes.clone();
        let Some(known) = self.known.get_mut(slot) else { return Tally::default() };
        if let Some(station) = lanes.crashed_station(slot) {
            *known = Tally::of(&station);
            known.devices.iter_mut().for_each(|device| {
                device.gone = true;
                device.last_error.get_or_insert_with(|| "its reader has crashed".to_owned());
            });
        } else if let Some(station) = lanes.try_station(slot) {
            *known = Tally::of(&station);
        }
        let mut tally = known.clone();
        if let Some((device, since_ns)) = lanes.slots.get(slot).and_then(|s| s.in_flight.read())
            && now_ns - since_ns > HANGING_NS
            && !lanes.is_crashed(slot)
            && let Some(device) = tally.devices.get_mut(device)
        {
            device.stuck_since_mono_ns = Some(since_ns);
        }
        tally
    }

    /// Lanes end within a slice and a read; one that does not is left behind, with its source.
    fn wait_for_lanes(&mut self) {
        let clock = self.lanes.clock.clone();
        let deadline_ns = clock.now() + PATIENCE_NS;
        while self.reap() > 0 {
            if clock.now() > deadline_ns {
                for slot in 0..self.known.len() {
                    if let Some((device, _)) = self.in_flight(slot) {
                        let name = self.device_name(slot, device);
                        self.lanes
                            .notices
                            .say(format!("{name} still hangs in its driver; the recording ends without it"));
                    }
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
