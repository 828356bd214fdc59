//! Intel GPUs through Level Zero Sysman, opened at run time: one binary serves nodes with and without it.
//!
//! Start at [`open`], which gives one source per card. The counter is that of `zesPowerGetEnergyCounter`: microjoules,
//! with a timestamp on a base of its own that is kept beside each reading. Which of a card's power domains is read is
//! decided in `domain`; how Sysman is started, which can be done in two ways, in `start`.
//!
//! Limits. The counter is 64 bits wide by its type, but falls from some 22.5 MJ to some 200 J on Arc Pro B60 and B70
//! (intel/compute-runtime#938) while the kernel's counter goes on: raw values are kept, and the fall is a reset. On DG1 it
//! stood still under a moving timestamp. On many cards the library stamps the time of the call, not of the refresh, so the
//! timestamp is recorded and not relied upon.

mod abi;
mod domain;
mod start;
mod telemetry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use abi::{Api, Code, Handle, LoadError};
use domain::Domain;
use telemetry::Sensors;

use super::{CounterSource, Device, ReadError, Reading, Scope, Telemetry};
use crate::schema::EnergySource;

/// The name that the system's loader searches for when no path is given.
const DEFAULT_LIBRARY: &str = "libze_loader.so.1";
/// `ZE_DEVICE_TYPE_GPU`; 0 where a driver leaves it out.
const GPU_TYPES: [u32; 2] = [0, 1];

/// Why Level Zero gives no readings on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not there or cannot be loaded.
    #[error(
        "the Level Zero loader {} could not be loaded: install it with Intel's GPU driver (packages `libze1` and \
         `libze-intel-gpu1`, or `level-zero` and `intel-level-zero-gpu`)", path.display()
    )]
    Library {
        /// The library that was tried.
        path: PathBuf,
        /// What the system's loader says.
        #[source]
        source: libloading::Error,
    },
    /// A function without which nothing works is missing.
    #[error("the Level Zero loader {} lacks {function}: expected version 1.3 or newer", path.display())]
    Incomplete {
        /// The library that was loaded.
        path: PathBuf,
        /// The missing function.
        function: &'static str,
    },
    /// The loader found no driver to talk to.
    #[error(
        "Level Zero found no GPU driver: {code}; expected Intel's (package `libze-intel-gpu1` or \
         `intel-level-zero-gpu`) and a kernel module i915 or xe"
    )]
    NoDriver {
        /// What it answered.
        code: String,
    },
    /// The older way to Sysman is needed, and it is too late to take it.
    #[error(
        "this Level Zero driver gives counters only with ZES_ENABLE_SYSMAN=1 in the environment; set it before starting"
    )]
    SwitchNeeded,
    /// A driver answers and has no devices.
    #[error("Level Zero sees no GPU: check ZE_AFFINITY_MASK, and the job's GPU request under Slurm")]
    NoDevices,
    /// The user may not talk to the driver.
    #[error(
        "the Intel GPU driver refused access: expected permission on /dev/dri/renderD*; join the group `render`, or \
         ask for a GPU in the job"
    )]
    NoPermission,
    /// GPUs there are, but none can be measured.
    #[error("Level Zero sees {count} GPUs and can measure none: {}", reasons.join("; "))]
    NothingMeasurable {
        /// GPUs seen.
        count: usize,
        /// What was wrong with each.
        reasons: Vec<String>,
    },
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// One source per card.
    pub sources: Vec<LevelZeroSource>,
    /// What a user should know of single cards.
    pub notes: Vec<String>,
    /// Version of the GPU driver, where it tells.
    pub driver_version: Option<String>,
}

/// The counters of one card: one, or one for each tile.
#[derive(Debug)]
pub struct LevelZeroSource {
    api: Api,
    domains: Vec<Handle>,
    devices: Vec<Device>,
    sensors: Sensors,
}

/// Loads Level Zero from `library`, or from where the system's loader finds it, and asks every card once.
pub fn open(library: Option<&Path>) -> Result<Found, Error> {
    let path = library.unwrap_or(Path::new(DEFAULT_LIBRARY));
    let api = Api::load(path).map_err(|error| match error {
        LoadError::NotFound(source) => Error::Library { path: path.to_owned(), source },
        LoadError::Lacks(function) => Error::Incomplete { path: path.to_owned(), function },
    })?;
    let mut found = Found { sources: Vec::new(), notes: Vec::new(), driver_version: None };
    let (mut seen, mut count, mut refused) = (BTreeSet::new(), 0, None);
    for (index, handle) in start::devices(&api)?.into_iter().enumerate() {
        let mut properties = abi::DeviceProperties::empty();
        let known = abi::query(api.device_properties, handle, &mut properties).is_ok();
        if known && !GPU_TYPES.contains(&properties.core.device_type) {
            continue;
        }
        let address = pci_address(&api, handle);
        // In the flat hierarchy each tile is listed as a device, and stands for its whole card.
        if address.as_ref().is_some_and(|address| !seen.insert(address.clone())) {
            continue;
        }
        count += 1;
        let card = Card {
            place: address.unwrap_or_else(|| format!("index-{index}")),
            name: name_of(&properties).unwrap_or_else(|| format!("Intel GPU {index}")),
        };
        let (domains, refusal) = domain::list(&api, handle);
        match card.source(&api, handle, &domain::choose(&domains), &mut found.notes) {
            Some(source) => found.sources.push(source),
            None => {
                let reason = refusal.map_or_else(|| "it lists no such counter".to_owned(), abi::describe);
                found.notes.push(format!("GPU {} ({}) has no energy counter: {reason}", card.place, card.name));
                refused = refused.or(refusal);
            }
        }
        found.driver_version = found.driver_version.or_else(|| {
            let version = abi::text(&properties.driver_version);
            // The interface's own spelling of "not known".
            (!version.is_empty() && !version.starts_with("unk")).then_some(version)
        });
    }
    if !found.sources.is_empty() {
        return Ok(found);
    }
    Err(match (count, refused) {
        (0, _) => Error::NoDevices,
        (_, Some(abi::INSUFFICIENT_PERMISSIONS)) => Error::NoPermission,
        _ => Error::NothingMeasurable { count, reasons: found.notes },
    })
}

