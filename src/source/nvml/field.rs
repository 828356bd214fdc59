//! One call to `nvmlDeviceGetFieldValues`, with a scope, and all three of its verdicts.
//!
//! nvml-wrapper's own call has no scope: it always asks for the GPU, which superchips may refuse.

use std::ffi::{c_int, c_longlong, c_uint, c_ulonglong};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::{NvmlError, nvml_try};

use super::Handle;

/// `NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION`: millijoules since the driver was loaded.
pub(super) const ENERGY: u32 = 83;
/// `NVML_FI_DEV_POWER_AVERAGE`: the mean of the last second.
pub(super) const POWER_AVERAGE: u32 = 185;
/// `NVML_FI_DEV_POWER_INSTANT`: the sensor's last window (25 ms of every 100 ms on A100 and H100).
pub(super) const POWER_INSTANT: u32 = 186;

/// Whom a field is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldScope {
    /// `NVML_POWER_SCOPE_GPU`.
    Gpu,
    /// `NVML_POWER_SCOPE_MODULE`: the GPU and the CPU on its module.
    Module,
}

/// `nvmlFieldValue_t`. Its value is a union of eight bytes, of which `value_type` says how many count.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawField {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp_us: c_longlong,
    latency_us: c_longlong,
    value_type: c_uint,
    verdict: c_uint,
    value: c_ulonglong,
}

/// What a field answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// A count.
    Unsigned(u64),
    /// A number with a fraction; finite.
    Float(f64),
}

impl Value {
    /// Whole units; a fraction is cut off.
    pub(super) fn as_u64(self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(value),
            // Casting saturates; what does not fit is no count.
            Self::Float(value) if (0.0..u64::MAX as f64).contains(&value) => Some(value as u64),
            Self::Float(_) => None,
        }
    }

    /// The value as a number.
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Unsigned(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// A field's value, and when the driver took it: µs on the host's wall clock, where it tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FieldValue {
    pub(super) value: Value,
    pub(super) timestamp_us: Option<i64>,
}

/// Asks one field of one GPU.
pub(super) fn field(nvml: &Nvml, handle: Handle, id: u32, scope: FieldScope) -> Result<FieldValue, NvmlError> {
    let call = nvml
        .lib()
        .nvmlDeviceGetFieldValues
        .as_ref()
        .map_err(|_| NvmlError::FailedToLoadSymbol("nvmlDeviceGetFieldValues".to_owned()))?;
    let mut raw = RawField {
        field_id: id,
        scope_id: match scope {
            FieldScope::Gpu => 0,
            FieldScope::Module => 1,
        },
        // A driver that leaves the struct alone must not look like one that answered 0.
        verdict: NOT_WRITTEN,
        ..RawField::default()
    };
    const ONE: c_int = 1;
    // SAFETY: `RawField` has the layout of `nvmlFieldValue_t` (the sizes are asserted below, the offsets by
    // scripts/check_abi.sh against NVIDIA's header), one element is announced and one is there, and the handle came from
    // this `Nvml`, which is initialised as long as it lives.
    nvml_try(unsafe { call(handle.0.cast(), ONE, (&raw mut raw).cast()) })?;
    nvml_try(raw.verdict)?;
    decode(&raw)
}

/// No return code of NVML; reads as an unknown error.
const NOT_WRITTEN: u32 = u32::MAX;
const _: () = assert!(size_of::<RawField>() == 40 && align_of::<RawField>() == 8);

fn decode(raw: &RawField) -> Result<FieldValue, NvmlError> {
    let bytes = raw.value.to_ne_bytes();
    let [b0, b1, b2, b3, ..] = bytes;
    let signed = |value: i64| u64::try_from(value).map(Value::Unsigned).map_err(|_| NvmlError::NoData);
    // The numbers of `nvmlValueType_t`.
    let value = match raw.value_type {
        0 => Value::Float(f64::from_ne_bytes(bytes)),
        1 => Value::Unsigned(u64::from(u32::from_ne_bytes([b0, b1, b2, b3]))),
        2 | 3 => Value::Unsigned(raw.value),
        4 => signed(i64::from_ne_bytes(bytes))?,
        5 => signed(i64::from(i32::from_ne_bytes([b0, b1, b2, b3])))?,
        6 => Value::Unsigned(u64::from(u16::from_ne_bytes([b0, b1]))),
        other => return Err(NvmlError::UnexpectedVariant(other)),
    };
    if matches!(value, Value::Float(f) if !f.is_finite()) {
        return Err(NvmlError::NoData);
    }
    Ok(FieldValue { value, timestamp_us: Some(raw.timestamp_us).filter(|us| *us > 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value_type: u32, value: u64) -> RawField {
        RawField { value_type, value, ..RawField::default() }
    }

    #[test]
    fn every_value_type_is_read_in_its_own_width() {
        // The upper half holds what the driver left there: it must not count where the type is narrow.
        let dirty = 0xdead_beef_0000_0000_u64;
        for (value_type, bits, expected) in [
            (0, 250.5_f64.to_bits(), Value::Float(250.5)),
            (1, dirty | 412_345, Value::Unsigned(412_345)),
            (2, u64::MAX, Value::Unsigned(u64::MAX)),
            (3, 1 << 40, Value::Unsigned(1 << 40)),
            (4, 77, Value::Unsigned(77)),
            (5, dirty | 9, Value::Unsigned(9)),
            (6, dirty | 0xffff_0007, Value::Unsigned(7)),
        ] {
            assert_eq!(decode(&raw(value_type, bits)).expect("a value").value, expected, "type {value_type}");
        }
    }

    #[test]
    fn what_is_no_count_is_refused() {
        assert!(decode(&raw(4, (-1_i64) as u64)).is_err());
        assert!(decode(&raw(5, u64::from((-5_i32) as u32))).is_err());
        assert!(decode(&raw(0, f64::NAN.to_bits())).is_err());
        assert!(matches!(decode(&raw(99, 0)), Err(NvmlError::UnexpectedVariant(99))));
        assert_eq!(Value::Float(-1.0).as_u64(), None);
        assert_eq!(Value::Float(1e30).as_u64(), None);
        assert_eq!(Value::Float(12.9).as_u64(), Some(12));
    }

    #[test]
    fn a_timestamp_of_zero_is_none() {
        let with = |timestamp_us| decode(&RawField { timestamp_us, value_type: 1, ..RawField::default() });
        assert_eq!(with(0).expect("a value").timestamp_us, None);
        assert_eq!(with(-4).expect("a value").timestamp_us, None);
        assert_eq!(with(1_700_000_000_000_000).expect("a value").timestamp_us, Some(1_700_000_000_000_000));
    }
}
