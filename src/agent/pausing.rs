//! Times in which nothing can be written: told once when they begin, once when they end, with what they cost.

use super::notices::Notices;
use super::recording::{Pause, Pauses};

/// Pauses that are listed one by one; all of them are counted.
const MAX_LISTED: usize = 16;

/// Follows pauses from one attempt to write to the next.
#[derive(Debug, Default)]
pub(super) struct PauseLog {
    pauses: Pauses,
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    t_begin_mono_ns: i64,
    /// When writing succeeded again. Only the attempt after that ends the pause: rows that had to wait in the ring
    /// meanwhile may have been lost until then.
    t_end_mono_ns: Option<i64>,
    lost_before: u64,
    reason: String,
}

impl PauseLog {
    /// Whether the latest attempt failed.
    pub(super) fn is_paused(&self) -> bool {
        self.present.as_ref().is_some_and(|p| p.t_end_mono_ns.is_none())
    }

    /// An attempt to write has failed; `lost_rows` is what the recording has lost so far.
    pub(super) fn failed(&mut self, now_ns: i64, lost_rows: u64, reason: &str, notices: &Notices) {
        match &mut self.present {
            // Failed again before the end was certain: the same pause.
            Some(present) => present.t_end_mono_ns = None,
            None => {
                notices
                    .say(format!("recording pauses: {reason}; rows wait in memory, and are counted when it is full"));
                let reason = reason.to_owned();
                let present = Present { t_begin_mono_ns: now_ns, t_end_mono_ns: None, lost_before: lost_rows, reason };
                self.present = Some(present);
            }
        }
    }

    /// An attempt has succeeded.
    pub(super) fn succeeded(&mut self, now_ns: i64, lost_rows: u64, notices: &Notices) {
        match &mut self.present {
            Some(present) if present.t_end_mono_ns.is_none() => present.t_end_mono_ns = Some(now_ns),
            Some(_) => self.end(now_ns, lost_rows, notices),
            None => {}
        }
    }

    /// Ends the present pause, if there is one.
    pub(super) fn end(&mut self, now_ns: i64, lost_rows: u64, notices: &Notices) {
        let Some(present) = self.present.take() else { return };
        let pause = present.pause(lost_rows, Some(present.t_end_mono_ns.unwrap_or(now_ns)));
        let lasted_s = pause.duration_s(now_ns);
        let cost = match pause.lost_rows {
            0 => "no row was lost".to_owned(),
            1 => "1 row was lost".to_owned(),
            n => format!("{n} rows were lost"),
        };
        notices.say(format!("recording goes on after a pause of {lasted_s:.1} s; {cost}"));
        self.pauses.count += 1;
        self.pauses.total_s += lasted_s;
        self.pauses.lost_rows += pause.lost_rows;
        if self.pauses.latest.len() >= MAX_LISTED {
            self.pauses.latest.remove(0);
        }
        self.pauses.latest.push(pause);
    }

    /// Everything so far, the present pause included.
    pub(super) fn summary(&self, now_ns: i64, lost_rows: u64) -> Pauses {
        let mut pauses = self.pauses.clone();
        if let Some(present) = &self.present {
            let pause = present.pause(lost_rows, present.t_end_mono_ns);
            pauses.count += 1;
            pauses.total_s += pause.duration_s(now_ns);
            pauses.lost_rows += pause.lost_rows;
            pauses.latest.push(pause);
        }
        pauses
    }
}

impl Present {
    fn pause(&self, lost_rows: u64, t_end_mono_ns: Option<i64>) -> Pause {
        Pause {
            t_begin_mono_ns: self.t_begin_mono_ns,
            t_end_mono_ns,
            lost_rows: lost_rows.saturating_sub(self.lost_before),
            reason: self.reason.clone(),
        }
    }
}

impl Pause {
    fn duration_s(&self, now_ns: i64) -> f64 {
        (self.t_end_mono_ns.unwrap_or(now_ns) - self.t_begin_mono_ns) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn a_pause_is_told_twice_and_counts_what_was_lost_until_the_ring_was_drained() {
        let (mut log, notices) = (PauseLog::default(), Notices::default());
        log.succeeded(0, 5, &notices);
        (1..=10).for_each(|s| log.failed(s * S, 5 + s.unsigned_abs(), "the disk is full", &notices));
        assert!(log.is_paused());
        assert_eq!(log.summary(10 * S, 15).lost_rows, 9, "6 were lost before its first failure was known");
        log.succeeded(11 * S, 20, &notices);
        assert!(!log.is_paused());
        log.succeeded(12 * S, 25, &notices);
        log.succeeded(13 * S, 99, &notices);
        let pauses = log.summary(14 * S, 99);
        assert_eq!((pauses.count, pauses.total_s, pauses.lost_rows), (1, 10.0, 19));
        assert_eq!(pauses.latest[0].t_end_mono_ns, Some(11 * S));
        let said = notices.take();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("pauses: the disk is full"));
        assert!(said[1].contains("after a pause of 10.0 s; 19 rows were lost"));
    }

    #[test]
    fn a_disk_that_comes_and_goes_is_one_pause_and_the_list_of_many_is_bounded() {
        let (mut log, notices) = (PauseLog::default(), Notices::default());
        for t in 0..1_000 {
            log.failed(3 * t * S, 0, "x", &notices);
            log.succeeded((3 * t + 1) * S, 0, &notices);
            if t % 2 == 1 {
                log.succeeded((3 * t + 2) * S, 0, &notices);
            }
        }
        let pauses = log.summary(0, 0);
        assert_eq!((pauses.count, pauses.latest.len()), (500, MAX_LISTED));
    }
}
