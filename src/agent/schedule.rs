//! When to look at a counter next.
//!
//! A counter refreshes every 1 to 100 ms and stands still in between. Fixed-rate polling pays for every poll; most
//! find nothing. Phase-locked polling learns how long a counter stands still and looks closely only when it may move:
//!
//! ```text
//! counter   ______|‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾|______________________|‾‾‾
//! polls     ||||||                  ||||                   ||||
//!           learning: dense         ^ shortest interval so far, less a margin
//! ```
//!
//! Dense polling goes on until the edge is found, so a late edge is as sharp as any. An edge that comes before the
//! window is *blurred*: its bracket is the whole wait. Blurred edges are counted, widen the margin, and send the
//! schedule back to dense polling until the next edge; three within a few edges and it learns anew.

use crate::units::NS_PER_S;

/// How often counters are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cadence {
    /// Every counter at this rate, whether it can have moved or not.
    FixedRate {
        /// Polls per second and device.
        poll_hz: f64,
    },
    /// Closely around the expected edge, hardly elsewhere.
    PhaseLocked {
        /// Distance of polls where they are dense: how sharp edges are.
        resolution_ns: i64,
    },
}

/// Intervals that are remembered: enough for a shortest one that the next rarely undercuts, few enough to follow drift.
const MEMORY: usize = 64;
/// Intervals needed before waiting is dared. Two edges are not enough: a scheduling hiccup looks like a long period.
const ENOUGH: usize = 8;
/// Doubt that a blurred edge adds; a sharp one takes 1 away. A counter that became faster gives a blurred and a sharp
/// edge in turn, so counting blurred ones in a row would never doubt it.
const DOUBT_PER_BLUR: u32 = 8;
/// Doubt at which what was learned is forgotten: the third blurred edge within a few.
const FORGET_AT: u32 = 20;
/// The margin shrinks by this fraction of the resolution per sharp edge and grows by a whole one per blurred edge: it
/// settles where one edge in 256 is blurred.
const MARGIN_DECAY: i64 = 256;
/// The margin stays above this fraction of the resolution, whatever was seen: phases are not known better.
const LEAST_MARGIN: i64 = 8;
/// Late wake-ups widen the margin up to this many polls; later ones than that are not to be met by polling more.
const MOST_FOR_LATE: i64 = 3;
/// Polls of a counter that has stood still far beyond its period are this many times sparser, until it moves.
const STALE_FACTOR: i64 = 10;

/// Periods below this many poll distances are not told from anything shorter.
const RESOLVED: f64 = 1.25;

/// Distance of polls where they are dense.
pub(super) fn step_ns(cadence: Cadence) -> i64 {
    let step_ns = match cadence {
        // A rate of nonsense becomes the nearest sane one; the options' parser has complained before.
        Cadence::FixedRate { poll_hz } => (NS_PER_S / poll_hz.clamp(1e-3, 1e6)) as i64,
        Cadence::PhaseLocked { resolution_ns } => resolution_ns,
    };
    step_ns.max(1_000)
}

/// Schedule of one counter.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    step_ns: i64,
    locks: bool,
    intervals_ns: Vec<i64>,
    oldest: usize,
    margin_ns: i64,
    /// The likely instant of the last edge, if it was sharp.
    last_sharp_edge_ns: Option<i64>,
    last_edge_ns: i64,
    /// End of the present wait, if waiting.
    window_ns: Option<i64>,
    doubt: u32,
    blurred: u64,
}

impl Schedule {
    pub(super) fn new(cadence: Cadence, now_ns: i64) -> Self {
        let locks = matches!(cadence, Cadence::PhaseLocked { .. });
        let step_ns = step_ns(cadence);
        Self {
            step_ns,
            locks,
            intervals_ns: Vec::with_capacity(MEMORY),
            oldest: 0,
            margin_ns: step_ns / 2,
            last_sharp_edge_ns: None,
            last_edge_ns: now_ns,
            window_ns: None,
            doubt: 0,
            blurred: 0,
        }
    }

