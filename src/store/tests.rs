//! Files as a whole: written, killed, recovered, read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
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

/// Rows 0, 1, 2, ... in batches of the given sizes, each flushed; where each flush left the file's end.
fn spooled(dir: &Path, batches: &[usize]) -> (std::path::PathBuf, Vec<(u64, usize)>) {
    let mut writer = SegmentWriter::create(dir, &SAMPLES, "n", &meta()).unwrap();
    let mut flushed = vec![(writer.bytes(), 0)];
    let mut rows = 0;
    for size in batches {
        // A device per batch: each batch then brings a dictionary of its own, the harder case to tear.
        let batch: Vec<_> = (rows..rows + size).map(|i| sample(&format!("d{}", flushed.len()), i as i64)).collect();
        append(&mut writer, &batch);
        writer.flush().unwrap();
        rows += size;
        flushed.push((writer.bytes(), rows));
    }
    (writer.path().to_owned(), flushed)
}

/// Recovers once nobody holds a spool any more: a child process that another test is starting has, between fork and
/// exec, every open file of this process, locks included.
fn recovered(dir: &Path) -> Vec<Recovered> {
    let campaign = Campaign::open(dir).unwrap();
    for _ in 0..100 {
        let recovered = campaign.recover().unwrap();
        if !recovered.iter().any(|r| r.outcome == RecoveredAs::Live) {
            return recovered;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("a spool stays locked for a second");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: prop::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn a_spool_cut_anywhere_gives_exactly_the_batches_before_the_cut(
        batches in prop::collection::vec(1_usize..40, 1..6),
        share in 0.0..1.0_f64,
    ) {
        let dir = TempDir::new().unwrap();
        let (spool, flushed) = spooled(dir.path(), &batches);
        let (end, _) = flushed[flushed.len() - 1];
        let cut = (end as f64 * share) as u64;
        fs::OpenOptions::new().write(true).open(&spool).unwrap().set_len(cut).unwrap();
        let whole = flushed.iter().rev().find(|(bytes, _)| *bytes <= cut).map(|(_, rows)| *rows);

        let recovered = recovered(dir.path());
        prop_assert_eq!(recovered.len(), 1);
        match (&recovered[0].outcome, whole) {
            (RecoveredAs::Empty, None) => {}
            (RecoveredAs::Sealed { rows, .. }, Some(whole)) => prop_assert_eq!(*rows, whole as u64),
            other => prop_assert!(false, "{:?}", other),
        }
        let read: Vec<i64> = samples(dir.path()).iter().map(|r| r.t_mono_ns / 1_000_000).collect();
        let mut sorted = read.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..whole.unwrap_or(0) as i64).collect::<Vec<_>>());
        prop_assert!(!spool.exists());
    }

    #[test]
    fn damaged_files_give_rows_or_errors_but_no_panic(
        sealed in any::<bool>(),
        damage in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..4),
    ) {
        let dir = TempDir::new().unwrap();
        let (spool, _) = spooled(dir.path(), &[20, 20]);
        let mut path = spool;
        if sealed {
            recovered(dir.path());
            path = dir.path().join("samples-n-000000.parquet");
        }
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in damage {
            let at = (bytes.len() as f64 * at) as usize;
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        for batch in read_table(dir.path(), &SAMPLES).unwrap() {
            let _ = batch.and_then(|b| SampleRow::from_batch(&b));
        }
        let _ = read_metadata(&path);
        let _ = Campaign::open(dir.path()).unwrap().recover();
    }
}

#[test]
fn any_bytes_under_a_table_name_are_an_error_that_names_the_file() {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in [("samples.parquet", "PAR1 not at all"), ("samples-n-0.arrows.spool", "\u{0}\u{0}garbage")] {
        fs::write(dir.path().join(name), bytes).unwrap();
        let error = read_table(dir.path(), &SAMPLES).unwrap().find_map(Result::err).unwrap();
        assert!(error.to_string().contains(name), "{error}");
        fs::remove_file(dir.path().join(name)).unwrap();
    }
}

