use crate::{error::IntoRocmErr, RocmErr, RocmSmi};

/// Power of one device, microwatts. Each has its own verdict: no GPU answers all of them.
#[derive(Debug, Clone, Copy)]
pub struct Power {
    /// Mean of the sensor's own window; MI200 and older.
    pub average: Result<u64, RocmErr>,
    /// Power of the socket now; MI300 and newer, ROCm 6 and newer.
    pub current_socket: Result<u64, RocmErr>,
}

impl RocmSmi {
    /// Power of the first sensor. The published crate wrote past its buffers here, and passed a null pointer.
    pub fn get_device_power_data(&self, dv_ind: u32) -> Result<Power, RocmErr> {
        self.check(dv_ind)?;
        let (mut average, mut current) = (0u64, 0u64);
        // SAFETY: initialised, index in range, the pointers are valid for the calls.
        let (average_status, current_status) = unsafe {
            (
                self.api.rsmi_dev_power_ave_get(dv_ind, 0, &mut average),
                self.api.rsmi_dev_current_socket_power_get(dv_ind, &mut current),
            )
        };
        Ok(Power {
            average: average_status.into_rocm_err().map(|()| average),
            current_socket: current_status.into_rocm_err().map(|()| current),
        })
    }

    /// Power limit in force, microwatts.
    pub fn get_device_power_cap(&self, dv_ind: u32) -> Result<u64, RocmErr> {
        self.check(dv_ind)?;
        let mut cap = 0u64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_power_cap_get(dv_ind, 0, &mut cap) }.into_rocm_err()?;
        Ok(cap)
    }
}
