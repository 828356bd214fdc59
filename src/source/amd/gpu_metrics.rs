//! The binary file `gpu_metrics` that the amdgpu driver shows for each card: formats 1.0 to 1.9, and what 2.x lacks.
//!
//! Start at [`parse`]. The file begins with its size, format and content revision; each content revision is another C
//! struct of the kernel's `kgd_pp_interface.h`, from which the offsets below were counted by hand. All bytes set means that
//! the card has no such sensor. The energy accumulator counts 2^-16 J (15.259 uJ); it has 64 bits on Instinct MI200 and
//! newer, and the width of the firmware's 32-bit register on the cards before and beside them.
//!
//! Limits: the driver renews these figures once a millisecond at most; formats 2.x and 3.x (processors with graphics) have
//! no energy.

mod attributes;

/// What a card's metrics say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GpuMetrics {
    /// Format and content revision.
    pub version: (u8, u8),
    /// Energy accumulator, counts of 2^-16 J.
    pub energy_counts: Option<u64>,
    /// The driver's timestamp, ns.
    pub timestamp_ns: Option<i64>,
    /// Power of the socket, W.
    pub power_w: Option<f64>,
    /// Hottest spot or, failing that, edge temperature, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Share of the time in which the graphics engine did anything, 0 to 1.
    pub utilization: Option<f64>,
    /// Clock of the graphics engine now, Hz.
    pub core_clock_hz: Option<f64>,
    /// Clock of the memory now, Hz.
    pub memory_clock_hz: Option<f64>,
    /// Why the clocks are held down.
    pub throttle: Option<Throttle>,
}

/// Two ways in which a card says why its clocks are held down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// One bit per reason, in the kernel's numbering that is the same for all cards.
    Status(u64),
    /// Counters that rise while the reason holds: processor hot, power cap, socket, voltage regulator, memory.
    Residency([u32; 5]),
}

/// Why a file of metrics says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Shorter than it says, or than its header.
    #[error("has {found} bytes: expected {expected} for format {major}.{minor}")]
    Short {
        /// Bytes that are there.
        found: usize,
        /// Bytes that should be.
        expected: usize,
        /// Format revision.
        major: u8,
        /// Content revision.
        minor: u8,
    },
    /// A format that nobody has described to us.
    #[error("is of format {major}.{minor}: expected 1.0 to 1.9")]
    Unknown {
        /// Format revision.
        major: u8,
        /// Content revision.
        minor: u8,
    },
    /// A format of processors with graphics, which count no energy.
    #[error("is of format {major}.{minor}, that of processors with graphics, which has no energy counter")]
    NoEnergy {
        /// Format revision.
        major: u8,
        /// Content revision.
        minor: u8,
    },
    /// A list of attributes with one of a type that nobody has described to us.
    #[error("lists attribute {identifier} with the unknown type {kind}")]
    Attribute {
        /// The attribute.
        identifier: u64,
        /// Its type.
        kind: u64,
    },
}

/// Where a revision keeps what is read.
#[derive(Debug, Clone, Copy)]
struct Layout {
    energy: usize,
    /// The oldest revision has half as wide a field.
    energy_is_u32: bool,
    timestamp: usize,
    power: usize,
    hot: usize,
    edge: Option<usize>,
    activity: usize,
    clocks: Option<(usize, usize)>,
    status: Option<usize>,
    residency: Option<usize>,
}

const V1_0: Layout = Layout {
    energy: 36,
    energy_is_u32: true,
    timestamp: 8,
    power: 34,
    hot: 18,
    edge: Some(16),
    activity: 28,
    clocks: Some((54, 58)),
    status: None,
    residency: None,
};
const V1_1: Layout = Layout {
    energy: 24,
    energy_is_u32: false,
    timestamp: 32,
    power: 22,
    hot: 6,
    edge: Some(4),
    activity: 16,
    clocks: Some((54, 58)),
    status: None,
    residency: None,
};
const V1_3: Layout = Layout { status: Some(112), ..V1_1 };
const V1_4: Layout = Layout {
    energy: 24,
    energy_is_u32: false,
    timestamp: 32,
    power: 10,
    hot: 4,
    edge: None,
    activity: 12,
    clocks: Some((240, 280)),
    status: None,
    residency: None,
};
/// Thirty-two figures of JPEG engines came between activity and energy.
const V1_5: Layout = Layout { energy: 88, timestamp: 96, clocks: Some((312, 352)), ..V1_4 };
/// A development kernel's 1.6, which kept the figures of 1.5; told by its size.
const V1_6_EARLY: Layout = Layout { clocks: None, residency: Some(108), ..V1_5 };
const V1_6_EARLY_BYTES: usize = 384;
/// They moved to the end.
const V1_6: Layout = Layout { energy: 16, timestamp: 24, clocks: None, residency: Some(36), ..V1_4 };
/// The memory's bandwidth came before the energy.
const V1_7: Layout = Layout { energy: 24, timestamp: 32, clocks: None, residency: Some(44), ..V1_4 };

