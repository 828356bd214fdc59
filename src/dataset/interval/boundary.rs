//! One boundary of a window, and how the energy of the interval around it is divided.
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
//! uncertainty of an edge instant, bracket width/sqrt(12); f P a floor (P the larger power); q what its steps hide
//!
//! The power may also have stepped between edges 0 and 1: a first kernel that draws more than those after it, work that
//! starts after its mark. Then all of r belongs to x, or all of it to y. So three cases are weighed by how well each
//! explains r (no step; one in x; one in y), and E_x and var are mean and variance over the three. Which side is the
//! likelier one is hardly known: the more restless one, but neither below [`DOUBT`].
//!
//! Where every poll saw a change the counter refreshes faster than it is polled; the last refresh then lies nearer to
//! the poll that saw it. Edges are put a quarter of the bracket before it, with u = 1/6 of the bracket: the spread of
//! an instant that is uniform in one refresh period, the period itself being anything up to the bracket.
//!
//! The constants were chosen on the grid of `tests/simulated_energy.rs` and on the kinds of power in this room's tests.

use super::super::quality::Reason;
use super::super::unwrap::Edge;
use crate::units::{UJ_PER_J, ns_to_s};

/// Edges kept on either side of a boundary.
pub(super) const NEIGHBOURS: usize = 8;

/// Power differences that two steady-looking sides may still hide, relative to the larger power.
const FLOOR: f64 = 0.001;

/// The step of a counter that says nothing of it, J: NVML's millijoule. Only HPE Cray's are coarser.
pub(super) const USUAL_STEP_J: f64 = 1e-3;

/// How often the power steps between the two edges beside a mark. A step costs little where none was (it explains
/// nothing), so this need not be right; at 0.2 intervals of steady power hold the truth 99 % of the time.
const SURPRISE: f64 = 0.07;

/// How large such a step is, relative to the power: a typical value, larger ones are taken as they are found.
const STEP: f64 = 0.3;

/// However restless one side was, the step may have been on the other.
const DOUBT: f64 = 0.17;

/// A difference between neighbouring intervals is a jump to other work if it is beyond four times (squared) the usual
/// one, and more than a quarter of the power.
const JUMP: f64 = 16.0;
const JUMP_RATIO: f64 = 1.25;
/// Differences that are usual anywhere, relative to the power.
const STEADY: f64 = 0.02;

/// Where only one side of a boundary is known nothing contradicts it; a step in the interval is allowed for with this
/// share of the interval's energy.
const ONE_SIDED: f64 = 0.1;

/// An instant and the edges around it, in time order.
#[derive(Debug, Clone, Default)]
pub(super) struct Boundary {
    pub(super) t_ns: i64,
    pub(super) before: Vec<Edge>,
    pub(super) after: Vec<Edge>,
    /// The counter's step, J.
    pub(super) step_j: f64,
}

/// Energy from the last edge before a boundary to the boundary.
pub(super) struct Division {
    pub(super) edge_uj: u128,
    pub(super) energy_j: f64,
    pub(super) variance_j2: f64,
    pub(super) interval_s: f64,
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
    pub(super) fn push_after(&mut self, edge: Edge) {
        if edge.t_earliest_ns >= self.t_ns && self.after.len() < NEIGHBOURS {
            self.after.push(edge);
        }
    }

