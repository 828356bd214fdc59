//! A tree as the amdgpu driver shows it below /sys/class/drm.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Some cards.
pub(crate) struct Drm {
    directory: TempDir,
}

impl Drm {
    /// None yet; not even the directory.
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    /// What stands for `/sys`, for `--sysfs-root`.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Where a file of a card lies.
    pub(crate) fn path(&self, number: u32, file: &str) -> PathBuf {
        self.root().join(format!("class/drm/card{number}/device")).join(file)
    }

    /// Puts a file there.
    pub(crate) fn put(&self, number: u32, file: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(number, file);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a writable directory");
        fs::write(path, content).expect("a writable directory");
        self
    }

    /// An AMD card at bus `number + 1` whose PCI device is `device`, with a power sensor of 300 W and nothing else.
    pub(crate) fn card(&self, number: u32, device: &str) -> &Self {
        let uevent = format!("DRIVER=amdgpu\nPCI_SLOT_NAME=0000:{:02x}:00.0\n", number + 1);
        self.put(number, "vendor", "0x1002\n")
            .put(number, "device", device)
            .put(number, "uevent", uevent)
            .put(number, "hwmon/hwmon5/name", "amdgpu\n")
            .put(number, "hwmon/hwmon5/power1_average", "300000000\n")
    }

    /// Gives a card metrics of format 1.3: counts, the driver's timestamp, watts.
    pub(crate) fn metrics(&self, number: u32, counts: u64, timestamp_ns: u64, power_w: u16) -> &Self {
        let mut bytes = vec![0xff; 120];
        bytes[..4].copy_from_slice(&[120, 0, 1, 3]);
        bytes[22..24].copy_from_slice(&power_w.to_le_bytes());
        bytes[24..32].copy_from_slice(&counts.to_le_bytes());
        bytes[32..40].copy_from_slice(&timestamp_ns.to_le_bytes());
        self.put(number, "gpu_metrics", bytes)
    }
}
