//! Trees that stand for `/sys`, laid out as the kernel does.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// A tree, empty at first.
pub(crate) struct Sysfs {
    directory: TempDir,
}

impl Sysfs {
    /// One with an empty list of hardware monitors.
    pub(crate) fn new() -> Self {
        let tree = Self { directory: TempDir::new().expect("a temporary directory") };
        fs::create_dir_all(tree.root().join("class/hwmon")).expect("a writable directory");
        tree
    }

    /// What stands for `/sys`, for `--sysfs-root`.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Writes one file.
    pub(crate) fn write(&self, file: &str, text: &str) -> &Self {
        let path = self.root().join(file);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a writable directory");
        fs::write(path, format!("{text}\n")).expect("a writable directory");
        self
    }

    /// An Intel card at a PCI address, with the energy counter of the kernel's driver.
    pub(crate) fn intel_card(&self, number: u32, driver: &str, address: &str, energy_uj: u64) -> &Self {
        let entry = format!("class/hwmon/hwmon{number}");
        self.write(&format!("{entry}/name"), driver);
        self.write(&format!("{entry}/energy1_input"), &energy_uj.to_string());
        let device = self.root().join("devices/pci0000:00").join(address);
        fs::create_dir_all(&device).expect("a writable directory");
        std::os::unix::fs::symlink(device, self.root().join(entry).join("device")).expect("a writable directory");
        self
    }

    /// A power meter of a Grace superchip, whose files lie below `device`.
    pub(crate) fn grace_meter(&self, number: u32, label: &str, power_uw: u64) -> &Self {
        let entry = format!("class/hwmon/hwmon{number}");
        self.write(&format!("{entry}/name"), "power_meter");
        self.write(&format!("{entry}/device/power1_oem_info"), label);
        self.write(&format!("{entry}/device/power1_average_interval"), "50");
        self.write(&format!("{entry}/device/power1_average"), &power_uw.to_string())
    }

    /// The counters of a Cray node with one accelerator.
    pub(crate) fn cray(&self) -> &Self {
        for (file, text) in [
            ("energy", "51122741 J 1662117803100000 us"),
            ("accel0_energy", "30000001 J 1662117803100000 us"),
            ("freshness", "100 1662117803100000 us"),
            ("startup", "1660000000000000 1662117803100000 us"),
        ] {
            self.write(&format!("cray/pm_counters/{file}"), text);
        }
        self
    }
}
