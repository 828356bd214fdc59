//! The sampler against counters whose every refresh is known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, SimClock, SystemClock};
use crate::schema::{EnergySource, MARKS, MarkEvent, Origin, SAMPLES};
use crate::source::{CounterSource, Device, ReadError, Reading, Scope};
use crate::store::{self, Campaign, MarkRow, SampleRow};

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;

/// Counters that refresh at given instants: refresh number k shows k joules.
struct FakeSource {
    devices: Vec<Device>,
    clock: Arc<dyn Clock>,
    twin: Twin,
}

/// The test's hand on a [`FakeSource`] that the sampler owns.
#[derive(Clone, Default)]
struct Twin(Arc<Mutex<Vec<FakeDevice>>>);

#[derive(Clone, Default)]
struct FakeDevice {
    refreshes_ns: Vec<i64>,
    reads: u64,
    gone_from_ns: Option<i64>,
    failing_ns: Option<(i64, i64)>,
    fatal_from_ns: Option<i64>,
    power_only: bool,
    has_left: bool,
}

impl Twin {
    fn reads(&self) -> u64 {
        self.0.lock().unwrap().iter().map(|d| d.reads).sum()
    }

    fn refreshes(&self, device: usize) -> Vec<i64> {
        self.0.lock().unwrap()[device].refreshes_ns.clone()
    }
}

fn fake(clock: &Arc<dyn Clock>, devices: Vec<FakeDevice>) -> (Vec<Box<dyn CounterSource>>, Twin) {
    let twin = Twin(Arc::new(Mutex::new(devices.clone())));
    let devices = devices.iter().enumerate().map(|(i, d)| Device {
        id: format!("fake:{i}"),
        name: "fake".to_owned(),
        scope: Scope::Gpu,
        energy_source: if d.power_only { EnergySource::Power } else { EnergySource::Counter },
        counter_modulus_uj: None,
        power_limit_w: None,
        memory_bytes: None,
    });
    let source = FakeSource { devices: devices.collect(), clock: clock.clone(), twin: twin.clone() };
    (vec![Box::new(source)], twin)
}

impl CounterSource for FakeSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let now = self.clock.now();
        let device = &mut self.twin.0.lock().unwrap()[index];
        assert!(!device.has_left, "device {index} was read after it had left");
        device.reads += 1;
        if device.gone_from_ns.is_some_and(|t| now >= t) {
            device.has_left = true;
            return Err(ReadError::Gone("fell off the bus".to_owned()));
        }
        if device.fatal_from_ns.is_some_and(|t| now >= t) {
            return Err(ReadError::Fatal("driver unloaded".to_owned()));
        }
        if device.failing_ns.is_some_and(|(from, to)| (from..to).contains(&now)) {
            return Err(ReadError::Transient("busy".to_owned()));
        }
        let refreshes = device.refreshes_ns.partition_point(|t| *t <= now) as u64;
        Ok(Reading {
            energy_counter_uj: (!device.power_only).then_some(refreshes * 1_000_000),
            power_w: Some(if device.power_only { refreshes as f64 } else { 300.0 }),
            t_device_ns: None,
        })
    }
}

/// Refreshes from 0 to `until_ns`, each `period_ns` after the one before, give or take a uniform `jitter` share.
fn refreshes(seed: u64, period_ns: i64, jitter: f64, until_ns: i64) -> Vec<i64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut t = rng.random_range(0..period_ns);
    let mut all = Vec::new();
    while t < until_ns {
        all.push(t);
        t += period_ns + (period_ns as f64 * jitter * rng.random_range(-1.0..1.0)) as i64;
    }
    all
}

fn counter(seed: u64, period_ms: i64, jitter: f64, until_ns: i64) -> FakeDevice {
    FakeDevice { refreshes_ns: refreshes(seed, period_ms * MS, jitter, until_ns), ..FakeDevice::default() }
}

struct Outcome {
    rows: Vec<SampleRow>,
    twin: Twin,
    sampler: Sampler,
}

impl Outcome {
    fn of(&self, device: usize) -> Vec<&SampleRow> {
        let id = format!("fake:{device}");
        self.rows.iter().filter(|r| *r.device == *id).collect()
    }

