//! `compact --in-place`: killed at any moment, every row is there once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use energylens::clock::ClockAnchor;
use energylens::schema::{EnergySource, SAMPLES};
use energylens::store::{FileMetadata, SampleRow, SegmentWriter, read_table, table_files};

use crate::support::desk::{Desk, program};

const S: i64 = 1_000_000_000;
const ROWS: i64 = 400;

/// A segment of one second per row that begins so long after boot.
fn segment(dir: &Path, begin_s: i64) {
    let anchor = ClockAnchor { t_mono_ns: 0, t_unix_ns: 86_400 * S };
    let mut writer =
        SegmentWriter::create(dir, &SAMPLES, "n1", &FileMetadata::of_host("n1", anchor)).expect("a segment");
    let row = |i: i64| SampleRow {
        device: Arc::from("rapl:package-0"),
        t_mono_ns: (begin_s + i) * S,
        t_prev_poll_ns: (begin_s + i) * S - 1,
        energy_counter_uj: Some((begin_s + i) as u64 * 90_000_000),
        power_w: None,
        t_device_ns: None,
        source: EnergySource::Counter,
        job_id: None,
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    writer.append(&SampleRow::batch(&rows).expect("samples")).expect("room");
    writer.seal().expect("a sealed segment");
}

fn instants(dir: &Path) -> Vec<i64> {
    let batches = read_table(dir, &SAMPLES).expect("a readable directory");
    let rows = batches.flat_map(|b| SampleRow::from_batch(&b.expect("a readable file")).expect("samples"));
    let mut instants: Vec<i64> = rows.map(|r| r.t_mono_ns / S).collect();
    instants.sort_unstable();
    instants
}

#[test]
fn a_merging_that_is_killed_at_any_moment_leaves_every_row_once() {
    let desk = Desk::new();
    let dir = desk.path("rec");
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut end_s = 0;
    for (round, wait_ms) in [0, 3, 9, 20, 35, 60, 110, 200].into_iter().enumerate() {
        for _ in 0..12 {
            segment(&dir, end_s);
            end_s += ROWS;
        }
        let mut child = Command::new(program())
            .args(["compact", "rec", "--in-place"])
            .current_dir(desk.path("."))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().expect("a child");
        child.wait().expect("a child");
        assert_eq!(instants(&dir), (0..end_s).collect::<Vec<_>>(), "round {round}");
    }
    desk.type_in("compact rec --in-place").done().prints("files became 1 (");
    assert_eq!(instants(&dir), (0..end_s).collect::<Vec<_>>());
    assert_eq!(table_files(&dir, &SAMPLES).expect("files").len(), 1);
    let left = std::fs::read_dir(&dir).expect("files").flatten().filter(|e| e.file_name() != "lock").count();
    assert_eq!(left, 1, "nothing else is left");
    desk.type_in("compact rec --in-place --json").done();
    desk.type_in("compact rec --in-place --partition lake").ends_with(2);
}
