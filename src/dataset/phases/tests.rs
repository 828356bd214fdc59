//! Whole campaigns whose joules are known, written through the store and read back as rows.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::dataset::load;
use crate::schema::{MARKS, RUNS, SAMPLES};
use crate::source::{Device, Scope};
use crate::store::{SampleRow, SegmentWriter, Serving, write_table};

const MS: i64 = 1_000_000;

/// A node whose devices follow a power schedule, and runs marked on it.
///
/// Counters refresh every 50 ms on the dot and are polled every millisecond, half a millisecond off.
struct Node {
    /// Watts from each millisecond on.
    power_w: Vec<(i64, f64)>,
    devices: Vec<&'static str>,
    modulus_uj: Option<u64>,
    /// Counter at the start of the recording.
    start_uj: u64,
    /// Counter restarts from 0 at this millisecond.
    reset_at_ms: Option<i64>,
    /// No counter, power readings only.
    is_power_only: bool,
    until_ms: i64,
    runs: Vec<RunRow>,
    marks: Vec<MarkRow>,
}

fn node(power_w: &[(i64, f64)]) -> Node {
    Node {
        power_w: power_w.to_vec(),
        devices: vec!["sim:0"],
        modulus_uj: None,
        start_uj: 5_000_000_000,
        reset_at_ms: None,
        is_power_only: false,
        until_ms: power_w.last().map_or(0, |(t, _)| *t) + 2_000,
        runs: Vec::new(),
        marks: Vec::new(),
    }
}

impl Node {
    /// A run of 8 sequences, 512 tokens in and 128 out, with these windows (from ms, to ms, batches).
    fn run(mut self, run_id: &str, prefill: (i64, i64, u32), total: (i64, i64, u32)) -> Self {
        for (phase, (from, to, _)) in [("prefill", prefill), ("total", total)] {
            for (t_ms, event) in [(from, MarkEvent::Begin), (to, MarkEvent::End)] {
                if from != to {
                    self.marks.push(MarkRow {
                        t_mono_ns: t_ms * MS,
                        run_id: run_id.to_owned(),
                        phase: phase.to_owned(),
                        event,
                        source: Origin::Simulated,
                        uid: None,
                        job_id: None,
                        step_id: None,
                    });
                }
            }
        }
        self.runs.push(RunRow {
            run_id: run_id.to_owned(),
            point_id: "p".to_owned(),
            repeat: 0,
            status: RunStatus::Done,
            error: None,
            host: "node-a".to_owned(),
            source: Origin::Simulated,
            devices: self.devices.iter().map(|d| (*d).to_owned()).collect(),
            device_name: None,
            t_begin_mono_ns: prefill.0 * MS,
            t_end_mono_ns: total.1.max(prefill.1) * MS,
            prefill_batches: prefill.2,
            decode_batches: None,
            total_batches: total.2,
            prefill_duration_s: None,
            total_duration_s: None,
            mean_ttft_s: Some(0.1),
            mean_tpot_s: Some(0.02),
            serving: Serving::default(),
            model: "m-7b".to_owned(),
            architecture: Some("dense".to_owned()),
            engine: None,
            precision: None,
            gpu_model: "g".to_owned(),
            num_gpus: self.devices.len() as u32,
            tensor_parallel: self.devices.len() as u32,
            pipeline_parallel: 1,
            data_parallel: 1,
            expert_parallel: 1,
            batch_size: 8.0,
            input_tokens: Some(512.0),
            output_tokens: 128.0,
            kv_capacity_tokens: None,
            params: None,
            active_params: None,
            n_layers: None,
            hidden_size: None,
            kv_bytes_per_token: None,
            num_experts: None,
            experts_per_token: None,
            bytes_per_weight: None,
            gpu_memory_bytes: None,
            job_id: None,
            step_id: None,
        });
        self
    }

    fn power_at(&self, t_ms: i64) -> f64 {
        self.power_w.iter().rev().find(|(from, _)| *from <= t_ms).map_or(0.0, |(_, w)| *w)
    }

    /// The counter at a refresh, by adding up millijoules: watts times milliseconds.
    fn counter_uj(&self, t_ms: i64) -> u64 {
        let from_ms = self.reset_at_ms.filter(|reset| t_ms >= *reset);
        let added: f64 = (from_ms.unwrap_or(0)..t_ms).map(|ms| self.power_at(ms) * 1e3).sum();
        let value = if from_ms.is_some() { 0 } else { self.start_uj } + added.round() as u64;
        self.modulus_uj.map_or(value, |m| value % m)
    }

