//! The part of the Level Zero Sysman interface that is called, by hand: types as in `zes_api.h`, and a table of
//! functions found in the loader at run time.
//!
//! Structures carry their own type (`stype`), and later versions of the interface extend them by new structures in
//! `next`, never by growing them; `tests/drivers` compiles the stub against the vendor's header where it is installed.

use std::ffi::{c_char, c_void};
use std::path::Path;

use libloading::Library;

/// `ze_result_t`.
pub(super) type Code = u32;
/// Any of the opaque handles.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(*mut c_void);

// SAFETY: handles are opaque names of things inside the driver, which the interface lets any thread use; they are never
// dereferenced here.
unsafe impl Send for Handle {}

impl Handle {
    pub(super) const NULL: Self = Self(std::ptr::null_mut());

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

pub(super) const SUCCESS: Code = 0;
pub(super) const NOT_READY: Code = 1;
pub(super) const DEVICE_LOST: Code = 0x7000_0001;
pub(super) const DEVICE_REQUIRES_RESET: Code = 0x7000_0006;
pub(super) const IN_LOW_POWER_STATE: Code = 0x7000_0007;
pub(super) const INSUFFICIENT_PERMISSIONS: Code = 0x7001_0000;
pub(super) const NOT_AVAILABLE: Code = 0x7001_0001;
pub(super) const DEPENDENCY_UNAVAILABLE: Code = 0x7002_0000;
pub(super) const UNINITIALIZED: Code = 0x7800_0001;
pub(super) const UNSUPPORTED_VERSION: Code = 0x7800_0002;
pub(super) const UNSUPPORTED_FEATURE: Code = 0x7800_0003;
pub(super) const INVALID_ARGUMENT: Code = 0x7800_0004;
pub(super) const INVALID_NULL_HANDLE: Code = 0x7800_0005;
pub(super) const UNKNOWN: Code = 0x7fff_fffe;

const STYPE_DEVICE_PROPERTIES: u32 = 0x1;
const STYPE_PCI_PROPERTIES: u32 = 0x2;
const STYPE_ENGINE_PROPERTIES: u32 = 0x5;
const STYPE_FREQ_PROPERTIES: u32 = 0x9;
const STYPE_MEM_PROPERTIES: u32 = 0xb;
const STYPE_POWER_PROPERTIES: u32 = 0xd;
const STYPE_TEMP_PROPERTIES: u32 = 0x14;
const STYPE_FREQ_STATE: u32 = 0x1b;
const STYPE_MEM_STATE: u32 = 0x1e;
const STYPE_POWER_EXT_PROPERTIES: u32 = 0x28;

/// A structure that a function fills, all zero but for its type.
macro_rules! filled_by_the_driver {
    ($($name:ident: $stype:expr),+ $(,)?) => {$(
        impl $name {
            pub(super) fn empty() -> Self {
                // SAFETY: the structure consists of integers, floats, arrays of them and raw pointers, for all of which
                // zero bytes are a value.
                let mut structure: Self = unsafe { std::mem::zeroed() };
                structure.stype = $stype;
                structure
            }
        }
    )+};
}

filled_by_the_driver! {
    DeviceProperties: STYPE_DEVICE_PROPERTIES, PciProperties: STYPE_PCI_PROPERTIES,
    PowerProperties: STYPE_POWER_PROPERTIES, PowerExtProperties: STYPE_POWER_EXT_PROPERTIES,
    FreqProperties: STYPE_FREQ_PROPERTIES, FreqState: STYPE_FREQ_STATE, TempProperties: STYPE_TEMP_PROPERTIES,
    MemProperties: STYPE_MEM_PROPERTIES, MemState: STYPE_MEM_STATE, EngineProperties: STYPE_ENGINE_PROPERTIES,
}

#[repr(C)]
pub(super) struct CoreDeviceProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) device_type: u32,
    vendor_id: u32,
    device_id: u32,
    flags: u32,
    subdevice_id: u32,
    core_clock_rate: u32,
    max_mem_alloc_size: u64,
    max_hardware_contexts: u32,
    max_command_queue_priority: u32,
    num_threads_per_eu: u32,
    physical_eu_simd_width: u32,
    num_eus_per_subslice: u32,
    num_subslices_per_slice: u32,
    num_slices: u32,
    timer_resolution: u64,
    timestamp_valid_bits: u32,
    kernel_timestamp_valid_bits: u32,
    uuid: [u8; 16],
    pub(super) name: [c_char; 256],
}

