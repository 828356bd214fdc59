//! What changes slowly beside the energy of an Intel GPU.

use super::abi::{self, Api, EngineStats, Handle};
use crate::source::Telemetry;

const FREQ_DOMAIN_GPU: u32 = 0;
const FREQ_DOMAIN_MEMORY: u32 = 1;
/// `ZES_TEMP_SENSORS_GLOBAL` and `_GPU`.
const TEMP_SENSORS: [u32; 2] = [0, 1];
const MEMORY_ON_DEVICE: u32 = 1;
/// `ZES_ENGINE_GROUP_ALL`.
const ENGINES_ALL: u32 = 0;

/// Bits of the throttle reasons, in the words of the `telemetry` table.
const THROTTLE_REASONS: [(u32, &str); 4] = [
    // Average and burst power caps.
    (0b000_0011, "power_cap"),
    (0b000_1000, "thermal"),
    // Current limit, supply alert, the hardware's own range.
    (0b101_0100, "hardware"),
    // Somebody asked for a lower clock.
    (0b010_0000, "clock_limit"),
];

/// The sensors of one card, looked up once.
#[derive(Debug, Default)]
pub(super) struct Sensors {
    gpu_clocks: Vec<Handle>,
    memory_clocks: Vec<Handle>,
    temperatures: Vec<Handle>,
    memories: Vec<Handle>,
    engines: Option<Handle>,
    last_activity: Option<EngineStats>,
    limit: Option<Handle>,
}

impl Sensors {
    pub(super) fn of(api: &Api, device: Handle, limit: Option<Handle>) -> Self {
        let list =
            |list: Option<abi::Children>| list.and_then(|list| abi::children(list, device).ok()).unwrap_or_default();
        let mut sensors = Self { limit, ..Self::default() };
        for handle in list(api.frequency_domains) {
            let mut properties = abi::FreqProperties::empty();
            let known = api.frequency_properties.map(|query| abi::query(query, handle, &mut properties));
            match (known, properties.domain) {
                (Some(Ok(())), FREQ_DOMAIN_GPU) => sensors.gpu_clocks.push(handle),
                (Some(Ok(())), FREQ_DOMAIN_MEMORY) => sensors.memory_clocks.push(handle),
                _ => {}
            }
        }
        for handle in list(api.temperature_sensors) {
            let mut properties = abi::TempProperties::empty();
            let known = api.temperature_properties.map(|query| abi::query(query, handle, &mut properties));
            if matches!(known, Some(Ok(()))) && TEMP_SENSORS.contains(&properties.sensor) {
                sensors.temperatures.push(handle);
            }
        }
        sensors.memories = list(api.memory_modules);
        sensors.memories.retain(|handle| is_device_memory(api, *handle).is_some());
        sensors.engines = list(api.engine_groups).into_iter().find(|handle| {
            let mut properties = abi::EngineProperties::empty();
            let known = api.engine_properties.map(|query| abi::query(query, *handle, &mut properties));
            matches!(known, Some(Ok(()))) && properties.group == ENGINES_ALL && properties.on_subdevice == 0
        });
        sensors
    }

    /// Bytes of memory on the device.
    pub(super) fn memory_bytes(&self, api: &Api) -> Option<u64> {
        let physical = |handle: &Handle| is_device_memory(api, *handle);
        let state = |handle: &Handle| Some(memory_state(api, *handle)?.size);
        let sizes = self.memories.iter().map(|m| physical(m).filter(|bytes| *bytes > 0).or_else(|| state(m)));
        sizes.sum::<Option<u64>>().filter(|bytes| *bytes > 0)
    }

    pub(super) fn read(&mut self, api: &Api) -> Telemetry {
        let clock = |handle: &Handle| frequency(api, *handle);
        let gpu: Vec<_> = self.gpu_clocks.iter().filter_map(clock).collect();
        let memory: Vec<_> = self.memory_clocks.iter().filter_map(clock).collect();
        let bits = gpu.iter().fold(0, |bits, (_, reasons)| bits | reasons);
        Telemetry {
            temperature_c: highest(self.temperatures.iter().filter_map(|handle| temperature(api, *handle))),
            // The slowest tile is what a program waits for.
            core_clock_hz: lowest(gpu.iter().filter_map(|(hz, _)| *hz)),
            memory_clock_hz: lowest(memory.iter().filter_map(|(hz, _)| *hz)),
            utilization: self.utilization(api),
            memory_used_bytes: self.memory_used_bytes(api),
            power_limit_w: self.limit.and_then(|handle| limit_w(api, handle)),
            throttle_reasons: THROTTLE_REASONS
                .iter()
                .filter(|(mask, _)| bits & mask != 0)
                .map(|(_, word)| *word)
                .collect(),
        }
    }

    fn memory_used_bytes(&self, api: &Api) -> Option<u64> {
        let used = |handle: &Handle| {
            let state = memory_state(api, *handle)?;
            state.size.checked_sub(state.free)
        };
        let modules: Option<Vec<u64>> = self.memories.iter().map(used).collect();
        modules.filter(|modules| !modules.is_empty())?.into_iter().try_fold(0_u64, u64::checked_add)
    }

    /// Share of the time since the last call in which any engine worked.
    fn utilization(&mut self, api: &Api) -> Option<f64> {
        let mut now = EngineStats::default();
        abi::query(api.engine_activity?, self.engines?, &mut now).ok()?;
        let before = self.last_activity.replace(now)?;
        let active_us = now.active_time.checked_sub(before.active_time)?;
        let passed_us = now.timestamp.checked_sub(before.timestamp).filter(|us| *us > 0)?;
        Some((active_us as f64 / passed_us as f64).min(1.0))
    }
}

/// The limit in force, W.
pub(super) fn limit_w(api: &Api, domain: Handle) -> Option<f64> {
    api.sustained_limit(domain).filter(|limit| limit.power > 0).map(|limit| f64::from(limit.power) / 1e3)
}

fn is_device_memory(api: &Api, handle: Handle) -> Option<u64> {
    let mut properties = abi::MemProperties::empty();
    abi::query(api.memory_properties?, handle, &mut properties).ok()?;
    (properties.location == MEMORY_ON_DEVICE).then_some(properties.physical_size)
}

fn memory_state(api: &Api, handle: Handle) -> Option<abi::MemState> {
    let mut state = abi::MemState::empty();
    abi::query(api.memory_state?, handle, &mut state).ok()?;
    Some(state)
}

fn frequency(api: &Api, handle: Handle) -> Option<(Option<f64>, u32)> {
    let mut state = abi::FreqState::empty();
    abi::query(api.frequency_state?, handle, &mut state).ok()?;
    Some(((state.actual.is_finite() && state.actual >= 0.0).then_some(state.actual * 1e6), state.throttle_reasons))
}

fn temperature(api: &Api, handle: Handle) -> Option<f64> {
    let mut celsius = f64::NAN;
    abi::query(api.temperature?, handle, &mut celsius).ok()?;
    celsius.is_finite().then_some(celsius)
}

fn highest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}

fn lowest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::min)
}
