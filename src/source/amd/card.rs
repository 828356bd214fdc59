//! AMD's cards as the kernel shows them: who they are, and what their text files say.
//!
//! Whichever library gives the energy, names, power and telemetry come from here: these files have kept their meaning since
//! Linux 4.20, while the structs of the libraries change with each release.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::gpu_metrics::{GpuMetrics, Throttle, parse};
use crate::source::Telemetry;
use crate::source::sysfs::{number_of, text_of};

const VENDOR_AMD: &str = "0x1002";
/// More than the largest known file of metrics (some 3 kB).
const METRICS_BYTES_MAX: usize = 16 * 1024;

/// A PCI address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PciAddress {
    pub(super) domain: u32,
    pub(super) bus: u8,
    pub(super) device: u8,
    pub(super) function: u8,
}

impl PciAddress {
    /// From `0000:c1:00.0`.
    fn parse(text: &str) -> Option<Self> {
        let (rest, function) = text.trim().rsplit_once('.')?;
        let mut parts = rest.split(':');
        let hex = |part: Option<&str>| u32::from_str_radix(part?, 16).ok();
        let (domain, bus, device) = (hex(parts.next())?, hex(parts.next())?, hex(parts.next())?);
        let narrow = |value: u32| u8::try_from(value).ok();
        let address = Self { domain, bus: narrow(bus)?, device: narrow(device)?, function: function.parse().ok()? };
        parts.next().is_none().then_some(address)
    }

    /// The same GPU: partitions of one differ in their function only.
    pub(super) fn is_same_gpu(self, other: Self) -> bool {
        Self { function: 0, ..self } == Self { function: 0, ..other }
    }
}

impl std::fmt::Display for PciAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// One card with the amdgpu driver.
#[derive(Debug)]
pub(super) struct Card {
    /// `card0`.
    pub(super) node: String,
    pub(super) pci: Option<PciAddress>,
    pub(super) pci_device: Option<u16>,
    pub(super) name: String,
    /// Not 0, which several cards may show.
    pub(super) unique_id: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    directory: PathBuf,
    hwmon: Option<PathBuf>,
    metrics: Option<File>,
    throttle: Option<Throttle>,
}

/// The cards below `sysfs`, in the order of their PCI addresses; none where there is no such directory.
pub(super) fn find(sysfs: &Path) -> Vec<Card> {
    let Ok(entries) = sysfs.join("class/drm").read_dir() else { return Vec::new() };
    let is_card =
        |name: &str| name.strip_prefix("card").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let mut cards: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_card(name))
        .filter_map(|name| Card::open(sysfs, name))
        .collect();
    let number = |card: &Card| card.node.trim_start_matches("card").parse::<u64>().ok();
    cards.sort_by_key(|card| (card.pci, number(card)));
    cards
}

impl Card {
    fn open(sysfs: &Path, node: String) -> Option<Self> {
        let directory = sysfs.join("class/drm").join(&node).join("device");
        if text_of(&directory.join("vendor"))? != VENDOR_AMD {
            return None;
        }
        let uevent = text_of(&directory.join("uevent")).unwrap_or_default();
        let tells = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if tells("DRIVER").is_some_and(|driver| driver != "amdgpu") {
            return None;
        }
        let real = directory.canonicalize().ok();
        let pci = tells("PCI_SLOT_NAME")
            .and_then(PciAddress::parse)
            .or_else(|| PciAddress::parse(real?.file_name()?.to_str()?));
        let hex = |file: &str| {
            let text = text_of(&directory.join(file))?;
            u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        };
        let pci_device = hex("device").and_then(|id| u16::try_from(id).ok());
        let name = text_of(&directory.join("product_name"))
            .filter(|name| !name.is_empty())
            .or_else(|| pci_device.and_then(known_name).map(str::to_owned))
            .unwrap_or_else(|| match pci_device {
                Some(id) => format!("AMD GPU {id:#06x}"),
                None => "AMD GPU".to_owned(),
            });
        Some(Self {
            node,
            pci,
            pci_device,
            name,
            unique_id: hex("unique_id").filter(|id| *id != 0),
            memory_bytes: number_of(&directory.join("mem_info_vram_total")).filter(|bytes| *bytes > 0),
            hwmon: hwmon(&directory),
            metrics: File::open(directory.join("gpu_metrics")).ok(),
            directory,
            throttle: None,
        })
    }

    /// `amd:GPU-<unique id>` as ROCm writes it, or the PCI address, or the node.
    pub(super) fn id(&self) -> String {
        match (self.unique_id, self.pci) {
            (Some(id), _) => format!("amd:GPU-{id:016x}"),
            (None, Some(pci)) => format!("amd:{pci}"),
            (None, None) => format!("amd:{}", self.node),
        }
    }