/// A card, by place and name.
struct Card {
    place: String,
    name: String,
}

impl Card {
    fn source(
        &self,
        api: &Api,
        handle: Handle,
        domains: &[Domain],
        notes: &mut Vec<String>,
    ) -> Option<LevelZeroSource> {
        let first = domains.first()?;
        let Self { place, name } = self;
        if first.tile.is_some() {
            notes.push(format!("GPU {place} ({name}) has no counter for the whole card: its tiles are read"));
        } else if first.is_partial() {
            notes.push(format!(
                "GPU {place} ({name}) counts its package only: what the rest of the card draws is missing"
            ));
        }
        let sensors = Sensors::of(api, handle, first.tile.is_none().then_some(first.handle));
        let memory_bytes = sensors.memory_bytes(api).filter(|_| first.tile.is_none());
        let device = |domain: &Domain| {
            let sustained_w = telemetry::limit_w(api, domain.handle);
            Device {
                id: domain.tile.map_or_else(|| format!("intel:{place}"), |tile| format!("intel:{place}/tile{tile}")),
                name: domain.tile.map_or_else(|| name.clone(), |tile| format!("{name} tile {tile}")),
                scope: if domain.tile.is_some() { Scope::GpuTile } else { Scope::Gpu },
                energy_source: EnergySource::Counter,
                // 64 bits by the interface. Where it falls all the same, the modulus is nobody's promise.
                counter_modulus_uj: None,
                counter_step_uj: None,
                // The largest that is known: a limit lowered by hand is no bound on what the card can draw.
                power_limit_w: [sustained_w, domain.limit_w].into_iter().flatten().reduce(f64::max),
                memory_bytes,
            }
        };
        let devices: Vec<Device> = domains.iter().map(device).collect();
        let source =
            LevelZeroSource { api: *api, domains: domains.iter().map(|d| d.handle).collect(), devices, sensors };
        for (device, domain) in source.devices.iter().zip(&source.domains) {
            if energy(api, *domain).is_ok_and(|counter| counter.energy == 0) {
                notes.push(format!(
                    "energy counter of {} ({}) stands at 0 uJ: expected it to have moved since the driver was loaded; \
                     check that it does",
                    device.id, device.name
                ));
            }
        }
        Some(source)
    }
}

fn name_of(properties: &abi::DeviceProperties) -> Option<String> {
    let names = [&properties.core.name[..], &properties.model_name[..], &properties.brand_name[..]];
    names.into_iter().map(abi::text).find(|name| !name.is_empty() && !name.starts_with("unk"))
}

fn pci_address(api: &Api, handle: Handle) -> Option<String> {
    let mut pci = abi::PciProperties::empty();
    abi::query(api.pci_properties, handle, &mut pci).ok()?;
    Some(format!("{:04x}:{:02x}:{:02x}.{:x}", pci.domain, pci.bus, pci.device, pci.function))
}

fn energy(api: &Api, domain: Handle) -> Result<abi::EnergyCounter, Code> {
    let mut counter = abi::EnergyCounter::default();
    abi::query(api.energy_counter, domain, &mut counter)?;
    Ok(counter)
}

/// Whether a failed read is worth asking again.
fn read_error(id: &str, code: Code) -> ReadError {
    let what = abi::describe(code);
    match code {
        abi::DEVICE_LOST | abi::DEVICE_REQUIRES_RESET | abi::INVALID_NULL_HANDLE => {
            ReadError::Gone(format!("{id}: {what}"))
        }
        abi::UNINITIALIZED => ReadError::Fatal(format!("Level Zero stopped answering: {what}")),
        _ => ReadError::Transient(format!("{id} did not answer: {what}")),
    }
}

impl CounterSource for LevelZeroSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let (Some(domain), Some(device)) = (self.domains.get(index), self.devices.get(index)) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; this card has {} counters",
                self.devices.len()
            )));
        };
        let counter = energy(&self.api, *domain).map_err(|code| read_error(&device.id, code))?;
        let t_device_ns = i64::try_from(counter.timestamp).ok().and_then(|us| us.checked_mul(1_000));
        Ok(Reading { energy_counter_uj: Some(counter.energy), power_w: None, t_device_ns })
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        // Sensors are the card's; with tiles, the first speaks for it.
        (index == 0).then(|| self.sensors.read(&self.api))
    }
}
