//! The perturbation budget: an agent that costs too much polls less, by itself, and says so.
//!
//! Every two seconds the processor time used since is held against the budget. Two windows in a row above it double the
//! distance of polls; a long calm halves it again. What recovered too early waits twice as long the next time, so that
//! the distance settles instead of swinging.

use super::recording::BackOff;
use super::sampler::SamplerOptions;
use super::schedule::step_ns;
use crate::units::{NS_PER_MS, NS_PER_S};

/// Tells the processor time used so far, s.
pub type CpuMeter = Box<dyn FnMut() -> f64 + Send>;

/// Long enough that a page fault or a sealed segment is no reason, short enough that nobody suffers for long.
const WINDOW_NS: i64 = 2_000 * NS_PER_MS;
/// Windows above the budget, in a row, before something is done.
const PATIENCE: u32 = 2;
/// Halving the distance at most doubles the cost: below this share of the budget there is room for that.
const ROOM: f64 = 0.4;
/// Windows with room, in a row, before a halving is tried: half a minute, doubling up to an hour.
const CALM: u32 = 15;
const LONGEST_CALM: u32 = 1_800;
/// Polls are never farther apart than this for the budget's sake: coarser edges would be of no use.
const LONGEST_STEP_NS: i64 = 1_000 * NS_PER_MS;

pub(super) struct CpuBudget {
    max_share: f64,
    base_step_ns: i64,
    doublings: u32,
    most: u32,
    begin_ns: i64,
    begin_cpu_s: Option<f64>,
    over: u32,
    calm: u32,
    calm_needed: u32,
    recovered: bool,
    back_offs: u64,
}

impl CpuBudget {
    /// `None` if there is no budget.
    pub(super) fn new(options: &SamplerOptions, now_ns: i64) -> Option<Self> {
        let base_step_ns = step_ns(options.cadence);
        let most = (0..30).take_while(|n| base_step_ns << n <= LONGEST_STEP_NS).last().unwrap_or(0);
        options.max_cpu_share.map(|max_share| Self {
            max_share,
            base_step_ns,
            doublings: 0,
            most,
            begin_ns: now_ns,
            begin_cpu_s: None,
            over: 0,
            calm: 0,
            calm_needed: CALM,
            recovered: false,
            back_offs: 0,
        })
    }

    /// `cpu_s` seconds of processor time were used up to `now_ns`; gives a sentence if the distance of polls changes.
    pub(super) fn observe(&mut self, now_ns: i64, cpu_s: f64) -> Option<String> {
        let begin_cpu_s = *self.begin_cpu_s.get_or_insert(cpu_s);
        let elapsed_ns = now_ns - self.begin_ns;
        if elapsed_ns < WINDOW_NS {
            return None;
        }
        let share = (cpu_s - begin_cpu_s) / (elapsed_ns as f64 / NS_PER_S);
        (self.begin_ns, self.begin_cpu_s) = (now_ns, Some(cpu_s));
        self.over = if share > self.max_share { self.over + 1 } else { 0 };
        self.calm = if share < self.max_share * ROOM { self.calm + 1 } else { 0 };
        if self.over >= PATIENCE {
            self.over = 0;
            return self.slow_down(share);
        }
        if self.doublings > 0 && self.calm >= self.calm_needed {
            self.calm = 0;
            self.doublings -= 1;
            self.recovered = true;
            return Some(format!("sampling has room in its processor budget again: {}", self.distance()));
        }
        None
    }

    fn slow_down(&mut self, share: f64) -> Option<String> {
        if self.doublings >= self.most {
            return None;
        }
        self.doublings += 1;
        self.back_offs += 1;
        if std::mem::take(&mut self.recovered) {
            self.calm_needed = (self.calm_needed * 2).min(LONGEST_CALM);
        }
        let (used, allowed) = (100.0 * share, 100.0 * self.max_share);
        Some(format!(
            "sampling used {used:.2} % of a core, expected at most {allowed:.2} % (--max-cpu): {}",
            self.distance()
        ))
    }

    fn distance(&self) -> String {
        format!("polls are now {} ms apart where they are dense", self.step_ns() as f64 / NS_PER_MS as f64)
    }

    fn step_ns(&self) -> i64 {
        self.base_step_ns << self.doublings
    }

    /// How often the distance that was asked for is doubled at present.
    pub(super) fn doublings(&self) -> u32 {
        self.doublings
    }

    /// What the summary says; `None` if the budget was never exceeded.
    pub(super) fn back_off(&self) -> Option<BackOff> {
        (self.back_offs > 0).then(|| BackOff { step_ns: self.step_ns(), back_offs: self.back_offs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Cadence;

    const S: i64 = 1_000_000_000;

    /// A budget of 1 % at 1 ms, and the cost it would have at full rate, second by second.
    fn steps(seconds: i64, cost: impl Fn(i64) -> f64) -> (CpuBudget, Vec<(i64, u32)>) {
        let options = SamplerOptions {
            cadence: Cadence::FixedRate { poll_hz: 1_000.0 },
            max_cpu_share: Some(0.01),
            ..SamplerOptions::default()
        };
        let mut budget = CpuBudget::new(&options, 0).unwrap();
        let (mut cpu_s, mut changes) = (0.0, Vec::new());
        budget.observe(0, 0.0);
        for t in 1..=seconds {
            cpu_s += cost(t) / f64::from(1 << budget.doublings());
            if budget.observe(t * S, cpu_s).is_some() {
                changes.push((t, budget.doublings()));
            }
        }
        (budget, changes)
    }

    #[test]
    fn what_stays_within_the_budget_is_never_slowed() {
        let (budget, changes) = steps(3_600, |_| 0.0099);
        assert_eq!((changes, budget.back_off()), (vec![], None));
    }

    #[test]
    fn four_seconds_above_it_double_the_distance_until_it_fits() {
        // 5 % -> 2.5 -> 1.25 -> 0.625 %: three doublings. From there on neither too much nor room for a halving.
        let (budget, changes) = steps(600, |_| 0.05);
        assert_eq!(changes, [(4, 1), (8, 2), (12, 3)]);
        assert_eq!(budget.back_off(), Some(BackOff { step_ns: 8_000_000, back_offs: 3 }));
    }

    #[test]
    fn one_expensive_window_is_forgiven() {
        let (_, changes) = steps(60, |t| if t <= 2 { 0.05 } else { 0.001 });
        assert!(changes.is_empty(), "{} changes", changes.len());
    }

    #[test]
    fn it_recovers_slowly_and_more_slowly_each_time_that_was_too_early() {
        // Dear in the first minute of every three, else almost free.
        let (_, changes) = steps(900, |t| if t % 180 < 60 { 0.015 } else { 0.001 });
        let ups: Vec<i64> = changes.iter().filter(|(_, n)| *n == 0).map(|(t, _)| *t).collect();
        let downs: Vec<i64> = changes.iter().filter(|(_, n)| *n == 1).map(|(t, _)| *t).collect();
        // 15 windows of calm after second 60: at 90; after the next dear minute (240) 30 windows: at 300.
        assert_eq!((downs[0], ups[0]), (4, 90));
        assert_eq!((downs[1], ups[1]), (184, 300));
        assert_eq!(ups.len(), 2, "120 s of calm do not come again before the next dear minute: {ups:?}");
    }

    #[test]
    fn polls_are_never_farther_apart_than_a_second() {
        let (budget, changes) = steps(600, |_| 1_000.0);
        assert_eq!(changes.len(), 9);
        assert_eq!(budget.back_off().unwrap().step_ns, 512_000_000);
    }
}
