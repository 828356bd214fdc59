//! AMD GPUs, through whichever of three ways this node has.
//!
//! Start at [`open`]. The ways are tried in this order, and the first that gives an energy counter is taken: AMD SMI, ROCm SMI
//! (both libraries opened at run time), the kernel's own `gpu_metrics` file. All three end at the same accumulator of the
//! firmware, which counts 2^-16 J and carries the driver's timestamp. A library is opened only where the kernel shows a card
//! with the amdgpu driver, or where somebody named it: ROCm SMI writes to stderr on nodes without one.
//!
//! Limits: the driver renews the figures once a millisecond at most, so nothing is gained by reading faster; virtual machines
//! have no counter; some releases of driver and library show a counter that stands still, or steps back when several threads
//! ask, which is why a library's GPUs are one source. On cards of two dies the first die counts for both.

mod accumulator;
mod amd_smi;
mod card;
pub mod gpu_metrics;
mod rocm_smi;
mod sysfs;

use std::path::{Path, PathBuf};

use self::card::Card;
use super::sysfs::text_of;
use super::{CounterSource, Device, Telemetry};
use crate::schema::EnergySource;

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// What stands for `/sys`.
    pub sysfs_root: &'a Path,
    /// AMD SMI; `None` lets the loader find it.
    pub amd_smi_library: Option<&'a Path>,
    /// ROCm SMI; `None` lets the loader find it.
    pub rocm_smi_library: Option<&'a Path>,
}

/// The GPUs of this node, ready to be read.
pub struct Opened {
    /// The GPUs and the way taken to them, as people call them.
    pub source: &'static str,
    /// One source for all GPUs of a library, one per card for the kernel's files.
    pub sources: Vec<Box<dyn CounterSource>>,
    /// What a user should know: fallbacks, GPUs left out, why the better ways were not taken.
    pub notes: Vec<String>,
    /// Version of the kernel module, where it tells; the one of the kernel itself does not.
    pub driver_version: Option<String>,
}

impl Opened {
    /// All devices of all sources.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.sources.iter().flat_map(|source| source.devices())
    }

    fn has_counter(&self) -> bool {
        self.devices().any(|device| device.energy_source == EnergySource::Counter)
    }
}

/// Why AMD's GPUs give no readings on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel shows no card.
    #[error(
        "no card with the amdgpu driver under {}: expected one such as card0; on a node with AMD GPUs, try `modprobe amdgpu`",
        path.display()
    )]
    NoCards {
        /// Directory looked in.
        path: PathBuf,
    },
    /// There are GPUs, but none can be measured.
    #[error("no AMD GPU can be measured: {}", reasons.join("; "))]
    NothingMeasurable {
        /// What was wrong with each way and each GPU.
        reasons: Vec<String>,
    },
}

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The loader cannot load it.
    #[error("{path} could not be loaded")]
    Library {
        path: String,
        #[source]
        source: libloading::Error,
    },
    /// The loader does not say why.
    #[error("{path} could not be loaded")]
    NotThere { path: String },
    /// It is too old.
    #[error("{path} lacks {function}: expected the library of ROCm 6.0 or newer")]
    Incomplete { path: String, function: &'static str },
    /// It did not start.
    #[error("{path} did not start: {verdict}")]
    Init { path: String, verdict: String },
    /// It started and sees nothing.
    #[error("it sees no GPU: check the permissions of /dev/kfd and /dev/dri, and the job's GPU request")]
    NoDevices,
}

/// One of the three ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AmdSmi,
    RocmSmi,
    Sysfs,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::AmdSmi => "AMD SMI",
            Self::RocmSmi => "ROCm SMI",
            Self::Sysfs => "gpu_metrics",
        }
    }

    fn source(self) -> &'static str {
        match self {
            Self::AmdSmi => "AMD GPUs (AMD SMI)",
            Self::RocmSmi => "AMD GPUs (ROCm SMI)",
            Self::Sysfs => "AMD GPUs (gpu_metrics)",
        }
    }
}

