//! Node counters of HPE Cray blades, which the board controller takes and the kernel shows in `/sys/cray/pm_counters`.
//!
//! Start at [`CraySource::open`]. Files hold `VALUE UNIT TIMESTAMP us`, refreshed about ten times a second
//! (`raw_scan_hz`):
//!
//! ```text
//! energy, power            the whole node: contains all the others
//! cpu_*, memory_*          all its CPUs, all its memory
//! accel0_* ... accel3_*    one accelerator slot each, measured on the board: more than the GPU's own counter shows,
//!                          and the same joules again, so never added to it
//! freshness                counts refreshes; startup changes when the counters have begun anew
//! ```
//!
//! The files are refreshed together, so one snapshot of all is taken whenever `freshness` has moved, and is kept only
//! if `freshness` did not move meanwhile: the numbers of one instant belong together, and a poll that finds nothing new
//! costs one read. Limits: steps of a whole joule, and a tenth of a second between two of them.

use std::io;
use std::path::{Path, PathBuf};

use super::sysfs::{self, Attribute, Problem};
use super::{CounterSource, Device, ReadError, Reading, Scope, Telemetry};
use crate::schema::EnergySource;

/// How often a snapshot is tried before the poll gives up: refreshes are 100 ms apart, a snapshot takes microseconds.
const ATTEMPTS: usize = 3;

const VALUE: &str = "a number with its unit, such as `1234 J 1525101235000000 us`";

