//! The functions of `libamd_smi` that are called, and nothing that knows of energy.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::path::Path;

use libloading::Library;

use super::super::LinkError;
use super::super::card::PciAddress;
use crate::source::Telemetry;

/// Names under which the loader may find it, newest first; ROCm's own directory is often not on the loader's path.
const LIBRARIES: [&str; 6] = [
    "libamd_smi.so",
    "libamd_smi.so.27",
    "libamd_smi.so.26",
    "libamd_smi.so.25",
    "libamd_smi.so.24",
    "/opt/rocm/lib/libamd_smi.so",
];
/// `AMDSMI_INIT_AMD_GPUS`.
const INIT_AMD_GPUS: u64 = 1 << 1;
/// `AMDSMI_PROCESSOR_TYPE_AMD_GPU`.
const PROCESSOR_TYPE_AMD_GPU: u32 = 1;
/// No node has more; a count beyond is garbage.
const HANDLES_MAX: u32 = 1024;
/// Larger than any release's struct that is asked for (`amdsmi_asic_info_t`, 896 bytes in release 26).
const BUFFER_WORDS: usize = 512;

pub(super) type Status = u32;
pub(super) type Handle = *mut c_void;

/// The functions, in the order of amdsmi.h.
#[derive(Debug)]
pub(super) struct Api {
    shut_down: unsafe extern "C" fn() -> Status,
    socket_handles: unsafe extern "C" fn(*mut u32, *mut Handle) -> Status,
    processor_handles: unsafe extern "C" fn(Handle, *mut u32, *mut Handle) -> Status,
    processor_type: Option<unsafe extern "C" fn(Handle, *mut u32) -> Status>,
    device_bdf: Option<unsafe extern "C" fn(Handle, *mut u64) -> Status>,
    device_uuid: Option<unsafe extern "C" fn(Handle, *mut u32, *mut c_char) -> Status>,
    asic_info: Option<unsafe extern "C" fn(Handle, *mut u64) -> Status>,
    energy_count: unsafe extern "C" fn(Handle, *mut u64, *mut f32, *mut u64) -> Status,
    memory_total: Option<unsafe extern "C" fn(Handle, u32, *mut u64) -> Status>,
    memory_usage: Option<unsafe extern "C" fn(Handle, u32, *mut u64) -> Status>,
    temp_metric: Option<unsafe extern "C" fn(Handle, u32, u32, *mut i64) -> Status>,
    gpu_activity: Option<unsafe extern "C" fn(Handle, *mut u64) -> Status>,
    clock_info: Option<unsafe extern "C" fn(Handle, u32, *mut u64) -> Status>,
    /// Last: the functions above point into it.
    _library: Library,
}

