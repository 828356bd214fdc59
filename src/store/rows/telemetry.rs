//! Rows of the `telemetry` table.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::super::columns;
use super::super::error::Result;
use super::builder::BatchBuilder;
use super::mark::unknown;
use crate::schema::{EnergySource, Origin, TELEMETRY};
use crate::source::{Device, Telemetry};

/// What a device told beside its energy, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryRow {
    /// Device; shared, as a recording has few and many rows of each.
    pub device: Arc<str>,
    /// Instant of the read.
    pub t_mono_ns: i64,
    /// Temperature, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Clock of the compute units, Hz.
    pub core_clock_hz: Option<f64>,
    /// Clock of the memory, Hz.
    pub memory_clock_hz: Option<f64>,
    /// Share of the time in which the device did anything, 0 to 1.
    pub utilization: Option<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Option<u64>,
    /// Power limit in force, W.
    pub power_limit_w: Option<f64>,
    /// What held the clocks down.
    pub throttle_reasons: Vec<String>,
    /// Whether a machine told it or the simulated node.
    pub source: Origin,
}

impl TelemetryRow {
    /// What `device` told at `t_mono_ns`.
    pub fn of(device: &Device, id: Arc<str>, t_mono_ns: i64, told: Telemetry) -> Self {
        let is_simulated = device.energy_source == EnergySource::Simulated;
        Self {
            device: id,
            t_mono_ns,
            temperature_c: told.temperature_c,
            core_clock_hz: told.core_clock_hz,
            memory_clock_hz: told.memory_clock_hz,
            utilization: told.utilization,
            memory_used_bytes: told.memory_used_bytes,
            power_limit_w: told.power_limit_w,
            throttle_reasons: told.throttle_reasons.into_iter().map(str::to_owned).collect(),
            source: if is_simulated { Origin::Simulated } else { Origin::Measured },
        }
    }

    /// The rows as a batch.
    pub fn batch(rows: &[Self]) -> Result<RecordBatch> {
        BatchBuilder::new(&TELEMETRY)
            .labels("device", rows.iter().map(|r| Some(r.device.as_ref())))
            .i64s("t_mono_ns", rows.iter().map(|r| Some(r.t_mono_ns)))
            .f64s("temperature_c", rows.iter().map(|r| r.temperature_c))
            .f64s("core_clock_hz", rows.iter().map(|r| r.core_clock_hz))
            .f64s("memory_clock_hz", rows.iter().map(|r| r.memory_clock_hz))
            .f64s("utilization", rows.iter().map(|r| r.utilization))
            .u64s("memory_used_bytes", rows.iter().map(|r| r.memory_used_bytes))
            .f64s("power_limit_w", rows.iter().map(|r| r.power_limit_w))
            .label_lists("throttle_reasons", rows.iter().map(|r| r.throttle_reasons.iter().map(String::as_str)))
            .labels("source", rows.iter().map(|r| Some(r.source.as_str())))
            .finish()
    }

    /// The rows of a batch.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let device = columns::text(batch, "device")?;
        let t_mono = columns::i64s(batch, "t_mono_ns")?;
        let floats = |name| columns::has(batch, name).then(|| columns::f64s(batch, name)).transpose();
        let (temperature, core_clock) = (floats("temperature_c")?, floats("core_clock_hz")?);
        let (memory_clock, utilization) = (floats("memory_clock_hz")?, floats("utilization")?);
        let power_limit = floats("power_limit_w")?;
        let memory_used =
            columns::has(batch, "memory_used_bytes").then(|| columns::u64s(batch, "memory_used_bytes")).transpose()?;
        let mut reasons = columns::text_lists(batch, "throttle_reasons")?.into_iter();
        let source = columns::text(batch, "source")?;
        let float = |array: &Option<arrow::array::Float64Array>, row| {
            array.as_ref().and_then(|a: &arrow::array::Float64Array| columns::value(a, row))
        };
        let row = |row: usize| {
            Ok(Self {
                device: Arc::from(columns::required_text(&device, "device", row)?),
                t_mono_ns: columns::required(&t_mono, "t_mono_ns", row)?,
                temperature_c: float(&temperature, row),
                core_clock_hz: float(&core_clock, row),
                memory_clock_hz: float(&memory_clock, row),
                utilization: float(&utilization, row),
                memory_used_bytes: memory_used.as_ref().and_then(|a| columns::value(a, row)),
                power_limit_w: float(&power_limit, row),
                throttle_reasons: reasons.next().unwrap_or_default(),
                source: columns::required_text(&source, "source", row)?.parse().map_err(unknown("source"))?,
            })
        };
        (0..batch.num_rows()).map(row).collect()
    }
}
