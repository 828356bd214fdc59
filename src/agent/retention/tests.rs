//! What goes, in which order, and what never does.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::agent::keeper::tests::row;
use crate::clock::ClockAnchor;
use crate::store::{FileMetadata, SampleRow, SegmentWriter};

const S: i64 = 1_000_000_000;

/// A directory with sealed segments that end at these seconds.
fn directory(ends_s: &[i64]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for end_s in ends_s {
        let mut meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
        meta.extra = BTreeMap::from([("recorder".to_owned(), "agent".to_owned())]);
        let mut writer = SegmentWriter::create(dir.path(), &SAMPLES, "n", &meta).unwrap();
        writer.append(&SampleRow::batch(&[row(end_s * S)]).unwrap()).unwrap();
        writer.seal().unwrap();
    }
    dir
}

/// The segments that are left, by the second at which they end.
fn left(dir: &TempDir) -> Vec<i64> {
    let mut inventory = Inventory::new(dir.path(), REMOVABLE, "n", "agent");
    inventory.look().unwrap().iter().map(|s| s.t_end_unix_ns / S).collect()
}

fn bytes_of_one(dir: &TempDir) -> u64 {
    let sizes = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    sizes.max().unwrap()
}

const NONE: Keeping =
    Keeping { rotate_every: None, rotate_bytes: 1 << 20, keep_for: None, keep_bytes: None, min_free_bytes: None };

fn retention(dir: &TempDir, keeping: Keeping, free: u64) -> (Retention, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(free));
    let told = free.clone();
    let free_bytes = Box::new(move |_: &Path| Some(told.load(Ordering::Relaxed)));
    (Retention::new(dir.path(), keeping, "n", "agent", free_bytes), free)
}

#[test]
fn segments_go_once_their_last_row_is_too_old() {
    let dir = directory(&[100, 200, 300]);
    let (mut retention, _) = retention(&dir, Keeping { keep_for: Some(Duration::from_secs(50)), ..NONE }, u64::MAX);
    let notices = Notices::default();
    retention.look(0, 150 * S, 0, &notices);
    assert_eq!(left(&dir), [100, 200, 300], "50 s is not more than 50 s");
    retention.look(30 * S, 260 * S, 0, &notices);
    assert_eq!(left(&dir), [100, 200, 300], "the directory is looked through once a minute");
    retention.look(60 * S, 260 * S, 0, &notices);
    assert_eq!(left(&dir), [300]);
    assert_eq!(retention.removed().files, 2);
    let said = notices.take();
    assert!(said.len() == 1 && said[0].starts_with("removed 2 sealed segments"), "{said:?}");
}

#[test]
fn the_oldest_go_until_the_rest_and_what_is_being_written_fit_the_budget() {
    let dir = directory(&[300, 100, 200]);
    let one = bytes_of_one(&dir);
    let (mut retention, _) = retention(&dir, Keeping { keep_bytes: Some(3 * one), ..NONE }, u64::MAX);
    let notices = Notices::default();
    retention.look(0, 0, 0, &notices);
    assert_eq!(left(&dir), [100, 200, 300]);
    retention.hurry();
    retention.look(S, 0, one, &notices);
    assert_eq!(left(&dir), [200, 300]);
    // What is being written is never touched, however much it is.
    retention.hurry();
    retention.look(2 * S, 0, 100 * one, &notices);
    assert!(left(&dir).is_empty());
    assert_eq!((retention.removed().files, retention.lacks_space()), (3, None));
}

#[test]
fn space_is_made_while_there_is_something_to_remove_and_then_nothing_is_written() {
    let dir = directory(&[100, 200, 300]);
    let one = bytes_of_one(&dir);
    let (mut retention, free) = retention(&dir, Keeping { min_free_bytes: Some(10 * one), ..NONE }, 10 * one);
    let notices = Notices::default();
    retention.look(0, 0, 0, &notices);
    assert_eq!(left(&dir).len(), 3);
    free.store(9 * one, Ordering::Relaxed);
    retention.look(5 * S, 0, 0, &notices);
    assert_eq!(left(&dir).len(), 3, "asked again after ten seconds");
    retention.look(10 * S, 0, 0, &notices);
    assert_eq!((left(&dir), retention.lacks_space()), (vec![200, 300], None));
    free.store(one, Ordering::Relaxed);
    retention.look(20 * S, 0, 0, &notices);
    assert!(left(&dir).is_empty());
    let reason = retention.lacks_space().expect("too little").to_owned();
    assert!(reason.contains("fewer than") && reason.contains("no sealed segment"), "{reason}");
    free.store(10 * one, Ordering::Relaxed);
    retention.look(30 * S, 0, 0, &notices);
    assert_eq!(retention.lacks_space(), None);
}

#[test]
fn without_limits_nothing_is_even_looked_at() {
    let dir = directory(&[100]);
    let (mut retention, _) = retention(&dir, NONE, 0);
    retention.look(0, i64::MAX, u64::MAX, &Notices::default());
    assert_eq!((left(&dir), retention.lacks_space()), (vec![100], None));
}
