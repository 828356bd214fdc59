//! A recording shown again and recorded again is the same recording.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use energylens::agent::{RecorderOptions, VirtualRecorder};
use energylens::card::{GpuCard, ModelCard};
use energylens::clock::SimClock;
use energylens::dataset::interval::Window;
use energylens::dataset::phases::device_energies;
use energylens::schema::{EnergySource, SAMPLES};
use energylens::source::CounterSource;
use energylens::source::replay::ReplaySource;
use energylens::source::sim::{BatchRequest, SimNode, SimOptions};
use energylens::store::{SampleRow, read_metadata, read_table, read_trace, table_files};
use tempfile::TempDir;

use crate::support::desk::Desk;

const S: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;

fn options() -> RecorderOptions {
    RecorderOptions { host: "node".to_owned(), ..RecorderOptions::default() }
}

/// Records three simulated GPUs of different refresh periods under load; gives the end of the recording.
fn record(dir: &Path) -> i64 {
    let cards: Vec<_> =
        ["a100-80gb", "h100-80gb", "mi300x"].iter().map(|n| (GpuCard::builtin(n).expect("a card"), 1)).collect();
    let node = SimNode::new(&cards, SimOptions { t_start_mono_ns: 100 * S, ..SimOptions::default() });
    let clock = SimClock::starting_at(100 * S);
    let source: Box<dyn CounterSource> = Box::new(node.source(clock.clone()));
    for (i, (card, _)) in cards.iter().enumerate() {
        node.idle(0.7);
        let request = BatchRequest {
            model: ModelCard::builtin("llama-2-7b").expect("a model"),
            gpu_model: card.gpu_model.clone(),
            tensor_parallel: 1,
            pipeline_parallel: 1,
            data_parallel: 1,
            batch_size: 8 << i,
            input_tokens: 512,
            output_tokens: 64,
        };
        node.execute(&request).expect("a batch that fits");
    }
    node.idle(1.0);
    let mut recorder = VirtualRecorder::start(dir, vec![source], Arc::new(clock), options()).expect("a recording");
    recorder.run_until(node.now()).expect("a disk");
    recorder.finish().expect("a disk");
    node.now()
}

/// The counter's values with the middle of each one's bracket, by device; heartbeats left out.
fn edges(dir: &Path) -> BTreeMap<String, Vec<(i64, u64)>> {
    let mut edges: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for batch in read_table(dir, &SAMPLES).expect("a table") {
        for row in SampleRow::from_batch(&batch.expect("a batch")).expect("samples") {
            assert_eq!(row.source, EnergySource::Simulated, "the label goes with the row");
            let of_device = edges.entry(row.device.to_string()).or_default();
            let uj = row.energy_counter_uj.expect("a counter");
            if of_device.last().is_none_or(|(_, last)| *last != uj) {
                of_device.push(((row.t_mono_ns + row.t_prev_poll_ns) / 2, uj));
            }
        }
    }
    edges
}

#[test]
fn the_same_edges_and_the_same_joules_come_out() {
    let (first, second) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let t_end_ns = record(first.path());
    let trace = Arc::new(read_trace(first.path()).expect("a recording"));
    assert_eq!(trace.devices.len(), 3);

    let clock = SimClock::starting_at(7 * S);
    let source: Box<dyn CounterSource> = Box::new(ReplaySource::new(trace.clone(), Arc::new(clock.clone())));
    let mut recorder =
        VirtualRecorder::start(second.path(), vec![source], Arc::new(clock), options()).expect("a recording");
    recorder.run_until(7 * S + (t_end_ns - 100 * S) + 5 * S).expect("a disk");
    let recording = recorder.finish().expect("a disk");
    assert!(recording.devices.iter().all(|d| d.gone), "the replay ends by itself");

    let (recorded, replayed) = (edges(first.path()), edges(second.path()));
    assert_eq!(recorded.keys().collect::<Vec<_>>(), replayed.keys().collect::<Vec<_>>());
    for (device, edges) in &recorded {
        let again = &replayed[device];
        assert!(edges.len() > 20, "{device} has {} edges", edges.len());
        assert_eq!(edges.iter().map(|e| e.1).collect::<Vec<_>>(), again.iter().map(|e| e.1).collect::<Vec<_>>());
        // The first value only says that it was there; every later one moved at its own instant, to a poll's distance.
        for ((t, _), (t_again, _)) in edges.iter().zip(again).skip(1) {
            let shift_ns = (t_again - 7 * S) - (t - 100 * S);
            assert!(shift_ns.abs() <= 2 * MS, "{device}: {shift_ns} ns");
        }
    }
    // Windows of many lengths, anywhere: the difference is within what both say of themselves.
    let ids: Vec<String> = recorded.keys().cloned().collect();
    let duration_ns = t_end_ns - 100 * S;
    for i in 0..20_i64 {
        let from_ns = 600 * MS + i * 37 * MS;
        let window = Window { t_begin_ns: from_ns, t_end_ns: duration_ns - 600 * MS - i * 53 * MS };
        let shifted = |by: i64| Window { t_begin_ns: window.t_begin_ns + by, t_end_ns: window.t_end_ns + by };
        let a = device_energies(first.path(), "node", &ids, &[shifted(100 * S)]).expect("energies").remove(0);
        let b = device_energies(second.path(), "node", &ids, &[shifted(7 * S)]).expect("energies").remove(0);
        for ((a, b), id) in a.iter().zip(&b).zip(&ids) {
            let (a, b) = (a.as_ref().expect("an energy"), b.as_ref().expect("an energy"));
            let apart = (a.energy_j - b.energy_j).abs();
            assert!(apart <= 3.0 * a.std_j.hypot(b.std_j), "{id}: {} and {} J", a.energy_j, b.energy_j);
        }
    }
}

#[test]
fn the_agent_records_a_recording_and_stops_by_itself() {
    let desk = Desk::new();
    let record = ["agent", "--sources", "sim", "--simulated-gpus", "2", "-o", "live", "--duration", "2s", "--json"];
    let live = desk.run(&record).done().json();
    let again = desk.run(&["agent", "--replay", "live", "-o", "again", "--json"]).done().json();
    assert!(again["devices"].as_array().is_some_and(|d| d.iter().all(|d| d["gone"] == true)), "{again}");
    let (edges, edges_again) = (live["edges"].as_u64(), again["edges"].as_u64());
    assert!(edges > Some(10) && edges_again > Some(5) && edges_again <= edges, "{edges:?} and {edges_again:?}");
    let file = table_files(&desk.path("again"), &SAMPLES).expect("a campaign").remove(0);
    let metadata = read_metadata(&file).expect("metadata");
    assert_eq!(metadata.driver, "replay of live (simulated)", "a replay is never taken for a measurement");
    // One file of samples will do as well; anything else is refused in words.
    let file = file.to_str().expect("a path of text");
    desk.run(&["doctor", "--replay", file, "--duration", "300ms"]).done().prints("replay: 2 GPUs (simulated)");
    desk.put("notes.txt", "nothing");
    let refused = desk.run(&["agent", "--replay", "notes.txt", "-o", "x"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot replay notes.txt"), "{}", refused.stderr);
    let empty = desk.run(&["doctor", "--replay", "."]);
    assert!(empty.stderr.contains("such as `energylens agent` writes"), "{}", empty.stderr);
    desk.run(&["doctor", "--sources", "replay"]).done().prints("name one with --replay");
}
