//! Segments that end by size and by the clock, disks that are full for a while, and what a summary says of it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::agent::writer::{BATCH_ROWS, MAX_WAITING_ROWS};
use crate::clock::SimClock;
use crate::schema::{EnergySource, Origin, SAMPLES, TELEMETRY};
use crate::store::{read_metadata, read_table, table_files};

const S: i64 = 1_000_000_000;

pub(in crate::agent) fn row(t_mono_ns: i64) -> SampleRow {
    SampleRow {
        device: Arc::from("a"),
        t_mono_ns,
        t_prev_poll_ns: t_mono_ns - 1,
        energy_counter_uj: Some(t_mono_ns.unsigned_abs()),
        power_w: None,
        t_device_ns: None,
        source: EnergySource::Counter,
        job_id: None,
    }
}

fn telemetry_row(t_mono_ns: i64) -> TelemetryRow {
    TelemetryRow {
        device: Arc::from("a"),
        t_mono_ns,
        temperature_c: Some(50.0),
        core_clock_hz: None,
        memory_clock_hz: None,
        utilization: None,
        memory_used_bytes: None,
        power_limit_w: None,
        throttle_reasons: Vec::new(),
        source: Origin::Measured,
    }
}

pub(in crate::agent) fn summary() -> Recording {
    Recording { host: "n".to_owned(), t_end_mono_ns: 1, ..Recording::default() }
}

/// Monotonic 0 is 00:00 UTC of some day.
fn meta() -> FileMetadata {
    let mut meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 20_000 * 86_400 * S });
    meta.extra = BTreeMap::from([("recorder".to_owned(), "agent".to_owned())]);
    meta
}

pub(in crate::agent) fn options(keeping: Keeping) -> KeeperOptions {
    KeeperOptions { keeping, segment_rows: 1 << 20, notices: Notices::default(), keeps_anchor: true }
}

pub(in crate::agent) fn keeper(dir: &Path, keeping: Keeping, clock: &SimClock) -> Keeper {
    Keeper::create(dir, meta(), Arc::new(clock.clone()), options(keeping)).unwrap()
}

pub(in crate::agent) fn instants(dir: &Path) -> Vec<i64> {
    let batches = read_table(dir, &SAMPLES).unwrap();
    let rows: Vec<SampleRow> = batches.flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap()).collect();
    rows.iter().map(|r| r.t_mono_ns).collect()
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_no_row_doubles_none_and_is_told_once() {
    let dir = TempDir::new().unwrap();
    let (campaign, away) = (dir.path().join("campaign"), dir.path().join("away"));
    fs::create_dir(&campaign).unwrap();
    let clock = SimClock::starting_at(0);
    let mut keeper = keeper(&campaign, Keeping::default(), &clock);
    (0..10).for_each(|t| keeper.push(row(t)));
    keeper.flush(&summary).unwrap();
    keeper.limit_room(500);
    // No new segment either.
    fs::rename(&campaign, &away).unwrap();
    (10..400).for_each(|t| keeper.push(row(t)));
    for s in 1..=30 {
        clock.sleep_until(s * S);
        assert!(keeper.flush(&summary).is_err());
        assert!(keeper.is_paused());
    }
    fs::rename(&away, &campaign).unwrap();
    (400..410).for_each(|t| keeper.push(row(t)));
    clock.sleep_until(31 * S);
    keeper.flush(&summary).unwrap();
    assert!(!keeper.is_paused());
    let notices = keeper.options.notices.clone();
    let recording = keeper.finish(0, &summary).unwrap();
    assert_eq!((recording.rows, recording.write_errors, recording.sealed_files), (410, 30, 2));
    assert_eq!((recording.pauses.count, recording.pauses.total_s, recording.pauses.lost_rows), (1, 30.0, 0));
    let reason = &recording.pauses.latest[0].reason;
    assert!(reason.contains("the disk or the quota is full"), "{reason}");
    let said = notices.take();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].ends_with("after a pause of 30.0 s; no row was lost"), "{}", said[1]);
    assert_eq!(instants(&campaign), (0..410).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(&campaign).unwrap().count(), 2, "no spool is left");
}

