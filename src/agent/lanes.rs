//! Lanes: threads that poll, and the rule by which sources move between them.
//!
//! All sources start in one lane, the *home* lane, because one wake-up for all is cheapest. A source that turns out
//! slow leaves for a lane of its own; when a read hangs, the others of its lane leave. What was calm for long comes home.
//!
//! ```text
//! lane 0 (home)  [a][b][c][d]      b reads slowly:  lane 0 [a][c][d]   lane 1 [b]
//!                                  c hangs:         lane 0 [c]  lane 2 (home) [a][d]
//! ```
//!
//! Why this is right. A source is read only by a thread that holds its station's lock *and* is named by the station's
//! `owner`, which changes only under that lock: so one thread at a time reads it, and a lane that lost a source notices
//! before it reads it again. Whoever moves a source only *tries* the lock, and a reader holds it through the read: so
//! the source that hangs stays with the lane it hangs in, and nobody waits for it. Sources partition into lanes and
//! a lane without one ends (decided under `registry`, under which alone sources are given away): so there are at most as
//! many lanes as sources, and none waits in vain.

mod thread;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread::JoinHandle;

use self::thread::{Held, run_lane};
use super::job::JobWatch;
use super::notices::Notices;
use super::ring::RingWriter;
use super::sampler::SamplerOptions;
use super::schedule::step_ns;
use super::standing::Standing;
use super::station::{InFlight, Station};
use crate::clock::Clock;
use crate::store::SampleRow;
use crate::units::NS_PER_MS;

/// Sources of one lane may take this share of the poll distance together; beyond, the slowest leaves.
const CROWDED: f64 = 0.25;
/// What comes home must leave the lane this empty: half of the above, so that nothing goes to and fro.
const ROOMY: f64 = 0.125;
/// Calm before a source comes home the first time; doubles with each departure, up to 64 times.
const CALM_NS: i64 = 60_000 * NS_PER_MS;
/// Owner of a source that no lane reads any more.
const NOBODY: usize = usize::MAX;

/// One source and who reads it.
pub(super) struct Slot {
    station: Mutex<Station>,
    owner: AtomicUsize,
    departures: AtomicU32,
    pub(super) in_flight: Arc<InFlight>,
}

/// One thread that polls.
pub(super) struct Lane {
    pub(super) id: usize,
    pub(super) thread: JoinHandle<()>,
    pub(super) cpu_ns: Arc<AtomicU64>,
}

#[derive(Default)]
pub(super) struct Registry {
    pub(super) lanes: Vec<Lane>,
    pub(super) home: Option<usize>,
    next_id: usize,
}

/// What all lanes of a recording share.
pub(super) struct Lanes {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: SamplerOptions,
    pub(super) slots: Vec<Slot>,
    pub(super) stop: Arc<AtomicBool>,
    /// Doublings of the poll distance that the budget asks for.
    pub(super) doublings: AtomicU32,
    pub(super) notices: Notices,
    pub(super) jobs: JobWatch,
    standing: Standing,
    /// Weak: a lane that hangs for ever must not keep the writer waiting for its rows.
    ring: Weak<RingWriter<SampleRow>>,
    registry: Mutex<Registry>,
    /// Counts moves of sources, so that a lane learns of one by a look at a number.
    moves: AtomicU64,
}

impl Lanes {
    pub(super) fn new(
        stations: Vec<Station>,
        clock: Arc<dyn Clock>,
        options: SamplerOptions,
        standing: Standing,
        ring: Weak<RingWriter<SampleRow>>,
        stop: Arc<AtomicBool>,
        notices: Notices,
    ) -> Self {
        let slot = |station: Station| Slot {
            in_flight: station.in_flight(),
            station: Mutex::new(station),
            owner: AtomicUsize::new(NOBODY),
            departures: AtomicU32::new(0),
        };
        Self {
            clock,
            options,
            slots: stations.into_iter().map(slot).collect(),
            stop,
            doublings: AtomicU32::new(0),
            notices,
            jobs: JobWatch::default(),
            standing,
            ring,
            registry: Mutex::default(),
            moves: AtomicU64::new(0),
        }
    }

    /// The same, with rows that name the job on the node.
    pub(super) fn labelling(self, jobs: JobWatch) -> Self {
        Self { jobs, ..self }
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn owner(&self, slot: usize) -> usize {
        self.slots.get(slot).map_or(NOBODY, |s| s.owner.load(Ordering::Acquire))
    }

    /// The sources that `lane` reads.
    fn owned_by(&self, lane: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots.len()).filter(move |slot| self.owner(*slot) == lane)
    }

