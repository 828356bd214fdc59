//! What the movements of a counter say of it: refresh period, step, power, and whether to trust it.

use serde::Serialize;

use super::survey::{Movement, Watch};
use crate::units::{UJ_PER_J, ns_to_s};

/// Shortest span over which a power is called idle.
const IDLE_S: f64 = 1.0;

/// Beyond this relative difference counter and power reading are said to differ.
const DIFFERS: f64 = 0.05;

/// Outside of this range of counter over power one of the two is broken.
const BROKEN: std::ops::RangeInclusive<f64> = 0.1..=10.0;

/// How often a counter refreshes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Refresh {
    /// Mean time from one movement to the next, s.
    pub period_s: f64,
    /// Standard deviation of that time, less what polling adds to it, s.
    pub jitter_s: f64,
    /// Shortest time, s.
    pub min_s: f64,
    /// Longest time, s.
    pub max_s: f64,
    /// Every poll saw a movement: the true period is shorter than could be seen.
    pub is_faster_than_polled: bool,
}

/// Whether the counter's power is the reported one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// Within 5 %.
    Agrees,
    /// More than 5 % apart: the power reading is filtered, or one of the two has a gain error.
    Differs,
    /// More than ten times apart: one of the two is broken.
    Broken,
}

impl Agreement {
    /// Of a counter's power over the reported one.
    pub fn of(ratio: f64) -> Self {
        if !BROKEN.contains(&ratio) {
            Self::Broken
        } else if (ratio - 1.0).abs() > DIFFERS {
            Self::Differs
        } else {
            Self::Agrees
        }
    }
}

/// What is wrong with a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It never moved, though the device draws power or says nothing of it.
    Frozen,
    /// It stepped backwards without a wrap that explains it.
    Backward,
    /// Reads failed.
    Failing,
}

/// What is known of one counter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    /// Movements seen.
    pub movements: u64,
    /// How often it refreshes; `None` if it moved too rarely to tell.
    pub refresh: Option<Refresh>,
    /// Smallest difference of two values, µJ.
    pub smallest_step_uj: Option<u64>,
    /// Greatest common divisor of all differences, µJ: the unit in which it counts.
    pub resolution_uj: Option<u64>,
    /// Power by the counter's difference over the watch, W.
    pub counter_power_w: Option<f64>,
    /// Counter power over reported power.
    pub ratio: Option<f64>,
    /// What to make of it.
    pub agreement: Option<Agreement>,
    /// Lowest mean power over a second, W: what it draws when nothing runs, if there was such a second.
    pub idle_power_w: Option<f64>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// Reads what was seen of a device.