    /// Distance of dense polls.
    pub(super) fn step_ns(&self) -> i64 {
        self.step_ns
    }

    /// From now on polls are dense at this distance. What was learned of the counter stays true.
    pub(super) fn set_step_ns(&mut self, step_ns: i64) {
        self.step_ns = step_ns.max(1_000);
        self.margin_ns = self.margin_ns.max(self.step_ns / 2);
    }

    /// Edges that came before they were expected, so that their bracket is a whole wait.
    pub(super) fn blurred(&self) -> u64 {
        self.blurred
    }

    /// The counter stood still at the poll of `now_ns`; when to look next.
    pub(super) fn after_standstill(&mut self, now_ns: i64) -> i64 {
        match self.window_ns {
            Some(window) if now_ns < window => return window,
            _ => self.window_ns = None,
        }
        let stale_ns = (self.median_interval_ns().unwrap_or(0) * 10).max(1_000_000_000);
        if self.locks && now_ns - self.last_edge_ns > stale_ns {
            return self.tick_after(now_ns + (STALE_FACTOR - 1) * self.step_ns);
        }
        self.tick_after(now_ns)
    }

    /// The counter moved in `(earliest_ns, latest_ns]`; when to look next.
    pub(super) fn after_edge(&mut self, earliest_ns: i64, latest_ns: i64) -> i64 {
        let edge_ns = self.likely_edge_ns(earliest_ns, latest_ns);
        // Early only if we looked when we meant to. A wake-up that came late blurs edges too, but says nothing of the
        // counter.
        let window_ns = self.window_ns.take();
        let early = window_ns.is_some_and(|window| latest_ns <= window + self.step_ns / 2);
        let sharp = latest_ns - earliest_ns <= 2 * self.step_ns;
        self.last_edge_ns = edge_ns;
        if !sharp {
            self.last_sharp_edge_ns = None;
            if early {
                self.note_blurred();
            } else if window_ns.is_some() {
                // On a machine that wakes us late, the poll before the edge has to be meant for earlier, or it comes
                // after it: a fixed rate would lose a poll where we lose the whole wait.
                self.margin_ns =
                    self.margin_ns.max((self.margin_ns + self.step_ns / 2).min(MOST_FOR_LATE * self.step_ns));
            }
            return self.tick_after(latest_ns);
        }
        self.doubt = self.doubt.saturating_sub(1);
        self.margin_ns = (self.margin_ns - self.step_ns / MARGIN_DECAY).max(self.step_ns / LEAST_MARGIN);
        if let Some(before) = self.last_sharp_edge_ns.replace(edge_ns) {
            self.remember(edge_ns - before);
        }
        match self.wait_ns() {
            // A wait of a step or two saves nothing.
            Some(wait) if self.locks && edge_ns + wait > latest_ns + 2 * self.step_ns => {
                let window = (edge_ns + wait).div_euclid(self.step_ns) * self.step_ns;
                self.window_ns = Some(window);
                window
            }
            _ => self.tick_after(latest_ns),
        }
    }

    /// Where in `(earliest_ns, latest_ns]` the edge was: where the edge before it and the period say, if that is inside,
    /// else as near to it as can be. Midpoints would be off by up to half a poll to either side, so that the shortest
    /// interval would look a whole poll too short, and every wait would end a poll too early.
    fn likely_edge_ns(&self, earliest_ns: i64, latest_ns: i64) -> i64 {
        match (self.last_sharp_edge_ns, self.period_ns()) {
            (Some(before_ns), Some(period_ns)) if latest_ns - earliest_ns <= 2 * self.step_ns => {
                (before_ns + period_ns as i64).clamp(earliest_ns, latest_ns.max(earliest_ns))
            }
            _ => earliest_ns + (latest_ns - earliest_ns) / 2,
        }
    }

