use std::sync::Arc;

use energylens::clock::ClockAnchor;
use energylens::schema::{EnergySource, Origin};
use energylens::store::SegmentWriter;
use tempfile::TempDir;

use super::*;

const S: i64 = 1_000_000_000;

fn metadata(host: &str, anchor: (i64, i64)) -> FileMetadata {
    let (t_mono_ns, t_unix_ns) = (anchor.0 * S, anchor.1 * S);
    FileMetadata::of_host(host, ClockAnchor { t_mono_ns, t_unix_ns })
}

/// A segment of one device that draws `power_w(s)` in the second that ends at `s`.
fn segment(dir: &Path, meta: &FileMetadata, seconds: std::ops::RangeInclusive<i64>, power_w: &dyn Fn(i64) -> u64) {
    let mut writer = SegmentWriter::create(dir, &SAMPLES, &meta.host, meta).unwrap();
    let mut counter_uj = 0;
    let rows: Vec<SampleRow> = seconds
        .map(|s| {
            counter_uj += power_w(s) * 1_000_000;
            SampleRow {
                device: Arc::from("sim:0"),
                t_mono_ns: s * S,
                t_prev_poll_ns: s * S - 1,
                energy_counter_uj: Some(counter_uj),
                power_w: None,
                t_device_ns: None,
                source: EnergySource::Counter,
                job_id: None,
            }
        })
        .collect();
    writer.append(&SampleRow::batch(&rows).unwrap()).unwrap();
    writer.seal().unwrap();
}

fn told(host: &str, begin_s: i64, end_s: i64, polls: u64, lost_rows: u64) -> String {
    let recording = Recording {
        host: host.to_owned(),
        t_begin_mono_ns: begin_s * S,
        t_end_mono_ns: end_s * S,
        polls,
        edges: polls / 10,
        lost_rows,
        sampler_cpu_s: Some(0.5),
        ..Recording::default()
    };
    serde_json::to_string(&recording).unwrap()
}

#[test]
fn the_whole_recording_is_drawn_and_a_short_peak_stays() {
    let dir = TempDir::new().unwrap();
    // Five thousand seconds at 100 W, one of them at 700 W, one at 10 W.
    let power_w = |s: i64| match s {
        4_321 => 700,
        1_234 => 10,
        _ => 100,
    };
    segment(dir.path(), &metadata("n1", (0, 1_000)), 1..=5_001, &power_w);
    let power = read(dir.path()).unwrap().power;
    let [trace] = power.as_slice() else { panic!("{} traces", power.len()) };
    assert_eq!(trace.device, "sim:0");
    assert!(trace.t_s.len() <= 2 * STRETCHES && trace.t_s.len() > STRETCHES / 2, "{} points", trace.t_s.len());
    assert!(trace.t_s.is_sorted());
    // The first power is that of the second that ends at 2.
    assert_eq!((trace.t_s.first(), trace.t_s.last().map(|t| *t > 4_980.0)), (Some(&0.0), Some(true)));
    let at = |w: f64| trace.power_w.iter().position(|p| *p == w).map(|i| trace.t_s[i]);
    assert_eq!((at(700.0), at(10.0)), (Some(4_319.0), Some(1_232.0)));
}

#[test]
fn nodes_are_told_apart_and_share_the_wall_clock() {
    let dir = TempDir::new().unwrap();
    // The second node has been up for a day longer; its recording begins ten seconds later.
    segment(dir.path(), &metadata("n1", (0, 1_000_000)), 1..=5, &|_| 100);
    segment(dir.path(), &metadata("n2", (86_400, 1_000_010)), 86_401..=86_405, &|_| 200);
    let mut marks = SegmentWriter::create(dir.path(), &MARKS, "n2", &metadata("n2", (86_400, 1_000_010))).unwrap();
    let mark = |t_s: i64, event| MarkRow {
        t_mono_ns: t_s * S,
        run_id: "a".to_owned(),
        phase: "total".to_owned(),
        event,
        source: Origin::Measured,
        uid: None,
        job_id: None,
        step_id: None,
    };
    let rows = [mark(86_402, MarkEvent::Begin), mark(86_404, MarkEvent::End)];
    marks.append(&MarkRow::batch(&rows).unwrap()).unwrap();
    marks.seal().unwrap();
    let recorded = read(dir.path()).unwrap();
    let drawn: Vec<_> = recorded.power.iter().map(|t| (t.device.as_str(), t.t_s.clone(), t.power_w.clone())).collect();
    let first = ("n1 sim:0", vec![0.0, 1.0, 2.0, 3.0], vec![100.0; 4]);
    assert_eq!(drawn, [first, ("n2 sim:0", vec![10.0, 11.0, 12.0, 13.0], vec![200.0; 4])]);
    let band = recorded.phases.first().unwrap();
    assert_eq!((band.start_s, band.end_s, band.run_id.as_str()), (10.0, 12.0, "a"));
    assert_eq!(recorded.facts.unwrap().silent_files, Some(2));
}

#[test]
fn each_recording_counts_once_however_many_segments_it_has() {
    let dir = TempDir::new().unwrap();
    // One recording in two segments, whose summaries grow; another in a merged file; a third that was killed.
    let mut meta = metadata("n1", (0, 1_000));
    for (seconds, polls, lost) in [(1..=2, 100, 1), (3..=4, 300, 2)] {
        meta.extra.insert("recording".to_owned(), told("n1", 0, *seconds.end(), polls, lost));
        segment(dir.path(), &meta, seconds, &|_| 100);
    }
    meta.extra.remove("recording");
    let made = [told("n1", 10, 12, 40, 0), told("n1", 10, 16, 60, 5)].map(|r| serde_json::json!({ "recording": r }));
    meta.extra.insert("compacted_from".to_owned(), serde_json::to_string(&made).unwrap());
    segment(dir.path(), &meta, 11..=16, &|_| 100);
    meta.extra.remove("compacted_from");
    segment(dir.path(), &meta, 20..=21, &|_| 100);
    let facts = read(dir.path()).unwrap().facts.unwrap();
    assert_eq!((facts.polls, facts.edges, facts.lost), (Some(360), Some(36), Some(7)));
    // Half a second of processor time in 4 s and again in 6 s.
    assert_eq!((facts.duration_s, facts.cpu_share, facts.silent_files), (Some(10.0), Some(0.1), Some(1)));
    assert!(read(TempDir::new().unwrap().path()).unwrap().facts.is_none());
}