    /// Divides the interval around the boundary, with so many edges on either side telling the power there.
    pub(super) fn divide(&self, known_before: usize, known_after: usize) -> Result<Division, Reason> {
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
        let left = (known_before >= 2).then(|| Side::of(&before, self.step_j)).flatten();
        let right = (known_after >= 2).then(|| Side::of(&after, self.step_j)).flatten();
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
                let (f_x, f_y) = (l.fluctuation_j2(x_s, most_w), r.fluctuation_j2(y_s, most_w));
                let left_over_j = d_j - l.power_w * x_s - r.power_w * y_s;
                // However large: a burst between two edges may be all of what is left over.
                let step_j2 = |length_s: f64| (STEP * most_w * length_s).powi(2).max(left_over_j * left_over_j);
                let in_x = DOUBT + (1.0 - 2.0 * DOUBT) * f_x / (f_x + f_y);
                let (share, variance_j2) = mixture(
                    left_over_j,
                    [
                        (1.0 - SURPRISE, v_x, v_y),
                        (SURPRISE * in_x, v_x + step_j2(x_s), v_y),
                        (SURPRISE * (1.0 - in_x), v_x, v_y + step_j2(y_s)),
                    ],
                );
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
                division(d_j * share, d_j * d_j * share * (1.0 - share) + self.step_j.powi(2), x_s + y_s)
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
    /// The counter's step.
    step_j: f64,
}

impl Side {
    /// From the edges of one side, the nearest to the boundary first.
    fn of(edges: &[Instant], step_j: f64) -> Option<Self> {
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
            step_j,
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
        self.fluctuation_j2(length_s, most_w) + self.power_w.powi(2) * timing_s2 + self.step_j.powi(2)
    }
}

/// Half the mean square difference between the powers of neighbouring intervals, less what uncertain edge instants
/// contribute to it: an edge that is late moves energy from one interval to the next. The walk outwards ends where the
/// power jumps: beyond lies other work, which says nothing of how steady this was.
fn power_variance_w2(edges: &[Instant]) -> f64 {
    let (mut sum_w2, mut seen_w2, mut count) = (0.0, 0.0, 0.0_f64);
    for (a, (b, c)) in edges.iter().zip(edges.iter().skip(1).zip(edges.iter().skip(2))) {
        let (first_s, second_s) = ((b.t_s - a.t_s).abs(), (c.t_s - b.t_s).abs());
        if first_s <= 0.0 || second_s <= 0.0 {
            continue;
        }
        let (p, q) = ((b.energy_j - a.energy_j).abs() / first_s, (c.energy_j - b.energy_j).abs() / second_s);
        let timing_w2 = (p * a.std_s / first_s).powi(2)
            + (b.std_s * (p / first_s + q / second_s)).powi(2)
            + (q * c.std_s / second_s).powi(2);
        let difference_w2 = (q - p).powi(2);
        let usual_w2 = if count > 0.0 { seen_w2 / count } else { 0.0 };
        let (least_w, most_w) = (p.min(q), p.max(q));
        let beyond_usual = difference_w2 > JUMP * (usual_w2.max(timing_w2) + (STEADY * most_w).powi(2));
        if beyond_usual && most_w > JUMP_RATIO * least_w {
            break;
        }
        seen_w2 += difference_w2;
        sum_w2 += difference_w2 - timing_w2;
        count += 1.0;
    }
    if count > 0.0 { (sum_w2 / (2.0 * count)).max(0.0) } else { 0.0 }
}

/// What share of `left_over_j` belongs to x, and the variance of `E_x`, where one of three things happened: each with
/// its probability before anything was left over, and with the variances of the two parts if it did.
fn mixture(left_over_j: f64, cases: [(f64, f64, f64); 3]) -> (f64, f64) {
    let left_over_j2 = left_over_j * left_over_j;
    let logs = cases.map(|(prior, v_x, v_y)| {
        let both = v_x + v_y;
        prior.ln() - 0.5 * both.ln() - 0.5 * left_over_j2 / both
    });
    // Less the greatest, so that not all of them underflow where every case explains it badly.
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights = logs.map(|log| (log - most).exp());
    let sum: f64 = weights.iter().sum();
    let (mut share, mut square, mut variance_j2) = (0.0, 0.0, 0.0);
    for ((_, v_x, v_y), weight) in cases.iter().zip(weights) {
        let (weight, of_x) = (weight / sum, v_x / (v_x + v_y));
        share += weight * of_x;
        square += weight * of_x * of_x;
        variance_j2 += weight * v_x * v_y / (v_x + v_y);
    }
    (share, variance_j2 + (square - share * share).max(0.0) * left_over_j2)
}
