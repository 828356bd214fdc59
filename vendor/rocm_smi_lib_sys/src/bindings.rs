//! The part of rocm_smi.h whose signatures and types are the same from ROCm 4.5 to 7: functions that take and give plain
//! integers. Functions that fill structs (`rsmi_gpu_metrics_t`, `rsmi_frequencies_t`, ...) are left out, because the
//! library writes the struct of its own release over the struct of ours.
#![allow(non_camel_case_types, non_upper_case_globals)]

use std::ffi::{c_char, OsStr};

use libloading::Library;

pub type rsmi_status_t = u32;
pub type rsmi_memory_type_t = u32;
pub type rsmi_temperature_metric_t = u32;

pub const rsmi_status_t_RSMI_STATUS_SUCCESS: rsmi_status_t = 0;
pub const rsmi_status_t_RSMI_STATUS_NOT_SUPPORTED: rsmi_status_t = 2;
pub const rsmi_memory_type_t_RSMI_MEM_TYPE_VRAM: rsmi_memory_type_t = 0;
pub const rsmi_temperature_type_t_RSMI_TEMP_TYPE_EDGE: u32 = 0;
pub const rsmi_temperature_type_t_RSMI_TEMP_TYPE_JUNCTION: u32 = 1;
pub const rsmi_temperature_metric_t_RSMI_TEMP_CURRENT: rsmi_temperature_metric_t = 0;

macro_rules! api {
    ($(fn $name:ident($($argument:ident: $type:ty),*);)*) => {
        /// The functions of one opened library. One that the library lacks answers `RSMI_STATUS_NOT_SUPPORTED`.
        pub struct Api {
            $($name: Option<unsafe extern "C" fn($($type),*) -> rsmi_status_t>,)*
            // Last: the functions above point into it.
            _library: Library,
        }

        impl Api {
            /// # Safety
            ///
            /// `path` must be a librocm_smi64: its initialisers run, and its functions are called as rocm_smi.h declares them.
            pub unsafe fn open(path: impl AsRef<OsStr>) -> Result<Self, libloading::Error> {
                let library = Library::new(path.as_ref())?;
                Ok(Self {
                    $($name: library.get(concat!(stringify!($name), "\0").as_bytes()).ok().map(|symbol| *symbol),)*
                    _library: library,
                })
            }

            $(
                /// # Safety
                ///
                /// Pointers must be valid for what rocm_smi.h says; `rsmi_dev_*` only after a successful `rsmi_init`.
                #[allow(clippy::missing_safety_doc)]
                pub unsafe fn $name(&self, $($argument: $type),*) -> rsmi_status_t {
                    match self.$name {
                        Some(function) => function($($argument),*),
                        None => rsmi_status_t_RSMI_STATUS_NOT_SUPPORTED,
                    }
                }
            )*
        }
    };
}

api! {
    fn rsmi_init(init_flags: u64);
    fn rsmi_shut_down();
    fn rsmi_num_monitor_devices(num_devices: *mut u32);
    fn rsmi_dev_id_get(dv_ind: u32, id: *mut u16);
    fn rsmi_dev_name_get(dv_ind: u32, name: *mut c_char, len: usize);
    fn rsmi_dev_unique_id_get(dv_ind: u32, id: *mut u64);
    fn rsmi_dev_pci_id_get(dv_ind: u32, bdfid: *mut u64);
    fn rsmi_dev_energy_count_get(dv_ind: u32, power: *mut u64, counter_resolution: *mut f32, timestamp: *mut u64);
    fn rsmi_dev_power_ave_get(dv_ind: u32, sensor_ind: u32, power: *mut u64);
    fn rsmi_dev_current_socket_power_get(dv_ind: u32, socket_power: *mut u64);
    fn rsmi_dev_power_cap_get(dv_ind: u32, sensor_ind: u32, cap: *mut u64);
    fn rsmi_dev_memory_total_get(dv_ind: u32, mem_type: rsmi_memory_type_t, total: *mut u64);
    fn rsmi_dev_memory_usage_get(dv_ind: u32, mem_type: rsmi_memory_type_t, used: *mut u64);
    fn rsmi_dev_temp_metric_get(dv_ind: u32, sensor_type: u32, metric: rsmi_temperature_metric_t, temperature: *mut i64);
    fn rsmi_dev_busy_percent_get(dv_ind: u32, busy_percent: *mut u32);
}
