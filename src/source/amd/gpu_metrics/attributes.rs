//! Format 1.9: a list of attributes, each with its own description, in place of a struct.
//!
//! ```text
//! header (4) | number of attributes (4) | attribute ...     packed, little endian
//! attribute  = description (8) | value x instances
//! description: unit 24-31 | type 20-23 | identifier 10-19 | instances 0-9
//! ```
//!
//! Identifiers and types are those of the kernel's `kgd_pp_interface.h`. One that is not known here is stepped over: its
//! type and its instances say how long it is.

use super::{GpuMetrics, MetricsError, Throttle};

/// Identifiers of what is read, by the kernel's `AMDGPU_METRICS_ATTR_ID_*`.
mod id {
    pub(super) const HOTSPOT: u64 = 0;
    pub(super) const SOCKET_POWER: u64 = 3;
    pub(super) const GFX_ACTIVITY: u64 = 4;
    pub(super) const ENERGY: u64 = 7;
    pub(super) const SYSTEM_CLOCK: u64 = 8;
    /// Processor hot, power cap, socket, voltage regulator, memory.
    pub(super) const FIRST_RESIDENCY: u64 = 10;
    pub(super) const LAST_RESIDENCY: u64 = 14;
    pub(super) const GFX_CLOCK: u64 = 33;
    pub(super) const MEMORY_CLOCK: u64 = 37;
}

/// Where the list begins.
const LIST: usize = 8;

/// Reads one snapshot, header included.
pub(super) fn parse(bytes: &[u8], version: (u8, u8)) -> Result<GpuMetrics, MetricsError> {
    let short = |expected| MetricsError::Short { found: bytes.len(), expected, major: version.0, minor: version.1 };
    let count = super::u32_at(bytes, 4).ok_or_else(|| short(LIST))?;
    let mut metrics = GpuMetrics { version, ..GpuMetrics::default() };
    let mut residency = [None; 5];
    let mut at = LIST;
    for _ in 0..count {
        let description = super::u64_at(bytes, at).ok_or_else(|| short(at.saturating_add(8)))?;
        let (kind, identifier, instances) =
            (description >> 20 & 0xf, description >> 10 & 0x3ff, (description & 0x3ff) as usize);
        // 8, 8, 16, 16, 32, 32, 64 and 64 bits, without and with a sign.
        let width = match kind {
            0..=7 => 1_usize << (kind / 2),
            _ => return Err(MetricsError::Attribute { identifier, kind }),
        };
        at += 8;
        let end = at + width * instances;
        let values = bytes.get(at..end).ok_or_else(|| short(end))?;
        at = end;
        let Some(value) = first(values, width) else { continue };
        match identifier {
            id::HOTSPOT => metrics.temperature_c = Some(value as f64).filter(|c| *c > 0.0),
            id::SOCKET_POWER => metrics.power_w = Some(value as f64),
            id::GFX_ACTIVITY => metrics.utilization = (value <= 100).then_some(value as f64 / 100.0),
            id::ENERGY => metrics.energy_counts = Some(value).filter(|counts| *counts != u64::from(u32::MAX)),
            id::SYSTEM_CLOCK => metrics.timestamp_ns = i64::try_from(value).ok().filter(|ns| *ns > 0),
            id::GFX_CLOCK => metrics.core_clock_hz = Some(value as f64 * 1e6),
            id::MEMORY_CLOCK => metrics.memory_clock_hz = Some(value as f64 * 1e6),
            id::FIRST_RESIDENCY..=id::LAST_RESIDENCY => {
                if let Some(place) = residency.get_mut((identifier - id::FIRST_RESIDENCY) as usize) {
                    *place = u32::try_from(value).ok();
                }
            }
            _ => {}
        }
    }
    if residency.iter().any(Option::is_some) {
        metrics.throttle = Some(Throttle::Residency(residency.map(Option::unwrap_or_default)));
    }
    Ok(metrics)
}

/// The first instance whose sensor is there: all bits set means that it is not.
fn first(values: &[u8], width: usize) -> Option<u64> {
    values.chunks_exact(width).find(|value| value.iter().any(|byte| *byte != 0xff)).map(|value| {
        let mut wide = [0; 8];
        wide.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(wide)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot of these attributes: identifier, type, values of its width.
    fn snapshot(attributes: &[(u64, u64, &[u64])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (identifier, kind, values) in attributes {
            list.extend((kind << 20 | identifier << 10 | values.len() as u64).to_le_bytes());
            values.iter().for_each(|v| list.extend(&v.to_le_bytes()[..1 << (kind / 2)]));
        }
        let size = (LIST + list.len()) as u16;
        let mut bytes = Vec::from(size.to_le_bytes());
        bytes.extend([1, 9]);
        bytes.extend((attributes.len() as u32).to_le_bytes());
        bytes.extend(list);
        bytes
    }

    /// An MI300X under load, the figures by hand; 1000 is an attribute that nobody knows yet.
    fn busy() -> Vec<u8> {
        snapshot(&[
            (0, 2, &[68]),
            (1, 2, &[0xffff]),
            (3, 2, &[707]),
            (4, 2, &[100]),
            (1000, 4, &[1, 2, 3]),
            (7, 6, &[0x1_0000_0000_0000]),
            (8, 6, &[1_234_567_890]),
            (9, 4, &[55_262_364]),
            (10, 4, &[0]),
            (11, 4, &[754_247]),
            (12, 4, &[0]),
            (13, 4, &[0]),
            (14, 4, &[0]),
            (33, 2, &[0xffff, 1317]),
            (37, 2, &[2600]),
        ])
    }

    #[test]
    fn a_list_of_attributes_is_read() {
        let metrics = super::super::parse(&busy()).expect("metrics");
        let expected = GpuMetrics {
            version: (1, 9),
            energy_counts: Some(1 << 48),
            timestamp_ns: Some(1_234_567_890),
            power_w: Some(707.0),
            temperature_c: Some(68.0),
            utilization: Some(1.0),
            core_clock_hz: Some(1317e6),
            memory_clock_hz: Some(2600e6),
            throttle: Some(Throttle::Residency([0, 754_247, 0, 0, 0])),
        };
        assert_eq!(metrics, expected);
    }

    #[test]
    fn a_list_that_ends_early_or_has_no_such_type_is_refused() {
        let whole = busy();
        for length in 0..whole.len() {
            assert!(super::super::parse(&whole[..length]).is_err(), "{length} bytes");
        }
        let strange = super::super::parse(&snapshot(&[(7, 9, &[])])).expect_err("no such type");
        assert_eq!(strange, MetricsError::Attribute { identifier: 7, kind: 9 });
    }

    #[test]
    fn a_card_without_the_accumulator_says_so() {
        let metrics = super::super::parse(&snapshot(&[(3, 2, &[90]), (7, 6, &[u64::MAX])])).expect("metrics");
        assert_eq!((metrics.energy_counts, metrics.power_w, metrics.throttle), (None, Some(90.0), None));
    }
}
