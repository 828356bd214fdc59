//! Lanes in real time, against drivers that block, hang and crash. Nothing here asserts how long anything takes: tests
//! wait for counts, with limits that only a machine that stands still exceeds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::MS;
use crate::agent::*;
use crate::clock::SystemClock;
use crate::schema::{EnergySource, SAMPLES};
use crate::source::{CounterSource, Device, ReadError, Reading, Scope};
use crate::store::{self, SampleRow};

/// How one fake driver behaves, and what it saw; shared by the source and its test.
#[derive(Default)]
struct Driver {
    reads: AtomicU64,
    inside: AtomicBool,
    overlaps: AtomicU64,
    block: Mutex<Option<Duration>>,
    /// Whether the next read hangs until this is false again.
    hangs: Mutex<bool>,
    released: Condvar,
    is_hanging: AtomicBool,
    panics: AtomicBool,
}

impl Driver {
    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    fn hang(&self) {
        *self.hangs.lock().unwrap() = true;
    }

    fn release(&self) {
        *self.hangs.lock().unwrap() = false;
        self.released.notify_all();
    }

    fn blocking(block: Duration) -> Self {
        Self { block: Mutex::new(Some(block)), ..Self::default() }
    }
}

struct FakeSource {
    devices: Vec<Device>,
    driver: Arc<Driver>,
    /// Reads that are under way at the same time, over all sources, and the most of them.
    together: Arc<(AtomicU64, AtomicU64)>,
}

impl CounterSource for FakeSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, _: usize) -> Result<Reading, ReadError> {
        let driver = &self.driver;
        driver.overlaps.fetch_add(u64::from(driver.inside.swap(true, Ordering::AcqRel)), Ordering::AcqRel);
        let now_inside = 1 + self.together.0.fetch_add(1, Ordering::AcqRel);
        self.together.1.fetch_max(now_inside, Ordering::AcqRel);
        if let Some(block) = *driver.block.lock().unwrap() {
            std::thread::sleep(block);
        }
        let mut hangs = driver.hangs.lock().unwrap();
        while *hangs {
            driver.is_hanging.store(true, Ordering::Release);
            hangs = driver.released.wait(hangs).unwrap();
        }
        drop(hangs);
        driver.is_hanging.store(false, Ordering::Release);
        assert!(!driver.panics.load(Ordering::Acquire), "a bug in the wrapper, on purpose");
        self.together.0.fetch_sub(1, Ordering::AcqRel);
        driver.inside.store(false, Ordering::Release);
        // Every read finds another value, so that every read is a row.
        let reads = 1 + driver.reads.fetch_add(1, Ordering::AcqRel);
        Ok(Reading { energy_counter_uj: Some(reads * 1_000), power_w: None, t_device_ns: None })
    }
}

struct Bench {
    drivers: Vec<Arc<Driver>>,
    together: Arc<(AtomicU64, AtomicU64)>,
    dir: TempDir,
    recorder: Recorder,
}

impl Bench {
    fn new(drivers: Vec<Driver>, poll_hz: f64) -> Self {
        let drivers: Vec<Arc<Driver>> = drivers.into_iter().map(Arc::new).collect();
        let together = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let source = |(i, driver): (usize, &Arc<Driver>)| -> Box<dyn CounterSource> {
            let device = Device {
                id: format!("fake:{i}"),
                name: "fake".to_owned(),
                scope: Scope::Gpu,
                energy_source: EnergySource::Counter,
                counter_modulus_uj: None,
                counter_step_uj: None,
                power_limit_w: None,
                memory_bytes: None,
            };
            Box::new(FakeSource { devices: vec![device], driver: driver.clone(), together: together.clone() })
        };
        let sources = drivers.iter().enumerate().map(source).collect();
        let dir = TempDir::new().unwrap();
        let cadence = Cadence::FixedRate { poll_hz };
        let options =
            RecorderOptions { sampler: SamplerOptions { cadence, ..Default::default() }, ..RecorderOptions::default() };
        let recorder = Recorder::start(dir.path(), sources, Arc::new(SystemClock), options, Arc::default()).unwrap();
        Self { drivers, together, dir, recorder }
    }

    /// Waits until every driver but `except` has been read `more` times more.
    fn everybody_else_goes_on(&self, except: usize, more: u64) {
        let others = || self.drivers.iter().enumerate().filter(|(i, _)| *i != except).map(|(_, d)| d.reads());
        let goals: Vec<u64> = others().map(|reads| reads + more).collect();
        wait_until("all others to be read on", || others().zip(&goals).all(|(reads, goal)| reads >= *goal));
    }