#[test]
fn a_sealing_killed_before_its_last_step_counts_no_row_twice() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = spooled(dir.path(), &[3]);
    let copy = fs::read(&spool).unwrap();
    let campaign = Campaign::open(dir.path()).unwrap();
    campaign.recover().unwrap();
    fs::write(&spool, copy).unwrap();
    fs::write(dir.path().join(".samples-n-000001.parquet.abc.tmp"), "half").unwrap();
    assert_eq!(samples(dir.path()).len(), 3);
    let recovered = campaign.recover().unwrap();
    assert!(matches!(recovered.as_slice(), [Recovered { outcome: RecoveredAs::AlreadySealed, .. }]));
    assert_eq!(samples(dir.path()).len(), 3);
}

#[test]
fn recovery_clears_what_a_killed_sealing_left_half_written() {
    let dir = TempDir::new().unwrap();
    spooled(dir.path(), &[3]);
    let half = dir.path().join(".samples-n-000000.parquet.abc.tmp");
    fs::write(&half, "half").unwrap();
    recovered(dir.path());
    assert!(!half.exists());
}

#[test]
fn a_full_disk_cuts_the_segment_back_to_its_last_flush() {
    let dir = TempDir::new().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "n", &meta()).unwrap();
    append(&mut writer, &[sample("a", 1), sample("a", 2)]);
    writer.flush().unwrap();
    writer.limit_room(700);
    let rows: Vec<_> = (3..500).map(|t| sample("a", t)).collect();
    append(&mut writer, &rows);
    let error = writer.flush().unwrap_err();
    assert!(error.to_string().contains("the disk or the quota is full; free some space"), "{error}");
    assert_eq!((writer.rows(), fs::metadata(writer.path()).unwrap().len()), (2, writer.bytes()));
    assert!(writer.append(&SampleRow::batch(&rows).unwrap()).and_then(|()| writer.flush()).is_err());
    writer.seal().unwrap();
    assert_eq!(samples(dir.path()), [sample("a", 1), sample("a", 2)]);
}

#[test]
fn a_second_holder_is_told_who_holds_the_lock() {
    let dir = TempDir::new().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let lock = campaign.lock().unwrap();
    let error = campaign.lock().unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {} on ", std::process::id())), "{error}");
    drop(lock);
    campaign.lock().unwrap();
}

#[test]
fn only_empty_directories_and_campaigns_become_campaigns() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(Campaign::open(dir.path()), Err(Error::NotACampaign { .. })));
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = Campaign::create_or_open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("new or empty directory") && error.contains("found `thesis.tex`"), "{error}");
    // One that is to be there already cannot be found by choosing an empty directory.
    fs::write(dir.path().join("a\nwarning: b"), "").unwrap();
    let error = Campaign::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("found `a\\nwarning: b` and 1 more") && !error.contains("empty"), "{error}");
    fs::remove_file(dir.path().join("a\nwarning: b")).unwrap();
    fs::remove_file(dir.path().join("thesis.tex")).unwrap();
    Campaign::create_or_open(dir.path()).unwrap();
    Campaign::create_or_open(dir.path()).unwrap();
    let missing = Campaign::open(&dir.path().join("none")).unwrap_err().to_string();
    assert!(missing.ends_with("no such file or directory"), "{missing}");
}

#[test]
fn segments_are_read_in_the_order_of_their_numbers() {
    let dir = TempDir::new().unwrap();
    for t in 0..11 {
        let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &meta()).unwrap();
        append(&mut writer, &[sample("a", t)]);
        writer.seal().unwrap();
    }
    let times: Vec<_> = samples(dir.path()).iter().map(|r| r.t_mono_ns / 1_000_000).collect();
    assert_eq!(times, (0..11).collect::<Vec<_>>());
}

#[test]
fn numbers_count_on_after_earlier_segments_were_removed_and_names_sort_as_they_do() {
    let dir = TempDir::new().unwrap();
    let mut names = Vec::new();
    for t in 0..12 {
        let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &meta()).unwrap();
        append(&mut writer, &[sample("a", t)]);
        let sealed = writer.seal().unwrap();
        names.push(sealed.file_name().unwrap().to_owned());
        if t == 5 {
            names.drain(..5).for_each(|n| fs::remove_file(dir.path().join(n)).unwrap());
        }
    }
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.last().unwrap(), "samples-node-a-000011.parquet");
    let times: Vec<_> = samples(dir.path()).iter().map(|r| r.t_mono_ns / 1_000_000).collect();
    assert_eq!(times, (5..12).collect::<Vec<_>>());
    // A directory of an earlier version, whose numbers have no leading zeros.
    fs::write(dir.path().join("samples-node-b-41.parquet"), "").unwrap();
    let writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-b", &meta()).unwrap();
    assert_eq!(writer.path().file_name().unwrap(), "samples-node-b-000042.arrows.spool");
}

