//! Recordings as a whole: ring, files, summary, size.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::fake::{counter, eight, fake};
use super::{MS, S};
use crate::agent::*;
use crate::clock::{Clock, SimClock, SystemClock};
use crate::schema::{MARKS, MarkEvent, Origin, SAMPLES};
use crate::source::{CounterSource, Device, ReadError, Reading};
use crate::store::{self, Campaign, MarkRow, SampleRow};

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

#[test]
fn five_seconds_of_every_poll_a_row_wait_for_the_disk_without_loss() {
    // 8 devices at 1 kHz whose counters move at every poll: more than any device known.
    let (writer, reader) = ring(RecorderOptions::default().ring_rows);
    (0..5 * 8 * 1_000).for_each(|i| writer.push(i));
    assert_eq!(reader.lost(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: prop::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn however_pushes_and_pops_mix_order_holds_and_nothing_is_uncounted(
        bound in 1_usize..20,
        pushes in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let (writer, reader) = ring(bound);
        let (mut pushed, mut kept) = (0_u64, Vec::new());
        for push in pushes {
            if push {
                writer.push(pushed);
                pushed += 1;
            } else {
                kept.extend(reader.try_pop());
            }
        }
        kept.extend(std::iter::from_fn(|| reader.try_pop()));
        prop_assert!(kept.is_sorted());
        prop_assert_eq!(kept.len() as u64 + reader.lost(), pushed);
        prop_assert!(pushed > bound as u64 || reader.lost() == 0);
    }
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
    // The second ring is as small as can be, so that the writer cannot always keep up.
    [65_536, 1].into_iter().for_each(record_in_real_time);
}

fn record_in_real_time(ring_rows: usize) {
    let dir = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut device = counter(1, 5, 0.0, 600 * S);
    let now = clock.now();
    device.refreshes_ns.iter_mut().for_each(|t| *t += now);
    let (sources, twin) = fake(&clock, vec![device.clone(), device]);
    let stop = Arc::new(AtomicBool::new(false));
    let options = RecorderOptions { ring_rows, ..RecorderOptions::default() };
    let recorder = Recorder::start(dir.path(), sources, clock.clone(), options, stop.clone()).unwrap();
    // 150 polls of each device are 150 ms at least, however slow this machine is: 30 refreshes.
    while twin.reads() < 300 {
        clock.sleep_until(clock.now() + 5 * MS);
    }
    stop.store(true, Ordering::Release);
    let recording = recorder.finish().unwrap();
    let emitted: u64 = recording.devices.iter().map(|d| d.rows).sum();
    assert!(emitted > 2);
    assert_eq!(recording.rows + recording.lost_rows, emitted);
    assert!(recording.lost_rows == 0 || ring_rows == 1);
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
        uid: Some(1000),
        job_id: Some("77".to_owned()),
        step_id: Some("batch".to_owned()),
    };
    marks.write(&mark).unwrap();
    let read = || -> Vec<MarkRow> {
        let batches = store::read_table(dir.path(), &MARKS).unwrap();
        batches.flat_map(|b| MarkRow::from_batch(&b.unwrap()).unwrap()).collect()
    };
    assert_eq!(read(), std::slice::from_ref(&mark));
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

#[test]
fn a_driver_wrapper_that_panics_ends_the_recording_with_an_error_and_keeps_the_rows() {
    let dir = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut device = counter(1, 5, 0.0, S);
    device.panics_after_reads = Some(50);
    let (sources, _) = fake(&clock, vec![device]);
    let options = RecorderOptions::default();
    let recorder = Recorder::start(dir.path(), sources, clock, options, Arc::default()).unwrap();
    while !recorder.is_finished() {
        std::thread::yield_now();
    }
    let error = recorder.finish().unwrap_err().to_string();
    assert!(error.starts_with("the sampler thread of the recording has crashed"), "{error}");
    assert!(!rows_of(dir.path()).is_empty());
}
