//! NVIDIA GPUs through NVML, which is opened at run time: one binary serves nodes with and without it.
//!
//! Start at [`open`], which gives one [`NvmlSource`] per GPU, all on one initialised library: NVML may be called from several
//! threads, so a GPU whose driver call blocks need not hold up the others. The counter is field 83, or
//! `nvmlDeviceGetTotalEnergyConsumption` where the field is refused: millijoules since the driver was loaded, Volta and
//! newer. The field carries the driver's own timestamp, the function does not. GPUs without either (older ones, many
//! vGPUs) fall back to power and say so in [`Opened::notes`]; they never report 0 J.
//!
//! A poll costs one driver call, because every call takes a driver-wide lock that the measured workload wants too:
//! power is asked for only when the counter has moved. Limits: under MIG counter and power are those of the whole GPU; on a
//! superchip that tells its module only, the CPU beside the GPU is in the figure, and the scope says so.

mod field;
mod probe;
mod telemetry;

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use self::field::{ENERGY, FieldScope, POWER_AVERAGE, POWER_INSTANT, field};
use super::{CounterSource, Device, ReadError, Reading, Telemetry};
use crate::units::UJ_PER_MJ;

/// The name that the loader searches for when no path is given.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// Why NVML gives no readings on this node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not there or cannot be loaded.
    #[error(
        "NVIDIA's management library {} could not be loaded: install the NVIDIA driver, or bind-mount the library into \
         the container", path.display()
    )]
    Library {
        /// The library that was tried.
        path: PathBuf,
        /// What the loader says.
        #[source]
        source: NvmlError,
    },
    /// The library is there, the kernel module is not.
    #[error("the NVIDIA kernel driver is not loaded: expected it to answer NVML; try `modprobe nvidia`")]
    DriverNotLoaded,
    /// Library and kernel module are of different versions.
    #[error(
        "NVML and the NVIDIA kernel driver are of different versions: expected the same; reboot after a driver update"
    )]
    VersionMismatch,
    /// The user may not talk to the driver.
    #[error(
        "the NVIDIA driver refused access: expected permission on /dev/nvidiactl; ask for a GPU in the job, or join \
         the group that owns the device files"
    )]
    NoPermission,
    /// A function without which nothing works is missing.
    #[error("NVML library {} lacks {function}: expected the library of a driver from 2018 or newer", path.display())]
    Incomplete {
        /// The library that was loaded.
        path: PathBuf,
        /// The missing function.
        function: &'static str,
    },
    /// NVML did not start for another reason.
    #[error("NVML did not start")]
    Init(#[source] NvmlError),
    /// There are no GPUs at all.
    #[error("NVML sees no GPU: expected at least one; check `nvidia-smi -L`, and the job's GPU request under Slurm")]
    NoDevices,
    /// GPUs there are, but none can be measured.
    #[error("NVML sees {count} GPUs and can measure none: {}", reasons.join("; "))]
    NothingMeasurable {
        /// GPUs seen.
        count: u32,
        /// What was wrong with each.
        reasons: Vec<String>,
    },
}

/// How a GPU's energy counter is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CounterVia {
    Field(FieldScope),
    Call,
}

/// How a GPU's power is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PowerVia {
    Instant(FieldScope),
    Average(FieldScope),
    Usage,
}

/// An NVML device handle without the lifetime of its wrapper, which does not export the handle's type.
#[derive(Debug, Clone, Copy)]
struct Handle(*mut c_void);

// SAFETY: NVML handles are opaque pointers into the driver library that any thread may use (NVML is documented as
// thread-safe, and nvml-wrapper declares its own `Device` Send on the same ground); they are only used together with the
// `Nvml` that gave them, which travels in the same struct.
unsafe impl Send for Handle {}

/// The energy counter of one GPU.
#[derive(Debug)]
pub struct NvmlSource {
    nvml: Arc<Nvml>,
    handle: Handle,
    /// Exactly one; an array, because that is how a source hands out its devices.
    devices: [Device; 1],
    counter_via: Option<CounterVia>,
    power_via: Option<PowerVia>,
    last_counter_uj: Option<u64>,
}

/// The GPUs of this node, ready to be read.
#[derive(Debug)]
pub struct Opened {
    /// One source per GPU that can be measured, in the driver's order.
    pub sources: Vec<NvmlSource>,
    /// What a user should know of single GPUs: fallbacks, GPUs left out, MIG, persistence.
    pub notes: Vec<String>,
    /// Version of the kernel driver, where it tells.
    pub driver_version: Option<String>,
}

