use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::clock::ClockAnchor;
use crate::schema::EnergySource;
use crate::source::{Device, Scope};
use crate::store::{
    Inventory, SampleRow, SegmentWriter, compact, duckdb_views, read_metadata, read_table, table_files,
};

const S: i64 = 1_000_000_000;

/// A segment of samples, one a second of each of two devices, from `begin_s` after boot.
fn segment(dir: &Path, begin_s: i64, rows: i64, recorder: &str) -> PathBuf {
    // Booted two days after the epoch.
    let anchor = ClockAnchor { t_mono_ns: begin_s * S, t_unix_ns: (2 * 86_400 + begin_s) * S };
    let mut meta = FileMetadata::of_host("n1", anchor);
    meta.extra.insert("recorder".to_owned(), recorder.to_owned());
    let mut writer = SegmentWriter::create(dir, &SAMPLES, "n1", &meta).unwrap();
    let row = |device: &str, i: i64| SampleRow {
        device: Arc::from(device),
        t_mono_ns: (begin_s + i) * S,
        t_prev_poll_ns: (begin_s + i) * S - 1,
        energy_counter_uj: Some((begin_s + i) as u64),
        power_w: None,
        t_device_ns: None,
        source: EnergySource::Counter,
        job_id: None,
    };
    let all: Vec<_> = (0..rows).flat_map(|i| [row("a", i), row("b", i)]).collect();
    writer.append(&SampleRow::batch(&all).unwrap()).unwrap();
    writer.set_extra("recording", "{\"lost_rows\":3}".to_owned());
    writer.seal().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    names.retain(|n| n != "lock");
    names.sort();
    names
}

/// What a reader of the directory sees: device and instant of every row, sorted.
fn seen(dir: &Path) -> Vec<(String, i64)> {
    let rows = read_table(dir, &SAMPLES).unwrap().flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap());
    let mut seen: Vec<_> = rows.map(|r| (r.device.to_string(), r.t_mono_ns)).collect();
    seen.sort();
    seen
}

fn merged(dir: &Path) -> Merged {
    merge(&Campaign::open(dir).unwrap(), &|_, _| {}).unwrap()
}