    /// Rows whose counter differs from the row before.
    fn edges(&self, device: usize) -> Vec<&SampleRow> {
        let rows = self.of(device);
        rows.windows(2).filter(|w| w[0].energy_counter_uj != w[1].energy_counter_uj).map(|w| w[1]).collect()
    }
}

fn sample(devices: Vec<FakeDevice>, cadence: Cadence, until_ns: i64) -> Outcome {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    let (sources, twin) = fake(&clock, devices);
    let options = SamplerOptions { cadence, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(sources, clock.clone(), options);
    let mut rows = Vec::new();
    // In slices of odd length, as a simulated node advances: the result must not depend on them.
    let mut t = 0;
    while t < until_ns {
        t = (t + 37 * MS).min(until_ns);
        sampler.run_until(t, &mut |row| rows.push(row));
        assert_eq!(clock.now(), t);
    }
    Outcome { rows, twin, sampler }
}

const LOCKED: Cadence = Cadence::PhaseLocked { resolution_ns: MS };
const FIXED: Cadence = Cadence::FixedRate { poll_hz: 1_000.0 };

fn eight(until_ns: i64, jitter: f64) -> Vec<FakeDevice> {
    [20, 20, 25, 33, 50, 66, 80, 100].iter().zip(0..).map(|(p, seed)| counter(seed, *p, jitter, until_ns)).collect()
}

#[test]
fn every_bracket_contains_exactly_the_refreshes_it_claims() {
    for (cadence, jitter) in [(FIXED, 0.0), (FIXED, 0.05), (LOCKED, 0.0), (LOCKED, 0.02), (LOCKED, 0.3)] {
        let outcome = sample(eight(20 * S, jitter), cadence, 20 * S);
        for device in 0..8 {
            let truth = outcome.twin.refreshes(device);
            let rows = outcome.of(device);
            assert!(rows.len() >= 195, "{} rows", rows.len());
            for pair in rows.windows(2) {
                let [before, row] = pair else { unreachable!() };
                let moved = (row.energy_counter_uj.unwrap() - before.energy_counter_uj.unwrap()) / 1_000_000;
                let until = |t: i64| truth.partition_point(|refresh| *refresh <= t) as u64;
                let inside = until(row.t_mono_ns) - until(row.t_prev_poll_ns);
                assert_eq!(inside, moved, "bracket ({}, {}]", row.t_prev_poll_ns, row.t_mono_ns);
            }
        }
    }
}

#[test]
fn phase_locked_polling_sees_every_refresh_as_sharply_at_a_fraction_of_the_reads() {
    for (jitter, share) in [(0.0, 0.15), (0.02, 0.2), (0.05, 0.3)] {
        let fixed = sample(eight(60 * S, jitter), FIXED, 60 * S);
        let locked = sample(eight(60 * S, jitter), LOCKED, 60 * S);
        let reads = locked.twin.reads() as f64 / fixed.twin.reads() as f64;
        println!("jitter {jitter}: {reads:.3} of the reads");
        assert!(reads < share, "jitter {jitter}: {reads:.3} of the reads");
        for device in 0..8 {
            let seen = locked.edges(device);
            // The first reading is a baseline; what the counter showed then was no edge.
            let refreshed = locked.twin.refreshes(device).iter().filter(|t| **t > 0).count();
            assert!(refreshed - seen.len() <= 1, "{} of {refreshed} seen", seen.len());
            let blurred = seen.iter().filter(|r| r.t_mono_ns - r.t_prev_poll_ns > 2 * MS).count();
            assert!(blurred * 50 <= seen.len(), "device {device}: {blurred} of {} blurred", seen.len());
            let recording = &locked.sampler.device_recordings()[device];
            assert_eq!(recording.edges as usize, seen.len());
            let period_ms = [20.0, 20.0, 25.0, 33.0, 50.0, 66.0, 80.0, 100.0][device];
            let found_ms = recording.refresh_period_s.unwrap() * 1e3;
            assert!((found_ms / period_ms - 1.0).abs() < 0.02, "device {device}: {found_ms} ms");
        }
    }
}

#[test]
fn a_counter_that_changes_its_period_is_followed() {
    // 100 ms, then 20 ms, then 90 ms: what idling and waking drivers do.
    let mut all = refreshes(1, 100 * MS, 0.02, 20 * S);
    all.extend(refreshes(2, 20 * MS, 0.02, 20 * S).iter().map(|t| t + 20 * S));
    all.extend(refreshes(3, 90 * MS, 0.02, 20 * S).iter().map(|t| t + 40 * S));
    let device = FakeDevice { refreshes_ns: all, ..FakeDevice::default() };
    let outcome = sample(vec![device], LOCKED, 60 * S);
    let edges = outcome.edges(0);
    let wide = |from: i64, to: i64| {
        let inside = edges.iter().filter(|r| (from..to).contains(&r.t_mono_ns));
        let widths: Vec<_> = inside.map(|r| r.t_mono_ns - r.t_prev_poll_ns).collect();
        (widths.iter().filter(|w| **w > 2 * MS).count(), widths.len())
    };
    // Three blurred edges and it learns anew; a second after the change all is sharp again but the odd one.
    let (blurred, seen) = wide(21 * S, 40 * S);
    assert!(blurred * 50 <= seen && seen >= 940, "{blurred} of {seen}");
    let (blurred, seen) = wide(42 * S, 60 * S);
    assert!(blurred * 50 <= seen && seen >= 195, "{blurred} of {seen}");
    let found_ms = outcome.sampler.device_recordings()[0].refresh_period_s.unwrap() * 1e3;
    assert!((found_ms - 90.0).abs() < 2.0, "{found_ms}");
}

#[test]
fn a_counter_that_stands_still_has_a_heartbeat_each_second_and_is_polled_less() {
    for cadence in [FIXED, LOCKED] {
        let mut device = counter(1, 50, 0.0, 10 * S);
        device.refreshes_ns.extend(refreshes(2, 50 * MS, 0.0, 5 * S).iter().map(|t| t + 60 * S));
        let outcome = sample(vec![device], cadence, 65 * S);
        let rows = outcome.of(0);
        for pair in rows.windows(2) {
            assert!(pair[1].t_mono_ns - pair[0].t_mono_ns <= S + 10 * MS);
        }
        let silent = rows.iter().filter(|r| (11 * S..60 * S).contains(&r.t_mono_ns)).count();
        assert!((48..=50).contains(&silent), "{silent}");
        assert_eq!(
            outcome.edges(0).len() + 1,
            outcome.twin.refreshes(0).len() + usize::from(outcome.twin.refreshes(0)[0] > 0)
        );
        if cadence == LOCKED {
            assert!(outcome.twin.reads() < 12_000, "{}", outcome.twin.reads());
        }
    }
}

#[test]
fn a_device_that_left_is_never_read_again_and_the_others_go_on() {
    let mut leaving = counter(1, 20, 0.0, 10 * S);
    leaving.gone_from_ns = Some(2 * S);
    let outcome = sample(vec![leaving, counter(2, 20, 0.0, 10 * S)], LOCKED, 10 * S);
    assert!(outcome.of(0).iter().all(|r| r.t_mono_ns < 2 * S));
    assert!(outcome.edges(1).len() > 495);
    let [left, stayed] = &outcome.sampler.device_recordings()[..] else { panic!("two devices") };
    assert!(left.gone && !stayed.gone);
    assert_eq!(left.last_error.as_deref(), Some("device is gone: fell off the bus"));
    assert!(outcome.sampler.is_alive());
}

#[test]
fn a_source_that_fails_for_good_ends_all_of_its_devices() {
    let mut first = counter(1, 20, 0.0, 10 * S);
    first.fatal_from_ns = Some(2 * S);
    let outcome = sample(vec![first, counter(2, 20, 0.0, 10 * S)], FIXED, 10 * S);
    assert!(!outcome.sampler.is_alive());
    assert!(outcome.rows.iter().all(|r| r.t_mono_ns <= 2 * S));
}

#[test]
fn an_error_widens_the_bracket_and_is_counted() {
    let mut device = FakeDevice { refreshes_ns: vec![3_005 * MS + 7], ..FakeDevice::default() };
    device.failing_ns = Some((3_000 * MS, 3_010 * MS));
    let outcome = sample(vec![device], FIXED, 5 * S);
    let [edge] = outcome.edges(0)[..] else { panic!("one edge") };
    // Outward to multiples of 8192 ns: 2999 ms is 366088.87 of them, 3010 ms is 367431.64.
    assert_eq!((edge.t_prev_poll_ns, edge.t_mono_ns), (366_088 * 8_192, 367_432 * 8_192));
    assert_eq!(outcome.sampler.device_recordings()[0].read_errors, 10);
}

#[test]
fn a_device_without_a_counter_gives_power_at_every_change() {
    let mut device = counter(1, 100, 0.0, 5 * S);
    device.power_only = true;
    let outcome = sample(vec![device, counter(2, 100, 0.0, 5 * S)], LOCKED, 5 * S);
    let power = outcome.of(0);
    assert!(power.len() >= 50);
    assert!(power.iter().all(|r| r.energy_counter_uj.is_none() && r.power_w.is_some()));
    assert!(power.iter().all(|r| r.source == EnergySource::Power));
    // Beside a counter, once a second is enough.
    assert_eq!(outcome.of(1).iter().filter(|r| r.power_w.is_some()).count(), 5);
}

#[test]
fn the_ring_keeps_order_and_kept_plus_lost_is_pushed() {
    let (writer, reader) = ring(100);
    (0..100).for_each(|i| writer.push(i));
    assert_eq!(reader.lost(), 0);
    (100..130).for_each(|i| writer.push(i));
    assert_eq!(reader.lost(), 30);
    (0..10).for_each(|i| assert_eq!(reader.try_pop(), Some(i)));
    (200..220).for_each(|i| writer.push(i));
    assert_eq!(reader.lost(), 40);
    let rest: Vec<i32> = std::iter::from_fn(|| reader.try_pop()).collect();
    assert_eq!(rest, (10..100).chain(200..210).collect::<Vec<_>>());
    drop(reader);
    writer.push(1); // Nobody will ever read it; it must not block either.
}

fn rows_of(dir: &std::path::Path) -> Vec<SampleRow> {
    let batches = store::read_table(dir, &SAMPLES).unwrap();
    batches.flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap()).collect()
}

