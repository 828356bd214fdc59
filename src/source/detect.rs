//! What can this node measure?
//!
//! [`detect`] tries every source once and reports one line for each: what it can do, or why not and the fix. Each source
//! has one function in `PROBES`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::cray::CraySource;
use super::rapl::RaplSource;
use super::replay::{ReplaySource, Trace};
use super::{CounterSource, Device, Scope, amd, hwmon, level_zero, nvml, sim};
use crate::clock::{Clock, SystemClock};
use crate::schema::EnergySource;

/// A kind of source, as `--sources` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// NVIDIA GPUs.
    Nvml,
    /// AMD GPUs.
    Amd,
    /// Intel GPUs through Level Zero.
    Intel,
    /// CPU packages and their memory through powercap.
    Rapl,
    /// Intel GPUs, NVIDIA Grace and power meters through the kernel's hardware monitoring.
    Hwmon,
    /// Nodes of HPE Cray.
    Cray,
    /// A recording, shown again; only where one is named.
    Replay,
    /// Simulated GPUs; only where asked for by name.
    Sim,
}

impl SourceKind {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::Nvml, Self::Amd, Self::Intel, Self::Rapl, Self::Hwmon, Self::Cray, Self::Replay, Self::Sim];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvml => "nvml",
            Self::Amd => "amd",
            Self::Intel => "intel",
            Self::Rapl => "rapl",
            Self::Hwmon => "hwmon",
            Self::Cray => "cray",
            Self::Replay => "replay",
            Self::Sim => "sim",
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
#[derive(Debug, Clone, PartialEq)]
pub struct DetectOptions {
    /// Only these kinds are tried; if empty, all that measure something here. A replay is never mixed in unasked.
    pub kinds: Vec<SourceKind>,
    /// NVML's library; `None` lets the loader find it.
    pub nvml_library: Option<PathBuf>,
    /// AMD SMI; `None` lets the loader find it where there is an AMD card.
    pub amd_smi_library: Option<PathBuf>,
    /// ROCm SMI; `None` lets the loader find it where there is an AMD card.
    pub rocm_smi_library: Option<PathBuf>,
    /// Level Zero's loader; `None` lets the system's loader find it.
    pub level_zero_library: Option<PathBuf>,
    /// What stands for `/sys`.
    pub sysfs_root: PathBuf,
    /// The recording to show again.
    pub replay: Option<Arc<Trace>>,
    /// How many GPUs are simulated, where simulated ones are asked for.
    pub simulated_gpus: usize,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            nvml_library: None,
            amd_smi_library: None,
            rocm_smi_library: None,
            level_zero_library: None,
            sysfs_root: PathBuf::from("/sys"),
            replay: None,
            simulated_gpus: 4,
        }
    }
}