#[test]
fn the_segments_of_a_day_become_one_file_with_all_that_they_said() {
    let dir = TempDir::new().unwrap();
    let starts = [0, 100, 200, 86_400 + 5, 86_400 + 100];
    starts.iter().for_each(|begin| drop(segment(dir.path(), *begin, 50, "agent")));
    let before = seen(dir.path());
    let told = std::cell::RefCell::new(Vec::new());
    let campaign = Campaign::open(dir.path()).unwrap();
    let done = merge(&campaign, &|files, all| told.borrow_mut().push((files, all))).unwrap();
    assert_eq!((done.files_merged, done.files_written, done.files_kept, done.rows), (5, 2, 0, 500));
    assert_eq!(told.into_inner(), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
    assert_eq!(names(dir.path()), ["samples-n1-000000+000002.parquet", "samples-n1-000003+000004.parquet"]);
    assert_eq!(seen(dir.path()), before);
    let meta = read_metadata(&dir.path().join("samples-n1-000000+000002.parquet")).unwrap();
    assert_eq!(meta.extra[SOURCES].matches("lost_rows").count(), 3);
    assert_eq!((meta.extra[span::BEGIN].as_str(), meta.extra[span::END].as_str()), ("0", "249000000000"));
    assert!(!meta.extra.contains_key("recording"));
    // The next segment counts on, and joins its day; what is merged once is not written again by itself.
    assert_eq!(merged(dir.path()).files_written, 0);
    let next = segment(dir.path(), 86_400 + 200, 10, "agent");
    assert!(next.ends_with("samples-n1-000005.parquet"), "{}", next.display());
    assert_eq!(merged(dir.path()).files_merged, 2);
    assert_eq!(names(dir.path()), ["samples-n1-000000+000002.parquet", "samples-n1-000003+000005.parquet"]);
    assert_eq!(seen(dir.path()).len(), before.len() + 20);
    // Retention knows them as its own, by their latest row.
    let mut inventory = Inventory::new(dir.path(), &[&SAMPLES], "n1", "agent");
    let own = inventory.look().unwrap();
    let ends: Vec<i64> = own.iter().map(|s| s.t_end_unix_ns / S).collect();
    assert_eq!(ends, [2 * 86_400 + 249, 3 * 86_400 + 209]);
}

#[test]
fn only_neighbours_of_one_recorder_are_merged() {
    let dir = TempDir::new().unwrap();
    for (begin, recorder) in [(0, "agent"), (100, "run"), (200, "agent"), (300, "agent")] {
        segment(dir.path(), begin, 5, recorder);
    }
    // The fourth is thought to be in a spool still.
    let spool = dir.path().join("samples-n1-000003.arrows.spool");
    fs::write(&spool, "").unwrap();
    let found = segments(dir.path(), &SAMPLES).unwrap();
    let groups = neighbours(dir.path(), &SAMPLES, "samples-n1", &found["samples-n1"]).unwrap();
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    fs::remove_file(&spool).unwrap();
    // What cannot be read is nobody's to touch.
    fs::write(dir.path().join("samples-n1-000004.parquet"), "not a table").unwrap();
    let done = merged(dir.path());
    assert_eq!((done.files_merged, done.files_kept), (2, 2));
    let expected = [
        "samples-n1-000000.parquet",
        "samples-n1-000001.parquet",
        "samples-n1-000002+000003.parquet",
        "samples-n1-000004.parquet",
    ];
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn devices_that_changed_and_other_boots_stay_apart() {
    let of = |name: &str| Device {
        id: "nvml:0".to_owned(),
        name: name.to_owned(),
        scope: Scope::Gpu,
        energy_source: EnergySource::Counter,
        counter_modulus_uj: None,
        counter_step_uj: None,
        power_limit_w: None,
        memory_bytes: None,
    };
    let source = |boot_s: i64, begin_s: i64, name: &str, number: u64| {
        let anchor = ClockAnchor { t_mono_ns: begin_s * S, t_unix_ns: (boot_s + begin_s) * S };
        let metadata = FileMetadata { devices: vec![of(name)], ..FileMetadata::of_host("n1", anchor) };
        let span = (begin_s * S, (begin_s + 9) * S);
        Source {
            path: PathBuf::new(),
            numbers: (number, number),
            pairs: BTreeMap::new(),
            metadata,
            span,
            rows: 0,
            bytes: 0,
            made: Vec::new(),
        }
    };
    let found = Segments::default();
    let first = source(0, 0, "A100", 0);
    assert!(fits(&first, &source(0, 10, "A100", 1), &found));
    assert!(!fits(&first, &source(0, 10, "H100", 1), &found), "another device under the same identifier");
    assert!(!fits(&first, &source(60, 10, "A100", 1), &found), "another boot");
    assert!(!fits(&first, &source(0, 86_400, "A100", 1), &found), "another day");
    assert!(!fits(&source(0, 100, "A100", 0), &source(0, 10, "A100", 1), &found), "time goes back");
    let spools = Segments { spools: [1].into(), ..Segments::default() };
    assert!(!fits(&first, &source(0, 10, "A100", 2), &spools), "something between is still written");
}

/// Every state that a kill can leave: rows are seen once, and the next merging ends as if nothing had been.
#[test]
fn killed_at_any_step_every_row_is_there_once() {
    let fresh = || {
        let dir = TempDir::new().unwrap();
        [0, 100, 200].iter().for_each(|begin| drop(segment(dir.path(), *begin, 20, "agent")));
        dir
    };
    let group = |dir: &Path| {
        let found = segments(dir, &SAMPLES).unwrap();
        neighbours(dir, &SAMPLES, "samples-n1", &found["samples-n1"]).unwrap().remove(0)
    };
    let expected = seen(fresh().path());
    let final_name = "samples-n1-000000+000002.parquet";
    for step in 0..7 {
        let dir = fresh();
        match step {
            // While the file is written; its name is that of a temporary one.
            0 => fs::write(dir.path().join(format!("..{final_name}{MERGING_SUFFIX}.x1.tmp")), "PAR1").unwrap(),
            // Written and not counted.
            1 => drop(write(dir.path(), &SAMPLES, "samples-n1", &group(dir.path()), &mut |_| ()).unwrap()),
            _ => {
                let merging = write(dir.path(), &SAMPLES, "samples-n1", &group(dir.path()), &mut |_| ()).unwrap();
                let ready = commit(&merging).unwrap();
                // None, one, two, all of the segments removed; then renamed.
                for number in 0..(step - 2).min(3) {
                    fs::remove_file(dir.path().join(format!("samples-n1-00000{number}.parquet"))).unwrap();
                }
                if step == 6 {
                    fs::rename(&ready, dir.path().join(final_name)).unwrap();
                }
            }
        }
        assert_eq!(seen(dir.path()), expected, "step {step}");
        let views = duckdb_views(dir.path()).unwrap();
        let by_name = views.matches(&format!(".{final_name}{READY_SUFFIX}")).count();
        assert_eq!(by_name, usize::from((2..6).contains(&step)), "step {step}: {views}");
        merged(dir.path());
        assert_eq!(names(dir.path()), [final_name], "step {step}");
        assert_eq!(seen(dir.path()), expected, "step {step}");
    }
}

#[test]
fn a_file_that_is_finished_while_it_is_opened_is_found_and_one_that_was_merged_is_said() {
    let dir = TempDir::new().unwrap();
    let first = segment(dir.path(), 0, 20, "agent");
    segment(dir.path(), 100, 20, "agent");
    let expected = seen(dir.path());
    let rows = read_table(dir.path(), &SAMPLES).unwrap();
    merged(dir.path());
    // Listed before, opened after.
    let error = rows.filter_map(Result::err).next().unwrap().to_string();
    assert!(error.contains("was merged with its neighbours while it was read; read again"), "{error}");
    assert!(!first.exists());
    let visible = dir.path().join("samples-n1-000000+000001.parquet");
    let ready = dir.path().join(format!(".samples-n1-000000+000001.parquet{READY_SUFFIX}"));
    fs::rename(&visible, &ready).unwrap();
    let listed = table_files(dir.path(), &SAMPLES).unwrap();
    assert_eq!(listed, std::slice::from_ref(&ready));
    fs::rename(&ready, &visible).unwrap();
    let found: usize = read_file(&listed[0], &SAMPLES).unwrap().map(|b| b.unwrap().num_rows()).sum();
    assert_eq!(found, expected.len());
}

#[test]
fn a_lake_knows_what_it_has_of_merged_segments() {
    let (dir, lake) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    [0, 100].iter().for_each(|begin| drop(segment(dir.path(), *begin, 20, "agent")));
    assert_eq!(compact(dir.path(), lake.path()).unwrap().rows, 80);
    segment(dir.path(), 200, 5, "agent");
    let expected = seen(dir.path());
    merged(dir.path());
    // Two of the three are there already.
    let grown = compact(dir.path(), lake.path()).unwrap();
    assert_eq!((grown.files_read, grown.files_written, grown.rows), (3, 1, 90));
    let again = compact(dir.path(), lake.path()).unwrap();
    assert_eq!((again.files_written, again.files_kept), (0, 1));
    let file = fs::read_dir(lake.path().join("samples/date=1970-01-03/node=n1")).unwrap().flatten().next().unwrap();
    let rows = read_file(&file.path(), &SAMPLES).unwrap().flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap());
    let mut found: Vec<_> = rows.map(|r| (r.device.to_string(), r.t_mono_ns)).collect();
    found.sort();
    assert_eq!(found, expected);
}
