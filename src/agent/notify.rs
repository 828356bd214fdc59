//! What the service manager is told: that recording has begun, that it goes on, that it ends.
//!
//! The watchdog is fed by progress, not by a timer: `WATCHDOG=1` goes out only if counters were read since the last
//! one. A healthy device is read at least once a second, whatever the cadence, so a silence of several seconds is a
//! sampler that hangs, and the service manager restarts it.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::recording::Recording;

/// A status line is sent so often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Speaks to the service manager that `$NOTIFY_SOCKET` names; without one, to nobody.
#[derive(Debug)]
pub struct ServiceNotifier {
    /// How often the watchdog is fed at most; `None` where there is none.
    feed_every: Option<Duration>,
    is_ready: bool,
    fed_polls: u64,
    next_feed: Instant,
    next_status: Instant,
}

impl Default for ServiceNotifier {
    fn default() -> Self {
        Self::new()
    }
}

impl ServiceNotifier {
    /// Looks into the environment.
    pub fn new() -> Self {
        let now = Instant::now();
        // Four times in its period: one delay of a busy machine must not look like a hang.
        let feed_every = sd_notify::watchdog_enabled().map(|period| period / 4);
        Self { feed_every, is_ready: false, fed_polls: 0, next_feed: now, next_status: now }
    }

    /// Tells what there is to tell of a recording that stands like this now.
    pub fn observe(&mut self, recording: &Recording) {
        let messages = self.due(recording, Instant::now());
        if !messages.is_empty() {
            let states: Vec<NotifyState<'_>> = messages.iter().map(|m| NotifyState::Custom(m)).collect();
            // A manager that does not listen is no reason to stop recording.
            let _ = sd_notify::notify(&states);
        }
    }

    fn due(&mut self, recording: &Recording, now: Instant) -> Vec<String> {
        let mut messages = Vec::new();
        // Not before a row exists: a source that opens and then gives nothing is no start.
        if !self.is_ready && recording.devices.iter().any(|d| d.rows > 0) {
            self.is_ready = true;
            self.next_status = now;
            messages.push("READY=1".to_owned());
        }
        if let Some(every) = self.feed_every
            && now >= self.next_feed
            && recording.polls > self.fed_polls
        {
            self.fed_polls = recording.polls;
            self.next_feed = now + every;
            messages.push("WATCHDOG=1".to_owned());
        }
        if self.is_ready && now >= self.next_status {
            self.next_status = now + STATUS_EVERY;
            messages.push(format!("STATUS={}", status(recording)));
        }
        messages
    }

    /// Tells that the recording is being ended.
    pub fn stopping(&self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    }
}

/// One line on a recording that goes on.
fn status(recording: &Recording) -> String {
    let stuck = recording.devices.iter().filter(|d| d.stuck_since_mono_ns.is_some()).count();
    let gone = recording.devices.iter().filter(|d| d.gone).count();
    let mut line = format!(
        "recording {} devices, {} rows, {} lost",
        recording.devices.len() - gone,
        recording.rows,
        recording.lost_rows
    );
    if stuck > 0 {
        line += &format!(", {stuck} hang in their driver");
    }
    if gone > 0 {
        line += &format!(", {gone} gone");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::DeviceRecording;

    fn recording(polls: u64, rows: u64) -> Recording {
        let device = DeviceRecording { polls, rows, ..DeviceRecording::default() };
        Recording { polls, rows, devices: vec![device], ..Recording::default() }
    }

    #[test]
    fn the_watchdog_is_fed_by_polls_and_starves_without_them() {
        let start = Instant::now();
        let mut notifier = ServiceNotifier {
            feed_every: Some(Duration::from_secs(2)),
            is_ready: false,
            fed_polls: 0,
            next_feed: start,
            next_status: start,
        };
        let mut at = |s: u64, polls, rows| notifier.due(&recording(polls, rows), start + Duration::from_secs(s));
        assert_eq!(at(0, 0, 0), Vec::<String>::new(), "opened, but nothing was read");
        assert_eq!(at(1, 5, 0), ["WATCHDOG=1"]);
        assert_eq!(at(2, 9, 1), ["READY=1", "STATUS=recording 1 devices, 1 rows, 0 lost"]);
        assert_eq!(at(3, 12, 1), ["WATCHDOG=1"]);
        // The sampler hangs: no more polls, no more food, however long.
        assert_eq!(at(6, 12, 1), Vec::<String>::new());
        assert_eq!(at(11, 12, 1), Vec::<String>::new());
        assert_eq!(at(12, 12, 1), ["STATUS=recording 1 devices, 1 rows, 0 lost"]);
        assert_eq!(at(13, 13, 1), ["WATCHDOG=1"], "it answers again");
    }
}