#[test]
fn a_sealing_that_failed_is_tried_again_and_keeps_every_row() {
    let dir = TempDir::new().unwrap();
    let campaign = dir.path().join("campaign");
    fs::create_dir(&campaign).unwrap();
    let mut writer = SegmentWriter::create(&campaign, &SAMPLES, "n", &meta()).unwrap();
    append(&mut writer, &[sample("a", 1), sample("a", 2)]);
    let away = dir.path().join("away");
    fs::rename(&campaign, &away).unwrap();
    assert!(writer.try_seal().is_err());
    assert!(writer.try_seal().is_err());
    fs::rename(&away, &campaign).unwrap();
    assert!(writer.try_seal().unwrap().is_some());
    assert_eq!(samples(&campaign), [sample("a", 1), sample("a", 2)]);
    assert_eq!(fs::read_dir(&campaign).unwrap().count(), 1, "neither spool nor temporary file remains");
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

/// Tables of a recorder.
const RECORDED: &[&crate::schema::Table] = &[&SAMPLES, &TELEMETRY];

/// A sealed segment of one row at `t_ms`, of `host`, with `recorder` in its metadata.
fn sealed(dir: &Path, host: &str, recorder: Option<&str>, t_ms: i64) -> std::path::PathBuf {
    let mut meta = meta();
    meta.host = host.to_owned();
    meta.extra.extend(recorder.map(|r| ("recorder".to_owned(), r.to_owned())));
    let mut writer = SegmentWriter::create(dir, &SAMPLES, host, &meta).unwrap();
    append(&mut writer, &[sample("a", t_ms)]);
    writer.seal().unwrap()
}

#[test]
fn an_inventory_lists_what_is_ours_by_name_and_by_metadata_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let ours = [sealed(dir.path(), "n", Some("agent"), 30), sealed(dir.path(), "n", Some("agent"), 20)];
    sealed(dir.path(), "n", None, 10);
    sealed(dir.path(), "n", Some("sweep"), 10);
    let other = sealed(dir.path(), "n-1", Some("agent"), 10);
    // Another host's file under our name, a link, text, a live spool, marks, and an unreadable one.
    fs::copy(&other, dir.path().join("samples-n-000090.parquet")).unwrap();
    std::os::unix::fs::symlink(&ours[0], dir.path().join("samples-n-000091.parquet")).unwrap();
    fs::write(dir.path().join("samples-n-000092.parquet"), "PAR1").unwrap();
    fs::copy(&ours[0], dir.path().join("telemetry-n-000000.parquet")).unwrap();
    fs::copy(&ours[0], dir.path().join("samples-n-+7.parquet")).unwrap();
    fs::copy(&ours[0], dir.path().join("marks-n-000000.parquet")).unwrap();
    let live = SegmentWriter::create(dir.path(), &SAMPLES, "n", &meta()).unwrap();

    let before = fs::read_dir(dir.path()).unwrap().count();
    let mut inventory = Inventory::new(dir.path(), RECORDED, "n", "agent");
    let listed = inventory.look().unwrap();
    let paths: Vec<_> = listed.iter().map(|s| s.path.clone()).collect();
    assert_eq!(paths, [ours[1].clone(), ours[0].clone()], "the oldest first");
    // The anchor of `meta` puts monotonic 5 ns at 7 ns of the epoch.
    assert_eq!(listed[0].t_end_unix_ns, 20_000_002);
    assert_eq!(listed[0].bytes, fs::metadata(&ours[1]).unwrap().len());
    for segment in &listed {
        inventory.remove(segment).unwrap();
    }
    assert!(inventory.look().unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before - 2);
    assert!(live.path().exists());
}

