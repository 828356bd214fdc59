//! ROCm SMI, opened at run time. See ../README.md for what differs from the published crate.
pub use error::{IntoRocmErr, RocmErr};

use std::ffi::{c_char, CStr};
use std::path::Path;

use rocm_smi_lib_sys::bindings::*;

pub mod error;
pub mod queries;

pub use queries::energy::EnergyCount;
pub use queries::power::Power;

/// Where the loader finds the library, newest first; ROCm's own directory is often not on the loader's path.
pub const LIBRARIES: [&str; 6] = [
    "librocm_smi64.so.7",
    "librocm_smi64.so.6",
    "librocm_smi64.so.5",
    "librocm_smi64.so.1",
    "librocm_smi64.so",
    "/opt/rocm/lib/librocm_smi64.so",
];

/// An initialised library: there is none unless `rsmi_init` succeeded, because device calls crash otherwise.
#[non_exhaustive]
pub struct RocmSmi {
    pub(crate) api: Api,
    device_count: u32,
}

impl RocmSmi {
    /// Opens the first of [`LIBRARIES`] that is there.
    pub fn init() -> Result<Self, RocmErr> {
        let mut error = RocmErr::RsmiLibLoadingError;
        for library in LIBRARIES {
            match Self::init_from(Path::new(library)) {
                Err(RocmErr::RsmiLibLoadingError) => {}
                Err(other) => error = other,
                ready => return ready,
            }
        }
        Err(error)
    }

    /// Opens this library.
    ///
    /// # Errors
    ///
    /// `RsmiLibLoadingError` where it cannot be loaded, else what `rsmi_init` says.
    pub fn init_from(library: &Path) -> Result<Self, RocmErr> {
        // SAFETY: the caller names a librocm_smi64.
        let api = unsafe { Api::open(library) }.map_err(|_| RocmErr::RsmiLibLoadingError)?;
        // SAFETY: 0 is the flag for "GPUs with the amdgpu driver".
        unsafe { api.rsmi_init(0) }.into_rocm_err()?;
        let mut smi = RocmSmi { api, device_count: 0 };
        let mut count = 0u32;
        // SAFETY: the pointer is valid for the call. Dropping shuts down where this fails.
        unsafe { smi.api.rsmi_num_monitor_devices(&mut count) }.into_rocm_err()?;
        smi.device_count = count;
        Ok(smi)
    }

    /// Number of devices; the last identifier is one less.
    pub fn get_device_count(&self) -> u32 {
        self.device_count
    }

    /// The library checks its index in some releases and not in others.
    pub(crate) fn check(&self, dv_ind: u32) -> Result<(), RocmErr> {
        if dv_ind < self.device_count { Ok(()) } else { Err(RocmErr::RsmiStatusInputOutOfBounds) }
    }

    /// Temperature of a sensor, degrees Celsius.
    pub fn get_device_temperature(&self, dv_ind: u32, sensor: u32) -> Result<f64, RocmErr> {
        self.check(dv_ind)?;
        let mut temp = 0i64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe {
            self.api.rsmi_dev_temp_metric_get(dv_ind, sensor, rsmi_temperature_metric_t_RSMI_TEMP_CURRENT, &mut temp)
        }
        .into_rocm_err()?;
        Ok(temp as f64 / 1000.)
    }

    /// Share of the time in which the device did anything, percent.
    pub fn get_device_busy_percent(&self, dv_ind: u32) -> Result<u32, RocmErr> {
        self.check(dv_ind)?;
        let mut percent = 0u32;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_busy_percent_get(dv_ind, &mut percent) }.into_rocm_err()?;
        Ok(percent)
    }

    /// Product name.
    pub fn get_device_name(&self, dv_ind: u32) -> Result<String, RocmErr> {
        self.check(dv_ind)?;
        let mut buffer = [0 as c_char; 512];
        // SAFETY: initialised, index in range; one byte less than the buffer has, so it ends with a zero in any case.
        unsafe { self.api.rsmi_dev_name_get(dv_ind, buffer.as_mut_ptr(), buffer.len() - 1) }.into_rocm_err()?;
        // SAFETY: the buffer outlives the borrow and holds a zero.
        let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
        Ok(text.to_str().map_err(|_| RocmErr::RsmiStringConversionError)?.to_owned())
    }
}

impl Drop for RocmSmi {
    fn drop(&mut self) {
        // SAFETY: initialised, and nothing can be called after this.
        unsafe { self.api.rsmi_shut_down() };
    }
}
