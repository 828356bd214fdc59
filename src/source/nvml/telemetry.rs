//! What NVML tells beside the energy. Each question is a driver call: once a second, never on the hot path.

use nvml_wrapper::Device as NvmlDevice;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use crate::source::Telemetry;

const HZ_PER_MHZ: f64 = 1e6;

/// Why the clocks are held down, in words. Idle is no reason: it says that nobody asked for more. The hardware bit says
/// only that one of its own protections is active; newer GPUs name it with a second bit.
const WORDS: [(ThrottleReasons, &str); 8] = [
    (ThrottleReasons::SW_POWER_CAP, "power_cap"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power_brake"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware"),
    (ThrottleReasons::SYNC_BOOST, "sync_boost"),
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "application_clocks"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clocks"),
];

/// Asks everything; what the GPU does not tell stays away.
pub(super) fn of(gpu: &NvmlDevice<'_>) -> Telemetry {
    let clock_hz = |clock| gpu.clock_info(clock).ok().map(|mhz| f64::from(mhz) * HZ_PER_MHZ);
    Telemetry {
        temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        core_clock_hz: clock_hz(Clock::SM),
        memory_clock_hz: clock_hz(Clock::Memory),
        // MIG and some vGPUs answer with values beyond 100.
        utilization: gpu.utilization_rates().ok().filter(|u| u.gpu <= 100).map(|u| f64::from(u.gpu) / 100.0),
        memory_used_bytes: gpu.memory_info().ok().map(|memory| memory.used),
        power_limit_w: gpu.enforced_power_limit().ok().map(|mw| f64::from(mw) / 1e3),
        throttle_reasons: gpu.current_throttle_reasons().map_or_else(|_| Vec::new(), words),
    }
}

fn words(reasons: ThrottleReasons) -> Vec<&'static str> {
    let mut words: Vec<_> = WORDS.iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, word)| *word).collect();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_words_once_each_and_idle_none() {
        // Bits as nvml.h numbers them: 1 idle, 4 power cap, 8 hardware, 16 sync boost, 32 and 64 thermal, 128 brake.
        for (bits, expected) in [
            (0x01, vec![]),
            (0x05, vec!["power_cap"]),
            (0x60, vec!["thermal"]),
            (0x48, vec!["thermal", "hardware"]),
            (0x88, vec!["power_brake", "hardware"]),
            (0x112, vec!["sync_boost", "application_clocks", "display_clocks"]),
            // Bits that nobody has named yet.
            (1 << 40, vec![]),
        ] {
            assert_eq!(words(ThrottleReasons::from_bits_truncate(bits)), expected, "{bits:#x}");
        }
    }
}