#[test]
fn a_recording_under_virtual_time_is_sealed_with_its_summary() {
    let dir = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    let (sources, _) = fake(&clock, eight(100 * S, 0.02));
    let options = RecorderOptions { host: "n".to_owned(), segment_rows: 10_000, ..RecorderOptions::default() };
    let mut recorder = VirtualRecorder::start(dir.path(), sources, clock, options).unwrap();
    (1..=100).for_each(|s| recorder.run_until(s * S).unwrap());
    let recording = recorder.finish().unwrap();
    assert_eq!(recording.lost_rows, 0);
    assert_eq!(recording.files.len(), 2, "{}", recording.rows);
    let rows = rows_of(dir.path());
    assert_eq!(rows.len() as u64, recording.rows);
    for device in 0..8 {
        let id = format!("fake:{device}");
        let own: Vec<_> = rows.iter().filter(|r| *r.device == *id).collect();
        assert!(own.is_sorted_by_key(|r| r.t_mono_ns), "one device's rows are in time order over all segments");
    }
    let meta = store::read_metadata(recording.files.last().unwrap()).unwrap();
    let stored: Recording = serde_json::from_str(&meta.extra["recording"]).unwrap();
    assert_eq!((stored.rows, stored.polls, &stored.devices), (recording.rows, recording.polls, &recording.devices));
}

