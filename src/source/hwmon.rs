//! Energy and power that the kernel's hardware monitoring shows: Intel GPUs, NVIDIA Grace, ACPI power meters.
//!
//! Start at [`open`]. Below `/sys/class/hwmon`:
//!
//! ```text
//! name          files                                  becomes
//! i915, xe      energy1_input (card), energy2_input    one counter per card, the widest: the package is inside the card
//! i915_gt0 ...  energy1_input                          tiles, only where the card as a whole has no counter
//! power_meter   power1_average, power1_oem_info        power only; the label says what: `Module Power Socket 0`
//! ```
//!
//! An Intel card that Level Zero reads is left out, so that no joule is counted twice: see `taken` of [`open`]. Devices of
//! other drivers (`amdgpu`, `nvme`, `coretemp` ...) are none of this source's business.
//!
//! Limits. The register behind i915's counter has 32 bits and overflows within minutes at full load; the kernel extends
//! it each time it is read, so it must be read at least once a minute, which the recorder's heartbeat does. A power
//! meter shows the mean of an interval (`power1_average_interval`); what happens between two of them is not seen.

mod intel;
mod meter;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::sysfs::{self, Attribute, Problem};
use super::{CounterSource, Device, ReadError, Reading, Telemetry};
use crate::units::UJ_PER_J;

/// What a file with a counter or with power must hold.
const MICROJOULES: &str = "microjoules as a whole number";
const MICROWATTS: &str = "microwatts as a whole number";

/// Why hardware monitoring gives no readings on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such tree.
    #[error("{} cannot be listed: expected the kernel's hardware monitoring", path.display())]
    NoHwmon {
        /// Directory looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nothing in the tree counts energy or measures power in a way that is known here.
    #[error(
        "none of the {count} devices in {} counts energy: expected one called i915, xe or power_meter; on NVIDIA Grace \
         and on servers with an ACPI meter try `modprobe acpi_power_meter`", path.display()
    )]
    NothingMeasurable {
        /// Directory looked in.
        path: PathBuf,
        /// Devices seen.
        count: usize,
    },
    /// Everything that counts energy is read another way already.
    #[error("its {count} Intel GPUs are read through Level Zero already")]
    AllTaken {
        /// Cards left out.
        count: usize,
    },
    /// The files are there but may not be read.
    #[error(
        "{} may not be read by this user: expected read permission; try `sudo chmod a+r {}`, or run the agent as a \
         service", path.display(), path.display()
    )]
    PermissionDenied {
        /// File that was refused.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{problem}")]
    Unreadable {
        /// File, what was expected, and what was found.
        problem: String,
    },
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// One source per device, so that a device that answers slowly holds up no other.
    pub sources: Vec<HwmonSource>,
    /// What a user should know of single devices.
    pub notes: Vec<String>,
}

/// What the file of a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    EnergyUj,
    PowerUw,
}

/// The counter or the power meter of one device.
#[derive(Debug)]
pub struct HwmonSource {
    quantity: Quantity,
    value: Attribute,
    limit: Option<PathBuf>,
    device: Device,
}

/// A directory of the tree.
#[derive(Debug)]
struct Entry {
    /// `hwmon3`.
    entry: String,
    path: PathBuf,
    /// The driver's name.
    name: String,
    /// Last part of where `device` points to: a PCI address, an ACPI name.
    parent: Option<String>,
}

/// A device to be, and the file to read.
struct Candidate {
    quantity: Quantity,
    path: PathBuf,
    limit: Option<PathBuf>,
    device: Device,
}