impl Api {
    /// Opens the library and initialises it.
    fn open(path: &OsStr) -> Result<Self, LinkError> {
        let shown = || path.to_string_lossy().into_owned();
        // SAFETY: the path names AMD SMI; its initialisers do nothing but set up its own state.
        let library = unsafe { Library::new(path) }.map_err(|e| LinkError::Library { path: shown(), source: e })?;
        /// Looks a function up under the type that its field has.
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the declaration in amdsmi.h.
                unsafe { library.get(concat!($name, "\0").as_bytes()) }.ok().map(|symbol| *symbol)
            };
        }
        let lacks = |function| LinkError::Incomplete { path: shown(), function };
        let init: unsafe extern "C" fn(u64) -> Status = function!("amdsmi_init").ok_or_else(|| lacks("amdsmi_init"))?;
        let api = Self {
            shut_down: function!("amdsmi_shut_down").ok_or_else(|| lacks("amdsmi_shut_down"))?,
            socket_handles: function!("amdsmi_get_socket_handles").ok_or_else(|| lacks("amdsmi_get_socket_handles"))?,
            processor_handles: function!("amdsmi_get_processor_handles")
                .ok_or_else(|| lacks("amdsmi_get_processor_handles"))?,
            processor_type: function!("amdsmi_get_processor_type"),
            device_bdf: function!("amdsmi_get_gpu_device_bdf"),
            device_uuid: function!("amdsmi_get_gpu_device_uuid"),
            asic_info: function!("amdsmi_get_gpu_asic_info"),
            energy_count: function!("amdsmi_get_energy_count").ok_or_else(|| lacks("amdsmi_get_energy_count"))?,
            memory_total: function!("amdsmi_get_gpu_memory_total"),
            memory_usage: function!("amdsmi_get_gpu_memory_usage"),
            temp_metric: function!("amdsmi_get_temp_metric"),
            gpu_activity: function!("amdsmi_get_gpu_activity"),
            clock_info: function!("amdsmi_get_clock_info"),
            _library: library,
        };
        // SAFETY: no arguments but flags; a failure leaves nothing to shut down, and `Drop` is not reached with one.
        let status = unsafe { init(INIT_AMD_GPUS) };
        if status != 0 {
            // A library that failed to start crashes when shut down: it stays loaded, and nothing of it is called.
            std::mem::forget(api);
            return Err(LinkError::Init { path: shown(), verdict: verdict(status) });
        }
        Ok(api)
    }

    /// Every GPU of every socket.
    pub(super) fn gpus(&self) -> Vec<Handle> {
        // SAFETY: as `handles` asks.
        let sockets = handles(|count, array| unsafe { (self.socket_handles)(count, array) });
        // SAFETY: the same, and the socket is one that the library just gave.
        let in_socket = |socket| handles(|count, array| unsafe { (self.processor_handles)(socket, count, array) });
        sockets.into_iter().flat_map(in_socket).filter(|processor| self.is_gpu(*processor)).collect()
    }

    fn is_gpu(&self, processor: Handle) -> bool {
        let Some(processor_type) = self.processor_type else { return true };
        let mut kind = 0;
        // SAFETY: the handle is the library's, the pointer is valid for the call.
        let status = unsafe { processor_type(processor, &raw mut kind) };
        status != 0 || kind == PROCESSOR_TYPE_AMD_GPU
    }

    pub(super) fn pci(&self, gpu: Handle) -> Option<PciAddress> {
        let mut bdf = [0_u64; 4];
        // SAFETY: the handle is the library's; the union has eight bytes, the buffer more.
        let status = unsafe { self.device_bdf?(gpu, bdf.as_mut_ptr()) };
        let [bdf, ..] = bdf;
        // Three bits of function, five of device, eight of bus, the domain above.
        let field = |shift: u32, bits: u32| u8::try_from(bdf >> shift & ((1 << bits) - 1)).ok();
        (status == 0).then_some(())?;
        Some(PciAddress {
            function: field(0, 3)?,
            device: field(3, 5)?,
            bus: field(8, 8)?,
            domain: u32::try_from(bdf >> 16).ok()?,
        })
    }

    pub(super) fn uuid(&self, gpu: Handle) -> Option<String> {
        let mut buffer = [0 as c_char; 256];
        // One less, so that it ends with a zero in any case; the library wants room for 38 characters.
        let mut length = 255;
        // SAFETY: the handle is the library's, the buffer is as long as announced.
        let status = unsafe { self.device_uuid?(gpu, &raw mut length, buffer.as_mut_ptr()) };
        // SAFETY: the last character is zero and was not handed out.
        let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
        (status == 0).then(|| text.to_str().ok().map(str::to_owned))?.filter(|uuid| !uuid.is_empty())
    }

    /// The market name: the first member of `amdsmi_asic_info_t` in every release, 64 or 256 characters.
    pub(super) fn name(&self, gpu: Handle) -> Option<String> {
        let mut buffer = [0_u64; BUFFER_WORDS];
        // SAFETY: the handle is the library's, the buffer larger and better aligned than the struct.
        let status = unsafe { self.asic_info?(gpu, buffer.as_mut_ptr()) };
        let bytes: Vec<u8> = buffer.iter().take(32).flat_map(|word| word.to_ne_bytes()).collect();
        let name = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?.trim();
        (status == 0 && !name.is_empty()).then(|| name.to_owned())
    }

    /// Counts, their resolution in uJ, and the driver's timestamp in ns.
    pub(super) fn energy(&self, gpu: Handle) -> Result<(u64, f32, u64), Status> {
        let (mut counts, mut resolution_uj, mut timestamp_ns) = (0, 0.0, 0);
        // SAFETY: the handle is the library's, the pointers are valid for the call.
        let status =
            unsafe { (self.energy_count)(gpu, &raw mut counts, &raw mut resolution_uj, &raw mut timestamp_ns) };
        if status == 0 { Ok((counts, resolution_uj, timestamp_ns)) } else { Err(status) }
    }

    fn memory(
        &self,
        gpu: Handle,
        function: Option<unsafe extern "C" fn(Handle, u32, *mut u64) -> Status>,
    ) -> Option<u64> {
        /// `AMDSMI_MEM_TYPE_VRAM`.
        const VRAM: u32 = 0;
        let mut bytes = 0;
        // SAFETY: the handle is the library's, the pointer is valid for the call.
        (unsafe { function?(gpu, VRAM, &raw mut bytes) } == 0).then_some(bytes)
    }

    /// Bytes of video memory.
    pub(super) fn memory_total(&self, gpu: Handle) -> Option<u64> {
        self.memory(gpu, self.memory_total)
    }

    /// A struct whose first member has 32 bits.
    fn first_u32(call: impl FnOnce(*mut u64) -> Status) -> Option<u32> {
        let mut buffer = [0_u64; BUFFER_WORDS];
        let status = call(buffer.as_mut_ptr());
        let [first, ..] = buffer.map(u64::to_ne_bytes);
        let [b0, b1, b2, b3, ..] = first;
        (status == 0).then_some(u32::from_ne_bytes([b0, b1, b2, b3])).filter(|value| *value != u32::MAX)
    }

    pub(super) fn telemetry(&self, gpu: Handle) -> Telemetry {
        /// `AMDSMI_CLK_TYPE_GFX` and `AMDSMI_CLK_TYPE_MEM`.
        const CLOCKS: (u32, u32) = (0, 4);
        /// `AMDSMI_TEMPERATURE_TYPE_JUNCTION` and `_EDGE`; `AMDSMI_TEMP_CURRENT`.
        const TEMPERATURES: [u32; 2] = [1, 0];
        const CURRENT: u32 = 0;
        // SAFETY: handle and buffer as `first_u32` gives them: larger than `amdsmi_clk_info_t` of any release.
        let clock = |kind| Self::first_u32(|to| self.clock_info.map_or(1, |f| unsafe { f(gpu, kind, to) }));
        // SAFETY: the same for `amdsmi_engine_usage_t`.
        let activity = Self::first_u32(|to| self.gpu_activity.map_or(1, |f| unsafe { f(gpu, to) }));
        let celsius = TEMPERATURES.into_iter().find_map(|kind| {
            let mut celsius = 0;
            // SAFETY: the handle is the library's, the pointer is valid for the call.
            let status = unsafe { self.temp_metric?(gpu, kind, CURRENT, &raw mut celsius) };
            (status == 0).then_some(celsius as f64)
        });
        Telemetry {
            temperature_c: celsius,
            core_clock_hz: clock(CLOCKS.0).map(|mhz| f64::from(mhz) * 1e6),
            memory_clock_hz: clock(CLOCKS.1).map(|mhz| f64::from(mhz) * 1e6),
            utilization: activity.filter(|percent| *percent <= 100).map(|percent| f64::from(percent) / 100.0),
            memory_used_bytes: self.memory(gpu, self.memory_usage),
            power_limit_w: None,
            throttle_reasons: Vec::new(),
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // SAFETY: initialised, and nothing is called after this.
        unsafe { (self.shut_down)() };
    }
}

