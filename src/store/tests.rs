//! Files as a whole: written, sealed, read back.

mod damage;
mod names;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::clock::ClockAnchor;
use crate::schema::{EnergySource, MARKS, MarkEvent, Origin, RUNS, RunStatus, SAMPLES, TELEMETRY};
use crate::source::{Device, Scope};

fn meta() -> FileMetadata {
    FileMetadata {
        host: "node-a".to_owned(),
        driver: "sim 1".to_owned(),
        devices: vec![Device {
            id: "sim:0".to_owned(),
            name: "A100".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: Some(400.0),
            memory_bytes: None,
        }],
        anchor: ClockAnchor { t_mono_ns: 5, t_unix_ns: 7 },
        extra: BTreeMap::from([("note".to_owned(), "x".to_owned())]),
    }
}

fn sample(device: &str, t_ms: i64) -> SampleRow {
    SampleRow {
        device: Arc::from(device),
        t_mono_ns: t_ms * 1_000_000,
        t_prev_poll_ns: (t_ms - 1) * 1_000_000,
        energy_counter_uj: Some(9_007_199_254_740_993 + t_ms as u64),
        power_w: (t_ms % 2 == 0).then_some(312.5),
        t_device_ns: None,
        source: EnergySource::Counter,
        job_id: None,
    }
}

fn samples(dir: &Path) -> Vec<SampleRow> {
    let batches = read_table(dir, &SAMPLES).unwrap();
    batches.flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap()).collect()
}

fn append(writer: &mut SegmentWriter, rows: &[SampleRow]) {
    writer.append(&SampleRow::batch(rows).unwrap()).unwrap();
}

#[test]
fn sealed_rows_and_metadata_come_back_as_they_were_written() {
    let dir = TempDir::new().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &meta()).unwrap();
    let rows = vec![sample("sim:0", 10), sample("sim:0", 20), sample("sim:1", 30)];
    append(&mut writer, &rows[..1]);
    append(&mut writer, &rows[1..]);
    writer.set_extra("lost", "0".to_owned());
    let path = writer.seal().unwrap();
    assert_eq!(path.file_name().unwrap(), "samples-node-a-000000.parquet");
    assert_eq!(samples(dir.path()), rows);
    let read = read_metadata(&path).unwrap();
    let mut expected = meta();
    expected.extra.insert("lost".to_owned(), "0".to_owned());
    expected.extra.insert("t_begin_mono_ns".to_owned(), "10000000".to_owned());
    expected.extra.insert("t_end_mono_ns".to_owned(), "30000000".to_owned());
    assert_eq!(read, expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "neither spool nor temporary file remains");
}

#[test]
fn run_and_mark_rows_round_trip() {
    let dir = TempDir::new().unwrap();
    let mark = MarkRow {
        t_mono_ns: 5,
        run_id: "abc-0".to_owned(),
        phase: "warmup".to_owned(),
        event: MarkEvent::Begin,
        source: Origin::Simulated,
        uid: None,
        job_id: None,
        step_id: None,
    };
    let batch = MarkRow::batch(std::slice::from_ref(&mark)).unwrap();
    write_table(&dir.path().join("marks.parquet"), &MARKS, &[batch], &meta()).unwrap();
    let read: Vec<_> = read_table(dir.path(), &MARKS).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!(MarkRow::from_batch(&read[0]).unwrap(), [mark]);

    let runs = vec![run("abc-0", None), run("abc-1", Some("out of memory"))];
    write_table(&dir.path().join("runs.parquet"), &RUNS, &[RunRow::batch(&runs).unwrap()], &meta()).unwrap();
    let read: Vec<_> = read_table(dir.path(), &RUNS).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!(RunRow::from_batch(&read[0]).unwrap(), runs);
}