#[test]
fn rows_that_wait_for_a_disk_are_bounded_and_the_others_are_counted_exactly() {
    let dir = TempDir::new().unwrap();
    let (campaign, away) = (dir.path().join("campaign"), dir.path().join("away"));
    fs::create_dir(&campaign).unwrap();
    let clock = SimClock::starting_at(0);
    let mut keeper = keeper(&campaign, Keeping::default(), &clock);
    keeper.limit_room(0);
    fs::rename(&campaign, &away).unwrap();
    let pushed = 3 * MAX_WAITING_ROWS as i64;
    for t in 0..pushed {
        keeper.push(row(t));
        if t % 50_000 == 0 {
            assert!(keeper.flush(&summary).is_err());
        }
    }
    assert!(keeper.is_stuck());
    fs::rename(&away, &campaign).unwrap();
    let recording = keeper.finish(0, &summary).unwrap();
    assert_eq!(recording.rows, MAX_WAITING_ROWS as u64);
    assert_eq!(recording.rows + recording.lost_rows, pushed as u64);
    // All of them but those before the first attempt, which there were none.
    assert_eq!(recording.pauses.lost_rows, recording.lost_rows);
    assert_eq!(instants(&campaign).len(), MAX_WAITING_ROWS);
}

#[test]
fn a_recording_that_cannot_be_finished_says_how_many_rows_are_missing_and_leaves_the_rest_whole() {
    let dir = TempDir::new().unwrap();
    let (campaign, away) = (dir.path().join("campaign"), dir.path().join("away"));
    fs::create_dir(&campaign).unwrap();
    let mut keeper = keeper(&campaign, Keeping::default(), &SimClock::starting_at(0));
    (0..10).for_each(|t| keeper.push(row(t)));
    keeper.flush(&summary).unwrap();
    keeper.limit_room(0);
    fs::rename(&campaign, &away).unwrap();
    (10..30).for_each(|t| keeper.push(row(t)));
    let error = keeper.finish(7, &summary).unwrap_err().to_string();
    assert!(error.starts_with("27 rows of the recording could not be written"), "{error}");
    assert_eq!(instants(&away), (0..10).collect::<Vec<_>>());
}

#[test]
fn segments_end_on_the_hour_and_say_which_span_they_hold() {
    let dir = TempDir::new().unwrap();
    let clock = SimClock::starting_at(0);
    let hourly = Keeping { rotate_every: Some(Duration::from_secs(3_600)), ..Keeping::default() };
    let mut keeper = keeper(dir.path(), hourly, &clock);
    // A row a minute, for 3 h 30 min, from 00:00:30 on.
    for minute in 0..210 {
        let t_ns = (60 * minute + 30) * S;
        clock.sleep_until(t_ns);
        keeper.push(row(t_ns));
        keeper.push_telemetry(telemetry_row(t_ns));
        keeper.flush(&summary).unwrap();
    }
    let recording = keeper.finish(0, &summary).unwrap();
    assert_eq!((recording.sealed_files, recording.files.len()), (8, 8));
    for table in [&SAMPLES, &TELEMETRY] {
        let files = table_files(dir.path(), table).unwrap();
        assert!(files.is_sorted());
        let span = |path: &PathBuf| {
            let meta = read_metadata(path).unwrap();
            let minute = |key: &str| (meta.extra[key].parse::<i64>().unwrap() / S - 30) / 60;
            (minute("t_begin_mono_ns"), minute("t_end_mono_ns"))
        };
        // The row of 01:00:30 was written in the flush that found the hour to be over, and ends its segment.
        assert_eq!(files.iter().map(span).collect::<Vec<_>>(), [(0, 60), (61, 120), (121, 180), (181, 209)]);
    }
    assert_eq!(instants(dir.path()).len(), 210);
}

