use crate::{error::IntoRocmErr, RocmErr, RocmSmi};

/// The energy accumulator: `counts` times `resolution_uj`, as of `timestamp_ns` on the driver's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnergyCount {
    pub counts: u64,
    pub resolution_uj: f32,
    pub timestamp_ns: u64,
}

impl RocmSmi {
    /// The energy accumulator, which the published crate does not wrap.
    pub fn get_device_energy_count(&self, dv_ind: u32) -> Result<EnergyCount, RocmErr> {
        self.check(dv_ind)?;
        let (mut counts, mut resolution_uj, mut timestamp_ns) = (0u64, 0f32, 0u64);
        // SAFETY: initialised, index in range, the pointers are valid for the call.
        unsafe {
            self.api.rsmi_dev_energy_count_get(dv_ind, &mut counts, &mut resolution_uj, &mut timestamp_ns)
        }
        .into_rocm_err()?;
        Ok(EnergyCount { counts, resolution_uj, timestamp_ns })
    }
}
