//! Whether a device was steady while a phase ran: what its telemetry says of throttling, clocks and temperature.
//!
//! These reasons qualify a row, they do not refuse it: the joules are right, but they were drawn under conditions that
//! another run may not meet. A power cap is no reason. It is how a busy GPU works.

use std::collections::HashMap;
use std::path::PathBuf;

use super::interval::Window;
use super::quality::Reason;
use super::recording::Asked;
use crate::schema::TELEMETRY;
use crate::store::{self, TelemetryRow};

/// What holds clocks down when something is wrong with the cooling or the supply.
const THROTTLING: [&str; 3] = ["thermal", "hardware", "power_brake"];
/// Mean clocks of the two halves of a window may differ by this much, relative.
const CLOCK_DRIFT: f64 = 0.05;
/// The temperature may change by this much from the beginning to the end of a window, degrees Celsius.
const THERMAL_DRIFT_C: f64 = 5.0;
/// Mean utilisation above which an idle device was not idle.
const BUSY: f64 = 0.05;
/// Windows of one device that may overlap: decode within total, say.
const MOST_NESTED: usize = 8;

/// What was told of one device within one window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Told {
    throttled: bool,
    /// Sum and number of clocks in the first half and in the second.
    clocks: [(f64, u32); 2],
    /// First and last temperature.
    temperature_c: Option<(f64, f64)>,
    utilization: (f64, u32),
}

/// The telemetry of a recording, window by window.
#[derive(Debug, Default)]
pub(super) struct Steadiness {
    by_device: HashMap<(String, String), Vec<(Window, Told)>>,
}

impl Steadiness {
    pub(super) fn read(telemetry: &[PathBuf], asked: &Asked) -> Result<Self, store::Error> {
        let mut by_device: HashMap<(String, String), Vec<(Window, Told)>> = HashMap::new();
        for (key, windows) in asked {
            let mut windows: Vec<_> = windows.iter().map(|w| (*w, Told::default())).collect();
            windows.sort_by_key(|(w, _)| w.t_begin_ns);
            by_device.insert(key.clone(), windows);
        }
        for path in telemetry {
            let host = store::read_metadata(path)?.host;
            for batch in store::read_file(path, &TELEMETRY)? {
                for row in TelemetryRow::from_batch(&batch?)? {
                    if let Some(windows) = by_device.get_mut(&(host.clone(), row.device.to_string())) {
                        push(windows, &row);
                    }
                }
            }
        }
        Ok(Self { by_device })
    }

    fn told(&self, host: &str, device: &str, window: Window) -> Option<&Told> {
        let windows = self.by_device.get(&(host.to_owned(), device.to_owned()))?;
        windows.iter().find(|(w, _)| *w == window).map(|(_, told)| told)
    }

    /// Reasons to doubt that the device was steady in a window that was asked for.
    pub(super) fn reasons(&self, host: &str, device: &str, window: Window) -> Vec<Reason> {
        let Some(told) = self.told(host, device, window) else { return Vec::new() };
        let mean = |(sum, n): (f64, u32)| (n >= 2).then(|| sum / f64::from(n));
        let clocks = mean(told.clocks[0]).zip(mean(told.clocks[1]));
        let clock_drifts = clocks.is_some_and(|(a, b)| (a - b).abs() > CLOCK_DRIFT * a.max(b));
        let heats = told.temperature_c.is_some_and(|(first, last)| (last - first).abs() > THERMAL_DRIFT_C);
        [(told.throttled, Reason::Throttled), (clock_drifts, Reason::ClockDrift), (heats, Reason::ThermalDrift)]
            .into_iter()
            .filter_map(|(is_so, reason)| is_so.then_some(reason))
            .collect()
    }

    /// Whether the device did something while it should have been idle.
    pub(super) fn is_busy(&self, host: &str, device: &str, idle: Window) -> bool {
        let utilization = self.told(host, device, idle).map_or((0.0, 0), |told| told.utilization);
        utilization.1 > 0 && utilization.0 > BUSY * f64::from(utilization.1)
    }
}

