//! What several test binaries need: stand-ins for the machine, and measured-like rows with known numbers behind them.

// Each test binary is compiled with all of it and uses a part.
#![allow(dead_code)]

pub(crate) mod desk;
pub(crate) mod drm;
pub(crate) mod known_law;
pub(crate) mod level_zero;
pub(crate) mod nvml;
pub(crate) mod powercap;
pub(crate) mod stub;
pub(crate) mod sysfs;
