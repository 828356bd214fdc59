//! What can this node measure?
//!
//! [`detect`] tries every source once and reports one line for each: what it can do, or why not and the fix. Each source
//! has one function in [`PROBES`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::rapl::RaplSource;
use super::{CounterSource, Device, Scope, amd, nvml};
use crate::schema::EnergySource;

/// A kind of source, as `--sources` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// NVIDIA GPUs.
    Nvml,
    /// AMD GPUs.
    Amd,
    /// CPU packages and their memory through powercap.
    Rapl,
}

impl SourceKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Nvml, Self::Amd, Self::Rapl];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvml => "nvml",
            Self::Amd => "amd",
            Self::Rapl => "rapl",
        }
    }
}

impl FromStr for SourceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("`{text}` is no source; expected one of {}", known.join(", "))
        })
    }
}

/// Where to look: the outside world of every source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectOptions {
    /// Only these kinds are tried; all of them if empty.
    pub kinds: Vec<SourceKind>,
    /// NVML's library; `None` lets the loader find it.
    pub nvml_library: Option<PathBuf>,
    /// AMD SMI; `None` lets the loader find it where there is an AMD card.
    pub amd_smi_library: Option<PathBuf>,
    /// ROCm SMI; `None` lets the loader find it where there is an AMD card.
    pub rocm_smi_library: Option<PathBuf>,
    /// What stands for `/sys`.
    pub sysfs_root: PathBuf,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            nvml_library: None,
            amd_smi_library: None,
            rocm_smi_library: None,
            sysfs_root: PathBuf::from("/sys"),
        }
    }
}

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It answers.
    Usable {
        /// The source, as people call it.
        source: &'static str,
        /// What it measures, in words.
        measures: String,
        /// What a user should know of single devices.
        notes: Vec<String>,
    },
    /// It does not.
    Unusable {
        /// The source, as people call it.
        source: &'static str,
        /// Why, and what would change it.
        reason: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { source, measures, notes } => {
                write!(f, "{source}: {measures}")?;
                notes.iter().try_for_each(|note| write!(f, "; {note}"))
            }
            Self::Unusable { source, reason } => write!(f, "{source}: not usable: {reason}"),
        }
    }
}

/// The sources that answer, and a finding for each that was tried.
pub struct Detection {
    /// Ready to be polled.
    pub found: Vec<Box<dyn CounterSource>>,
    /// One per source, in the order tried.
    pub report: Vec<Finding>,
    /// Version of the GPU driver, where one answered.
    pub driver: Option<String>,
}

impl Detection {
    /// All devices of all sources found, in the order of [`found`](Self::found).
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.found.iter().flat_map(|source| source.devices())
    }
}

/// Tries one kind of source, and adds what it found and one finding at least to the detection.
type Probe = fn(&DetectOptions, &mut Detection);

/// Every kind of source, in the order in which they are tried and reported.
const PROBES: &[(SourceKind, Probe)] = &[(SourceKind::Nvml, nvml), (SourceKind::Amd, amd), (SourceKind::Rapl, rapl)];

/// Tries the kinds of sources asked for.
pub fn detect(options: &DetectOptions) -> Detection {
    let mut detection = Detection { found: Vec::new(), report: Vec::new(), driver: None };
    for (kind, probe) in PROBES {
        if options.kinds.is_empty() || options.kinds.contains(kind) {
            probe(options, &mut detection);
        }
    }
    detection
}

fn nvml(options: &DetectOptions, detection: &mut Detection) {
    match nvml::open(options.nvml_library.as_deref()) {
        Ok(opened) => {
            detection.driver = opened.driver_version.map(|version| format!("NVIDIA {version}"));
            let devices: Vec<_> = opened.sources.iter().flat_map(|source| source.devices().to_vec()).collect();
            detection.report.push(usable("NVIDIA GPUs (NVML)", &devices, &opened.notes));
            detection.found.extend(opened.sources.into_iter().map(|source| Box::new(source) as Box<dyn CounterSource>));
        }
        Err(error) => detection.report.push(unusable("NVIDIA GPUs (NVML)", &error)),
    }
}

fn amd(options: &DetectOptions, detection: &mut Detection) {
    let places = amd::Places {
        sysfs_root: &options.sysfs_root,
        amd_smi_library: options.amd_smi_library.as_deref(),
        rocm_smi_library: options.rocm_smi_library.as_deref(),
    };
    match amd::open(places) {
        Ok(opened) => {
            let devices: Vec<_> = opened.devices().cloned().collect();
            detection.report.push(usable(opened.source, &devices, &opened.notes));
            detection.found.extend(opened.sources);
        }
        Err(error) => detection.report.push(unusable("AMD GPUs", &error)),
    }
}

fn rapl(options: &DetectOptions, detection: &mut Detection) {
    match RaplSource::open(&options.sysfs_root.join("class/powercap")) {
        Ok(source) => {
            detection.report.push(usable("CPU packages (RAPL)", source.devices(), source.notes()));
            detection.found.push(Box::new(source));
        }
        Err(error) => detection.report.push(unusable("CPU packages (RAPL)", &error)),
    }
}

fn usable(source: &'static str, devices: &[Device], notes: &[String]) -> Finding {
    let mut parts = Vec::new();
    for (scope, energy_source, singular, plural) in [
        (Scope::Gpu, EnergySource::Counter, "GPU by energy counter", "GPUs by energy counter"),
        (Scope::Gpu, EnergySource::Power, "GPU by power sensor", "GPUs by power sensor"),
        (Scope::Module, EnergySource::Counter, "module by energy counter", "modules by energy counter"),
        (Scope::Module, EnergySource::Power, "module by power sensor", "modules by power sensor"),
        (Scope::CpuPackage, EnergySource::Counter, "CPU package", "CPU packages"),
        (Scope::Dram, EnergySource::Counter, "memory domain", "memory domains"),
    ] {
        let count = devices.iter().filter(|d| d.scope == scope && d.energy_source == energy_source).count();
        if count > 0 {
            parts.push(format!("{count} {}", if count == 1 { singular } else { plural }));
        }
    }
    Finding::Usable { source, measures: parts.join(", "), notes: notes.to_vec() }
}

/// The error and its causes on one line.
fn unusable(source: &'static str, error: &dyn std::error::Error) -> Finding {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors quote their cause.
        if !reason.contains(&text) {
            reason.push_str(&format!(" ({text})"));
        }
        cause = error.source();
    }
    Finding::Unusable { source, reason }
}