/// Asks for a number of handles, then for the handles; whoever `call`s hands both pointers to the library.
fn handles(call: impl Fn(*mut u32, *mut Handle) -> Status) -> Vec<Handle> {
    let mut count = 0;
    if call(&raw mut count, std::ptr::null_mut()) != 0 || count == 0 || count > HANDLES_MAX {
        return Vec::new();
    }
    let mut handles = vec![std::ptr::null_mut(); count as usize];
    let room = count;
    if call(&raw mut count, handles.as_mut_ptr()) != 0 {
        return Vec::new();
    }
    handles.truncate(count.min(room) as usize);
    handles.retain(|handle| !handle.is_null());
    handles
}

/// What a status means, in words.
pub(super) fn verdict(status: Status) -> String {
    let words = match status {
        1 => "invalid parameters",
        2 => "not supported",
        6 => "the DRM devices cannot be opened",
        8 => "timeout",
        10 => "permission denied; ask to join the groups `video` and `render`",
        12 => "input/output error",
        18 => "initialisation failed",
        30 => "device busy",
        31 => "device not found",
        32 => "not initialised",
        34 => "driver not loaded; try `modprobe amdgpu`",
        40 => "no data",
        43 => "unexpected data",
        54 => "the driver is being restarted",
        other => return format!("status {other}"),
    };
    format!("{words} (status {status})")
}

/// The library at `path`, or the first that the loader finds.
pub(super) fn open(path: Option<&Path>) -> Result<Api, LinkError> {
    if let Some(path) = path {
        return Api::open(path.as_os_str());
    }
    let mut first = None;
    for name in LIBRARIES {
        match Api::open(OsStr::new(name)) {
            // The first name is the one that people know.
            Err(e @ LinkError::Library { .. }) => {
                first.get_or_insert(e);
            }
            opened => return opened,
        }
    }
    Err(first.unwrap_or(LinkError::NoDevices))
}