fn push(windows: &mut [(Window, Told)], row: &TelemetryRow) {
    let t = row.t_mono_ns;
    let begun = windows.partition_point(|(w, _)| w.t_begin_ns <= t);
    let Some(begun) = windows.get_mut(begun.saturating_sub(MOST_NESTED)..begun) else { return };
    for (window, told) in begun.iter_mut().filter(|(w, _)| t <= w.t_end_ns) {
        told.throttled |= row.throttle_reasons.iter().any(|r| THROTTLING.contains(&r.as_str()));
        if let Some(clock_hz) = row.core_clock_hz {
            let is_late = t - window.t_begin_ns > (window.t_end_ns - window.t_begin_ns) / 2;
            let (sum, n) = &mut told.clocks[usize::from(is_late)];
            (*sum, *n) = (*sum + clock_hz, *n + 1);
        }
        if let Some(now_c) = row.temperature_c {
            told.temperature_c = Some((told.temperature_c.map_or(now_c, |(first, _)| first), now_c));
        }
        if let Some(utilization) = row.utilization {
            told.utilization = (told.utilization.0 + utilization, told.utilization.1 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::Origin;

    const S: i64 = 1_000_000_000;

    fn row(t_s: i64, clock_mhz: f64, temperature_c: f64, reasons: &[&str]) -> TelemetryRow {
        TelemetryRow {
            device: Arc::from("nvml:a"),
            t_mono_ns: t_s * S,
            temperature_c: Some(temperature_c),
            core_clock_hz: Some(clock_mhz * 1e6),
            memory_clock_hz: None,
            utilization: Some(if clock_mhz > 500.0 { 1.0 } else { 0.0 }),
            memory_used_bytes: None,
            power_limit_w: None,
            throttle_reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
            source: Origin::Measured,
        }
    }

    fn window(from_s: i64, to_s: i64) -> Window {
        Window { t_begin_ns: from_s * S, t_end_ns: to_s * S }
    }

    fn seen(windows: &[Window], rows: &[TelemetryRow]) -> Steadiness {
        let mut told: Vec<_> = windows.iter().map(|w| (*w, Told::default())).collect();
        rows.iter().for_each(|row| push(&mut told, row));
        Steadiness { by_device: HashMap::from([(("n".to_owned(), "nvml:a".to_owned()), told)]) }
    }

    #[test]
    fn a_steady_device_is_not_doubted_and_a_power_cap_is_no_reason() {
        let rows: Vec<_> = (0..20).map(|t| row(t, 1_400.0 + (t % 2) as f64 * 30.0, 60.0, &["power_cap"])).collect();
        let steady = seen(&[window(0, 20)], &rows);
        assert_eq!(steady.reasons("n", "nvml:a", window(0, 20)), []);
        assert_eq!(steady.reasons("n", "nvml:b", window(0, 20)), [], "nothing is known of it");
    }

    #[test]
    fn heat_clocks_and_throttling_are_seen_in_the_window_they_fall_into() {
        let rows: Vec<_> = (0..30)
            .map(|t| match t {
                0..10 => row(t, 1_400.0, 60.0, &[]),
                10..15 => row(t, 1_400.0, 50.0 + t as f64, &[]),
                15..20 => row(t, 1_200.0, 66.0, &["thermal"]),
                _ => row(t, 300.0, 40.0, &[]),
            })
            .collect();
        let all = [window(0, 9), window(10, 19), window(20, 29)];
        let seen = seen(&all, &rows);
        assert_eq!(seen.reasons("n", "nvml:a", all[0]), []);
        let reasons = seen.reasons("n", "nvml:a", all[1]);
        assert_eq!(reasons, [Reason::Throttled, Reason::ClockDrift, Reason::ThermalDrift]);
        assert!(seen.is_busy("n", "nvml:a", all[0]) && !seen.is_busy("n", "nvml:a", all[2]));
    }

    #[test]
    fn windows_inside_of_others_are_told_as_well() {
        let rows: Vec<_> = (0..10).map(|t| row(t, 1_000.0, 50.0, if t == 6 { &["hardware"] } else { &[] })).collect();
        let all = [window(0, 9), window(1, 3), window(5, 8)];
        let seen = seen(&all, &rows);
        let throttled = all.map(|w| seen.reasons("n", "nvml:a", w) == [Reason::Throttled]);
        assert_eq!(throttled, [true, false, true]);
    }
}
