//! How much of a counter's energy fell into a window, and how sure that is.
//!
//! A counter is right at the instants at which it is refreshed, and silent in between. Between two edges inside the
//! window nothing needs to be known; only at its two boundaries energy has to be divided:
//!
//! ```text
//!          edge -1        edge 0     t        edge 1            edge 2
//!   ----------|--------------|-------|----------|-----------------|----
//!      power P_l measured here   x       y         power P_r measured here
//!                               D = counter(1) - counter(0)
//! ```
//!
//! What happens at a boundary is in `boundary`. The two boundaries' errors are independent, and each is bounded (an
//! instant within its bracket, a step on one side or the other): their sum has shorter tails than a normal deviate of the
//! same variance. The uncertainty is stated so that 1.96 times it is a 95 % interval: `BOUNDED` times the root of the
//! variance.
//!
//! Windows that hold no two edges have no P_r (or P_l) of their own: the neighbour outside must do, no r can reveal a
//! surprise, and the phase is marked [`Reason::WindowShorterThanRefreshes`].

mod boundary;
mod shortest;

pub use shortest::shortest_window_s;

use std::collections::VecDeque;

use boundary::{Boundary, NEIGHBOURS, USUAL_STEP_J};

use super::quality::{MIN_EDGES_INSIDE, Reason, is_certain};
use super::unwrap::Edge;
use crate::units::{UJ_PER_J, ns_to_s};

/// Standard uncertainty over the root of the variance; see above. 0.84 for one uniform error, 1 for many.
const BOUNDED: f64 = 0.85;

/// A counter that stands still for so long, and for so many of its usual intervals, is frozen: no device draws 0 W.
const FROZEN_S: f64 = 2.0;
const FROZEN_INTERVALS: f64 = 20.0;

/// From one mark to another, `t_mono_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First instant.
    pub t_begin_ns: i64,
    /// Last instant.
    pub t_end_ns: i64,
}

impl Window {
    /// How long it lasts.
    pub fn duration_s(self) -> f64 {
        ns_to_s(self.t_end_ns.saturating_sub(self.t_begin_ns))
    }
}

/// Energy of one device in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowEnergy {
    /// Energy, J.
    pub energy_j: f64,
    /// Its standard uncertainty, J: 1.96 times it is the half width of a 95 % interval.
    pub std_j: f64,
    /// Counter edges that fell inside.
    pub edges_inside: u64,
    /// Reasons to doubt it.
    pub quality: Vec<Reason>,
}

/// Energy of `window` by the edges of one device.
pub fn energy(edges: impl IntoIterator<Item = Edge>, window: Window) -> Result<WindowEnergy, Reason> {
    let mut collector = Collector::new(&[window]);
    edges.into_iter().for_each(|edge| collector.push(edge));
    collector.finish().pop().unwrap_or(Err(Reason::LostSamples))
}

/// Energy of many windows in one pass over the edges of one device. Of the edges it keeps a handful per boundary,
/// so memory depends on the number of windows alone.
#[derive(Debug)]
pub struct Collector {
    /// Windows that have not begun, the next one last; with their places in the answer.
    pending: Vec<(usize, Window)>,
    open: Vec<Open>,
    recent: VecDeque<Edge>,
    step_j: f64,
    results: Vec<Result<WindowEnergy, Reason>>,
}

#[derive(Debug)]
struct Open {
    place: usize,
    window: Window,
    edges_inside: u64,
    longest_still_s: f64,
    last_edge_ns: i64,
    begin: Boundary,
    end: Option<Boundary>,
}

impl Collector {
    /// Answers come in the order of `windows`.
    pub fn new(windows: &[Window]) -> Self {
        let mut pending: Vec<_> = windows.iter().copied().enumerate().collect();
        pending.sort_by_key(|(_, w)| std::cmp::Reverse(w.t_begin_ns));
        let results = vec![Err(Reason::LostSamples); windows.len()];
        let recent = VecDeque::with_capacity(NEIGHBOURS);
        Self { pending, open: Vec::new(), recent, step_j: USUAL_STEP_J, results }
    }

    /// The counter counts in steps of so many µJ. To be told before the first edge.
    pub fn counts_in(&mut self, step_uj: u64) {
        // Of either end of an interval it leaves out anything up to one step: the difference of two uniform errors.
        let std_j = step_uj as f64 / UJ_PER_J / 6_f64.sqrt();
        self.step_j = std_j.max(USUAL_STEP_J);
    }