#[repr(C)]
pub(super) struct DeviceProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) core: CoreDeviceProperties,
    pub(super) num_subdevices: u32,
    serial_number: [c_char; 64],
    board_number: [c_char; 64],
    pub(super) brand_name: [c_char; 64],
    pub(super) model_name: [c_char; 64],
    vendor_name: [c_char; 64],
    pub(super) driver_version: [c_char; 64],
}

#[repr(C)]
pub(super) struct PciProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) domain: u32,
    pub(super) bus: u32,
    pub(super) device: u32,
    pub(super) function: u32,
    max_speed_gen: i32,
    max_speed_width: i32,
    max_speed_bandwidth: i64,
    have_bandwidth_counters: u8,
    have_packet_counters: u8,
    have_replay_counters: u8,
}

#[repr(C)]
pub(super) struct PowerProperties {
    stype: u32,
    pub(super) next: *mut c_void,
    pub(super) on_subdevice: u8,
    pub(super) subdevice_id: u32,
    can_control: u8,
    is_energy_threshold_supported: u8,
    /// Milliwatts; -1 is unknown.
    pub(super) default_limit: i32,
    min_limit: i32,
    pub(super) max_limit: i32,
}

#[repr(C)]
pub(super) struct PowerExtProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) domain: u32,
    default_limit: *mut c_void,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EnergyCounter {
    /// Microjoules.
    pub(super) energy: u64,
    /// Microseconds on a base of its own.
    pub(super) timestamp: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SustainedLimit {
    pub(super) enabled: u8,
    /// Milliwatts.
    pub(super) power: i32,
    interval: i32,
}

#[repr(C)]
pub(super) struct FreqProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) domain: u32,
    on_subdevice: u8,
    subdevice_id: u32,
    can_control: u8,
    is_throttle_event_supported: u8,
    min: f64,
    max: f64,
}

#[repr(C)]
pub(super) struct FreqState {
    stype: u32,
    next: *const c_void,
    current_voltage: f64,
    request: f64,
    tdp: f64,
    efficient: f64,
    /// MHz; negative is unknown.
    pub(super) actual: f64,
    pub(super) throttle_reasons: u32,
}

#[repr(C)]
pub(super) struct TempProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) sensor: u32,
    on_subdevice: u8,
    subdevice_id: u32,
    max_temperature: f64,
    is_critical_temp_supported: u8,
    is_threshold1_supported: u8,
    is_threshold2_supported: u8,
}

#[repr(C)]
pub(super) struct MemProperties {
    stype: u32,
    next: *mut c_void,
    mem_type: u32,
    on_subdevice: u8,
    subdevice_id: u32,
    pub(super) location: u32,
    pub(super) physical_size: u64,
    bus_width: i32,
    num_channels: i32,
}

#[repr(C)]
pub(super) struct MemState {
    stype: u32,
    next: *const c_void,
    health: u32,
    pub(super) free: u64,
    pub(super) size: u64,
}

