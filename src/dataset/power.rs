//! Energy from power readings, for devices without a counter: the labelled fallback.
//!
//! A recording holds a row where the reading changed, and heartbeats. Between `t_mono` of one row and `t_prev_poll` of
//! the next the sensor said the same; from there to the next row's `t_mono` it changed somewhere: half of each.
//!
//! What no recording tells is how the sensor filters (1 s averages on many GPUs, 25 ms seen out of every 100 ms on A100
//! and H100) and how far its gain is off (-4 to -6 % on several boards, arXiv 2312.02741). Hence a relative standard
//! uncertainty of 5 %, and at each end of the window that of a power change anywhere within one averaging time.

use super::interval::{Window, WindowEnergy};
use super::quality::{self, Reason};
use crate::units::ns_to_s;

/// Gain error of on-board sensors.
const RELATIVE_STD: f64 = 0.05;

/// Averaging time of the slowest common sensor (NVML `power.draw` on Ampere and newer).
const AVERAGING_S: f64 = 1.0;

/// Heartbeats come every second; a longer silence is a hole.
const LONGEST_SILENCE_NS: i64 = 3_000_000_000;

/// Integrates the power of one device over many windows in one pass.
#[derive(Debug)]
pub struct PowerCollector {
    windows: Vec<Sum>,
    last: Option<(i64, f64)>,
}

#[derive(Debug, Clone)]
struct Sum {
    window: Window,
    energy_j: f64,
    covered_ns: i64,
    least_w: f64,
    most_w: f64,
    rows: u64,
}

impl PowerCollector {
    /// Answers come in the order of `windows`.
    pub fn new(windows: &[Window]) -> Self {
        let sum = |window: &Window| Sum {
            window: *window,
            energy_j: 0.0,
            covered_ns: 0,
            least_w: f64::INFINITY,
            most_w: 0.0,
            rows: 0,
        };
        Self { windows: windows.iter().map(sum).collect(), last: None }
    }

    /// Takes the next reading, in the order of time.
    pub fn push(&mut self, power_w: f64, t_mono_ns: i64, t_prev_poll_ns: i64) {
        if !(power_w.is_finite() && power_w >= 0.0) || self.last.is_some_and(|(t, _)| t_mono_ns <= t) {
            return;
        }
        if let Some((t_last_ns, last_w)) = self.last.replace((t_mono_ns, power_w))
            && t_mono_ns - t_last_ns <= LONGEST_SILENCE_NS
        {
            let changed_ns = t_prev_poll_ns.clamp(t_last_ns, t_mono_ns);
            let middle_ns = changed_ns + (t_mono_ns - changed_ns) / 2;
            for sum in &mut self.windows {
                sum.add(last_w, t_last_ns, middle_ns);
                sum.add(power_w, middle_ns, t_mono_ns);
            }
        }
    }

    /// The answers.
    pub fn finish(self) -> Vec<Result<WindowEnergy, Reason>> {
        self.windows.into_iter().map(Sum::energy).collect()
    }
}

impl Sum {
    fn add(&mut self, power_w: f64, from_ns: i64, to_ns: i64) {
        let (from_ns, to_ns) = (from_ns.max(self.window.t_begin_ns), to_ns.min(self.window.t_end_ns));
        if from_ns < to_ns {
            self.energy_j += power_w * ns_to_s(to_ns - from_ns);
            self.covered_ns += to_ns - from_ns;
            self.least_w = self.least_w.min(power_w);
            self.most_w = self.most_w.max(power_w);
            self.rows += 1;
        }
    }

    fn energy(self) -> Result<WindowEnergy, Reason> {
        let whole_ns = self.window.t_end_ns.saturating_sub(self.window.t_begin_ns);
        if whole_ns <= 0 || self.covered_ns < whole_ns {
            return Err(Reason::LostSamples);
        }
        let step_w = (self.most_w - self.least_w).max(0.0);
        let end_j = step_w * AVERAGING_S / 12_f64.sqrt();
        let std_j = (2.0 * end_j * end_j + (RELATIVE_STD * self.energy_j).powi(2)).sqrt();
        let mut quality = vec![Reason::PowerIntegrated];
        if !quality::is_certain(self.energy_j, std_j) {
            quality.push(Reason::TooUncertain);
        }
        Ok(WindowEnergy { energy_j: self.energy_j, std_j, edges_inside: self.rows, quality })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn flat_power_is_watts_times_seconds() {
        let mut collector = PowerCollector::new(&[Window { t_begin_ns: S / 2, t_end_ns: 4 * S }]);
        for second in 0..6 {
            collector.push(200.0, second * S, second * S - S / 1000);
        }
        let got = collector.finish().remove(0).expect("covered");
        assert!((got.energy_j - 700.0).abs() < 1e-9);
        assert!((got.std_j - 35.0).abs() < 1e-9, "5 % of it");
        assert_eq!(got.quality, [Reason::PowerIntegrated]);
    }

    #[test]
    fn a_change_counts_from_when_it_was_seen_not_from_the_heartbeat_before() {
        // 100 W until 2.998 s, then 500 W; a straight line from the heartbeat at 2 s would give 300 J for that second.
        let mut collector = PowerCollector::new(&[Window { t_begin_ns: 0, t_end_ns: 4 * S }]);
        for (ms, prev_ms, w) in
            [(0, 0, 100.0), (1000, 999, 100.0), (2000, 1999, 100.0), (2998, 2998, 500.0), (4000, 3999, 500.0)]
        {
            collector.push(w, ms * S / 1000, prev_ms * S / 1000);
        }
        let got = collector.finish().remove(0).expect("covered");
        assert!((got.energy_j - (299.8 + 501.0)).abs() < 1e-6, "{}", got.energy_j);
    }

    #[test]
    fn a_hole_is_not_bridged() {
        let mut collector = PowerCollector::new(&[Window { t_begin_ns: 0, t_end_ns: 8 * S }]);
        collector.push(100.0, 0, 0);
        collector.push(100.0, 8 * S, 8 * S - 1);
        assert_eq!(collector.finish(), [Err(Reason::LostSamples)]);
    }
}