/// Tries the ways in turn.
pub fn open(places: Places<'_>) -> Result<Opened, Error> {
    let is_named = places.amd_smi_library.is_some() || places.rocm_smi_library.is_some();
    if !is_named && card::find(places.sysfs_root).is_empty() {
        return Err(Error::NoCards { path: places.sysfs_root.join("class/drm") });
    }
    let mut reasons = Vec::new();
    let mut without_counter: Option<Opened> = None;
    for way in [Way::AmdSmi, Way::RocmSmi, Way::Sysfs] {
        match open_way(way, places) {
            Ok(opened) if opened.has_counter() => return Ok(finish(opened, reasons)),
            Ok(opened) if opened.sources.is_empty() => reasons.extend(opened.notes),
            Ok(opened) => {
                reasons.push(format!("{} has no energy counter", way.name()));
                without_counter.get_or_insert(opened);
            }
            Err(reason) => reasons.push(format!("{} is not used: {reason}", way.name())),
        }
    }
    match without_counter {
        Some(opened) => Ok(finish(opened, reasons)),
        None => Err(Error::NothingMeasurable { reasons }),
    }
}

/// The notes of the way taken, and why it had to be this one.
fn finish(mut opened: Opened, reasons: Vec<String>) -> Opened {
    opened.notes.extend(reasons);
    if opened.has_counter() {
        opened.notes.push("the driver renews the counter once a millisecond at most".to_owned());
    }
    opened
}

fn open_way(way: Way, places: Places<'_>) -> Result<Opened, String> {
    // Each way takes the cards that it recognises, so each begins with all of them.
    let mut cards = card::find(places.sysfs_root);
    let mut notes = Vec::new();
    let mut sources: Vec<Box<dyn CounterSource>> = Vec::new();
    match way {
        Way::AmdSmi if places.amd_smi_library.is_none() && places.rocm_smi_library.is_some() => {
            return Err("ROCm SMI was asked for by name".to_owned());
        }
        Way::AmdSmi => {
            let source = amd_smi::open(places.amd_smi_library, &mut cards, &mut notes).map_err(|e| in_one_line(&e))?;
            sources.push(Box::new(source));
        }
        Way::RocmSmi => {
            let source =
                rocm_smi::open(places.rocm_smi_library, &mut cards, &mut notes).map_err(|e| in_one_line(&e))?;
            sources.push(Box::new(source));
        }
        Way::Sysfs if cards.is_empty() => return Err("the kernel shows no card with the amdgpu driver".to_owned()),
        Way::Sysfs => {
            for source in sysfs::open(std::mem::take(&mut cards), &mut notes) {
                source.devices().iter().for_each(|device| accumulator::warn(device, &mut notes));
                sources.push(Box::new(source));
            }
        }
    }
    sources.retain(|source| !source.devices().is_empty());
    if way != Way::Sysfs {
        let unseen =
            |card: &Card| format!("{} ({}) is not seen by {}: it is not read", card.id(), card.name, way.name());
        notes.extend(cards.iter().map(unseen));
    }
    let driver_version = text_of(&places.sysfs_root.join("module/amdgpu/version"));
    Ok(Opened { source: way.source(), sources, notes, driver_version })
}

/// The error and its cause.
fn in_one_line(error: &LinkError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

/// What `first` does not tell, `second` may.
fn fill(first: Telemetry, second: Telemetry) -> Telemetry {
    Telemetry {
        temperature_c: first.temperature_c.or(second.temperature_c),
        core_clock_hz: first.core_clock_hz.or(second.core_clock_hz),
        memory_clock_hz: first.memory_clock_hz.or(second.memory_clock_hz),
        utilization: first.utilization.or(second.utilization),
        memory_used_bytes: first.memory_used_bytes.or(second.memory_used_bytes),
        power_limit_w: first.power_limit_w.or(second.power_limit_w),
        throttle_reasons: if first.throttle_reasons.is_empty() {
            second.throttle_reasons
        } else {
            first.throttle_reasons
        },
    }
}
