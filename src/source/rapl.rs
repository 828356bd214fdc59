//! CPU packages and their memory through Linux' powercap tree.
//!
//! Start at [`RaplSource::open`]. Of the zones below `/sys/class/powercap`, packages and DRAM are read, and what lies
//! inside a package (core, uncore) is not: it would be counted twice. `psys` (the platform) contains the packages and
//! is left out for the same reason. The register behind a zone has 32 bits and wraps within minutes to hours;
//! `max_energy_range_uj` gives the modulus, and one wrap can be told from none, several cannot.
//!
//! The kernel refreshes the values about every millisecond. Since CVE-2020-8694 only root reads them by default.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::sysfs::LONGEST_TEXT_BYTES;
use super::{CounterSource, Device, ReadError, Reading, Scope};
use crate::schema::EnergySource;
use crate::units::UJ_PER_J;

/// Control types whose zones are RAPL's. `intel-rapl-mmio` repeats the packages of `intel-rapl`.
const CONTROL_TYPES: [&str; 2] = ["intel-rapl", "amd-rapl"];

/// Why RAPL gives no readings on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no powercap tree.
    #[error("{} cannot be listed: expected Linux' powercap tree; try `modprobe intel_rapl_msr`", path.display())]
    NoPowercap {
        /// Directory looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The tree has no zone of a package or of memory.
    #[error("{} has no package or dram zone: expected one such as intel-rapl:0; virtual machines have none", path.display())]
    NoZones {
        /// Directory looked in.
        path: PathBuf,
    },
    /// The counters are there but may not be read.
    #[error(
        "{} may not be read by this user: expected read permission, which only root has by default \
         (CVE-2020-8694); try `sudo chmod a+r {}/*-rapl:*/energy_uj`, or run the agent as a service",
        path.display(), root.display()
    )]
    PermissionDenied {
        /// File that was refused.
        path: PathBuf,
        /// Powercap directory.
        root: PathBuf,
    },
    /// A file of the tree cannot be read or does not hold what it should.
    #[error("{} {problem}", path.display())]
    Unreadable {
        /// File at fault.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
}

/// One zone; its file stays open because opening costs more than reading.
#[derive(Debug)]
struct Zone {
    energy: File,
    path: PathBuf,
}

/// Energy counters of the CPU packages and of their memory.
#[derive(Debug)]
pub struct RaplSource {
    zones: Vec<Zone>,
    devices: Vec<Device>,
    notes: Vec<String>,
}

impl RaplSource {
    /// Opens every package and DRAM zone below `root`, which is `/sys/class/powercap` outside tests.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let no_powercap = |source| Error::NoPowercap { path: root.to_owned(), source };
        let mut names = Vec::new();
        for entry in root.read_dir().map_err(no_powercap)? {
            names.extend(entry.map_err(no_powercap)?.file_name().into_string());
        }
        // The order of a directory is arbitrary; that of devices is not.
        names.sort_by_key(|name| zone_numbers(name));

        let mut source = Self { zones: Vec::new(), devices: Vec::new(), notes: Vec::new() };
        let mut refused = None;
        for name in names.iter().filter(|name| is_rapl_zone(name)) {
            match open_zone(root, name, &names) {
                Ok(Some((zone, device))) => {
                    if source.devices.iter().any(|known| known.id == device.id) {
                        source.notes.push(format!("{name} repeats {}: it is not counted again", device.id));
                        continue;
                    }
                    source.zones.push(zone);
                    source.devices.push(device);
                }
                Ok(None) => {}
                Err(e) => {
                    source.notes.push(e.to_string());
                    refused.get_or_insert(e);
                }
            }
        }
        match (source.zones.is_empty(), refused) {
            (false, _) => Ok(source),
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::NoZones { path: root.to_owned() }),
        }
    }

    /// Zones that were left out, and why.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// `intel-rapl:1:0` is `("intel-rapl", [1, 0])`; sorts package 2 before package 10.
fn zone_numbers(name: &str) -> (String, Vec<u32>) {
    let mut parts = name.split(':');
    let control_type = parts.next().unwrap_or_default().to_owned();
    (control_type, parts.map(|part| part.parse().unwrap_or(u32::MAX)).collect())
}

fn is_rapl_zone(name: &str) -> bool {
    let (control_type, numbers) = zone_numbers(name);
    CONTROL_TYPES.contains(&control_type.as_str()) && matches!(numbers.len(), 1 | 2) && !numbers.contains(&u32::MAX)
}