    /// The refresh period: mean of the remembered intervals within half of their median, so that neither the poll grid
    /// nor a stall shows. `None` before enough edges were seen, and where nearly every poll meets a new value: a counter
    /// that is faster than the polls would show their distance, not its own.
    pub(super) fn period_ns(&self) -> Option<f64> {
        let median = self.median_interval_ns()?;
        // At least one poll either way: the grid alone shifts an interval by that much.
        let reach = (median / 2).max(self.step_ns);
        let near = || self.intervals_ns.iter().filter(|i| (**i - median).abs() <= reach);
        let count = near().count();
        let mean = near().map(|i| *i as f64).sum::<f64>() / count as f64;
        (count > 0 && mean >= RESOLVED * self.step_ns as f64).then_some(mean)
    }

    fn note_blurred(&mut self) {
        self.blurred += 1;
        self.doubt += DOUBT_PER_BLUR;
        self.margin_ns += self.step_ns;
        if self.doubt >= FORGET_AT {
            self.intervals_ns.clear();
            self.oldest = 0;
            self.doubt = 0;
            self.margin_ns = self.step_ns / 2;
        }
    }

    fn remember(&mut self, interval_ns: i64) {
        if self.intervals_ns.len() < MEMORY {
            self.intervals_ns.push(interval_ns);
        } else if let Some(slot) = self.intervals_ns.get_mut(self.oldest) {
            *slot = interval_ns;
            self.oldest = (self.oldest + 1) % MEMORY;
        }
    }

    fn median_interval_ns(&self) -> Option<i64> {
        if self.intervals_ns.len() < ENOUGH {
            return None;
        }
        let mut sorted = [0_i64; MEMORY];
        let sorted = sorted.get_mut(..self.intervals_ns.len())?;
        sorted.copy_from_slice(&self.intervals_ns);
        let middle = sorted.len() / 2;
        Some(*sorted.select_nth_unstable(middle).1)
    }

    /// How long the counter surely stands still after an edge, as far as has been seen.
    fn wait_ns(&self) -> Option<i64> {
        let median = self.median_interval_ns()?;
        // Below half of the median: one stray double refresh would otherwise cost dense polling for 64 edges.
        let shortest = self.intervals_ns.iter().copied().filter(|i| *i >= median / 2).min()?;
        Some(shortest - self.margin_ns)
    }