    /// Takes the next edge.
    pub fn push(&mut self, edge: Edge) {
        let t_ns = edge.t_latest_ns;
        while let Some((place, window)) = self.pending.pop_if(|(_, w)| w.t_begin_ns < t_ns) {
            if window.t_end_ns <= window.t_begin_ns {
                continue;
            }
            let before: Vec<Edge> = self.recent.iter().copied().collect();
            let last_edge_ns = before.last().map_or(window.t_begin_ns, |e| e.t_latest_ns);
            let begin = Boundary { t_ns: window.t_begin_ns, before, after: Vec::new(), step_j: self.step_j };
            self.open.push(Open {
                place,
                window,
                edges_inside: 0,
                longest_still_s: 0.0,
                last_edge_ns,
                begin,
                end: None,
            });
        }
        for open in &mut self.open {
            open.begin.push_after(edge);
            if open.end.is_none() {
                open.longest_still_s = open.longest_still_s.max(ns_to_s(t_ns - open.last_edge_ns));
                open.last_edge_ns = t_ns;
            }
            if t_ns <= open.window.t_end_ns {
                open.edges_inside += 1;
            } else {
                open.close(&self.recent).push_after(edge);
            }
        }
        for done in self.open.extract_if(.., |o| o.end.as_ref().is_some_and(|e| e.after.len() >= NEIGHBOURS)) {
            self.results[done.place] = done.energy();
        }
        if self.recent.len() == NEIGHBOURS {
            self.recent.pop_front();
        }
        self.recent.push_back(edge);
    }

    /// `next`, which is still to come, does not connect to the edges before it: no window across has an energy.
    pub fn gap(&mut self, reason: Reason, next: Edge) {
        while let Some((place, window)) = self.pending.pop_if(|(_, w)| w.t_begin_ns < next.t_latest_ns) {
            // Begun since the last edge: whether it ended before the gap or lies across, an edge to hold on to is gone.
            if let Some(result) = self.results.get_mut(place).filter(|_| window.t_end_ns > window.t_begin_ns) {
                *result = Err(reason);
            }
        }
        for mut open in self.open.drain(..) {
            // A window that has ended was whole before the gap. So was one that ended while the old count still stood,
            // or with the recording that a later one, with another count, goes on from.
            if open.window.t_end_ns <= next.t_earliest_ns {
                open.close(&self.recent);
            }
            self.results[open.place] = if open.end.is_some() { open.energy() } else { Err(reason) };
        }
        self.recent.clear();
    }

    /// The answers; windows without samples around them are [`Reason::LostSamples`].
    pub fn finish(mut self) -> Vec<Result<WindowEnergy, Reason>> {
        // A recording may stop at the last mark, before the counter moved again.
        for mut open in self.open.drain(..) {
            open.close(&self.recent);
            self.results[open.place] = open.energy();
        }
        self.results
    }
}

impl Open {
    /// The window's end, behind the edges seen so far.
    fn close(&mut self, recent: &VecDeque<Edge>) -> &mut Boundary {
        let (t_ns, step_j) = (self.window.t_end_ns, self.begin.step_j);
        let before = || recent.iter().copied().collect();
        self.end.get_or_insert_with(|| Boundary { t_ns, before: before(), after: Vec::new(), step_j })
    }

    fn energy(&self) -> Result<WindowEnergy, Reason> {
        let end = self.end.as_ref().ok_or(Reason::LostSamples)?;
        // What lies beyond the other end of the window says nothing about the power inside it.
        let within = |e: &&Edge| self.window.t_begin_ns <= e.t_earliest_ns && e.t_latest_ns <= self.window.t_end_ns;
        let inside_begin = self.begin.after.iter().filter(within).count();
        let inside_end = end.before.iter().filter(within).count();
        let first = self.begin.divide(self.begin.before.len(), inside_begin)?;
        let last = end.divide(inside_end, end.after.len())?;
        let reference = self.begin.before.last().ok_or(Reason::LostSamples)?.energy_uj;
        let at = |division: &boundary::Division| {
            division.edge_uj.saturating_sub(reference) as f64 / UJ_PER_J + division.energy_j
        };
        let energy_j = at(&last) - at(&first);
        let std_j = BOUNDED * (first.variance_j2 + last.variance_j2).sqrt();
        let mut quality = Vec::new();
        if self.edges_inside < MIN_EDGES_INSIDE {
            quality.push(Reason::WindowShorterThanRefreshes);
        }
        let usual_s = first.interval_s.min(last.interval_s);
        if self.longest_still_s > FROZEN_S && self.longest_still_s > FROZEN_INTERVALS * usual_s {
            quality.push(Reason::FrozenCounter);
        }
        if !is_certain(energy_j, std_j) {
            quality.push(Reason::TooUncertain);
        }
        Ok(WindowEnergy { energy_j, std_j, edges_inside: self.edges_inside, quality })
    }
}

#[cfg(test)]
mod tests;