/// The zone called `name`, if it is one that is counted.
fn open_zone(root: &Path, name: &str, names: &[String]) -> Result<Option<(Zone, Device)>, Error> {
    let directory = root.join(name);
    let label = read_text(root, &directory.join("name"))?;
    let parent = name.rsplit_once(':').map(|(parent, _)| parent).filter(|parent| parent.contains(':'));
    let package = match parent {
        Some(parent) if names.iter().any(|n| n == parent) => Some(read_text(root, &root.join(parent).join("name"))?),
        _ => None,
    };
    let (scope, id) = match (label.as_str(), package) {
        (label, _) if label.starts_with("package-") => (Scope::CpuPackage, format!("rapl:{label}")),
        ("dram", Some(package)) => (Scope::Dram, format!("rapl:{package}-dram")),
        ("dram", None) => (Scope::Dram, format!("rapl:{}-dram", name.replace(':', "-"))),
        _ => return Ok(None),
    };
    let path = directory.join("energy_uj");
    // Read once now: the file opens for anybody on some kernels and only refuses the read.
    let energy = File::open(&path).map_err(|e| io_error(root, &path, &e))?;
    read_counter(&energy).map_err(|problem| match problem {
        CounterProblem::Io(e) => io_error(root, &path, &e),
        CounterProblem::NotANumber(problem) => Error::Unreadable { path: path.clone(), problem },
    })?;
    // The range is the largest value shown: after it comes 0.
    let modulus = read_text(root, &directory.join("max_energy_range_uj"))
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .and_then(|range| range.checked_add(1))
        .filter(|modulus| *modulus > 1);
    // The highest of the constraints, because a package may boost well beyond its thermal design power.
    let power_limit_w = (0..3)
        .flat_map(|i| [format!("constraint_{i}_max_power_uw"), format!("constraint_{i}_power_limit_uw")])
        .filter_map(|file| read_text(root, &directory.join(file)).ok()?.parse::<u64>().ok())
        .filter(|uw| *uw > 0)
        .max()
        .map(|uw| uw as f64 / UJ_PER_J);
    let device = Device {
        name: id.trim_start_matches("rapl:").to_owned(),
        id,
        scope,
        energy_source: EnergySource::Counter,
        counter_modulus_uj: modulus,
        counter_step_uj: None,
        power_limit_w,
        memory_bytes: None,
    };
    Ok(Some((Zone { energy, path }, device)))
}

fn io_error(root: &Path, path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Error::PermissionDenied { path: path.to_owned(), root: root.to_owned() };
    }
    Error::Unreadable { path: path.to_owned(), problem: format!("cannot be read: {error}") }
}

fn read_text(root: &Path, path: &Path) -> Result<String, Error> {
    // Lossy, because a name is only compared and shown.
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_TEXT_BYTES).read_to_end(&mut bytes));
    read.map_err(|e| io_error(root, path, &e))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

enum CounterProblem {
    Io(io::Error),
    NotANumber(String),
}

fn read_counter(file: &File) -> Result<u64, CounterProblem> {
    // u64::MAX has 20 digits; sysfs gives the whole value in one read.
    let mut buffer = [0_u8; 32];
    let length = file.read_at(&mut buffer, 0).map_err(CounterProblem::Io)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    let text = text.trim();
    text.parse().map_err(|_| {
        CounterProblem::NotANumber(format!("holds `{}`: expected microjoules as a whole number", text.escape_default()))
    })
}

impl CounterSource for RaplSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let Some(zone) = self.zones.get(index) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; RAPL has {} zones",
                self.zones.len()
            )));
        };
        match read_counter(&zone.energy) {
            Ok(counter_uj) => Ok(Reading { energy_counter_uj: Some(counter_uj), ..Reading::default() }),
            // ENODEV: the module was unloaded and took the zone with it.
            Err(CounterProblem::Io(e))
                if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) =>
            {
                Err(ReadError::Gone(format!("{}: {e}", zone.path.display())))
            }
            Err(CounterProblem::Io(e)) => {
                Err(ReadError::Transient(format!("{} cannot be read: {e}", zone.path.display())))
            }
            Err(CounterProblem::NotANumber(problem)) => {
                Err(ReadError::Transient(format!("{} {problem}", zone.path.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests;