    /// The next instant of the grid. All devices share one grid, so that polls of several share one wake-up; instants
    /// that have passed are skipped, not made up for.
    fn tick_after(&self, now_ns: i64) -> i64 {
        (now_ns.div_euclid(self.step_ns) + 1) * self.step_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// A schedule that has seen edges at 0, 100, ..., 1000 ms, and when it wants to look next.
    fn learnt() -> (Schedule, i64) {
        let mut schedule = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        let mut next = 0;
        for edge in (0..=1_000).step_by(100) {
            next = schedule.after_edge(edge * MS, (edge + 1) * MS);
        }
        (schedule, next)
    }

    #[test]
    fn it_waits_for_the_shortest_interval_less_its_margin() {
        let (mut schedule, next) = learnt();
        // Last edge at 1000.5 ms, shortest interval 100 ms, margin 0.5 ms: 1100 ms, on the grid.
        assert_eq!(next, 1_100 * MS);
        assert_eq!(schedule.after_standstill(1_000 * MS + 300_000), 1_100 * MS, "a heartbeat does not end the wait");
        assert_eq!(schedule.after_standstill(1_100 * MS), 1_101 * MS);
        assert_eq!(schedule.after_standstill(1_103 * MS + 5), 1_104 * MS, "back on the grid after a late poll");
        assert_eq!(schedule.period_ns(), Some(1e8));
    }

    #[test]
    fn an_early_edge_widens_the_margin_a_late_wake_up_less_and_is_no_blur() {
        let (mut early, _) = learnt();
        assert_eq!(early.after_edge(1_001 * MS, 1_100 * MS), 1_101 * MS, "dense until the next edge");
        assert_eq!(early.blurred(), 1);
        // Margin 0.5 + 1 ms, less 1/256 ms for the sharp edge: 1200.5 + 100 - 1.496 = 1299.004.
        assert_eq!(early.after_edge(1_200 * MS, 1_201 * MS), 1_299 * MS);

        let (mut late, _) = learnt();
        late.after_edge(1_001 * MS, 1_108 * MS);
        assert_eq!(late.blurred(), 0);
        // Margin 0.5 - 11/256 + 0.5 - 1/256 ms: 1200.5 + 100 - 0.953 = 1299.547. The edge before was not sharp.
        assert_eq!(late.after_edge(1_200 * MS, 1_201 * MS), 1_299 * MS);
        for late_edge in 0..20 {
            let begin = 1_299 + 100 * late_edge;
            late.after_edge((begin + 2) * MS, (begin + 100) * MS);
            late.after_edge((begin + 100) * MS, (begin + 101) * MS);
        }
        assert!(late.margin_ns <= 3 * MS, "{}", late.margin_ns);
    }

    #[test]
    fn a_period_is_told_only_after_enough_edges_and_never_when_polls_are_too_far_apart_to_see_it() {
        let mut schedule = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        for edge in 0..8 {
            schedule.after_edge(edge * 20 * MS, (edge * 20 + 1) * MS);
            assert_eq!(schedule.period_ns(), None, "{edge} intervals");
        }
        schedule.after_edge(160 * MS, 161 * MS);
        assert_eq!(schedule.period_ns(), Some(2e7));
        // A new value at every poll: the period may be 1 ms or anything below.
        let mut fast = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        for edge in 0..100 {
            fast.after_edge(edge * MS, (edge + 1) * MS);
        }
        assert_eq!(fast.period_ns(), None);
        // 1.5 ms: moved, moved, still, moved, moved, still.
        let mut slower = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        for pair in 0..32 {
            slower.after_edge(3 * pair * MS, (3 * pair + 1) * MS);
            slower.after_edge((3 * pair + 1) * MS, (3 * pair + 2) * MS);
        }
        let found = slower.period_ns().unwrap();
        assert!((found / 1.5e6 - 1.0).abs() < 0.05, "{found}");
    }

    #[test]
    fn a_regular_counter_is_polled_little_more_than_twice_per_edge() {
        // Edges every 33.3 ms, at all phases of the grid: one poll before each edge and one after it cannot be saved.
        let mut schedule = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        let (mut poll_ns, mut last_ns, mut polls) = (MS, 0, 0);
        while poll_ns < 60_000 * MS {
            let moved = poll_ns / 33_300_000 > last_ns / 33_300_000;
            let next_ns =
                if moved { schedule.after_edge(last_ns, poll_ns) } else { schedule.after_standstill(poll_ns) };
            polls += i64::from(poll_ns > 10_000 * MS);
            (last_ns, poll_ns) = (poll_ns, next_ns);
        }
        let per_edge = polls as f64 / (50_000.0 / 33.3);
        assert!((2.0..2.3).contains(&per_edge), "{per_edge} polls per edge");
        assert!(schedule.blurred() <= 10, "{} blurred", schedule.blurred());
    }

    #[test]
    fn a_wider_distance_of_polls_keeps_what_was_learned() {
        let (mut schedule, _) = learnt();
        schedule.set_step_ns(4 * MS);
        assert_eq!(schedule.period_ns(), Some(1e8));
        // The edge is where it was expected, at 1100.5 ms; plus 100 ms, less the new margin of 2 ms, on the grid of 4 ms.
        assert_eq!(schedule.after_edge(1_100 * MS, 1_104 * MS), 1_196 * MS);
    }

    #[test]
    fn it_does_not_wait_before_it_has_seen_enough() {
        let mut schedule = Schedule::new(Cadence::PhaseLocked { resolution_ns: MS }, 0);
        for edge in (0..800).step_by(100) {
            assert_eq!(schedule.after_edge(edge * MS, (edge + 1) * MS), (edge + 2) * MS);
        }
        assert_eq!(schedule.after_edge(800 * MS, 801 * MS), 900 * MS);
    }
}