    /// Tries to lock a station; `None` while it is being read or looked at, and for good after its reader has panicked.
    pub(super) fn try_station(&self, slot: usize) -> Option<MutexGuard<'_, Station>> {
        self.slots.get(slot).and_then(|s| s.station.try_lock().ok())
    }

    /// A station as its reader left it when it panicked.
    pub(super) fn crashed_station(&self, slot: usize) -> Option<MutexGuard<'_, Station>> {
        match self.slots.get(slot)?.station.try_lock() {
            Err(TryLockError::Poisoned(left)) => Some(left.into_inner()),
            Ok(_) | Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn is_crashed(&self, slot: usize) -> bool {
        self.slots.get(slot).is_none_or(|s| s.station.is_poisoned())
    }

    /// Starts a lane and gives it those of `wanted` that `from` owns and nobody is reading. Under the registry's lock, so
    /// that the new lane cannot end for want of sources before it has them.
    pub(super) fn start_lane(
        self: &Arc<Self>,
        registry: &mut Registry,
        from: usize,
        wanted: impl Iterator<Item = usize>,
    ) -> std::io::Result<usize> {
        let id = registry.next_id;
        let cpu_ns = Arc::new(AtomicU64::new(0));
        let (lanes, meter) = (self.clone(), cpu_ns.clone());
        let thread =
            std::thread::Builder::new().name(format!("el-lane-{id}")).spawn(move || run_lane(&lanes, id, &meter))?;
        registry.next_id += 1;
        registry.lanes.push(Lane { id, thread, cpu_ns });
        for slot in wanted {
            self.give(slot, from, id);
        }
        self.moves.fetch_add(1, Ordering::Release);
        Ok(id)
    }

    /// Starts the first lane, with all sources.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let mut registry = self.registry();
        let home = self.start_lane(&mut registry, NOBODY, 0..self.slots.len())?;
        registry.home = Some(home);
        Ok(())
    }

    /// Changes the owner, if it is `from` and nobody is reading.
    fn give(&self, slot: usize, from: usize, to: usize) -> bool {
        let (Some(_locked), Some(slot)) = (self.try_station(slot), self.slots.get(slot)) else { return false };
        slot.owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The read of `stuck` hangs: the other sources of its lane go on in a new one.
    pub(super) fn rescue(self: &Arc<Self>, stuck: usize) {
        let mut registry = self.registry();
        let lane = self.owner(stuck);
        let others: Vec<usize> = self.owned_by(lane).filter(|slot| *slot != stuck).collect();
        if lane == NOBODY || others.is_empty() {
            return;
        }
        if let Some(slot) = self.slots.get(stuck) {
            slot.departures.fetch_add(1, Ordering::Relaxed);
        }
        match self.start_lane(&mut registry, lane, others.into_iter()) {
            Ok(new) if registry.home == Some(lane) => registry.home = Some(new),
            Ok(_) => {}
            Err(e) => self.notices.say(format!("cannot start a thread to go on beside a driver call that hangs: {e}")),
        }
    }

    /// A lane has panicked: what it was reading is not read again, its other sources go on in a new lane.
    pub(super) fn bury(self: &Arc<Self>, registry: &mut Registry, lane: usize) {
        let (crashed, others): (Vec<usize>, Vec<usize>) = self.owned_by(lane).partition(|slot| self.is_crashed(*slot));
        for slot in crashed.iter().filter_map(|slot| self.slots.get(*slot)) {
            slot.owner.store(NOBODY, Ordering::Release);
        }
        registry.home = registry.home.filter(|home| *home != lane);
        if others.is_empty() {
            return;
        }
        match self.start_lane(registry, lane, others.into_iter()) {
            Ok(new) => registry.home = registry.home.or(Some(new)),
            Err(e) => self.notices.say(format!("cannot start a thread in place of one that crashed: {e}")),
        }
    }

    /// Sends the slowest sources of a lane away until the rest fits into the poll distance.
    fn thin_out(self: &Arc<Self>, lane: usize, held: &[Held], now_ns: i64) {
        if held.len() < 2 {
            return;
        }
        let mut by_cost: Vec<(usize, f64, bool)> = held
            .iter()
            .filter_map(|h| self.try_station(h.slot).map(|s| (h.slot, s.sweep_ns(), s.is_slow(now_ns))))
            .collect();
        by_cost.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.total_cmp(&a.1)));
        let allowed_ns = self.step_ns() * CROWDED;
        let mut load_ns: f64 = by_cost.iter().map(|(_, sweep_ns, _)| sweep_ns).sum();
        let staying = 1;
        let mut left = by_cost.len();
        for (slot, sweep_ns, is_slow) in by_cost {
            if left <= staying || !(is_slow || load_ns > allowed_ns) {
                return;
            }
            let mut registry = self.registry();
            if let Err(e) = self.start_lane(&mut registry, lane, std::iter::once(slot)) {
                return self.notices.say(format!("cannot start a thread for a slow source: {e}"));
            }
            if let Some(slot) = self.slots.get(slot) {
                slot.departures.fetch_add(1, Ordering::Relaxed);
            }
            load_ns -= sweep_ns;
            left -= 1;
        }
    }

    /// Sends the only source of a lane home, if it was calm for long and there is room; whether it went.
    fn go_home(&self, lane: usize, held: &Held, calm_ns: i64) -> bool {
        let departures = self.slots.get(held.slot).map_or(0, |s| s.departures.load(Ordering::Relaxed));
        if calm_ns < CALM_NS << departures.saturating_sub(1).min(6) {
            return false;
        }
        let mut registry = self.registry();
        let home = *registry.home.get_or_insert(lane);
        if home == lane {
            return false;
        }
        let sweep_ns = |slot: usize| self.try_station(slot).map_or(f64::INFINITY, |s| s.sweep_ns());
        let load_ns: f64 = self.owned_by(home).chain(std::iter::once(held.slot)).map(sweep_ns).sum();
        let goes = load_ns < self.step_ns() * ROOMY && self.give(held.slot, lane, home);
        if goes {
            self.moves.fetch_add(1, Ordering::Release);
        }
        goes
    }

    fn step_ns(&self) -> f64 {
        (step_ns(self.options.cadence) << self.doublings.load(Ordering::Relaxed)) as f64
    }

    /// Whether `lane` may end: it owns nothing, and nobody can give it anything any more.
    fn may_end(&self, lane: usize) -> bool {
        let mut registry = self.registry();
        let empty = self.owned_by(lane).next().is_none();
        if empty {
            registry.home = registry.home.filter(|home| *home != lane);
        }
        empty
    }
}

