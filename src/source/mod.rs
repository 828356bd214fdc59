//! Where do readings come from?
//!
//! Start at [`CounterSource`]: a handful of devices, each with one cumulative energy counter or, failing that, a power
//! sensor. A source only reads; whoever polls owns the clock, the schedule and the buffer.
//!
//! What readings can and cannot say: a counter moves every 1 to 100 ms, not when it is read; it restarts when a driver
//! reloads, and wraps where the hardware register is narrow. So a [`Reading`] is stored raw, and only `dataset` draws
//! conclusions from two of them.

pub mod amd;
pub mod cray;
pub mod detect;
pub mod hwmon;
pub mod level_zero;
pub mod nvml;
pub mod rapl;
pub mod replay;
mod scope;
pub mod sim;
mod sysfs;

pub use detect::{Detection, detect};

use serde::{Deserialize, Serialize};

/// Which part of the machine a counter covers. Two counters whose scopes overlap are never added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One GPU.
    Gpu,
    /// GPU and CPU on one module (Grace Hopper).
    Module,
    /// One CPU package.
    CpuPackage,
    /// The memory of one CPU package.
    Dram,
    /// One tile of a GPU that has no counter for the whole card.
    GpuTile,
    /// One accelerator slot, measured on the board before the GPU's own regulators (HPE Cray).
    GpuSlot,
    /// All CPUs of the node together.
    Cpu,
    /// All memory of the node together.
    Memory,
    /// One supply rail inside a CPU package (Grace).
    Rail,
    /// The whole node.
    Node,
}

/// One energy counter and what it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Identifier, unique on the host and stable over restarts: `nvml:GPU-<uuid>`, `rapl:package-0`, `sim:0`.
    pub id: String,
    /// Product name as the driver gives it.
    pub name: String,
    /// What the counter covers.
    pub scope: Scope,
    /// Whether readings come from a counter, from a power sensor, or are simulated.
    pub energy_source: crate::schema::EnergySource,
    /// Value at which the counter starts again at 0, µJ; `None` where it never wraps in practice.
    pub counter_modulus_uj: Option<u64>,
    /// Steps in which the counter counts, µJ, where they are coarser than a millijoule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_step_uj: Option<u64>,
    /// Board power limit, W, where known; differences that imply more than 1.5 times as much are no energy.
    pub power_limit_w: Option<f64>,
    /// Memory of the device, bytes, where known.
    pub memory_bytes: Option<u64>,
}

/// One answer of a device. All fields may be missing: an old driver lacking one is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Cumulative energy, µJ, exactly as counted.
    pub energy_counter_uj: Option<u64>,
    /// Power, W.
    pub power_w: Option<f64>,
    /// The device's own timestamp, ns, on its own time base.
    pub t_device_ns: Option<i64>,
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This once; ask again at the next poll.
    #[error("{0}")]
    Transient(String),
    /// The device has left (fallen off the bus, MIG reconfigured); do not ask again.
    #[error("device is gone: {0}")]
    Gone(String),
    /// The source as a whole is unusable.
    #[error("{0}")]
    Fatal(String),
}

/// What changes slowly beside the energy: read about once a second, never on the hot path. Every field may be missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Telemetry {
    /// Temperature of the device, degrees Celsius.
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
    /// Why the clocks are held down, in the words of the `telemetry` table: `power_cap`, `thermal`, `hardware`, ...
    pub throttle_reasons: Vec<&'static str>,
}

/// Reads counters. Reading takes `&mut self`: some drivers step backwards when one handle is read from two threads. The
/// devices of one source are read in turn; a driver that can be asked about several devices at the same time is opened
/// as one source per device, so that a device that blocks holds up no other.
pub trait CounterSource: Send {
    /// The devices, fixed for the life of the source.
    fn devices(&self) -> &[Device];
    /// Reads device number `index` of [`devices`](Self::devices).
    fn read(&mut self, index: usize) -> Result<Reading, ReadError>;
    /// What else device number `index` tells; `None` where the source has no such thing.
    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        let _ = index;
        None
    }
}
