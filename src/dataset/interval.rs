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
//! Edges 0 and 1 are the nearest whose whole brackets lie on their side of t; one whose bracket holds t is left out,
//! since the power at which its energy was drawn cannot be told.
//!
//! A window begins and ends where the power steps, so a straight line through edges 0 and 1 is wrong just there. Instead
//! the part before t is expected to go on as measured before, the part after it to be already as measured later:
//! `E_x = P_l x` with variance `V_x`, `E_y = P_r y` with variance `V_y`, and they must add up to D. The combination with
//! the least variance is
//!
//! ```text
//!   E_x = P_l x + V_x/(V_x + V_y) r,     r = D - P_l x - P_r y     (what the two expectations leave over)
//!   var = V_x V_y/(V_x + V_y)
//!   V_x = F_x + P_l^2 [u_0^2 (1 + x/S)^2 + u_k^2 (x/S)^2] + q^2,    F_x = (s_l^2 + (f P)^2) x (L + x)
//! ```
//!
//! s_l^2 is the variance of the power from one interval to the next on that side, less what edge timing adds to it; L
//! the mean length of those intervals; S the span from edge k to edge 0 over which P_l was measured; u the standard
//! uncertainty of an edge instant, bracket width/sqrt(12); f P a floor (P the larger power); q the counter's step.
//!
//! If r exceeds twice its own standard deviation, the power stepped somewhere between the edges beside t, on one side or
//! the other: then r belongs to x with probability k = F_x/(F_x + F_y), and `E_x = P_l x + k r` with `k (1-k) r^2` added
//! to var is the mean and the variance of that choice. A side that was restless before is the likelier one, but k stays
//! between a quarter and three quarters.
//!
//! Where every poll saw a change the counter refreshes faster than it is polled; the last refresh then lies nearer to
//! the poll that saw it. Edges are put a quarter of the bracket before it, with u = 1/6 of the bracket: the spread of
//! an instant that is uniform in one refresh period, the period itself being anything up to the bracket.
//!
//! Windows that hold no two edges have no P_r (or P_l) of their own: the neighbour outside must do, no r can reveal a
//! surprise, and the phase is marked [`Reason::WindowShorterThanRefreshes`].

use std::collections::VecDeque;

use super::quality::{MIN_EDGES_INSIDE, Reason, is_certain};
use super::unwrap::Edge;
use crate::units::{UJ_PER_J, ns_to_s};

/// Edges kept on either side of a boundary.
const NEIGHBOURS: usize = 8;

/// Power differences that two steady-looking sides may still hide, relative to the larger power.
const FLOOR: f64 = 0.001;

/// The coarsest step of a counter in use: NVML's millijoule.
const COUNTER_STEP_J: f64 = 1e-3;

/// `r^2` in units of its variance beyond which it is no chance but a step: two standard deviations. A lower threshold
/// makes intervals too wide for steady power (99 % where 95 % is stated), a higher one too narrow for restless power.
const SURPRISE: f64 = 4.0;

/// However restless one side was, the step may have been on the other: a share of less than a quarter would put the
/// truth outside the stated interval whenever it was.
const DOUBT: f64 = 0.25;

/// Where only one side of a boundary is known nothing contradicts it; a step in the interval is allowed for with this
/// share of the interval's energy.
const ONE_SIDED: f64 = 0.1;

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
    /// Its standard uncertainty, J.
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

/// An instant and the edges around it, in time order.
#[derive(Debug, Clone, Default)]
struct Boundary {
    t_ns: i64,
    before: Vec<Edge>,
    after: Vec<Edge>,
}