/// Looks through `root`, which is `/sys/class/hwmon` outside tests. `taken` says of a PCI address whether the card is
/// read another way already.
pub fn open(root: &Path, taken: &dyn Fn(&str) -> bool) -> Result<Found, Error> {
    let no_hwmon = |source| Error::NoHwmon { path: root.to_owned(), source };
    let names = sysfs::names_in(root).map_err(no_hwmon)?;
    let entries: Vec<Entry> = names.iter().filter_map(|name| Entry::of(root, name)).collect();

    let mut notes = Vec::new();
    let mut candidates = Vec::new();
    let mut taken_count = 0;
    for (card, of_card) in cards(&entries) {
        if taken(card) {
            taken_count += 1;
            notes.push(format!("GPU {card} is read through Level Zero; its counter here is the same energy"));
        } else {
            candidates.extend(intel::candidates(card, &of_card, &mut notes));
        }
    }
    candidates.extend(meter::candidates(&entries, &mut notes));

    let mut sources = Vec::new();
    let mut refused = None;
    for candidate in candidates {
        match HwmonSource::open(candidate) {
            Ok(source) => sources.push(source),
            Err(error) => {
                notes.push(error.to_string());
                refused.get_or_insert(error);
            }
        }
    }
    match (sources.is_empty(), refused) {
        (false, _) => Ok(Found { sources, notes }),
        (true, Some(error)) => Err(error),
        (true, None) if taken_count > 0 => Err(Error::AllTaken { count: taken_count }),
        (true, None) => Err(Error::NothingMeasurable { path: root.to_owned(), count: entries.len() }),
    }
}

/// The Intel GPUs among the entries, by PCI address.
fn cards(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut cards: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|e| intel::is_intel(&e.name)) {
        // A card that cannot be told by its address still is a card of its own.
        let card = entry.parent.as_deref().filter(|p| sysfs::is_pci_address(p)).unwrap_or(&entry.entry);
        cards.entry(card).or_default().push(entry);
    }
    cards
}

impl Entry {
    fn of(root: &Path, entry: &str) -> Option<Self> {
        let path = root.join(entry);
        // Drivers that use the older registration show their files one level below.
        let name = sysfs::text_of(&path.join("name")).or_else(|| sysfs::text_of(&path.join("device/name")))?;
        let parent = std::fs::canonicalize(path.join("device")).ok();
        let parent = parent.and_then(|p| p.file_name().and_then(|n| n.to_str()).map(str::to_owned));
        Some(Self { entry: entry.to_owned(), path, name, parent })
    }

    /// Where `file` is: beside `name`, or one level below with drivers that use the older registration.
    fn find(&self, file: &str) -> Option<PathBuf> {
        [self.path.join(file), self.path.join("device").join(file)].into_iter().find(|path| path.exists())
    }

    fn text(&self, file: &str) -> Option<String> {
        self.find(file).and_then(|path| sysfs::text_of(&path)).filter(|text| !text.is_empty())
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.find(file).and_then(|path| sysfs::number_of(&path))
    }
}

impl HwmonSource {
    fn open(candidate: Candidate) -> Result<Self, Error> {
        let Candidate { quantity, path, limit, device } = candidate;
        let failed = |path: &Path, problem: Problem| {
            if problem.is_permission() {
                return Error::PermissionDenied { path: path.to_owned() };
            }
            Error::Unreadable { problem: problem.describe(path, quantity.expected()) }
        };
        let value = Attribute::open(path).map_err(|(path, problem)| failed(&path, problem))?;
        // Read once now: some files open for anybody and only refuse the read.
        value.number().map_err(|problem| failed(value.path(), problem))?;
        Ok(Self { quantity, value, limit, device })
    }
}

impl Quantity {
    fn expected(self) -> &'static str {
        match self {
            Self::EnergyUj => MICROJOULES,
            Self::PowerUw => MICROWATTS,
        }
    }
}

impl CounterSource for HwmonSource {
    fn devices(&self) -> &[Device] {
        std::slice::from_ref(&self.device)
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        if index != 0 {
            return Err(ReadError::Fatal(format!("device index {index} does not exist; this source has one device")));
        }
        let number = self
            .value
            .number()
            .map_err(|problem| problem.into_read_error(self.value.path(), self.quantity.expected()))?;
        Ok(match self.quantity {
            Quantity::EnergyUj => Reading { energy_counter_uj: Some(number), ..Reading::default() },
            Quantity::PowerUw => Reading { power_w: Some(watts(number)), ..Reading::default() },
        })
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        let limit = self.limit.as_deref().filter(|_| index == 0)?;
        Some(Telemetry { power_limit_w: sysfs::number_of(limit).map(watts), ..Telemetry::default() })
    }
}

fn watts(microwatts: u64) -> f64 {
    // The prefix is that of energy: micro is micro.
    microwatts as f64 / UJ_PER_J
}

#[cfg(test)]
mod tests;