pub fn examine(watch: &Watch) -> Examination {
    let is_counter = !watch.movements.is_empty();
    // A wrap is a fall that the register's size explains; what `dataset` joins is not torn apart here.
    let modulus_uj = watch.device.counter_modulus_uj;
    let steps: Vec<Option<u64>> = watch
        .movements
        .windows(2)
        .map(|pair| match pair {
            [a, b] => b.counter_uj.checked_sub(a.counter_uj).or_else(|| {
                let turned = modulus_uj?.checked_sub(a.counter_uj)?.checked_add(b.counter_uj)?;
                (turned < modulus_uj? / 2).then_some(turned)
            }),
            _ => None,
        })
        .collect();
    let rises: Vec<u64> = steps.iter().copied().flatten().filter(|step| *step > 0).collect();
    let backward = steps.iter().filter(|step| step.is_none()).count();
    let cumulative = cumulative(&watch.movements, &steps);
    let counter_power_w = cumulative.iter().find(|_| backward == 0).zip(cumulative.last()).and_then(|(first, last)| {
        let seconds = last.0 - first.0;
        (seconds > 0.0).then(|| (last.1 - first.1) / seconds)
    });
    let ratio = counter_power_w.zip(watch.reported_power_w).filter(|(_, w)| *w > 0.0).map(|(counter, w)| counter / w);
    let mut faults = Vec::new();
    let draws = watch.reported_power_w.is_none_or(|w| w > 0.0);
    if is_counter && rises.is_empty() && watch.polls > 1 && draws {
        faults.push(Fault::Frozen);
    }
    if backward > 0 {
        faults.push(Fault::Backward);
    }
    if watch.errors > 0 {
        faults.push(Fault::Failing);
    }
    Examination {
        movements: rises.len() as u64,
        refresh: refresh(&watch.movements),
        smallest_step_uj: rises.iter().copied().min(),
        resolution_uj: rises.iter().copied().reduce(gcd),
        counter_power_w,
        ratio,
        agreement: ratio.map(Agreement::of),
        idle_power_w: idle_power_w(&cumulative).filter(|_| backward == 0),
        faults,
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The middle of an edge's bracket, s from the first one's on.
fn middle_s(movement: &Movement, origin_ns: i64) -> f64 {
    let half_ns = (movement.t_latest_ns - movement.t_earliest_ns) / 2;
    ns_to_s(movement.t_earliest_ns + half_ns - origin_ns)
}

/// Instant and joules of every movement. The first reading is none: nobody saw that value come.
fn cumulative(movements: &[Movement], steps: &[Option<u64>]) -> Vec<(f64, f64)> {
    let Some(origin) = movements.first() else { return Vec::new() };
    let mut joules = 0.0;
    movements
        .iter()
        .skip(1)
        .zip(steps)
        .map(|(movement, step)| {
            joules += step.unwrap_or(0) as f64 / UJ_PER_J;
            (middle_s(movement, origin.t_earliest_ns), joules)
        })
        .collect()
}

fn refresh(movements: &[Movement]) -> Option<Refresh> {
    let edges = movements.get(1..)?;
    let origin_ns = edges.first()?.t_earliest_ns;
    let times: Vec<f64> = edges.iter().map(|m| middle_s(m, origin_ns)).collect();
    let intervals: Vec<f64> = times.iter().zip(times.iter().skip(1)).map(|(a, b)| b - a).collect();
    if intervals.len() < 4 {
        return None;
    }
    let n = intervals.len() as f64;
    let period_s = intervals.iter().sum::<f64>() / n;
    let variance_s2 = intervals.iter().map(|i| (i - period_s).powi(2)).sum::<f64>() / (n - 1.0);
    // An edge is uniform in its bracket, w^2/12; a difference of two has twice that.
    let bracket_s2 =
        edges.iter().map(|m| ns_to_s(m.t_latest_ns - m.t_earliest_ns).powi(2)).sum::<f64>() / edges.len() as f64 / 6.0;
    let is_faster_than_polled = edges.iter().zip(edges.iter().skip(1)).all(|(a, b)| b.t_earliest_ns <= a.t_latest_ns);
    Some(Refresh {
        period_s,
        jitter_s: (variance_s2 - bracket_s2).max(0.0).sqrt(),
        min_s: intervals.iter().copied().fold(f64::INFINITY, f64::min),
        max_s: intervals.iter().copied().fold(0.0, f64::max),
        is_faster_than_polled,
    })
}

fn idle_power_w(cumulative: &[(f64, f64)]) -> Option<f64> {
    let mut lowest: Option<f64> = None;
    let mut last = 0;
    for (i, (t_s, joules)) in cumulative.iter().enumerate() {
        // The first movement at least a second on; it only moves forward.
        last = last.max(i);
        while cumulative.get(last).is_some_and(|(t, _)| t - t_s < IDLE_S) {
            last += 1;
        }
        let Some((t, j)) = cumulative.get(last) else { break };
        let power_w = (j - joules) / (t - t_s);
        lowest = Some(lowest.map_or(power_w, |l| l.min(power_w)));
    }
    lowest
}

#[cfg(test)]
mod tests;
