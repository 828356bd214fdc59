use rocm_smi_lib_sys::bindings::*;

use crate::{error::IntoRocmErr, RocmErr, RocmSmi};

impl RocmSmi {
    /// Bytes of video memory.
    pub fn get_device_vram_total(&self, dv_ind: u32) -> Result<u64, RocmErr> {
        self.check(dv_ind)?;
        let mut total = 0u64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_memory_total_get(dv_ind, rsmi_memory_type_t_RSMI_MEM_TYPE_VRAM, &mut total) }
            .into_rocm_err()?;
        Ok(total)
    }

    /// Bytes of video memory in use.
    pub fn get_device_vram_used(&self, dv_ind: u32) -> Result<u64, RocmErr> {
        self.check(dv_ind)?;
        let mut used = 0u64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_memory_usage_get(dv_ind, rsmi_memory_type_t_RSMI_MEM_TYPE_VRAM, &mut used) }
            .into_rocm_err()?;
        Ok(used)
    }
}
