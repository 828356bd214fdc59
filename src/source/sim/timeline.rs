//! The power of one GPU over time, piecewise constant, with its exact integral.

use std::collections::VecDeque;

use crate::units::ns_to_s;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Segment {
    t_begin_ns: i64,
    /// Integral of the power from the start of the node to `t_begin_ns`.
    energy_j: f64,
    power_w: f64,
}

/// Power over time from the start of the node to the end laid so far; the past may be forgotten.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    segments: VecDeque<Segment>,
    t_end_ns: i64,
    energy_j: f64,
}

impl Timeline {
    pub(super) fn starting_at(t_ns: i64) -> Self {
        Self { segments: VecDeque::new(), t_end_ns: t_ns, energy_j: 0.0 }
    }

    pub(super) fn end_ns(&self) -> i64 {
        self.t_end_ns
    }

    /// Continues with `power_w` until `t_ns`; an instant that has passed adds nothing.
    pub(super) fn extend(&mut self, t_ns: i64, power_w: f64) {
        if t_ns <= self.t_end_ns {
            return;
        }
        // Idle stretches merge, so that a day of waiting is one segment.
        if self.segments.back().is_none_or(|last| last.power_w != power_w) {
            self.segments.push_back(Segment { t_begin_ns: self.t_end_ns, energy_j: self.energy_j, power_w });
        }
        self.t_end_ns = t_ns;
        if let Some(last) = self.segments.back() {
            self.energy_j = last.energy_j + last.power_w * ns_to_s(t_ns - last.t_begin_ns);
        }
    }

    /// Joules from the start of the node to `t_ns`; `None` before what is remembered and after what is laid.
    pub(super) fn energy_j(&self, t_ns: i64) -> Option<f64> {
        if t_ns == self.t_end_ns {
            return Some(self.energy_j);
        }
        if t_ns > self.t_end_ns {
            return None;
        }
        let after = self.segments.partition_point(|s| s.t_begin_ns <= t_ns);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        Some(segment.energy_j + segment.power_w * ns_to_s(t_ns - segment.t_begin_ns))
    }

    /// Drops segments that end at or before `t_ns`.
    pub(super) fn forget_before(&mut self, t_ns: i64) {
        while self.segments.get(1).is_some_and(|next| next.t_begin_ns <= t_ns) {
            self.segments.pop_front();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn the_integral_is_exact_inside_and_at_the_ends() {
        let mut timeline = Timeline::starting_at(10 * S);
        timeline.extend(12 * S, 100.0);
        timeline.extend(13 * S, 300.0);
        timeline.extend(13 * S, 999.0);
        let cases = [(10 * S, Some(0.0)), (11 * S, Some(100.0)), (12 * S, Some(200.0)), (12 * S + S / 2, Some(350.0))];
        for (t, expected) in cases.into_iter().chain([(13 * S, Some(500.0)), (9 * S, None), (13 * S + 1, None)]) {
            assert_eq!(timeline.energy_j(t), expected, "at {t}");
        }
    }

    #[test]
    fn forgetting_keeps_the_integral_and_bounds_the_memory() {
        let mut timeline = Timeline::starting_at(0);
        for i in 0..1_000 {
            timeline.extend((i + 1) * S, if i % 2 == 0 { 100.0 } else { 200.0 });
            timeline.forget_before(i * S);
        }
        assert!(timeline.len() <= 2, "{}", timeline.len());
        assert_eq!(timeline.energy_j(1_000 * S), Some(150_000.0));
        assert_eq!(timeline.energy_j(10 * S), None);
    }

    #[test]
    fn equal_powers_merge() {
        let mut timeline = Timeline::starting_at(0);
        for i in 1..=100 {
            timeline.extend(i * S, 60.0);
        }
        assert_eq!((timeline.len(), timeline.energy_j(50 * S)), (1, Some(3_000.0)));
    }
}