#[repr(C)]
pub(super) struct EngineProperties {
    stype: u32,
    next: *mut c_void,
    pub(super) group: u32,
    pub(super) on_subdevice: u8,
    subdevice_id: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EngineStats {
    /// Microseconds of work.
    pub(super) active_time: u64,
    /// Microseconds.
    pub(super) timestamp: u64,
}

/// `zeInit(flags)`, `zesInit(flags)`.
type Init = unsafe extern "C" fn(u32) -> Code;
/// `zesDriverGet(&count, handles)`: the outermost list.
type Roots = unsafe extern "C" fn(*mut u32, *mut Handle) -> Code;
/// Functions that list handles below a handle.
pub(super) type Children = unsafe extern "C" fn(Handle, *mut u32, *mut Handle) -> Code;
/// Functions that fill a structure about a handle.
pub(super) type Query<T> = unsafe extern "C" fn(Handle, *mut T) -> Code;
type Limits = unsafe extern "C" fn(Handle, *mut SustainedLimit, *mut c_void, *mut c_void) -> Code;

/// The functions of a loader. What is optional is missing from older or smaller ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Api {
    pub(super) core_init: Init,
    pub(super) core_drivers: Roots,
    pub(super) core_devices: Children,
    pub(super) sysman_init: Option<Init>,
    pub(super) sysman_drivers: Option<Roots>,
    pub(super) sysman_devices: Option<Children>,
    pub(super) device_properties: Query<DeviceProperties>,
    pub(super) pci_properties: Query<PciProperties>,
    pub(super) power_domains: Children,
    pub(super) power_properties: Query<PowerProperties>,
    pub(super) energy_counter: Query<EnergyCounter>,
    pub(super) card_power_domain: Option<Query<Handle>>,
    pub(super) power_limits: Option<Limits>,
    pub(super) frequency_domains: Option<Children>,
    pub(super) frequency_properties: Option<Query<FreqProperties>>,
    pub(super) frequency_state: Option<Query<FreqState>>,
    pub(super) temperature_sensors: Option<Children>,
    pub(super) temperature_properties: Option<Query<TempProperties>>,
    pub(super) temperature: Option<Query<f64>>,
    pub(super) memory_modules: Option<Children>,
    pub(super) memory_properties: Option<Query<MemProperties>>,
    pub(super) memory_state: Option<Query<MemState>>,
    pub(super) engine_groups: Option<Children>,
    pub(super) engine_properties: Option<Query<EngineProperties>>,
    pub(super) engine_activity: Option<Query<EngineStats>>,
}

/// Why a loader cannot be used.
pub(super) enum LoadError {
    NotFound(libloading::Error),
    Lacks(&'static str),
}

impl Api {
    /// Loads the library and looks every function up. It is never unloaded: drivers behind it run threads of their own.
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        // SAFETY: loading runs the library's initialisers. It is the vendor's loader, or what the user named instead.
        let library = unsafe { Library::new(path) }.map_err(LoadError::NotFound)?;
        let library: &'static Library = Box::leak(Box::new(library));
        macro_rules! required {
            ($name:literal) => {
                // SAFETY: the symbol of this name has this signature in every version of the interface; `tests/drivers`
                // holds it against the header. The library is leaked above, so the pointer stays valid.
                unsafe { library.get(concat!($name, "\0").as_bytes()) }
                    .map(|symbol| *symbol)
                    .map_err(|_| LoadError::Lacks($name))?
            };
        }
        macro_rules! optional {
            ($name:literal) => {
                // SAFETY: as for the required ones.
                unsafe { library.get(concat!($name, "\0").as_bytes()) }.ok().map(|symbol| *symbol)
            };
        }
        Ok(Self {
            core_init: required!("zeInit"),
            core_drivers: required!("zeDriverGet"),
            core_devices: required!("zeDeviceGet"),
            sysman_init: optional!("zesInit"),
            sysman_drivers: optional!("zesDriverGet"),
            sysman_devices: optional!("zesDeviceGet"),
            device_properties: required!("zesDeviceGetProperties"),
            pci_properties: required!("zesDevicePciGetProperties"),
            power_domains: required!("zesDeviceEnumPowerDomains"),
            power_properties: required!("zesPowerGetProperties"),
            energy_counter: required!("zesPowerGetEnergyCounter"),
            card_power_domain: optional!("zesDeviceGetCardPowerDomain"),
            power_limits: optional!("zesPowerGetLimits"),
            frequency_domains: optional!("zesDeviceEnumFrequencyDomains"),
            frequency_properties: optional!("zesFrequencyGetProperties"),
            frequency_state: optional!("zesFrequencyGetState"),
            temperature_sensors: optional!("zesDeviceEnumTemperatureSensors"),
            temperature_properties: optional!("zesTemperatureGetProperties"),
            temperature: optional!("zesTemperatureGetState"),
            memory_modules: optional!("zesDeviceEnumMemoryModules"),
            memory_properties: optional!("zesMemoryGetProperties"),
            memory_state: optional!("zesMemoryGetState"),
            engine_groups: optional!("zesDeviceEnumEngineGroups"),
            engine_properties: optional!("zesEngineGetProperties"),
            engine_activity: optional!("zesEngineGetActivity"),
        })
    }

