//! Memory does not grow with the length of a recording. A process of its own, so that nothing else is counted; the whole
//! day is in `benches/agent`.

use std::sync::Arc;

use energylens::agent::{Cadence, RecorderOptions, SamplerOptions, VirtualRecorder};
use energylens::clock::{Clock, SimClock};

#[path = "support/steady.rs"]
mod steady;

const S: i64 = 1_000_000_000;

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: f64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).expect("a number of pages");
    pages * 4096.0 / (1024.0 * 1024.0)
}

#[test]
fn eight_minutes_at_1_khz_take_no_more_memory_than_two() {
    let dir = tempfile::TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    // 400 rows a second: a segment is sealed every minute, so that two minutes have seen everything twice.
    let options = RecorderOptions {
        sampler: SamplerOptions { cadence: Cadence::FixedRate { poll_hz: 1_000.0 }, ..SamplerOptions::default() },
        segment_rows: 20_000,
        ..RecorderOptions::default()
    };
    let sources = steady::steady_gpus(&clock, &[20; 8]);
    let mut recorder = VirtualRecorder::start(dir.path(), sources, clock, options).unwrap();
    (1..=120).for_each(|s| recorder.run_until(s * S).unwrap());
    let after_two = resident_mib();
    (121..=480).for_each(|s| recorder.run_until(s * S).unwrap());
    let grown_mib = resident_mib() - after_two;
    let recording = recorder.finish().unwrap();
    assert_eq!(recording.polls, 8 * 480_000 + 8);
    // Rows come in batches of 8192, so a segment is sealed at 24 576: 192 000 rows are 7.8 of them.
    assert!(recording.sealed_files >= 8, "{} files", recording.sealed_files);
    // 144 000 more rows would be 13 MiB, kept.
    assert!(grown_mib < 6.0, "{grown_mib:.1} MiB more");
}