impl Collector {
    /// Answers come in the order of `windows`.
    pub fn new(windows: &[Window]) -> Self {
        let mut pending: Vec<_> = windows.iter().copied().enumerate().collect();
        pending.sort_by_key(|(_, w)| std::cmp::Reverse(w.t_begin_ns));
        let results = vec![Err(Reason::LostSamples); windows.len()];
        Self { pending, open: Vec::new(), recent: VecDeque::with_capacity(NEIGHBOURS), results }
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
            let begin = Boundary { t_ns: window.t_begin_ns, before, after: Vec::new() };
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
        let t_ns = self.window.t_end_ns;
        self.end.get_or_insert_with(|| Boundary { t_ns, before: recent.iter().copied().collect(), after: Vec::new() })
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
        let at = |division: &Division| division.edge_uj.saturating_sub(reference) as f64 / UJ_PER_J + division.energy_j;
        let energy_j = at(&last) - at(&first);
        let std_j = (first.variance_j2 + last.variance_j2).sqrt();
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

/// Energy from the last edge before a boundary to the boundary.
struct Division {
    edge_uj: u128,
    energy_j: f64,
    variance_j2: f64,
    interval_s: f64,
}

/// An edge as seen from a boundary.
#[derive(Clone, Copy)]
struct Instant {
    t_s: f64,
    std_s: f64,
    energy_j: f64,
}

impl Boundary {
    /// An edge whose bracket holds the boundary is left out: which power its energy was drawn at cannot be told.
    fn push_after(&mut self, edge: Edge) {
        if edge.t_earliest_ns >= self.t_ns && self.after.len() < NEIGHBOURS {
            self.after.push(edge);
        }
    }

    /// Divides the interval around the boundary, with so many edges on either side telling the power there.
    fn divide(&self, known_before: usize, known_after: usize) -> Result<Division, Reason> {
        let nearest = self.before.last().ok_or(Reason::LostSamples)?;
        let is_fast = self.is_polled_slower_than_refreshed();
        let see = |e: &Edge| {
            let width_s = ns_to_s(e.t_latest_ns - e.t_earliest_ns);
            let (back_s, std_s) =
                if is_fast { (width_s / 4.0, width_s / 6.0) } else { (width_s / 2.0, width_s / 12_f64.sqrt()) };
            let energy_j = if e.energy_uj >= nearest.energy_uj {
                (e.energy_uj - nearest.energy_uj) as f64 / UJ_PER_J
            } else {
                -((nearest.energy_uj - e.energy_uj) as f64 / UJ_PER_J)
            };
            Instant { t_s: ns_to_s(e.t_latest_ns - self.t_ns) - back_s, std_s, energy_j }
        };
        // Each side seen outwards from the boundary.
        let before: Vec<Instant> = self.before.iter().rev().take(known_before.max(1)).map(see).collect();
        let after: Vec<Instant> = self.after.iter().take(known_after.max(1)).map(see).collect();
        let left = (known_before >= 2).then(|| Side::of(&before)).flatten();
        let right = (known_after >= 2).then(|| Side::of(&after)).flatten();
        let (x_s, edge_uj) = (before.first().map_or(0.0, |e| -e.t_s).max(0.0), nearest.energy_uj);
        let Some(next) = after.first() else {
            // No edge after the boundary: the power goes on as it was, for as long as one interval more.
            let left = left.ok_or(Reason::LostSamples)?;
            if x_s > 2.0 * left.interval_s {
                return Err(Reason::LostSamples);
            }
            let energy_j = left.power_w * x_s;
            let variance_j2 = left.variance_j2(x_s, left.power_w) + (ONE_SIDED * energy_j).powi(2);
            return Ok(Division { edge_uj, energy_j, variance_j2, interval_s: left.interval_s });
        };
        let (y_s, d_j) = (next.t_s.max(0.0), next.energy_j);
        let division =
            |energy_j: f64, variance_j2: f64, interval_s| Division { edge_uj, energy_j, variance_j2, interval_s };
        Ok(match (left, right) {
            (Some(l), Some(r)) => {
                let most_w = l.power_w.max(r.power_w);
                let (v_x, v_y) = (l.variance_j2(x_s, most_w), r.variance_j2(y_s, most_w));
                let (both, left_over_j) = (v_x + v_y, d_j - l.power_w * x_s - r.power_w * y_s);
                let (mut share, mut variance_j2) = (v_x / both, v_x * v_y / both);
                if left_over_j * left_over_j > SURPRISE * both {
                    let (f_x, f_y) = (l.fluctuation_j2(x_s, most_w), r.fluctuation_j2(y_s, most_w));
                    share = (f_x / (f_x + f_y)).clamp(DOUBT, 1.0 - DOUBT);
                    variance_j2 += share * (1.0 - share) * left_over_j * left_over_j;
                }
                let energy_j = l.power_w * x_s + share * left_over_j;
                division(energy_j, variance_j2, l.interval_s.min(r.interval_s))
            }
            (Some(l), None) => {
                let variance = l.variance_j2(x_s, l.power_w) + (ONE_SIDED * d_j).powi(2);
                division(l.power_w * x_s, variance, l.interval_s)
            }
            (None, Some(r)) => {
                let variance = r.variance_j2(y_s, r.power_w) + (ONE_SIDED * d_j).powi(2);
                division(d_j - r.power_w * y_s, variance, r.interval_s)
            }
            (None, None) => {
                let share = x_s / (x_s + y_s).max(f64::MIN_POSITIVE);
                division(d_j * share, d_j * d_j * share * (1.0 - share) + COUNTER_STEP_J.powi(2), x_s + y_s)
            }
        })
    }

    /// Whether every poll around the boundary saw the counter move.
    fn is_polled_slower_than_refreshed(&self) -> bool {
        let pairs = || {
            self.before.iter().zip(self.before.iter().skip(1)).chain(self.after.iter().zip(self.after.iter().skip(1)))
        };
        pairs().count() >= 4 && pairs().all(|(a, b)| b.t_earliest_ns <= a.t_latest_ns)
    }
}

/// The power on one side of a boundary.
struct Side {
    power_w: f64,
    /// Mean length of an interval.
    interval_s: f64,
    /// Variance of the power from interval to interval.
    power_variance_w2: f64,
    /// Standard uncertainty of the instants of the near and the far edge of the span that gave the power.
    near_std_s: f64,
    far_std_s: f64,
    span_s: f64,
}

impl Side {
    /// From the edges of one side, the nearest to the boundary first.
    fn of(edges: &[Instant]) -> Option<Self> {
        let (near, outermost) = (edges.first()?, edges.last()?);
        let intervals = edges.len().checked_sub(1).filter(|n| *n > 0)?;
        let interval_s = (outermost.t_s - near.t_s).abs() / intervals as f64;
        // One interval is nearest to the boundary; more are needed where brackets are as wide as intervals.
        let far = edges
            .iter()
            .skip(1)
            .find(|e| (e.t_s - near.t_s).abs() >= 20.0 * near.std_s.max(e.std_s))
            .unwrap_or(outermost);
        let span_s = (far.t_s - near.t_s).abs();
        if span_s <= 0.0 {
            return None;
        }
        let power_w = (far.energy_j - near.energy_j).abs() / span_s;
        Some(Self {
            power_w,
            interval_s,
            power_variance_w2: power_variance_w2(edges),
            near_std_s: near.std_s,
            far_std_s: far.std_s,
            span_s,
        })
    }

    /// The part of [`variance_j2`](Self::variance_j2) that restless power causes, not uncertain instants.
    fn fluctuation_j2(&self, length_s: f64, most_w: f64) -> f64 {
        (self.power_variance_w2 + (FLOOR * most_w).powi(2)) * length_s * (self.interval_s + length_s)
    }

    /// Variance of the energy over `length_s` next to the boundary about `power_w * length_s`.
    fn variance_j2(&self, length_s: f64, most_w: f64) -> f64 {
        let reach = length_s / self.span_s;
        let timing_s2 = (self.near_std_s * (1.0 + reach)).powi(2) + (self.far_std_s * reach).powi(2);
        self.fluctuation_j2(length_s, most_w) + self.power_w.powi(2) * timing_s2 + COUNTER_STEP_J.powi(2)
    }
}

/// Half the mean square difference between the powers of neighbouring intervals, less what uncertain edge instants
/// contribute to it: an edge that is late moves energy from one interval to the next.
fn power_variance_w2(edges: &[Instant]) -> f64 {
    let mut sum_w2 = 0.0;
    let mut count = 0.0_f64;
    for (a, (b, c)) in edges.iter().zip(edges.iter().skip(1).zip(edges.iter().skip(2))) {
        let (first_s, second_s) = ((b.t_s - a.t_s).abs(), (c.t_s - b.t_s).abs());
        if first_s <= 0.0 || second_s <= 0.0 {
            continue;
        }
        let (p, q) = ((b.energy_j - a.energy_j).abs() / first_s, (c.energy_j - b.energy_j).abs() / second_s);
        let timing_w2 = (p * a.std_s / first_s).powi(2)
            + (b.std_s * (p / first_s + q / second_s)).powi(2)
            + (q * c.std_s / second_s).powi(2);
        sum_w2 += (q - p).powi(2) - timing_w2;
        count += 1.0;
    }
    // A variance from n differences is itself uncertain; (n + 1)/n widens the interval as Student's t would.
    if count > 0.0 { (sum_w2 / (2.0 * count) * (count + 1.0) / count).max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests;