    /// The sustained power limit, if it is in force.
    pub(super) fn sustained_limit(&self, domain: Handle) -> Option<SustainedLimit> {
        let mut limit = SustainedLimit::default();
        let limits = self.power_limits?;
        // SAFETY: `domain` came from this loader; the burst and peak limits may be null by the interface's rules.
        let code = unsafe { limits(domain, &mut limit, std::ptr::null_mut(), std::ptr::null_mut()) };
        (code == SUCCESS && limit.enabled != 0).then_some(limit)
    }
}

/// More handles than this are no answer.
const MANY: u32 = 1024;

/// The outermost list of handles.
pub(super) fn roots(list: Roots) -> Result<Vec<Handle>, Code> {
    // SAFETY: the closure hands on either a count to fill and no array, or an array of that count.
    listed(|count, handles| unsafe { list(count, handles) })
}

/// The handles below `parent`.
pub(super) fn children(list: Children, parent: Handle) -> Result<Vec<Handle>, Code> {
    // SAFETY: as above; `parent` came from this loader and has not been released.
    listed(|count, handles| unsafe { list(parent, count, handles) })
}

fn listed(call: impl Fn(*mut u32, *mut Handle) -> Code) -> Result<Vec<Handle>, Code> {
    let mut count = 0_u32;
    match call(&mut count, std::ptr::null_mut()) {
        SUCCESS => {}
        code => return Err(code),
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let room = count.min(MANY);
    let mut handles: Vec<Handle> = vec![Handle::NULL; room as usize];
    count = room;
    match call(&mut count, handles.as_mut_ptr()) {
        SUCCESS => {}
        code => return Err(code),
    }
    // The second answer may be shorter than the first: a device may have left.
    handles.truncate(count as usize);
    handles.retain(|handle| !handle.is_null());
    Ok(handles)
}

/// Fills `structure` with what `query` says about `handle`.
pub(super) fn query<T>(query: Query<T>, handle: Handle, structure: &mut T) -> Result<(), Code> {
    // SAFETY: `handle` came from this loader; `structure` is of the type that the function fills, and lives through the
    // call.
    match unsafe { query(handle, structure) } {
        SUCCESS => Ok(()),
        code => Err(code),
    }
}

/// Text that ends at its first zero byte; driver strings are shown, so what is not UTF-8 is replaced.
pub(super) fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// What a code means, in words.
pub(super) fn describe(code: Code) -> String {
    let words = match code {
        NOT_READY => "not ready",
        DEVICE_LOST => "the device is lost",
        DEVICE_REQUIRES_RESET => "the device must be reset",
        IN_LOW_POWER_STATE => "the device sleeps",
        INSUFFICIENT_PERMISSIONS => "permission denied",
        NOT_AVAILABLE => "not available",
        DEPENDENCY_UNAVAILABLE => "something that the driver needs is missing",
        UNINITIALIZED => "not initialised, or no driver",
        UNSUPPORTED_VERSION => "the driver's version does not fit",
        UNSUPPORTED_FEATURE => "not supported",
        INVALID_ARGUMENT => "invalid argument",
        INVALID_NULL_HANDLE => "the handle is invalid",
        UNKNOWN => "unknown error",
        _ => "error",
    };
    format!("{words} (0x{code:08x})")
}
