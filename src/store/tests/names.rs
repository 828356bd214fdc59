//! Which files belong to a campaign, in which order, and who may write to it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::*;
use super::{append, meta, sample, samples};
use crate::schema::{SAMPLES, TELEMETRY};

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