    fn finish(self) -> (Recording, Vec<SampleRow>) {
        let recording = self.recorder.finish().unwrap();
        for (i, driver) in self.drivers.iter().enumerate() {
            assert_eq!(driver.overlaps.load(Ordering::Acquire), 0, "source {i} was read by two threads at once");
        }
        let batches = store::read_table(self.dir.path(), &SAMPLES).unwrap();
        let rows: Vec<SampleRow> = batches.flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap()).collect();
        assert_eq!(rows.len() as u64, recording.rows);
        assert_eq!(recording.lost_rows, 0);
        for device in &recording.devices {
            let own: Vec<&SampleRow> = rows.iter().filter(|r| *r.device == device.device).collect();
            assert!(own.is_sorted_by_key(|r| (r.t_mono_ns, r.energy_counter_uj)), "{} in order", device.device);
        }
        (recording, rows)
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn quick_sources_share_one_thread() {
    let bench = Bench::new((0..8).map(|_| Driver::default()).collect(), 200.0);
    bench.everybody_else_goes_on(usize::MAX, 50);
    let overlapped = bench.together.1.load(Ordering::Acquire) > 1;
    let (recording, rows) = bench.finish();
    // A machine that stands still inside of a read may have split them, and the summary says so.
    assert!(recording.lanes == 1 || recording.devices.iter().any(|d| d.longest_read_ns > 1_000_000));
    assert!(recording.lanes > 1 || !overlapped);
    assert!(rows.len() >= 8 * 50);
}

#[test]
fn reads_that_block_are_spread_over_threads() {
    // 2 ms x 8 do not fit into 5 ms; one after the other they could not overlap at all.
    let bench = Bench::new((0..8).map(|_| Driver::blocking(Duration::from_millis(2))).collect(), 200.0);
    wait_until("six reads at once", || bench.together.1.load(Ordering::Acquire) >= 6);
    let (recording, _) = bench.finish();
    assert!((6..=8).contains(&recording.lanes), "{} lanes", recording.lanes);
    assert!(recording.devices.iter().all(|d| d.longest_read_ns >= 2_000_000));
}

#[test]
fn a_hung_read_holds_up_nobody_and_the_recording_ends_without_it() {
    let bench = Bench::new((0..4).map(|_| Driver::default()).collect(), 200.0);
    bench.everybody_else_goes_on(usize::MAX, 20);
    let hung = bench.drivers[1].clone();
    hung.hang();
    wait_until("the hang", || hung.is_hanging.load(Ordering::Acquire));
    let reads = hung.reads();
    bench.everybody_else_goes_on(1, 300);
    assert_eq!(hung.reads(), reads);
    wait_until("a word about it", || {
        bench.recorder.take_notices().iter().any(|n| n.starts_with("fake:1 has not answered for"))
    });
    let drivers = bench.drivers.clone();
    let (recording, rows) = bench.finish();
    let stuck: Vec<bool> = recording.devices.iter().map(|d| d.stuck_since_mono_ns.is_some()).collect();
    assert_eq!(stuck, [false, true, false, false]);
    assert!((2..=4).contains(&recording.lanes), "{} lanes", recording.lanes);
    for (i, driver) in drivers.iter().enumerate() {
        // Whatever was read has become a row, but for a read that ends after the seal.
        let own = rows.iter().filter(|r| *r.device == format!("fake:{i}")).count() as u64;
        assert_eq!(own, driver.reads(), "device {i}");
    }
    hung.release();
}

#[test]
fn a_source_that_hung_is_read_again_once_it_answers() {
    let bench = Bench::new((0..3).map(|_| Driver::default()).collect(), 200.0);
    let hung = bench.drivers[0].clone();
    for round in 1..=2 {
        hung.hang();
        wait_until("the hang", || hung.is_hanging.load(Ordering::Acquire));
        bench.everybody_else_goes_on(0, 50);
        let reads = hung.reads();
        hung.release();
        wait_until("its next reads", || hung.reads() >= reads + 50 * round);
    }
    let (recording, _) = bench.finish();
    assert!(recording.devices.iter().all(|d| d.stuck_since_mono_ns.is_none()));
    assert!(recording.devices[0].longest_read_ns > 20 * MS.unsigned_abs());
}

#[test]
fn every_source_may_hang_and_each_keeps_a_thread_at_most() {
    let bench = Bench::new((0..4).map(|_| Driver::default()).collect(), 200.0);
    for i in 0..3 {
        bench.drivers[i].hang();
        wait_until("the hang", || bench.drivers[i].is_hanging.load(Ordering::Acquire));
    }
    let goal = bench.drivers[3].reads() + 100;
    wait_until("the last one to go on", || bench.drivers[3].reads() >= goal);
    bench.drivers.iter().for_each(|d| d.release());
    bench.everybody_else_goes_on(usize::MAX, 50);
    let (recording, _) = bench.finish();
    assert!(recording.lanes <= 4, "{} lanes", recording.lanes);
}

#[test]
fn a_reader_that_crashes_costs_its_own_source_only() {
    let bench = Bench::new((0..3).map(|_| Driver::default()).collect(), 200.0);
    bench.everybody_else_goes_on(usize::MAX, 10);
    bench.drivers[2].panics.store(true, Ordering::Release);
    bench.everybody_else_goes_on(2, 100);
    // Of the crash itself the supervisor speaks within its next look.
    wait_until("a word about it", || {
        bench.recorder.take_notices().iter().any(|n| n.starts_with("a reader has crashed"))
    });
    bench.everybody_else_goes_on(2, 100);
    let (recording, _) = bench.finish();
    let gone: Vec<bool> = recording.devices.iter().map(|d| d.gone).collect();
    assert_eq!(gone, [false, false, true]);
    assert_eq!(recording.devices[2].last_error.as_deref(), Some("its reader has crashed"));
}

#[test]
fn sources_that_stall_at_random_are_never_read_twice_at_once_and_lose_no_row() {
    let bench = Bench::new((0..5).map(|_| Driver::default()).collect(), 1_000.0);
    for round in 0..40_u64 {
        let driver = &bench.drivers[(round * 7 % 5) as usize];
        *driver.block.lock().unwrap() = Some(Duration::from_millis(round * 13 % 60));
        std::thread::sleep(Duration::from_millis(round * 29 % 50));
        *driver.block.lock().unwrap() = None;
    }
    bench.everybody_else_goes_on(usize::MAX, 20);
    let drivers = bench.drivers.clone();
    let (recording, rows) = bench.finish();
    assert!(recording.lanes <= 5, "{} lanes", recording.lanes);
    let reads: u64 = drivers.iter().map(|d| d.reads()).sum();
    assert_eq!((rows.len() as u64, recording.polls, recording.edges + 5), (reads, reads, reads));
}
