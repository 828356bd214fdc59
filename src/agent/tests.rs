//! The sampler against counters whose every refresh is known.

pub(super) mod fake;
mod lanes;
mod recording;

use std::sync::Arc;

use fake::{FakeDevice, Twin, counter, eight, fake, refreshes};

use super::*;
use crate::clock::{Clock, SimClock};
use crate::schema::EnergySource;
use crate::store::SampleRow;

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;

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
fn a_period_that_drifts_is_tracked() {
    // 20 ms for 10 s, then 25 ms; and 20 ms that become 25 ms little by little.
    let mut stepped = refreshes(1, 20 * MS, 0.02, 10 * S);
    stepped.extend(refreshes(2, 25 * MS, 0.02, 10 * S).iter().map(|t| t + 10 * S));
    let (mut t, mut drifting) = (0, Vec::new());
    while t < 20 * S {
        drifting.push(t);
        t += 20 * MS + 5 * MS * t / (20 * S);
    }
    for (refreshes_ns, late_ms) in [(stepped, 25.0), (drifting, 24.6)] {
        let device = FakeDevice { refreshes_ns, ..FakeDevice::default() };
        let outcome = sample(vec![device], LOCKED, 20 * S);
        let edges = outcome.edges(0);
        let blurred = edges.iter().filter(|r| r.t_mono_ns - r.t_prev_poll_ns > 2 * MS).count();
        assert!(blurred * 50 <= edges.len(), "{blurred} of {} blurred", edges.len());
        // The last 64 intervals are 1.6 s: the slow drift moved by 0.4 ms meanwhile.
        let found_ms = outcome.sampler.device_recordings()[0].refresh_period_s.unwrap() * 1e3;
        assert!((found_ms - late_ms).abs() < 0.4, "{found_ms}");
        // Fewer than a third of the polls of a dense schedule.
        assert!(outcome.twin.reads() < 7_000, "{}", outcome.twin.reads());
    }
}

#[test]
fn a_sampler_above_its_budget_polls_less_and_says_so() {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    let (sources, twin) = fake(&clock, eight(100 * S, 0.0));
    let options = SamplerOptions { cadence: FIXED, max_cpu_share: Some(0.01), ..SamplerOptions::default() };
    // A read costs 5 us: 8 devices at 1 kHz are 4 % of a core, 2 % at 500 Hz, and 1 % is not above 1 % at 250 Hz.
    let meter = twin.clone();
    let mut sampler =
        Sampler::new(sources, clock, options).with_cpu_meter(Box::new(move || meter.reads() as f64 * 4.9e-6));
    (1..=90).for_each(|s| sampler.run_until(s * S, &mut |_| {}));
    assert_eq!(sampler.back_off(), Some(BackOff { step_ns: 4 * MS, back_offs: 2 }));
    let before = twin.reads();
    sampler.run_until(100 * S, &mut |_| {});
    assert_eq!(twin.reads() - before, 10 * 8 * 250);
}

#[test]
fn polls_that_come_late_and_instants_that_passed_are_counted() {
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    let (sources, _) = fake(&clock, vec![counter(1, 20, 0.0, S)]);
    let mut sampler = Sampler::new(sources, clock.clone(), SamplerOptions { cadence: FIXED, ..Default::default() });
    sampler.run_until(10 * MS, &mut |_| {});
    // Somebody else holds the processor: the poll due at 11 ms comes at 20.5 ms.
    clock.sleep_until(20 * MS + MS / 2);
    sampler.run_until(30 * MS, &mut |_| {});
    let recording = sampler.tally().into_recording("n", 0, 30 * MS);
    // 9.5 ms late: one late poll, and the instants 12 to 20 ms were passed over.
    assert_eq!((recording.late_polls, recording.missed_polls), (1, 9));
    assert_eq!(recording.polls, 11 + 1 + 10);
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