/// Loads NVML from `lib_path`, or from where the loader finds it, and probes every GPU once.
pub fn open(lib_path: Option<&Path>) -> Result<Opened, Error> {
    let path = lib_path.unwrap_or(Path::new(DEFAULT_LIBRARY));
    let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|e| start_error(path, e))?;
    if nvml.lib().nvmlShutdown.is_err() {
        // Dropping calls it and would panic; a library that is never unloaded harms nobody.
        std::mem::forget(nvml);
        return Err(Error::Incomplete { path: path.to_owned(), function: "nvmlShutdown" });
    }
    let nvml = Arc::new(nvml);
    let count = nvml.device_count().map_err(|e| start_error(path, e))?;
    if count == 0 {
        return Err(Error::NoDevices);
    }
    let (mut sources, mut notes) = (Vec::new(), Vec::new());
    for index in 0..count {
        match nvml.device_by_index(index) {
            Ok(gpu) => sources.extend(probe::probe(&nvml, &gpu, index, &mut notes)),
            Err(e) => notes.push(format!("GPU {index} cannot be opened: {e}")),
        }
    }
    if sources.is_empty() {
        return Err(Error::NothingMeasurable { count, reasons: notes });
    }
    Ok(Opened { sources, notes, driver_version: nvml.sys_driver_version().ok() })
}

fn start_error(path: &Path, error: NvmlError) -> Error {
    match error {
        NvmlError::DriverNotLoaded => Error::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => Error::VersionMismatch,
        NvmlError::NoPermission => Error::NoPermission,
        NvmlError::FailedToLoadSymbol(_) => {
            Error::Incomplete { path: path.to_owned(), function: "nvmlInit_v2 or nvmlDeviceGetCount_v2" }
        }
        source @ (NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => {
            Error::Library { path: path.to_owned(), source }
        }
        other => Error::Init(other),
    }
}

/// Whether a failed read is worth asking again.
fn read_error(id: &str, error: &NvmlError) -> ReadError {
    match error {
        // An invalid handle is what remains of a GPU that was reset or repartitioned.
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::InvalidArg | NvmlError::NotFound => {
            ReadError::Gone(format!("{id}: {error}"))
        }
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => {
            ReadError::Fatal(format!("NVML stopped answering: {error}"))
        }
        _ => ReadError::Transient(format!("{id} did not answer: {error}")),
    }
}

/// The energy counter, mJ, and the driver's timestamp, µs.
fn counter_mj(nvml: &Nvml, handle: Handle, via: CounterVia) -> Result<(u64, Option<i64>), NvmlError> {
    match via {
        CounterVia::Field(scope) => {
            let answer = field(nvml, handle, ENERGY, scope)?;
            Ok((answer.value.as_u64().ok_or(NvmlError::NoData)?, answer.timestamp_us))
        }
        CounterVia::Call => Ok((device(nvml, handle).total_energy_consumption()?, None)),
    }
}

fn power_w(nvml: &Nvml, handle: Handle, via: PowerVia) -> Result<f64, NvmlError> {
    let (id, scope) = match via {
        PowerVia::Instant(scope) => (POWER_INSTANT, scope),
        PowerVia::Average(scope) => (POWER_AVERAGE, scope),
        PowerVia::Usage => return device(nvml, handle).power_usage().map(|mw| f64::from(mw) / 1e3),
    };
    Ok(field(nvml, handle, id, scope)?.value.as_f64() / 1e3)
}

fn device(nvml: &Nvml, handle: Handle) -> NvmlDevice<'_> {
    // SAFETY: the handle came from this `Nvml`, with which it travels, and which is initialised until it is dropped.
    unsafe { NvmlDevice::new(handle.0.cast(), nvml) }
}

impl NvmlSource {
    fn refuse_index(&self, index: usize) -> Result<(), ReadError> {
        if index == 0 {
            return Ok(());
        }
        let [device] = &self.devices;
        Err(ReadError::Fatal(format!(
            "device index {index} does not exist; the source of {} has one device",
            device.id
        )))
    }
}

impl CounterSource for NvmlSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        self.refuse_index(index)?;
        let [Device { id, .. }] = &self.devices;
        let mut reading = Reading::default();
        if let Some(via) = self.counter_via {
            let (mj, timestamp_us) = counter_mj(&self.nvml, self.handle, via).map_err(|e| read_error(id, &e))?;
            let counter_uj = mj.checked_mul(UJ_PER_MJ).ok_or_else(|| {
                ReadError::Transient(format!("energy counter of {id} is {mj} mJ: expected less than 2^64 uJ"))
            })?;
            reading.energy_counter_uj = Some(counter_uj);
            reading.t_device_ns = timestamp_us.and_then(|us| us.checked_mul(1_000));
            if self.last_counter_uj.replace(counter_uj) == Some(counter_uj) {
                return Ok(reading);
            }
        }
        match self.power_via.map(|via| power_w(&self.nvml, self.handle, via)) {
            Some(Ok(power_w)) => reading.power_w = Some(power_w),
            // Beside a counter, power is a bonus; alone it is all there is.
            Some(Err(e)) if self.counter_via.is_none() => return Err(read_error(id, &e)),
            Some(Err(_)) | None => {}
        }
        Ok(reading)
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        (index == 0).then(|| telemetry::of(&device(&self.nvml, self.handle)))
    }
}
