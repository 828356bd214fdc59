//! Promise: memory is flat over a day. 24 hours at 1 kHz x 8 devices under the simulated clock, 691 million reads.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use energylens::agent::{Cadence, RecorderOptions, SamplerOptions, VirtualRecorder};
use energylens::clock::{Clock, SimClock};

#[path = "../../tests/support/steady.rs"]
mod steady;

const S: i64 = 1_000_000_000;
const HOURS: i64 = 24;

pub(crate) fn a_day() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
    let sources = steady::steady_gpus(&clock, &[20, 20, 25, 33, 50, 66, 80, 100]);
    let options = RecorderOptions {
        sampler: SamplerOptions { cadence: Cadence::FixedRate { poll_hz: 1_000.0 }, ..SamplerOptions::default() },
        ..RecorderOptions::default()
    };
    let mut recorder = VirtualRecorder::start(dir.path(), sources, clock, options).expect("a recorder");
    let begin = Instant::now();
    println!("\na simulated day at 1 kHz x 8 devices, memory hour by hour, MiB:\n");
    let mut after_two_mib = 0.0;
    let mut most_mib = 0.0_f64;
    for hour in 1..=HOURS {
        for second in (hour - 1) * 3_600 + 1..=hour * 3_600 {
            recorder.run_until(second * S).expect("room on the disk");
        }
        let mib = resident_mib();
        most_mib = most_mib.max(mib);
        if hour == 2 {
            after_two_mib = mib;
        }
        print!(" {mib:.1}");
    }
    let recording = recorder.finish().expect("sealed");
    println!("\n\n  {} polls, {} rows in {} files", recording.polls, recording.rows, recording.files.len());
    println!(
        "  {:.0} s of real time; {:.1} MiB beyond the second hour",
        begin.elapsed().as_secs_f64(),
        most_mib - after_two_mib
    );
    assert!(most_mib - after_two_mib < 8.0, "memory grows");
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string(Path::new("/proc/self/statm")).unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(f64::NAN);
    pages * 4096.0 / (1024.0 * 1024.0)
}