fn run(run_id: &str, error: Option<&str>) -> RunRow {
    RunRow {
        run_id: run_id.to_owned(),
        point_id: "abc".to_owned(),
        repeat: 0,
        status: if error.is_some() { RunStatus::Failed } else { RunStatus::Done },
        error: error.map(str::to_owned),
        host: "n".to_owned(),
        source: Origin::Simulated,
        devices: vec!["sim:0".to_owned(), "sim:1".to_owned()],
        device_name: Some("stub".to_owned()),
        t_begin_mono_ns: 1,
        t_end_mono_ns: 2,
        prefill_batches: 3,
        decode_batches: None,
        total_batches: 4,
        prefill_duration_s: Some(0.25),
        total_duration_s: None,
        mean_ttft_s: Some(0.125),
        mean_tpot_s: None,
        serving: Serving {
            engine_version: Some("0.11.0".to_owned()),
            completed_requests: Some(640),
            p99_itl_s: Some(0.031),
            ..Serving::default()
        },
        model: "m".to_owned(),
        architecture: Some("dense".to_owned()),
        engine: None,
        precision: Some("bf16".to_owned()),
        gpu_model: "A100".to_owned(),
        num_gpus: 8,
        tensor_parallel: 4,
        pipeline_parallel: 2,
        data_parallel: 1,
        expert_parallel: 1,
        batch_size: 8.0,
        input_tokens: Some(512.0),
        output_tokens: 1.0,
        kv_capacity_tokens: None,
        params: Some(7e10),
        active_params: Some(7e10),
        n_layers: Some(80.0),
        hidden_size: Some(8192.0),
        kv_bytes_per_token: Some(327_680.0),
        num_experts: None,
        experts_per_token: None,
        bytes_per_weight: Some(2.0),
        gpu_memory_bytes: None,
        job_id: Some("123".to_owned()),
        step_id: Some("0".to_owned()),
    }
}

#[test]
fn telemetry_rows_round_trip() {
    let dir = TempDir::new().unwrap();
    let full = TelemetryRow {
        device: Arc::from("a"),
        t_mono_ns: 5,
        temperature_c: Some(61.5),
        core_clock_hz: Some(1.98e9),
        memory_clock_hz: Some(2.6e9),
        utilization: Some(0.75),
        memory_used_bytes: Some(1 << 36),
        power_limit_w: Some(700.0),
        throttle_reasons: vec!["power_cap".to_owned(), "thermal".to_owned()],
        source: Origin::Measured,
    };
    let empty = TelemetryRow {
        t_mono_ns: 6,
        temperature_c: None,
        core_clock_hz: None,
        memory_clock_hz: None,
        utilization: None,
        memory_used_bytes: None,
        power_limit_w: None,
        throttle_reasons: Vec::new(),
        ..full.clone()
    };
    let rows = [full, empty];
    let mut writer = SegmentWriter::create(dir.path(), &TELEMETRY, "n", &meta()).unwrap();
    writer.append(&TelemetryRow::batch(&rows).unwrap()).unwrap();
    let read = || -> Vec<TelemetryRow> {
        let batches = read_table(dir.path(), &TELEMETRY).unwrap();
        batches.flat_map(|b| TelemetryRow::from_batch(&b.unwrap()).unwrap()).collect()
    };
    writer.flush().unwrap();
    assert_eq!(read(), rows);
    writer.seal().unwrap();
    assert_eq!(read(), rows);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut newer = meta();
    newer.extra.clear();
    let mut pairs = newer.to_pairs(&SAMPLES);
    pairs.insert("energylens.format_version".to_owned(), "2".to_owned());
    let pairs = pairs.into_iter().collect();
    let error = FileMetadata::from_pairs(&pairs, Path::new("x.parquet")).unwrap_err().to_string();
    assert_eq!(error, "x.parquet: expected format version 1, found format version 2; a newer energylens reads it");
}

#[test]
fn sealed_samples_say_their_host_wall_clock_and_recording() {
    let dir = TempDir::new().unwrap();
    let mut meta = meta();
    meta.name_recording();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &meta).unwrap();
    append(&mut writer, &[sample("sim:0", 10), sample("sim:1", 20)]);
    let sealed = writer.seal().unwrap();
    let batch = read_file(&sealed, &SAMPLES).unwrap().next().unwrap().unwrap();
    let t = batch.column_by_name("t").unwrap();
    let t: &arrow::array::TimestampMillisecondArray = t.as_any().downcast_ref().unwrap();
    // The anchor says 5 ns = 7 ns: no whole millisecond apart.
    assert_eq!((t.value(0), t.value(1)), (10, 20));
    assert_eq!(columns::text(&batch, "host").unwrap().value(1), "node-a");
    // Begun 7 ns after the epoch, by this process.
    let recording_id = columns::text(&batch, "recording_id").unwrap();
    assert_eq!(recording_id.value(0), format!("7-{}", std::process::id()));
}
