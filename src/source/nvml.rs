//! NVIDIA GPUs through NVML, which is opened at run time: one binary serves nodes with and without it.
//!
//! Start at [`NvmlSource::open`]. The counter is `nvmlDeviceGetTotalEnergyConsumption`: millijoules since the driver was
//! loaded, Volta and newer. GPUs without it (older ones, many vGPUs) fall back to power and say so in
//! [`notes`](NvmlSource::notes); they never report 0 J.
//!
//! A poll costs one driver call, because every call takes a driver-wide lock that the measured workload wants too:
//! power is asked for only when the counter has moved. Limits: power is that of the whole GPU also under MIG; on
//! `scope 0` refusing superchips the power falls back to `nvmlDeviceGetPowerUsage`, a 1 s average on most of them.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use super::{CounterSource, Device, ReadError, Reading, Scope};
use crate::schema::EnergySource;
use crate::units::UJ_PER_MJ;

/// `NVML_FI_DEV_POWER_INSTANT`: the sensor's last window (25 ms of every 100 ms on A100 and H100).
const POWER_INSTANT: FieldId = FieldId(186);
/// `NVML_FI_DEV_POWER_AVERAGE`: the mean of the last second.
const POWER_AVERAGE: FieldId = FieldId(185);
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

/// How a GPU's power is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PowerVia {
    Instant,
    Average,
    Usage,
}

/// An NVML device handle without the lifetime of its wrapper, which does not export the handle's type.
#[derive(Debug, Clone, Copy)]
struct Handle(*mut c_void);

// SAFETY: NVML handles are opaque pointers into the driver library that any thread may use (NVML is documented as
// thread-safe, and nvml-wrapper declares its own `Device` Send on the same ground); they are only used together with the
// `Nvml` that gave them, which travels in the same struct.
unsafe impl Send for Handle {}

#[derive(Debug)]
struct Gpu {
    handle: Handle,
    has_counter: bool,
    power_via: Option<PowerVia>,
    last_counter_uj: Option<u64>,
}

/// Energy counters of the NVIDIA GPUs of this node.
#[derive(Debug)]
pub struct NvmlSource {
    nvml: Nvml,
    gpus: Vec<Gpu>,
    devices: Vec<Device>,
    notes: Vec<String>,
}

impl NvmlSource {
    /// Loads NVML from `lib_path`, or from where the loader finds it, and probes every GPU once.
    pub fn open(lib_path: Option<&Path>) -> Result<Self, Error> {
        let path = lib_path.unwrap_or(Path::new(DEFAULT_LIBRARY));
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|e| start_error(path, e))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // Dropping calls it and would panic; a library that is never unloaded harms nobody.
            std::mem::forget(nvml);
            return Err(Error::Incomplete { path: path.to_owned(), function: "nvmlShutdown" });
        }
        let count = nvml.device_count().map_err(|e| start_error(path, e))?;
        if count == 0 {
            return Err(Error::NoDevices);
        }
        let (mut gpus, mut devices, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..count {
            match nvml.device_by_index(index) {
                Ok(gpu) => {
                    if let Some((gpu, device)) = probe(&gpu, index, &mut notes) {
                        gpus.push(gpu);
                        devices.push(device);
                    }
                }
                Err(e) => notes.push(format!("GPU {index} cannot be opened: {e}")),
            }
        }
        if gpus.is_empty() {
            return Err(Error::NothingMeasurable { count, reasons: notes });
        }
        Ok(Self { nvml, gpus, devices, notes })
    }

    /// What a user should know of single GPUs: fallbacks, GPUs left out, MIG.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Version of the kernel driver, where it tells.
    pub fn driver_version(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }
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