impl DetectOptions {
    /// Whether a kind is tried: those that are asked for; else the replay alone if there is one, else all that measure.
    fn includes(&self, kind: SourceKind) -> bool {
        if !self.kinds.is_empty() {
            return self.kinds.contains(&kind);
        }
        match kind {
            SourceKind::Sim => false,
            SourceKind::Replay => self.replay.is_some(),
            _ => self.replay.is_none(),
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

    fn add<S: CounterSource + 'static>(&mut self, sources: Vec<S>) {
        self.found.extend(sources.into_iter().map(|source| Box::new(source) as Box<dyn CounterSource>));
    }

    /// Nodes with GPUs of two makers have two drivers.
    fn add_driver(&mut self, driver: &str) {
        match &mut self.driver {
            Some(drivers) => drivers.push_str(&format!(", {driver}")),
            None => self.driver = Some(driver.to_owned()),
        }
    }
}

/// Tries one kind of source, and adds what it found and one finding at least to the detection.
type Probe = fn(&DetectOptions, &mut Detection);

/// Every kind of source, in the order in which they are tried and reported.
///
/// Order matters where two kinds can read the same thing: the one tried first has it, and the later one is told
/// (`hwmon` leaves out the cards that Level Zero reads).
const PROBES: &[(SourceKind, Probe)] = &[
    (SourceKind::Nvml, nvml),
    (SourceKind::Amd, amd),
    (SourceKind::Intel, intel),
    (SourceKind::Rapl, rapl),
    (SourceKind::Hwmon, hwmon),
    (SourceKind::Cray, cray),
    (SourceKind::Replay, replay),
    (SourceKind::Sim, simulated),
];

/// Tries the kinds of sources asked for.
pub fn detect(options: &DetectOptions) -> Detection {
    let mut detection = Detection { found: Vec::new(), report: Vec::new(), driver: None };
    for (kind, probe) in PROBES {
        if options.includes(*kind) {
            probe(options, &mut detection);
        }
    }
    detection
}

fn nvml(options: &DetectOptions, detection: &mut Detection) {
    match nvml::open(options.nvml_library.as_deref()) {
        Ok(opened) => {
            if let Some(version) = opened.driver_version {
                detection.add_driver(&format!("NVIDIA {version}"));
            }
            let devices: Vec<_> = opened.sources.iter().flat_map(|source| source.devices().to_vec()).collect();
            detection.report.push(usable("NVIDIA GPUs (NVML)", &devices, &opened.notes));
            detection.add(opened.sources);
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
            if let Some(version) = opened.driver_version {
                detection.add_driver(&format!("amdgpu {version}"));
            }
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

const INTEL: &str = "Intel GPUs (Level Zero)";

fn intel(options: &DetectOptions, detection: &mut Detection) {
    match level_zero::open(options.level_zero_library.as_deref()) {
        Ok(found) => {
            let devices: Vec<Device> = found.sources.iter().flat_map(|s| s.devices().to_vec()).collect();
            if let Some(version) = found.driver_version {
                detection.add_driver(&format!("Intel {version}"));
            }
            detection.report.push(usable(INTEL, &devices, &found.notes));
            detection.add(found.sources);
        }
        Err(error) => detection.report.push(unusable(INTEL, &error)),
    }
}

const HWMON: &str = "Intel GPUs, Grace and power meters (hwmon)";

fn hwmon(options: &DetectOptions, detection: &mut Detection) {
    // `intel:0000:29:00.0` and its tiles `intel:0000:29:00.0/tile0` are the card at 0000:29:00.0.
    let taken: BTreeSet<String> = detection
        .devices()
        .filter_map(|device| Some(device.id.strip_prefix("intel:")?.split('/').next()?.to_owned()))
        .collect();
    match hwmon::open(&options.sysfs_root.join("class/hwmon"), &|address| taken.contains(address)) {
        Ok(found) => {
            let devices: Vec<Device> = found.sources.iter().flat_map(|s| s.devices().to_vec()).collect();
            detection.report.push(usable(HWMON, &devices, &found.notes));
            detection.add(found.sources);
        }
        Err(error) => detection.report.push(unusable(HWMON, &error)),
    }
}

const CRAY: &str = "Cray node counters (pm_counters)";

fn cray(options: &DetectOptions, detection: &mut Detection) {
    match CraySource::open(&options.sysfs_root.join("cray/pm_counters")) {
        Ok(source) => {
            detection.report.push(usable(CRAY, source.devices(), source.notes()));
            detection.found.push(Box::new(source));
        }
        Err(error) => detection.report.push(unusable(CRAY, &error)),
    }
}

const REPLAY: &str = "replay";

fn replay(options: &DetectOptions, detection: &mut Detection) {
    let Some(trace) = &options.replay else {
        let reason = "there is no recording to show; name one with --replay".to_owned();
        detection.report.push(Finding::Unusable { source: REPLAY, reason });
        return;
    };
    let note = format!("recorded in {}, {:.1} s", trace.origin, crate::units::ns_to_s(trace.duration_ns()));
    detection.report.push(usable(REPLAY, &trace.devices, &[note]));
    let driver = if trace.driver.is_empty() { "unknown driver" } else { &trace.driver };
    detection.add_driver(&format!("replay of {} ({driver})", trace.origin));
    detection.found.push(Box::new(ReplaySource::new(trace.clone(), Arc::new(SystemClock))));
}

fn simulated(options: &DetectOptions, detection: &mut Detection) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sources = sim::live_sources(options.simulated_gpus, 0, &clock);
    let devices: Vec<Device> = sources.iter().flat_map(|s| s.devices().to_vec()).collect();
    let notes = ["nothing is measured: every row says so".to_owned()];
    detection.report.push(usable("simulated GPUs", &devices, &notes));
    detection.add_driver("simulated");
    detection.add(sources);
}

/// How a source's energy comes about, in words.
fn way(energy_source: EnergySource) -> &'static str {
    match energy_source {
        EnergySource::Counter => " by energy counter",
        EnergySource::Power => " by power sensor",
        EnergySource::Simulated => " (simulated)",
        EnergySource::Imported => " (imported)",
        EnergySource::None => "",
    }
}

/// Scopes in the order in which they are counted, with their words for several.
const SCOPES: [(Scope, &str); 10] = [
    (Scope::Gpu, "GPUs"),
    (Scope::GpuTile, "GPU tiles"),
    (Scope::Module, "modules"),
    (Scope::GpuSlot, "accelerator slots"),
    (Scope::CpuPackage, "CPU packages"),
    (Scope::Rail, "supply rails"),
    (Scope::Cpu, "CPU domains"),
    (Scope::Dram, "memory domains"),
    (Scope::Memory, "memories"),
    (Scope::Node, "whole nodes"),
];

fn usable(source: &'static str, devices: &[Device], notes: &[String]) -> Finding {
    let mut parts = Vec::new();
    for (scope, plural) in SCOPES {
        for energy_source in EnergySource::ALL {
            let count = devices.iter().filter(|d| d.scope == scope && d.energy_source == *energy_source).count();
            let words = if count == 1 { scope.describe() } else { plural };
            // What a CPU has is a counter unless it is said otherwise.
            let is_plain = *energy_source == EnergySource::Counter
                && !matches!(scope, Scope::Gpu | Scope::GpuTile | Scope::Module);
            if count > 0 {
                parts.push(format!("{count} {words}{}", if is_plain { "" } else { way(*energy_source) }));
            }
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