/// Reads one snapshot.
pub fn parse(bytes: &[u8]) -> Result<GpuMetrics, MetricsError> {
    let &[size_low, size_high, major, minor, ..] = bytes else {
        return Err(MetricsError::Short { found: bytes.len(), expected: 4, major: 0, minor: 0 });
    };
    let size = usize::from(u16::from_le_bytes([size_low, size_high]));
    let short = |expected| MetricsError::Short { found: bytes.len(), expected, major, minor };
    // What lies behind the announced size is somebody else's.
    let bytes = bytes.get(..size).ok_or_else(|| short(size))?;
    let layout = match (major, minor) {
        (1, 0) => V1_0,
        (1, 1 | 2) => V1_1,
        (1, 3) => V1_3,
        (1, 4) => V1_4,
        (1, 5) => V1_5,
        (1, 6) if size == V1_6_EARLY_BYTES => V1_6_EARLY,
        (1, 6) => V1_6,
        (1, 7 | 8) => V1_7,
        (1, 9) => return attributes::parse(bytes, (major, minor)),
        (2 | 3, _) => return Err(MetricsError::NoEnergy { major, minor }),
        _ => return Err(MetricsError::Unknown { major, minor }),
    };
    let energy =
        if layout.energy_is_u32 { u32_at(bytes, layout.energy).map(u64::from) } else { u64_at(bytes, layout.energy) };
    let end = layout.timestamp.max(layout.energy) + 8;
    let energy = energy.ok_or_else(|| short(end))?;
    let timestamp = u64_at(bytes, layout.timestamp).ok_or_else(|| short(end))?;
    let mhz = |at| sensor(bytes, at).map(|mhz| mhz * 1e6);
    Ok(GpuMetrics {
        version: (major, minor),
        // Cards whose firmware stopped counting show 32 bits of ones in 64.
        energy_counts: Some(energy).filter(|counts| *counts != u64::MAX && *counts != u64::from(u32::MAX)),
        timestamp_ns: i64::try_from(timestamp).ok().filter(|ns| *ns > 0),
        power_w: sensor(bytes, layout.power),
        temperature_c: sensor(bytes, layout.hot)
            .filter(|c| *c > 0.0)
            .or_else(|| layout.edge.and_then(|at| sensor(bytes, at))),
        utilization: sensor(bytes, layout.activity).filter(|percent| *percent <= 100.0).map(|percent| percent / 100.0),
        core_clock_hz: layout.clocks.and_then(|(core, _)| mhz(core)),
        memory_clock_hz: layout.clocks.and_then(|(_, memory)| mhz(memory)),
        throttle: throttle(bytes, &layout),
    })
}

fn throttle(bytes: &[u8], layout: &Layout) -> Option<Throttle> {
    if let Some(status) = layout.status.and_then(|at| u64_at(bytes, at)).filter(|status| *status != u64::MAX) {
        return Some(Throttle::Status(status));
    }
    let start = layout.residency?;
    let mut residency = [0; 5];
    for (place, value) in residency.iter_mut().enumerate() {
        *value = u32_at(bytes, start + 4 * place)?;
    }
    (residency != [u32::MAX; 5]).then_some(Throttle::Residency(residency))
}

impl Throttle {
    /// The reasons that hold now; counters say only what rose since `before`.
    pub fn words(self, before: Option<Self>) -> Vec<&'static str> {
        let rules: Vec<(bool, &str)> = match (self, before) {
            (Self::Status(status), _) => {
                let any = |bits: std::ops::Range<u32>| bits.into_iter().any(|bit| status >> bit & 1 == 1);
                // The kernel's SMU_THROTTLER_*: power limits, current limits, temperatures, the processor's own pins.
                vec![
                    (any(0..8), "power_cap"),
                    (any(16..24), "current_limit"),
                    (any(32..58), "thermal"),
                    (any(58..64), "hardware"),
                ]
            }
            (Self::Residency([hot, cap, socket, regulator, memory]), Some(Self::Residency(was))) => {
                let [hot_was, cap_was, socket_was, regulator_was, memory_was] = was;
                let warm = socket > socket_was || regulator > regulator_was || memory > memory_was;
                vec![(cap > cap_was, "power_cap"), (warm, "thermal"), (hot > hot_was, "hardware")]
            }
            (Self::Residency(_), _) => Vec::new(),
        };
        rules.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect()
    }
}

/// A sensor's 16 bits; all of them set means that there is no such sensor.
fn sensor(bytes: &[u8], at: usize) -> Option<f64> {
    let value: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(value)).filter(|v| *v != u16::MAX).map(f64::from)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