/// Why there are no such counters on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such directory.
    #[error("{} cannot be listed: expected the counters of an HPE Cray node", path.display())]
    NoCounters {
        /// Directory looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The directory has no energy in it.
    #[error("{} has no energy counter: expected a file called energy or accel0_energy", path.display())]
    NothingMeasurable {
        /// Directory looked in.
        path: PathBuf,
    },
    /// The files are there but may not be read.
    #[error("{} may not be read by this user: expected read permission; ask for it, or run the agent as a service", path.display())]
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

/// The files of one device.
#[derive(Debug)]
struct Meter {
    energy: Attribute,
    power: Option<Attribute>,
    power_cap: Option<Attribute>,
}

/// All values of one refresh.
#[derive(Debug, Clone, PartialEq)]
struct Snapshot {
    freshness: u64,
    readings: Vec<Result<Reading, ReadError>>,
}

/// The counters of this node.
#[derive(Debug)]
pub struct CraySource {
    meters: Vec<Meter>,
    devices: Vec<Device>,
    notes: Vec<String>,
    freshness: Option<Attribute>,
    startup: Option<Attribute>,
    started: Option<u64>,
    /// Devices that have not yet been told that the counters began anew.
    restart_untold: Vec<bool>,
    latest: Option<Snapshot>,
}

impl CraySource {
    /// Opens every energy counter below `root`, which is `/sys/cray/pm_counters` outside tests.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let no_counters = |source| Error::NoCounters { path: root.to_owned(), source };
        let names = sysfs::names_in(root).map_err(no_counters)?;
        let (mut meters, mut devices, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut refused = None;
        for (prefix, id, scope) in names.iter().filter_map(|name| known(name)) {
            match Meter::open(root, &prefix) {
                Ok(meter) => {
                    meters.push(meter);
                    devices.push(device(&id, scope));
                }
                Err(error) => {
                    notes.push(error.to_string());
                    refused.get_or_insert(error);
                }
            }
        }
        if meters.is_empty() {
            return Err(refused.unwrap_or(Error::NothingMeasurable { path: root.to_owned() }));
        }
        if devices.iter().any(|d| d.scope == Scope::Node) && devices.len() > 1 {
            notes.push("the node's counter contains the others, and is never added to them".to_owned());
        }
        if devices.iter().any(|d| d.scope == Scope::GpuSlot) {
            notes.push(
                "accelerators are measured on the board: more than their own counters show, and never added to them"
                    .to_owned(),
            );
        }
        let optional = |name: &str| Attribute::open(root.join(name)).ok();
        let (freshness, startup) = (optional("freshness"), optional("startup"));
        if freshness.is_none() {
            notes.push("there is no freshness file: values of one poll may be of two refreshes".to_owned());
        }
        let started = startup.as_ref().and_then(|file| leading_number(file).ok());
        let restart_untold = vec![false; meters.len()];
        Ok(Self { meters, devices, notes, freshness, startup, started, restart_untold, latest: None })
    }

    /// What a user should know of these counters.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes a snapshot if there is a newer one than the latest.
    fn refresh(&mut self) -> Result<(), ReadError> {
        let Some(file) = &self.freshness else {
            let readings = self.meters.iter().map(Meter::read).collect();
            self.latest = Some(Snapshot { freshness: 0, readings });
            return Ok(());
        };
        let now = || leading_number(file).map_err(|p| p.into_read_error(file.path(), "a whole number"));
        let mut before = now()?;
        if self.latest.as_ref().is_some_and(|latest| latest.freshness == before) {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let readings = self.meters.iter().map(Meter::read).collect();
            let started = self.startup.as_ref().and_then(|file| leading_number(file).ok());
            let after = now()?;
            if after == before {
                if started.is_some() && started != self.started {
                    self.started = started;
                    self.restart_untold.fill(true);
                }
                self.latest = Some(Snapshot { freshness: after, readings });
                return Ok(());
            }
            before = after;
        }
        Err(ReadError::Transient(format!("{} moved during {ATTEMPTS} snapshots", file.path().display())))
    }
}

/// What a file is the energy of: the common part of its device's file names, the device's identifier, its scope.
fn known(file: &str) -> Option<(String, String, Scope)> {
    let prefix = file.strip_suffix("energy")?;
    let (id, scope) = match prefix.strip_suffix('_') {
        None if prefix.is_empty() => ("node".to_owned(), Scope::Node),
        Some("cpu") => ("cpu".to_owned(), Scope::Cpu),
        Some("memory") => ("memory".to_owned(), Scope::Memory),
        Some(accelerator) => {
            let number = accelerator.strip_prefix("accel")?;
            number.chars().all(|c| c.is_ascii_digit()).then(|| (accelerator.to_owned(), Scope::GpuSlot))?
        }
        None => return None,
    };
    Some((prefix.to_owned(), id, scope))
}

/// The counters count whole joules.
const STEP_UJ: u64 = 1_000_000;

fn device(id: &str, scope: Scope) -> Device {
    Device {
        id: format!("cray:{id}"),
        name: format!("{} ({id}, board counter)", scope.describe()),
        scope,
        energy_source: EnergySource::Counter,
        counter_modulus_uj: None,
        counter_step_uj: Some(STEP_UJ),
        // The cap is what an administrator set, not what the hardware can draw.
        power_limit_w: None,
        memory_bytes: None,
    }
}

impl Meter {
    fn open(root: &Path, prefix: &str) -> Result<Self, Error> {
        let failed = |path: &Path, problem: Problem| {
            if problem.is_permission() {
                return Error::PermissionDenied { path: path.to_owned() };
            }
            Error::Unreadable { problem: problem.describe(path, VALUE) }
        };
        let optional = |name: &str| Attribute::open(root.join(format!("{prefix}{name}"))).ok();
        let energy =
            Attribute::open(root.join(format!("{prefix}energy"))).map_err(|(path, problem)| failed(&path, problem))?;
        energy_of(&energy).map_err(|problem| failed(energy.path(), problem))?;
        Ok(Self { energy, power: optional("power"), power_cap: optional("power_cap") })
    }

    fn read(&self) -> Result<Reading, ReadError> {
        let (counter_uj, t_device_ns) =
            energy_of(&self.energy).map_err(|problem| problem.into_read_error(self.energy.path(), VALUE))?;
        // Power is a bonus beside a counter: its failure is none.
        let power_w = self.power.as_ref().and_then(|file| watts_of(file).ok());
        Ok(Reading { energy_counter_uj: Some(counter_uj), power_w, t_device_ns })
    }
}

/// `1234 J 1525101235000000 us` as microjoules and nanoseconds.
fn energy_of(file: &Attribute) -> Result<(u64, Option<i64>), Problem> {
    let text = file.text()?;
    parse_energy(&text).ok_or_else(|| Problem::Unexpected(text.escape_default().to_string()))
}

fn parse_energy(text: &str) -> Option<(u64, Option<i64>)> {
    let mut words = text.split_whitespace();
    let counter_uj = microunits(words.next()?)?;
    if !matches!(words.next(), None | Some("J")) {
        return None;
    }
    let t_device_ns = match (words.next(), words.next()) {
        (Some(us), Some("us") | None) => Some(us.parse::<i64>().ok()?.checked_mul(1_000)?),
        _ => None,
    };
    Some((counter_uj, t_device_ns))
}

fn watts_of(file: &Attribute) -> Result<f64, Problem> {
    let text = file.text()?;
    let word = text.split_whitespace().next().and_then(microunits);
    word.map(|uw| uw as f64 / 1e6).ok_or_else(|| Problem::Unexpected(text.escape_default().to_string()))
}

/// The first word of a file, a whole number.
fn leading_number(file: &Attribute) -> Result<u64, Problem> {
    let text = file.text()?;
    let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
    number.ok_or_else(|| Problem::Unexpected(text.escape_default().to_string()))
}

/// A decimal number in millionths, exactly; a number in `f64` would lose microjoules beyond 9 GJ.
fn microunits(word: &str) -> Option<u64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    let is_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let millionths: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(millionths)
}

impl CounterSource for CraySource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        if index >= self.meters.len() {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; this node has {} counters",
                self.meters.len()
            )));
        }
        self.refresh()?;
        // Told once, as an error that is counted and kept with the recording; the next poll goes on with raw values.
        if self.restart_untold.get_mut(index).is_some_and(std::mem::take) {
            return Err(ReadError::Transient("the node's counters have begun anew (startup has changed)".to_owned()));
        }
        match self.latest.as_ref().and_then(|latest| latest.readings.get(index)) {
            Some(Ok(reading)) => Ok(*reading),
            Some(Err(error)) => {
                let error = error.clone();
                // Tried again at the next poll, though the counter of refreshes may stand.
                self.latest = None;
                Err(error)
            }
            None => Err(ReadError::Transient("no snapshot of the node's counters yet".to_owned())),
        }
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        let cap = self.meters.get(index)?.power_cap.as_ref()?;
        // A cap of 0 W is none.
        Some(Telemetry { power_limit_w: watts_of(cap).ok().filter(|w| *w > 0.0), ..Telemetry::default() })
    }
}

#[cfg(test)]
mod tests;