    fn record(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut metadata = FileMetadata::of_host("node-a", ClockAnchor { t_mono_ns: 0, t_unix_ns: 1 });
        for id in &self.devices {
            metadata.devices.push(Device {
                id: (*id).to_owned(),
                name: "g".to_owned(),
                scope: Scope::Gpu,
                energy_source: EnergySource::Counter,
                counter_modulus_uj: self.modulus_uj,
                counter_step_uj: None,
                power_limit_w: Some(700.0),
                memory_bytes: None,
            });
        }
        let mut samples = Vec::new();
        for id in &self.devices {
            let device: Arc<str> = Arc::from(*id);
            for t_ms in (0..self.until_ms).step_by(50) {
                samples.push(SampleRow {
                    device: device.clone(),
                    t_mono_ns: t_ms * MS + MS / 2,
                    t_prev_poll_ns: t_ms * MS - MS / 2,
                    energy_counter_uj: (!self.is_power_only).then(|| self.counter_uj(t_ms)),
                    power_w: Some(self.power_at(t_ms)),
                    t_device_ns: None,
                    source: EnergySource::Counter,
                    job_id: None,
                });
            }
        }
        let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &metadata).unwrap();
        // Two batches, so that a device's samples are cut somewhere.
        for part in samples.chunks(samples.len() / 2 + 1) {
            writer.append(&SampleRow::batch(part).unwrap()).unwrap();
        }
        writer.seal().unwrap();
        let mut writer = SegmentWriter::create(dir.path(), &MARKS, "node-a", &metadata).unwrap();
        writer.append(&MarkRow::batch(&self.marks).unwrap()).unwrap();
        writer.seal().unwrap();
        let runs = [RunRow::batch(&self.runs).unwrap()];
        write_table(&dir.path().join("runs.parquet"), &RUNS, &runs, &metadata).unwrap();
        dir
    }

    fn reduce(&self) -> Dataset {
        let dir = self.record();
        let reduced = reduce(dir.path()).unwrap();
        if !reduced.rows.is_empty() {
            assert_eq!(load(dir.path()).unwrap(), reduced, "the table says what reduce said");
        }
        reduced
    }
}

fn energy(dataset: &Dataset, phase: Phase) -> (f64, f64) {
    let row = dataset.rows.iter().find(|r| r.phase == phase).unwrap_or_else(|| panic!("no {phase} row"));
    (row.energy_j.unwrap(), row.energy_j_std.unwrap())
}

/// Idle 80 W; prefill 600 W from 1.013 s to 3.013 s, idle, then total 400 W from 4.027 s to 14.027 s, idle.
const SCHEDULE: [(i64, f64); 5] = [(0, 80.0), (1_013, 600.0), (3_013, 80.0), (4_027, 400.0), (14_027, 80.0)];

#[test]
fn a_batch_costs_its_share_of_the_window_and_decode_is_what_prefill_is_not() {
    let dataset = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4)).reduce();
    assert_eq!(dataset.rejected, []);
    // 600 W x 2 s / 10 batches, 400 W x 10 s / 4 batches.
    for (phase, expected_j) in [(Phase::Prefill, 120.0), (Phase::Total, 1000.0), (Phase::Decode, 880.0)] {
        let (energy_j, std_j) = energy(&dataset, phase);
        assert!((energy_j - expected_j).abs() < 0.2, "{phase}: {energy_j}");
        assert!(std_j > 0.0 && std_j < 0.01 * expected_j, "{phase}: {std_j}");
    }
    let prefill = &dataset.rows[0];
    assert_eq!((prefill.phase, prefill.output_tokens, prefill.source), (Phase::Prefill, 1.0, EnergySource::Simulated));
    assert!((prefill.duration_s.unwrap() - 0.2).abs() < 1e-9);
}

impl Node {
    /// One more window of the last run, in ms.
    fn marked(mut self, phase: &str, from: i64, to: i64) -> Self {
        let run_id = self.runs.last().expect("a run").run_id.clone();
        for (t_ms, event) in [(from, MarkEvent::Begin), (to, MarkEvent::End)] {
            self.marks.push(MarkRow {
                t_mono_ns: t_ms * MS,
                run_id: run_id.clone(),
                phase: phase.to_owned(),
                event,
                source: Origin::Simulated,
                uid: None,
                job_id: None,
                step_id: None,
            });
        }
        self
    }
}

