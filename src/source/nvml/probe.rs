//! What can this GPU do? Found out by trying, once, when the library is opened.

use std::sync::Arc;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use super::field::FieldScope;
use super::{CounterVia, Handle, NvmlSource, PowerVia, counter_mj, power_w};
use crate::schema::EnergySource;
use crate::source::{Device, Scope};

/// The source of one GPU, or `None` and a note when it can be measured in no way.
pub(super) fn probe(nvml: &Arc<Nvml>, gpu: &NvmlDevice<'_>, index: u32, notes: &mut Vec<String>) -> Option<NvmlSource> {
    // SAFETY: the handle is only turned back into a device together with the `Nvml` that it came from, which the source
    // below shares and which is not shut down before the last source is dropped.
    let handle = Handle(unsafe { gpu.handle() }.cast());
    let name = gpu.name().unwrap_or_else(|_| format!("NVIDIA GPU {index}"));
    let label = format!("GPU {index} ({name})");
    let counter = counter_via(nvml, handle, &label, notes);
    let scope = match counter {
        Ok((CounterVia::Field(FieldScope::Module), _)) => FieldScope::Module,
        _ => FieldScope::Gpu,
    };
    let (power_via, power_scope) = power_via(nvml, handle, scope, counter.is_ok());
    match (&counter, power_via) {
        (Err(e), None) => {
            notes.push(format!("{label} has neither an energy counter nor a power sensor: {e}"));
            return None;
        }
        (Err(e), Some(_)) => notes.push(format!(
            "{label} has no energy counter ({e}): its power is integrated instead, which misses what happens between \
             readings"
        )),
        (Ok((_, 0)), _) => notes.push(format!(
            "energy counter of {label} stands at 0 mJ: expected it to have moved since the driver was loaded; check \
             that it does"
        )),
        (Ok(_), _) => {}
    }
    let scope = if power_scope == FieldScope::Module { Scope::Module } else { Scope::Gpu };
    if scope == Scope::Module {
        notes.push(format!(
            "{label} tells the energy of its whole module only: the CPU beside the GPU is in the figure"
        ));
    }
    note_mig(gpu, &label, notes);
    if gpu.is_in_persistent_mode().is_ok_and(|on| !on) {
        notes.push(format!(
            "{label} is not in persistence mode: when nobody uses it the driver unloads and its counter starts again; \
             try `nvidia-smi -pm 1`"
        ));
    }
    let counter_via = counter.ok().map(|(via, _)| via);
    let device = Device {
        id: gpu.uuid().map_or_else(|_| format!("nvml:index-{index}"), |uuid| format!("nvml:{uuid}")),
        name,
        scope,
        energy_source: if counter_via.is_some() { EnergySource::Counter } else { EnergySource::Power },
        // 64 bits of millijoules: 600 million years at 1 kW.
        counter_modulus_uj: None,
        counter_step_uj: None,
        // The limit is the GPU's; a module may draw more, and must not be held against it.
        power_limit_w: gpu.enforced_power_limit().ok().filter(|_| scope == Scope::Gpu).map(|mw| f64::from(mw) / 1e3),
        memory_bytes: gpu.memory_info().ok().map(|memory| memory.total),
    };
    Some(NvmlSource { nvml: nvml.clone(), handle, devices: [device], counter_via, power_via, last_counter_uj: None })
}

/// The best way to the counter and its value, mJ. The GPU alone comes before its module, and the field, which has a
/// timestamp, before the function.
fn counter_via(
    nvml: &Nvml,
    handle: Handle,
    label: &str,
    notes: &mut Vec<String>,
) -> Result<(CounterVia, u64), NvmlError> {
    let ask = |via| counter_mj(nvml, handle, via).map(|(mj, _)| mj);
    let (gpu_field, module_field) = (CounterVia::Field(FieldScope::Gpu), CounterVia::Field(FieldScope::Module));
    let by_field = ask(gpu_field);
    let by_call = ask(CounterVia::Call);
    match (by_field, by_call) {
        (Ok(before), Ok(between)) => {
            // The field is documented as the same counter: between two readings of it lies the function's.
            if ask(gpu_field).is_ok_and(|after| (before..=after).contains(&between)) {
                return Ok((gpu_field, before));
            }
            notes.push(format!(
                "{label} gives {between} mJ by nvmlDeviceGetTotalEnergyConsumption and {before} mJ by field 83: \
                 expected the same; the first is used"
            ));
            Ok((CounterVia::Call, between))
        }
        (Ok(mj), Err(_)) => Ok((gpu_field, mj)),
        (Err(_), Ok(mj)) => Ok((CounterVia::Call, mj)),
        (Err(_), Err(error)) => ask(module_field).map(|mj| (module_field, mj)).map_err(|_| error),
    }
}

/// The best way to the power of what the counter covers. Without a counter, a module's power is better than none.
fn power_via(nvml: &Nvml, handle: Handle, scope: FieldScope, has_counter: bool) -> (Option<PowerVia>, FieldScope) {
    let gpu = [PowerVia::Instant(FieldScope::Gpu), PowerVia::Average(FieldScope::Gpu), PowerVia::Usage];
    let module = [PowerVia::Instant(FieldScope::Module), PowerVia::Average(FieldScope::Module)];
    let answers = |via: &PowerVia| power_w(nvml, handle, *via).is_ok_and(f64::is_finite);
    if scope == FieldScope::Module {
        return (module.into_iter().find(answers), FieldScope::Module);
    }
    match gpu.into_iter().find(answers) {
        None if !has_counter => match module.into_iter().find(answers) {
            Some(via) => (Some(via), FieldScope::Module),
            None => (None, FieldScope::Gpu),
        },
        via => (via, FieldScope::Gpu),
    }
}

fn note_mig(gpu: &NvmlDevice<'_>, label: &str, notes: &mut Vec<String>) {
    if !gpu.mig_mode().is_ok_and(|mode| mode.current == 1) {
        return;
    }
    // What nvml-wrapper calls the count is the highest possible one; those that answer are there.
    let most = gpu.mig_device_count().unwrap_or(0).min(MIG_DEVICES_MAX);
    let partitions = (0..most).filter(|i| gpu.mig_device_by_index(*i).is_ok()).count();
    let all = if partitions > 0 { format!("all {partitions} partitions") } else { "all partitions".to_owned() };
    notes.push(format!("{label} is partitioned (MIG): its energy is that of {all} together"));
}

/// A GPU has seven compute slices; what says more is not believed.
const MIG_DEVICES_MAX: u32 = 64;