#[test]
fn a_recording_in_real_time_keeps_every_row_it_does_not_count_as_lost() {
    let dir = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now();
    let mut device = counter(1, 5, 0.0, 3600 * S);
    device.refreshes_ns.iter_mut().for_each(|t| *t += now);
    let (sources, _) = fake(&clock, vec![device.clone(), device]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder =
        Recorder::start(dir.path(), sources, clock.clone(), RecorderOptions::default(), stop.clone()).unwrap();
    clock.sleep_until(now + 300 * MS);
    stop.store(true, Ordering::Release);
    let recording = recorder.finish().unwrap();
    let emitted: u64 = recording.devices.iter().map(|d| d.rows).sum();
    assert!(emitted > 2);
    assert_eq!(recording.rows + recording.lost_rows, emitted);
    let rows = rows_of(dir.path());
    assert_eq!(rows.len() as u64, recording.rows);
    assert!(rows.iter().all(|r| r.t_prev_poll_ns < r.t_mono_ns));
    assert!(recording.sampler_cpu_s.unwrap() > 0.0);
}

#[test]
fn marks_are_readable_the_moment_they_are_written() {
    let dir = TempDir::new().unwrap();
    let clock = SimClock::starting_at(0);
    let meta = store::FileMetadata::of_host("n", crate::clock::ClockAnchor::now(&clock));
    let mut marks = MarkWriter::create(dir.path(), "n", &meta).unwrap();
    let mark = MarkRow {
        t_mono_ns: 5,
        run_id: "a-0".to_owned(),
        phase: "prefill".to_owned(),
        event: MarkEvent::Begin,
        source: Origin::Measured,
    };
    marks.write(&mark).unwrap();
    let read = || -> Vec<MarkRow> {
        let batches = store::read_table(dir.path(), &MARKS).unwrap();
        batches.flat_map(|b| MarkRow::from_batch(&b.unwrap()).unwrap()).collect()
    };
    assert_eq!(read(), [mark.clone()]);
    assert!(marks.seal().unwrap().is_some());
    assert_eq!(read(), [mark]);
    assert!(Campaign::open(dir.path()).is_ok());
}

/// A clock on which waking up takes some time and every look at it too, as on a real machine.
struct HastyClock(Mutex<(i64, ChaCha8Rng)>);

impl Clock for HastyClock {
    fn now(&self) -> i64 {
        let (now, rng) = &mut *self.0.lock().unwrap();
        *now += rng.random_range(800..4_000);
        *now
    }

    fn sleep_until(&self, t_mono_ns: i64) {
        let (now, rng) = &mut *self.0.lock().unwrap();
        let latency = 52_000.0 - 12_000.0 * rng.random_range(1e-6_f64..1.0).ln();
        *now = (*now).max(t_mono_ns + latency as i64);
    }
}

/// A GPU whose power wanders between 250 and 400 W with 2 % of noise, counted in whole millijoules.
struct Wandering {
    devices: Vec<Device>,
    clock: Arc<HastyClock>,
    rng: ChaCha8Rng,
    /// Next refresh, energy in microjoules, counter, power.
    state: Vec<(i64, f64, u64, f64)>,
}

impl CounterSource for Wandering {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let now = self.clock.0.lock().unwrap().0;
        let period = [20, 20, 25, 33, 50, 66, 80, 100][index] * MS;
        let (next, energy, counter, power) = &mut self.state[index];
        while *next <= now {
            let interval = period + (period as f64 * 0.02 * self.rng.random_range(-1.0..1.0)) as i64;
            *power = (*power + self.rng.random_range(-3.0..3.0)).clamp(250.0, 400.0);
            *energy += *power * self.rng.random_range(0.98..1.02) * interval as f64 / 1e3;
            *counter = (*energy / 1e3) as u64 * 1_000;
            *next += interval;
        }
        let milliwatts = (*power * 1e3).round();
        Ok(Reading { energy_counter_uj: Some(*counter), power_w: Some(milliwatts / 1e3), t_device_ns: None })
    }
}

