//! Files as a whole: written, killed, recovered, read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::clock::ClockAnchor;
use crate::schema::{EnergySource, MARKS, MarkEvent, Origin, RUNS, RunStatus, SAMPLES};
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
    assert_eq!(path.file_name().unwrap(), "samples-node-a-0.parquet");
    assert_eq!(samples(dir.path()), rows);
    let read = read_metadata(&path).unwrap();
    let mut expected = meta();
    expected.extra.insert("lost".to_owned(), "0".to_owned());
    assert_eq!(read, expected);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "neither spool nor temporary file remains");
}

#[test]
fn a_spool_is_readable_while_it_grows_and_recovered_only_when_its_writer_is_gone() {
    let dir = TempDir::new().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "n", &meta()).unwrap();
    append(&mut writer, &[sample("a", 10)]);
    writer.flush().unwrap();
    assert_eq!(samples(dir.path()).len(), 1);
    assert!(matches!(campaign.recover().unwrap().as_slice(), [Recovered { outcome: RecoveredAs::Live, .. }]));
    drop(writer);
    let recovered = campaign.recover().unwrap();
    assert!(
        matches!(recovered.as_slice(), [Recovered { outcome: RecoveredAs::Sealed { rows: 1, torn: false, .. }, .. }]),
        "{recovered:?}"
    );
    assert_eq!(samples(dir.path()), [sample("a", 10)]);
    assert!(campaign.recover().unwrap().is_empty());
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
        t_begin_mono_ns: 1,
        t_end_mono_ns: 2,
        prefill_batches: 3,
        total_batches: 4,
        prefill_duration_s: Some(0.25),
        total_duration_s: None,
        mean_ttft_s: Some(0.125),
        mean_tpot_s: None,
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
    }
}