#[test]
fn a_host_name_cannot_leave_the_directory() {
    let dir = TempDir::new().unwrap();
    let writer = SegmentWriter::create(dir.path(), &SAMPLES, "../../etc/x y", &meta()).unwrap();
    assert_eq!(writer.path(), dir.path().join("samples-.._.._etc_x_y-000000.arrows.spool"));
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

/// The child of the test below; does nothing when run by itself.
#[test]
fn child_that_writes_until_killed() {
    let Ok(dir) = std::env::var("ENERGYLENS_TEST_WRITE_UNTIL_KILLED") else { return };
    let mut writer = SegmentWriter::create(Path::new(&dir), &SAMPLES, "n", &meta()).unwrap();
    for t in 0.. {
        append(&mut writer, &[sample("a", t)]);
        if t % 50 == 49 {
            writer.flush().unwrap();
        }
    }
}

#[test]
fn a_writer_killed_at_any_moment_loses_only_what_it_had_not_flushed() {
    for least_bytes in [100_000, 200_000, 500_000] {
        let dir = TempDir::new().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_writes_until_killed", "--nocapture"])
            .env("ENERGYLENS_TEST_WRITE_UNTIL_KILLED", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let spool = dir.path().join("samples-n-000000.arrows.spool");
        while fs::metadata(&spool).map_or(0, |m| m.len()) < least_bytes {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let recovered = Campaign::open(dir.path()).unwrap().recover().unwrap();
        assert!(matches!(recovered[0].outcome, RecoveredAs::Sealed { .. }), "{recovered:?}");
        let times: Vec<_> = samples(dir.path()).iter().map(|r| r.t_mono_ns / 1_000_000).collect();
        assert!(times.len() > 30);
        assert_eq!(times, (0..times.len() as i64).collect::<Vec<_>>());
    }
}

/// A spool as an earlier version wrote it: without the columns that were added to the table since.
fn earlier_spool(dir: &Path, rows: &[SampleRow], without: &[&str]) {
    let batch = SampleRow::batch(rows).unwrap();
    let kept = (0..batch.num_columns()).filter(|i| !without.contains(&batch.schema().field(*i).name().as_str()));
    let batch = batch.project(&kept.collect::<Vec<_>>()).unwrap();
    let pairs: std::collections::HashMap<_, _> = meta().to_pairs(&SAMPLES).into_iter().collect();
    let schema = arrow::datatypes::Schema::new_with_metadata(batch.schema().fields().clone(), pairs);
    let file = fs::File::create(dir.join("samples-n-000000.arrows.spool")).unwrap();
    let mut stream = arrow::ipc::writer::StreamWriter::try_new(file, &schema).unwrap();
    stream.write(&batch).unwrap();
    stream.finish().unwrap();
}

#[test]
fn a_spool_of_an_earlier_version_is_sealed_with_what_it_lacks_left_missing() {
    let dir = TempDir::new().unwrap();
    let rows = [sample("sim:0", 10), sample("sim:1", 20)];
    earlier_spool(dir.path(), &rows, &["job_id", "t_device_ns"]);
    // Before it is sealed, too.
    assert_eq!(samples(dir.path()), rows);
    let recovered = recovered(dir.path());
    let outcome = &recovered[0].outcome;
    assert!(matches!(outcome, RecoveredAs::Sealed { rows: 2, torn: false, .. }), "{outcome:?}");
    assert_eq!(samples(dir.path()), rows);
    let sealed = read_table(dir.path(), &SAMPLES).unwrap().next().unwrap().unwrap();
    assert_eq!(sealed.num_columns(), SAMPLES.columns.len());
    assert_eq!(columns::text(&sealed, "host").unwrap().value(0), "node-a");
}

#[test]
fn a_spool_that_lacks_what_every_row_needs_is_left_alone_and_says_why() {
    let dir = TempDir::new().unwrap();
    earlier_spool(dir.path(), &[sample("sim:0", 10)], &["device"]);
    let recovered = recovered(dir.path());
    let outcome = &recovered[0].outcome;
    assert!(matches!(outcome, RecoveredAs::Refused(why) if why.contains("no column `device`")), "{outcome:?}");
}

#[test]
fn sealed_samples_say_their_host_and_wall_clock() {
    let dir = TempDir::new().unwrap();
    let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "node-a", &meta()).unwrap();
    append(&mut writer, &[sample("sim:0", 10), sample("sim:1", 20)]);
    let sealed = writer.seal().unwrap();
    let batch = read_file(&sealed, &SAMPLES).unwrap().next().unwrap().unwrap();
    let t = batch.column_by_name("t").unwrap();
    let t: &arrow::array::TimestampMillisecondArray = t.as_any().downcast_ref().unwrap();
    // The anchor says 5 ns = 7 ns: no whole millisecond apart.
    assert_eq!((t.value(0), t.value(1)), (10, 20));
    assert_eq!(columns::text(&batch, "host").unwrap().value(1), "node-a");
}