#[test]
fn a_sample_of_eight_devices_costs_at_most_six_bytes() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(HastyClock(Mutex::new((7 * S, ChaCha8Rng::seed_from_u64(1)))));
    let (_, twin) = fake(&(clock.clone() as Arc<dyn Clock>), eight(S, 0.0));
    let devices = fake(&(clock.clone() as Arc<dyn Clock>), twin.0.lock().unwrap().clone()).0[0].devices().to_vec();
    let state = (0..8).map(|i| (7 * S, 1e15 + 3e13 * i as f64, 0, 300.0)).collect();
    let source = Wandering { devices, clock: clock.clone(), rng: ChaCha8Rng::seed_from_u64(2), state };
    let options = RecorderOptions { host: "n".to_owned(), ..RecorderOptions::default() };
    let mut recorder = VirtualRecorder::start(dir.path(), vec![Box::new(source)], clock, options).unwrap();
    (1..=300).for_each(|s| recorder.run_until((7 + s) * S).unwrap());
    let recording = recorder.finish().unwrap();
    let bytes = std::fs::metadata(&recording.files[0]).unwrap().len();
    let per_row = bytes as f64 / recording.rows as f64;
    println!("{bytes} bytes, {} rows, {per_row:.2} bytes per row", recording.rows);
    assert!(per_row <= 6.0, "{per_row:.2} bytes per row");
}
