//! The writer's thread against a disk that stands still.

use crossbeam_channel::bounded;
use tempfile::TempDir;

use super::*;
use crate::agent::keeper::tests::{instants, keeper, row};
use crate::agent::keeping::Keeping;
use crate::agent::ring::ring;
use crate::clock::SimClock;

/// Starts the thread over rings of `bound` rows; the disk stands still until the sender sends or goes.
fn stalled(dir: &TempDir, bound: usize) -> Running {
    let mut keeper = keeper(dir.path(), Keeping::default(), &SimClock::starting_at(0));
    let (let_go, stall) = bounded(0);
    keeper.stall = Some(stall);
    let ((samples_in, samples), (telemetry_in, telemetry)) = (ring(bound), ring(bound));
    let rings = Rings { samples, telemetry };
    let orders = Orders::default();
    let told = orders.clone();
    let thread = std::thread::spawn(move || write_until_ended(keeper, &rings, &Mutex::default(), &told));
    Running { samples: samples_in, _telemetry: telemetry_in, let_go, orders, thread }
}

struct Running {
    samples: crate::agent::RingWriter<SampleRow>,
    _telemetry: crate::agent::RingWriter<TelemetryRow>,
    let_go: crossbeam_channel::Sender<()>,
    orders: Orders,
    thread: std::thread::JoinHandle<Result<Recording>>,
}

#[test]
fn with_a_stalled_disk_kept_and_lost_are_what_was_pushed() {
    for (bound, pushed) in [(100, 20_000_u64), (50_000, 20_000)] {
        let dir = TempDir::new().unwrap();
        let running = stalled(&dir, bound);
        (0..pushed).for_each(|t| running.samples.push(row(t as i64)));
        // The disk moves again, for good.
        drop(running.let_go);
        drop((running.samples, running._telemetry));
        let recording = running.thread.join().unwrap().unwrap();
        assert_eq!(recording.rows + recording.lost_rows, pushed);
        assert_eq!(instants(dir.path()).len() as u64, recording.rows);
        assert!(bound == 100 || recording.lost_rows == 0, "{}", recording.lost_rows);
    }
}

#[test]
fn a_request_to_reopen_is_obeyed_while_rows_keep_coming() {
    let dir = TempDir::new().unwrap();
    let running = stalled(&dir, 1_000);
    drop(running.let_go);
    running.samples.push(row(0));
    running.orders.reopen.store(true, Ordering::Release);
    let sealed = dir.path().join("samples-n-000000.parquet");
    let mut t = 0;
    while !sealed.exists() {
        t += 1;
        running.samples.push(row(t));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!running.thread.is_finished());
    }
    drop((running.samples, running._telemetry));
    let recording = running.thread.join().unwrap().unwrap();
    assert_eq!((recording.sealed_files >= 1, recording.rows + recording.lost_rows), (true, t as u64 + 1));
}

#[test]
fn whoever_asks_for_a_flush_is_answered_when_his_rows_are_on_disk() {
    let dir = TempDir::new().unwrap();
    let running = stalled(&dir, 1_000);
    (0..100).for_each(|t| running.samples.push(row(t)));
    let number = running.orders.flush.ask();
    std::thread::sleep(Duration::from_millis(200));
    assert!(!running.orders.flush.is_done(number), "the disk stands still");
    drop(running.let_go);
    while !running.orders.flush.is_done(number) {
        assert!(!running.thread.is_finished());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nothing is sealed yet: they can be read where they are.
    assert_eq!(instants(dir.path()).len(), 100);
    drop((running.samples, running._telemetry));
    running.thread.join().unwrap().unwrap();
}
