//! Files that were cut off, damaged or left by a killed writer, and disks that are full.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::*;
use super::{append, meta, sample, samples};
use crate::schema::SAMPLES;

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
            .args(["--exact", "store::tests::damage::child_that_writes_until_killed", "--nocapture"])
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