#[test]
fn a_segment_that_is_large_enough_is_sealed_and_an_empty_one_never() {
    let dir = TempDir::new().unwrap();
    let clock = SimClock::starting_at(0);
    let small = Keeping { rotate_bytes: 40_000, rotate_every: Some(Duration::from_secs(1)), ..Keeping::default() };
    let mut keeper = keeper(dir.path(), small, &clock);
    for s in 1..=100 {
        clock.sleep_until(s * S);
        keeper.flush(&summary).unwrap();
    }
    assert_eq!(keeper.sealed_files, 0);
    for t in 0..10_000 {
        keeper.push(row(t));
        if t % 100 == 99 {
            keeper.flush(&summary).unwrap();
        }
    }
    let recording = keeper.finish(0, &summary).unwrap();
    // 33 bytes of a row at least (four numbers and a flag) and 100 at most: 330 kB to 1 MB, in pieces of 40 kB and more.
    assert!((6..=25).contains(&recording.sealed_files), "{}", recording.sealed_files);
    assert_eq!(instants(dir.path()), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn reopening_seals_what_there_is_and_goes_on_in_the_next_file() {
    let dir = TempDir::new().unwrap();
    let mut keeper = keeper(dir.path(), Keeping::default(), &SimClock::starting_at(0));
    keeper.reopen(&summary).unwrap();
    assert_eq!(keeper.sealed_files, 0, "there was nothing to seal");
    (0..10).for_each(|t| keeper.push(row(t)));
    keeper.push_telemetry(telemetry_row(5));
    keeper.reopen(&summary).unwrap();
    let sealed: Vec<String> =
        fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    assert_eq!(sealed.len(), 2, "{sealed:?}");
    assert!(sealed.iter().all(|name| name.ends_with("-n-000000.parquet")), "{sealed:?}");
    let bytes = fs::read(dir.path().join("samples-n-000000.parquet")).unwrap();
    (10..20).for_each(|t| keeper.push(row(t)));
    let recording = keeper.finish(0, &summary).unwrap();
    assert_eq!(recording.sealed_files, 3);
    assert_eq!(fs::read(dir.path().join("samples-n-000000.parquet")).unwrap(), bytes, "an earlier file never changes");
    assert_eq!(instants(dir.path()), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_long_recording_keeps_nothing_that_grows() {
    let dir = TempDir::new().unwrap();
    let clock = SimClock::starting_at(0);
    let keeping = Keeping {
        rotate_every: Some(Duration::from_secs(300)),
        keep_for: Some(Duration::from_secs(3_600)),
        ..Keeping::default()
    };
    let mut keeper = keeper(dir.path(), keeping, &clock);
    let mut sizes = Vec::new();
    // Four hours of a row a second; every tenth minute the disk refuses for a while.
    for s in 0..4 * 3_600 {
        clock.sleep_until(s * S);
        keeper.push(row(s * S));
        if s % 600 == 300 {
            keeper.limit_room(0);
        }
        let _ = keeper.flush(&summary);
        if s % 3_600 == 3_599 {
            sizes.push(serde_json::to_string(&keeper.complete(summary())).unwrap().len());
        }
    }
    let (first, last) = (sizes[2], sizes[3]);
    assert!(last < first + first / 10, "the summary grows: {sizes:?}");
    assert!(fs::read_dir(dir.path()).unwrap().count() <= 25, "an hour, and what is just being written");
    let recording = keeper.finish(0, &summary).unwrap();
    assert!(recording.sealed_files >= 47 && recording.files.len() == MAX_LISTED_FILES);
    assert!(recording.removed.files >= 33, "{:?}", recording.removed);
    assert_eq!((recording.rows, recording.lost_rows), (4 * 3_600, 0));
}

#[test]
fn batches_are_written_in_pieces_that_bound_what_writing_needs() {
    let dir = TempDir::new().unwrap();
    let mut keeper = keeper(dir.path(), Keeping::default(), &SimClock::starting_at(0));
    (0..3 * BATCH_ROWS as i64).for_each(|t| keeper.push(row(t)));
    keeper.flush(&summary).unwrap();
    let sizes: Vec<usize> = read_table(dir.path(), &SAMPLES).unwrap().map(|b| b.unwrap().num_rows()).collect();
    assert_eq!(sizes, [BATCH_ROWS; 3]);
}