    /// One snapshot of the binary metrics. `None` where the driver shows none.
    pub(super) fn metrics(&self) -> Option<Result<GpuMetrics, MetricsFailure>> {
        let file = self.metrics.as_ref()?;
        let mut buffer = [0; METRICS_BYTES_MAX];
        let bytes = match file.read_at(&mut buffer, 0) {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(e) => return Some(Err(MetricsFailure::Io(e))),
        };
        Some(parse(bytes).map_err(|e| MetricsFailure::Content(e.to_string())))
    }

    /// Power, W: the mean of the driver's window or, on newer cards, of now.
    pub(super) fn power_w(&self) -> Option<f64> {
        self.hwmon_number("power1_average").or_else(|| self.hwmon_number("power1_input")).map(|uw| uw as f64 / 1e6)
    }

    /// A cumulative counter of the hwmon tree, uJ, which few cards have.
    pub(super) fn hwmon_energy_uj(&self) -> Option<u64> {
        self.hwmon_number("energy1_input")
    }

    /// Power limit in force, W.
    pub(super) fn power_limit_w(&self) -> Option<f64> {
        self.hwmon_number("power1_cap").filter(|uw| *uw > 0).map(|uw| uw as f64 / 1e6)
    }

    /// Everything slow that the kernel tells.
    pub(super) fn telemetry(&mut self) -> Telemetry {
        let metrics = self.metrics().and_then(Result::ok).unwrap_or_default();
        let throttle_reasons = metrics.throttle.map(|throttle| throttle.words(self.throttle)).unwrap_or_default();
        self.throttle = metrics.throttle;
        // temp2 is the hottest spot, temp1 the edge.
        let celsius = self.hwmon_number("temp2_input").or_else(|| self.hwmon_number("temp1_input"));
        let hertz = |file| self.hwmon_number(file).map(|hz| hz as f64);
        let percent = number_of(&self.directory.join("gpu_busy_percent")).filter(|percent| *percent <= 100);
        Telemetry {
            temperature_c: celsius.map(|milli| milli as f64 / 1e3).or(metrics.temperature_c),
            core_clock_hz: hertz("freq1_input").or(metrics.core_clock_hz),
            memory_clock_hz: hertz("freq2_input").or(metrics.memory_clock_hz),
            utilization: percent.map(|percent| percent as f64 / 100.0).or(metrics.utilization),
            memory_used_bytes: number_of(&self.directory.join("mem_info_vram_used")),
            power_limit_w: self.power_limit_w(),
            throttle_reasons,
        }
    }

    /// Whether the card is still there at all.
    pub(super) fn is_present(&self) -> bool {
        self.directory.join("vendor").exists()
    }

    fn hwmon_number(&self, file: &str) -> Option<u64> {
        number_of(&self.hwmon.as_ref()?.join(file))
    }
}

/// Why a snapshot of the metrics could not be taken.
#[derive(Debug)]
pub(super) enum MetricsFailure {
    /// The file could not be read.
    Io(io::Error),
    /// It could, and holds something else.
    Content(String),
}

impl std::fmt::Display for MetricsFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => write!(f, "cannot be read: {e}"),
            Self::Content(problem) => f.write_str(problem),
        }
    }
}

/// Instinct cards whose kernel may show no product name; from the PCI ID repository.
fn known_name(pci_device: u16) -> Option<&'static str> {
    Some(match pci_device {
        0x738c | 0x738e => "AMD Instinct MI100",
        0x7408 => "AMD Instinct MI250X",
        0x740c => "AMD Instinct MI250X/MI250",
        0x740f => "AMD Instinct MI210",
        0x74a0 => "AMD Instinct MI300A",
        0x74a1 => "AMD Instinct MI300X",
        0x74a5 => "AMD Instinct MI325X",
        _ => return None,
    })
}

/// The directory whose name is amdgpu's; a card may have several, of which others are a network port's.
fn hwmon(directory: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> =
        directory.join("hwmon").read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found.into_iter().find(|path| text_of(&path.join("name")).is_none_or(|name| name == "amdgpu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_read_and_written_as_the_kernel_does() {
        let address = PciAddress { domain: 0, bus: 0xc1, device: 0x1f, function: 7 };
        assert_eq!(PciAddress::parse("0000:c1:1f.7\n"), Some(address));
        assert_eq!(address.to_string(), "0000:c1:1f.7");
        let wide = PciAddress::parse("10002:01:00.0").expect("domains may have five digits");
        assert_eq!((wide.domain, wide.to_string().as_str()), (0x10002, "10002:01:00.0"));
        for garbage in ["", "c1:00.0", "0000:c1:00", "0000:1c1:00.0", "x:y:z.0", "0000:c1:00:00.0", "0000:c1:00.x"] {
            assert_eq!(PciAddress::parse(garbage), None, "{garbage}");
        }
        assert!(address.is_same_gpu(PciAddress { function: 0, ..address }));
        assert!(!address.is_same_gpu(PciAddress { bus: 0xc2, ..address }));
    }
}