#[test]
fn a_decode_that_was_marked_stands_beside_the_difference_or_alone() {
    let both = |batches| {
        // Decode alone from 9.027 s to 14.027 s: 400 W x 5 s.
        let mut node = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, batches));
        node.runs[0].decode_batches = Some(4);
        node.marked("decode", 9_027, 14_027)
    };
    let found = |dataset: &Dataset| -> Vec<_> {
        dataset.rows.iter().map(|r| (r.phase, r.method, r.energy_j.unwrap().round())).collect()
    };
    let (difference, marks) = (Some(Method::Difference), Some(Method::Marks));
    assert_eq!(
        found(&both(4).reduce()),
        [
            (Phase::Prefill, None, 120.0),
            (Phase::Decode, difference, 880.0),
            (Phase::Decode, marks, 500.0),
            (Phase::Total, None, 1000.0)
        ]
    );
    // Nobody counted whole batches: there is no total, and nothing to be missed.
    let alone = both(0).reduce();
    assert_eq!(found(&alone), [(Phase::Prefill, None, 120.0), (Phase::Decode, marks, 500.0)]);
    assert_eq!(alone.rejected, []);
}

#[test]
fn a_row_without_energy_does_not_say_that_a_counter_gave_it() {
    for (output_tokens, phase) in [(1.0, Phase::Prefill), (128.0, Phase::Total)] {
        let mut failed = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
        failed.runs[0].status = RunStatus::Failed;
        failed.runs[0].source = Origin::Measured;
        failed.runs[0].output_tokens = output_tokens;
        let dir = failed.record();
        reduce(dir.path()).unwrap();
        let rows = of_run(dir.path(), &failed.runs[0]).unwrap();
        let found: Vec<_> = rows.iter().map(|r| (r.phase, r.source, r.quality.clone())).collect();
        assert_eq!(found, [(phase, EnergySource::None, vec!["run_failed".to_owned()])]);
    }
    let mut unmeasured = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
    unmeasured.runs[0].source = Origin::Measured;
    unmeasured.runs[0].devices.clear();
    let dir = unmeasured.record();
    let rows = of_run(dir.path(), &unmeasured.runs[0]).unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|r| r.source == EnergySource::None), "{rows:?}");
}

#[test]
fn one_run_alone_costs_what_it_costs_among_others() {
    let node = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
    let dir = node.record();
    let alone = of_run(dir.path(), &node.runs[0]).unwrap();
    let mut among = reduce(dir.path()).unwrap().rows;
    among.iter_mut().for_each(|row| row.line = 0);
    assert_eq!(alone, among);
}

#[test]
fn windows_of_one_phase_add_up_and_those_of_a_broken_attempt_do_not() {
    let mut node = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 9_027, 4));
    node.runs[0].t_end_mono_ns = 14_500 * MS;
    // The rest of the total in a window of its own; the attempt before had one too, before the run began.
    let dataset = node.marked("total", 9_027, 14_027).marked("prefill", 200, 900).reduce();
    assert!((energy(&dataset, Phase::Total).0 - 1000.0).abs() < 0.2);
    assert!((energy(&dataset, Phase::Prefill).0 - 120.0).abs() < 0.2);
    assert_eq!(dataset.rejected, []);
}

#[test]
fn the_power_before_a_run_stands_with_its_rows() {
    let mut node = node(&SCHEDULE);
    node.devices = vec!["sim:0", "sim:1"];
    let mut node = node.run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
    node.runs[0].t_begin_mono_ns = 100 * MS;
    let dataset = node.marked("idle", 413, 1_013).reduce();
    for row in &dataset.rows {
        assert!((row.idle_power_w.unwrap() - 160.0).abs() < 3.0, "two devices of 80 W: {:?}", row.idle_power_w);
    }
}

#[test]
fn devices_of_a_run_add_up_and_so_do_their_stds() {
    let one = node(&SCHEDULE).run("a-0", (1_013, 3_013, 1), (4_027, 14_027, 1)).reduce();
    let mut four = node(&SCHEDULE);
    four.devices = vec!["sim:0", "sim:1", "sim:2", "sim:3"];
    let four = four.run("a-0", (1_013, 3_013, 1), (4_027, 14_027, 1)).reduce();
    let ((one_j, one_std_j), (four_j, four_std_j)) = (energy(&one, Phase::Total), energy(&four, Phase::Total));
    assert!((four_j - 4.0 * one_j).abs() < 1e-6);
    assert!((four_std_j - 4.0 * one_std_j).abs() < 1e-9);
}

