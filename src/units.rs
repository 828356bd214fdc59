//! Conversion factors between what drivers, files and people write and the SI units used inside.
//!
//! Raw cumulative counters are integers in microjoules: RAPL's own unit, and exact for NVML's millijoules. Everything
//! derived is `f64` in SI base units. Names carry the unit last (`energy_j`, `t_mono_ns`).

/// Microjoules in a joule.
pub const UJ_PER_J: f64 = 1e6;
/// Microjoules in a millijoule (NVML's `nvmlDeviceGetTotalEnergyConsumption` counts millijoules).
pub const UJ_PER_MJ: u64 = 1_000;
/// Nanoseconds in a second.
pub const NS_PER_S: f64 = 1e9;
/// Nanoseconds in a millisecond.
pub const NS_PER_MS: i64 = 1_000_000;
/// Bytes in a gibibyte.
pub const BYTES_PER_GIB: f64 = 1_073_741_824.0;
/// Joules in a kilowatt-hour.
pub const J_PER_KWH: f64 = 3.6e6;

/// Joules between two readings of one counter, `after >= before`, both in µJ.
///
/// The difference is taken in integers: at 10^13 µJ an `f64` has already lost the last microjoules.
pub fn counter_difference_j(before_uj: u64, after_uj: u64) -> Option<f64> {
    after_uj.checked_sub(before_uj).map(|d| d as f64 / UJ_PER_J)
}

/// Nanoseconds to seconds.
pub fn ns_to_s(ns: i64) -> f64 {
    ns as f64 / NS_PER_S
}

/// Seconds to nanoseconds, rounded, saturating at the range of `i64` (292 years).
pub fn s_to_ns(s: f64) -> i64 {
    (s * NS_PER_S).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_went_backwards_has_no_difference() {
        assert_eq!(counter_difference_j(2_000_000, 5_000_000), Some(3.0));
        assert_eq!(counter_difference_j(5_000_000, 2_000_000), None);
    }

    #[test]
    fn seconds_and_nanoseconds_round_trip() {
        for s in [0.0, 1e-9, 0.05, 12.345_678_901, 86_400.0] {
            assert!((ns_to_s(s_to_ns(s)) - s).abs() < 1e-9, "{s}");
        }
        assert_eq!(s_to_ns(f64::INFINITY), i64::MAX);
    }
}
