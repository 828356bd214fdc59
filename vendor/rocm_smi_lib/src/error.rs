#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RocmErr {
    RsmiStatusSuccess,
    RsmiStatusInvalidArgs,
    RsmiStatusNotSupported,
    RsmiStatusFileError,
    RsmiStatusPermission,
    RsmiStatusOutOfResources,
    RsmiStatusInternalException,
    RsmiStatusInputOutOfBounds,
    RsmiStatusInitError,
    RsmiStatusNotYetImplemented,
    RsmiStatusNotFound,
    RsmiStatusInsufficientSize,
    RsmiStatusInterrupt,
    RsmiStatusUnexpectedSize,
    RsmiStatusNoData,
    RsmiStatusUnexpectedData,
    RsmiStatusBusy,
    RsmiStatusRefcountOverflow,
    RsmiStatusSettingUnavailable,
    RsmiStatusAmdgpuRestartErr,
    RsmiStringConversionError,
    RsmiLibLoadingError,
    RsmiStatusUnknownError = 0xFFFFFFFF,
}

impl RocmErr {
    pub fn try_err(self) -> Result<(), Self> {
        match self {
            RocmErr::RsmiStatusSuccess => Ok(()),
            _ => Err(self),
        }
    }
}

impl std::fmt::Display for RocmErr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RocmErr::RsmiStatusSuccess => "Rsmi status success",
            RocmErr::RsmiStatusInvalidArgs => "Rsmi status invalid arguments",
            RocmErr::RsmiStatusNotSupported => "Rsmi status not supported (device or function)",
            RocmErr::RsmiStatusFileError => "Rsmi status file error",
            RocmErr::RsmiStatusPermission => "Rsmi status permission (use sudo)",
            RocmErr::RsmiStatusOutOfResources => "Rsmi status out of resources",
            RocmErr::RsmiStatusInternalException => "Rsmi status internal exception",
            RocmErr::RsmiStatusInputOutOfBounds => "Rsmi status input out of bounds",
            RocmErr::RsmiStatusInitError => "Rsmi status init error",
            RocmErr::RsmiStatusNotYetImplemented => "Rsmi status not yet implemented",
            RocmErr::RsmiStatusNotFound => "Rsmi status not found",
            RocmErr::RsmiStatusInsufficientSize => "Rsmi status insufficient size (sorry you can not fix that on your own, create issue on github with info about your GPU)",
            RocmErr::RsmiStatusInterrupt => "Rsmi status interrupt",
            RocmErr::RsmiStatusUnexpectedSize => "Rsmi status unexpected size (sorry you can not fix that on your own, create issue on github with info about your GPU)",
            RocmErr::RsmiStatusNoData => "Rsmi status no data (mostly when your gpu supports function but does not return data)",
            RocmErr::RsmiStatusUnexpectedData => "Rsmi status unexpected data",
            RocmErr::RsmiStatusBusy => "Rsmi status busy (just use sleep after previous function)",
            RocmErr::RsmiStatusRefcountOverflow => "Rsmi status refcount overflow",
            RocmErr::RsmiStatusSettingUnavailable => "Rsmi status setting unavailable",
            RocmErr::RsmiStatusAmdgpuRestartErr => "Rsmi status Amdgpu restart err (you probably need to reboot or load gpu driver again",
            RocmErr::RsmiStatusUnknownError => "Rsmi status unknown error",
            RocmErr::RsmiStringConversionError => "Rsmi status string conversion error (sorry you can not fix that on your own, create issue on github with info about your GPU)",
            RocmErr::RsmiLibLoadingError => "Rsmi status library not found",
        })
    }
}

impl std::error::Error for RocmErr {}

impl From<u32> for RocmErr  {
    fn from(value: u32) -> Self {
        match value {
            0 => RocmErr::RsmiStatusSuccess,
            1 => RocmErr::RsmiStatusInvalidArgs,
            2 => RocmErr::RsmiStatusNotSupported,
            3 => RocmErr::RsmiStatusFileError,
            4 => RocmErr::RsmiStatusPermission,
            5 => RocmErr::RsmiStatusOutOfResources,
            6 => RocmErr::RsmiStatusInternalException,
            7 => RocmErr::RsmiStatusInputOutOfBounds,
            8 => RocmErr::RsmiStatusInitError,
            9 => RocmErr::RsmiStatusNotYetImplemented,
            10 => RocmErr::RsmiStatusNotFound,
            11 => RocmErr::RsmiStatusInsufficientSize,
            12 => RocmErr::RsmiStatusInterrupt,
            13 => RocmErr::RsmiStatusUnexpectedSize,
            14 => RocmErr::RsmiStatusNoData,
            15 => RocmErr::RsmiStatusUnexpectedData,
            16 => RocmErr::RsmiStatusBusy,
            17 => RocmErr::RsmiStatusRefcountOverflow,
            18 => RocmErr::RsmiStatusSettingUnavailable,
            19 => RocmErr::RsmiStatusAmdgpuRestartErr,
            20 => RocmErr::RsmiStatusUnknownError,
            21 => RocmErr::RsmiStringConversionError,
            _ => RocmErr::RsmiStatusUnknownError,
        }
    }
}

pub trait IntoRocmErr {
     fn into_rocm_err(&self) -> Result<(), RocmErr>;
}

impl IntoRocmErr for u32 {
    fn into_rocm_err(&self) -> Result<(), RocmErr> {
        RocmErr::from(*self).try_err()
    }
}

impl From<RocmErr> for u32 {
    fn from(error: RocmErr) -> u32 {
        error as u32
    }
}