#[test]
fn a_reset_rejects_the_phase_it_falls_into_and_no_other() {
    let mut node = node(&SCHEDULE);
    node.reset_at_ms = Some(8_000);
    let dataset = node.run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4)).reduce();
    assert!((energy(&dataset, Phase::Prefill).0 - 120.0).abs() < 0.2);
    let refused: Vec<_> = dataset.rejected.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(refused.len(), 2, "total, and decode which needs it");
    assert!(refused.iter().all(|r| r.contains("counter_reset")), "{refused:?}");
}

#[test]
fn a_register_that_runs_over_loses_nothing() {
    let mut node = node(&SCHEDULE);
    (node.modulus_uj, node.start_uj) = (Some(262_143_328_850), 262_143_328_850 - 2_500_000_000);
    let dataset = node.run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4)).reduce();
    assert!((energy(&dataset, Phase::Total).0 - 1000.0).abs() < 0.2);
}

#[test]
fn power_readings_stand_in_and_say_so() {
    let mut node = node(&SCHEDULE);
    node.is_power_only = true;
    let mut node = node.run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
    node.runs[0].source = Origin::Measured;
    let dataset = node.reduce();
    let total = dataset.rows.iter().find(|r| r.phase == Phase::Total).unwrap();
    assert_eq!(total.source, EnergySource::Power);
    assert_eq!(total.quality, ["power_integrated"]);
    assert!((total.energy_j.unwrap() - 1000.0).abs() < 10.0);
    assert!(total.energy_j_std.unwrap() > 49.0, "5 % of gain alone");
}

#[test]
fn what_was_not_recorded_is_refused_with_its_reason() {
    type Spoil = fn(&mut Node);
    let table: &[(&str, &str, Spoil)] = &[
        ("the recording stops inside the window", "lost_samples", |n| n.until_ms = 9_000),
        ("no samples of the run's device", "no_energy_source", |n| n.runs[0].devices = vec!["sim:7".to_owned()]),
        ("a run without devices", "no_energy_source", |n| n.runs[0].devices.clear()),
        ("no end mark", "missing_mark", |n| n.marks.retain(|m| m.phase != "total" || m.event == MarkEvent::Begin)),
        ("a failed run", "run_failed", |n| n.runs[0].status = RunStatus::Failed),
    ];
    for (what, reason, spoil) in table {
        let mut node = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
        spoil(&mut node);
        let dataset = node.reduce();
        assert!(dataset.rows.iter().all(|r| r.phase == Phase::Prefill), "{what}: {:?}", dataset.rows);
        let last = dataset.rejected.last().unwrap_or_else(|| panic!("{what}: nothing refused"));
        assert!(last.reason.contains(reason), "{what}: {}", last.reason);
    }
}

#[test]
fn a_window_of_two_refreshes_is_refused() {
    let schedule = [(0, 80.0), (1_013, 600.0), (1_103, 80.0), (2_000, 80.0)];
    let mut node = node(&schedule).run("a-0", (1_013, 1_103, 1), (0, 0, 0));
    node.runs[0].output_tokens = 1.0;
    let dataset = node.reduce();
    assert_eq!(dataset.rows, []);
    assert_eq!(dataset.rejected.len(), 1, "a prefill-only run has no other row");
    assert!(dataset.rejected[0].reason.contains("window_shorter_than_refreshes"));
}

#[test]
fn recordings_that_overlap_in_time_are_not_mixed() {
    // A second recording whose clock began again: the same instants, another counter.
    let node = node(&SCHEDULE).run("a-0", (1_013, 3_013, 10), (4_027, 14_027, 4));
    let dir = node.record();
    let metadata = FileMetadata::of_host("node-a", ClockAnchor { t_mono_ns: 0, t_unix_ns: 1 });
    let sample = |t_ms: i64| SampleRow {
        device: Arc::from("sim:0"),
        t_mono_ns: t_ms * MS,
        t_prev_poll_ns: (t_ms - 1) * MS,
        energy_counter_uj: Some(t_ms as u64 * 300_000),
        power_w: None,
        t_device_ns: None,
        source: EnergySource::Counter,
        job_id: None,
    };
    let later: Vec<_> = (80..400).map(|i| sample(i * 50)).collect();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &metadata).unwrap();
    writer.append(&SampleRow::batch(&later).unwrap()).unwrap();
    writer.seal().unwrap();
    let dataset = reduce(dir.path()).unwrap();
    assert_eq!(dataset.rows.iter().map(|r| r.phase).collect::<Vec<_>>(), [Phase::Prefill], "it ended before 4 s");
    assert!(dataset.rejected.iter().all(|r| r.reason.contains("lost_samples")));
}