/// What a GPU can do, found out by trying; `None` and a note when it can do nothing.
fn probe(gpu: &NvmlDevice<'_>, index: u32, notes: &mut Vec<String>) -> Option<(Gpu, Device)> {
    let counter = gpu.total_energy_consumption();
    let power_via = [PowerVia::Instant, PowerVia::Average, PowerVia::Usage]
        .into_iter()
        .find(|via| power_w(gpu, *via).is_ok_and(f64::is_finite));
    let name = gpu.name().unwrap_or_else(|_| format!("NVIDIA GPU {index}"));
    match (&counter, power_via) {
        (Err(e), None) => {
            notes.push(format!("GPU {index} ({name}) has neither an energy counter nor a power sensor: {e}"));
            return None;
        }
        (Err(e), Some(_)) => notes.push(format!(
            "GPU {index} ({name}) has no energy counter ({e}): its power is integrated instead, which misses what \
             happens between readings"
        )),
        (Ok(0), _) => notes.push(format!(
            "energy counter of GPU {index} ({name}) stands at 0 mJ: expected it to have moved since the driver was \
             loaded; check that it does"
        )),
        (Ok(_), _) => {}
    }
    if gpu.mig_mode().is_ok_and(|mode| mode.current == 1) {
        notes.push(format!("GPU {index} ({name}) is partitioned (MIG): its energy is that of all partitions together"));
    }
    let device = Device {
        id: gpu.uuid().map_or_else(|_| format!("nvml:index-{index}"), |uuid| format!("nvml:{uuid}")),
        name,
        scope: Scope::Gpu,
        energy_source: if counter.is_ok() { EnergySource::Counter } else { EnergySource::Power },
        // 64 bits of millijoules: 600 million years at 1 kW.
        counter_modulus_uj: None,
        power_limit_w: gpu.enforced_power_limit().ok().map(|mw| f64::from(mw) / 1e3),
        memory_bytes: gpu.memory_info().ok().map(|memory| memory.total),
    };
    // SAFETY: the handle is only turned back into a device together with the `Nvml` that it came from, which
    // `NvmlSource` owns and does not shut down before it is dropped.
    let handle = Handle(unsafe { gpu.handle() }.cast());
    Some((Gpu { handle, has_counter: counter.is_ok(), power_via, last_counter_uj: None }, device))
}

fn power_w(gpu: &NvmlDevice<'_>, via: PowerVia) -> Result<f64, NvmlError> {
    let field = match via {
        PowerVia::Instant => POWER_INSTANT,
        PowerVia::Average => POWER_AVERAGE,
        PowerVia::Usage => return gpu.power_usage().map(|mw| f64::from(mw) / 1e3),
    };
    let sample = gpu.field_values_for(&[field])?.into_iter().next().ok_or(NvmlError::NoData)??;
    // The call, the field and the value each have a verdict of their own.
    let milliwatts = match sample.value? {
        SampleValue::F64(mw) => mw,
        SampleValue::U32(mw) => f64::from(mw),
        SampleValue::U64(mw) => mw as f64,
        SampleValue::I64(mw) => mw as f64,
    };
    Ok(milliwatts / 1e3)
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

impl CounterSource for NvmlSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let (Some(gpu), Some(device)) = (self.gpus.get_mut(index), self.devices.get(index)) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; NVML has {} devices",
                self.devices.len()
            )));
        };
        // SAFETY: the handle came from `self.nvml`, which is alive and initialised until `self` is dropped.
        let nvml_device = unsafe { NvmlDevice::new(gpu.handle.0.cast(), &self.nvml) };
        let mut reading = Reading::default();
        if gpu.has_counter {
            let counter_mj = nvml_device.total_energy_consumption().map_err(|e| read_error(&device.id, &e))?;
            let counter_uj = counter_mj.checked_mul(UJ_PER_MJ).ok_or_else(|| {
                ReadError::Transient(format!(
                    "energy counter of {} is {counter_mj} mJ: expected less than 2^64 uJ",
                    device.id
                ))
            })?;
            reading.energy_counter_uj = Some(counter_uj);
            if gpu.last_counter_uj.replace(counter_uj) == Some(counter_uj) {
                return Ok(reading);
            }
        }
        match gpu.power_via.map(|via| power_w(&nvml_device, via)) {
            Some(Ok(power_w)) => reading.power_w = Some(power_w),
            // Beside a counter, power is a bonus; alone it is all there is.
            Some(Err(e)) if !gpu.has_counter => return Err(read_error(&device.id, &e)),
            Some(Err(_)) | None => {}
        }
        Ok(reading)
    }
}
