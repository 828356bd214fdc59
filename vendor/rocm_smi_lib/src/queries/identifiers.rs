use crate::{error::IntoRocmErr, RocmErr, RocmSmi};

impl RocmSmi {
    /// PCI device identifier.
    pub fn get_device_id(&self, dv_ind: u32) -> Result<u16, RocmErr> {
        self.check(dv_ind)?;
        let mut id = 0u16;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_id_get(dv_ind, &mut id) }.into_rocm_err()?;
        Ok(id)
    }

    /// Identifier of this very device.
    pub fn get_device_unique_id(&self, dv_ind: u32) -> Result<u64, RocmErr> {
        self.check(dv_ind)?;
        let mut id = 0u64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_unique_id_get(dv_ind, &mut id) }.into_rocm_err()?;
        Ok(id)
    }

    /// PCI address: domain in the upper half, then 16 bits of which bus 8, device 5, function 3.
    pub fn get_device_pci_id(&self, dv_ind: u32) -> Result<u64, RocmErr> {
        self.check(dv_ind)?;
        let mut id = 0u64;
        // SAFETY: initialised, index in range, the pointer is valid for the call.
        unsafe { self.api.rsmi_dev_pci_id_get(dv_ind, &mut id) }.into_rocm_err()?;
        Ok(id)
    }
}