#[cfg(test)]
mod tests {
    use super::thread::{Polled, poll};
    use super::*;
    use crate::agent::ring;
    use crate::agent::sampler::stations;
    use crate::clock::SimClock;
    use crate::source::{CounterSource, Device, ReadError, Reading, Scope};

    struct Quiet(Vec<Device>);

    impl CounterSource for Quiet {
        fn devices(&self) -> &[Device] {
            &self.0
        }

        fn read(&mut self, _: usize) -> Result<Reading, ReadError> {
            Ok(Reading { energy_counter_uj: Some(1), ..Reading::default() })
        }
    }

    /// Sources without threads: the home lane 0 owns all but the last, which lane 1 owns.
    fn lanes(count: usize) -> Lanes {
        let device = |i: usize| Device {
            id: format!("quiet:{i}"),
            name: String::new(),
            scope: Scope::Gpu,
            energy_source: crate::schema::EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        };
        let sources = (0..count).map(|i| Box::new(Quiet(vec![device(i)])) as Box<dyn CounterSource>).collect();
        let options = SamplerOptions::default();
        let ring = Arc::downgrade(&Arc::new(ring(1).0));
        let lanes = Lanes::new(
            stations(sources, &options, 0),
            Arc::new(SimClock::default()),
            options,
            Standing::default(),
            ring,
            Arc::default(),
            Notices::default(),
        );
        (0..count).for_each(|slot| assert!(lanes.give(slot, NOBODY, usize::from(slot + 1 == count))));
        lanes.registry().home = Some(0);
        lanes
    }

    fn polled(lanes: &Lanes, id: usize, slot: usize) -> bool {
        matches!(poll(lanes, id, slot, 0, &mut 0, 0, &|_| {}), Polled::Next(_))
    }

    #[test]
    fn only_the_owner_reads() {
        let lanes = lanes(2);
        assert!(polled(&lanes, 0, 0) && polled(&lanes, 1, 1));
        assert!(!polled(&lanes, 1, 0) && !polled(&lanes, 0, 1) && !polled(&lanes, 0, 7));
        assert!(lanes.give(0, 0, 1));
        assert!(!polled(&lanes, 0, 0) && polled(&lanes, 1, 0));
    }

    #[test]
    fn what_is_being_read_cannot_be_given_away_nor_by_anybody_but_its_owner() {
        let lanes = lanes(2);
        let reading = lanes.try_station(0).unwrap();
        assert!(!lanes.give(0, 0, 1));
        drop(reading);
        assert!(!lanes.give(0, 1, 2));
        assert!(lanes.give(0, 0, 1));
    }

    #[test]
    fn a_source_comes_home_after_a_calm_that_doubles_with_each_departure() {
        let lanes = lanes(3);
        let held = Held { slot: 2, due_ns: 0 };
        assert!(!lanes.go_home(1, &held, CALM_NS - 1));
        lanes.slots[2].departures.store(2, Ordering::Relaxed);
        assert!(!lanes.go_home(1, &held, 2 * CALM_NS - 1));
        assert!(lanes.go_home(1, &held, 2 * CALM_NS));
        assert_eq!(lanes.owned_by(0).count(), 3);
        assert!(lanes.may_end(1) && !lanes.may_end(0));
    }

    #[test]
    fn a_slow_source_stays_away_and_the_last_home_is_taken_over() {
        let lanes = lanes(2);
        let held = Held { slot: 1, due_ns: 0 };
        // Home is busy in a read: what that costs is not known, so there is no room.
        let reading = lanes.try_station(0).unwrap();
        assert!(!lanes.go_home(1, &held, i64::MAX));
        drop(reading);
        lanes.slots[0].owner.store(NOBODY, Ordering::Release);
        assert!(lanes.may_end(0));
        assert_eq!(lanes.registry().home, None);
        assert!(!lanes.go_home(1, &held, i64::MAX), "it is home now itself");
        assert_eq!(lanes.registry().home, Some(1));
    }
}
