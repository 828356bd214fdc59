//! Which of the node's counters belong to a run.
//!
//! GPUs in the driver's order, of which the vendor's variable (`CUDA_VISIBLE_DEVICES`, `ROCR_VISIBLE_DEVICES` then
//! `HIP_VISIBLE_DEVICES`, `ZE_AFFINITY_MASK`) selects and orders those that a process here would see; a run gets the
//! first `num_gpus` of them, and what it starts sees no others. A node without GPUs computes on its CPUs: there the
//! packages are the run's devices. Counters of different scopes are never added: not memory to packages, not CPUs to
//! GPUs.
//!
//! A run is labelled with the GPU that its point names. Where the driver's name of a device is that of another built-in
//! card, the run is refused; a name that no card has proves nothing.
//!
//! Limits. A MIG instance is not a device of its own: a run on one has no energy. Of `ZE_AFFINITY_MASK` only the card is
//! read, not the tile. Nothing here can see that a program chooses other GPUs than the first.

use std::collections::HashMap;

use super::Point;
use super::workload::Deployed;
use crate::card::GpuCard;
use crate::schema::{EnergySource, Origin};
use crate::source::{Device, Scope};

/// A vendor's devices: how identifiers begin, and the variables that select among them, one after the other.
struct Vendor {
    prefix: &'static str,
    variables: &'static [&'static [&'static str]],
}

/// Where several variables stand in one place, the first that is set counts.
const VENDORS: [Vendor; 3] = [
    Vendor { prefix: "nvml:", variables: &[&["CUDA_VISIBLE_DEVICES"]] },
    Vendor {
        prefix: "amd:",
        variables: &[&["ROCR_VISIBLE_DEVICES"], &["HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"]],
    },
    Vendor { prefix: "intel:", variables: &[&["ZE_AFFINITY_MASK"]] },
];

/// Counters that may stand for the GPUs of a run: the first kind of which the node has any.
const GPU_SCOPES: [Scope; 4] = [Scope::Gpu, Scope::GpuTile, Scope::Module, Scope::GpuSlot];
/// ... and, where no GPU is seen, for its CPUs.
const CPU_SCOPES: [Scope; 2] = [Scope::CpuPackage, Scope::Cpu];

/// The node's counters, as far as runs can use them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VisibleDevices {
    gpus: Vec<String>,
    cpus: Vec<String>,
    /// Product names of all of these, by identifier.
    names: HashMap<String, String>,
    /// A variable that names something that no counter measures, with its value.
    unmeasured: Option<String>,
    /// The variable that decides what a started process sees, and its words in order.
    selector: Option<(&'static str, Vec<String>)>,
    sets_order: bool,
    is_simulated: bool,
}

impl VisibleDevices {
    /// What a process with these environment variables would see of `devices`.
    pub fn of(devices: &[Device], variable: impl Fn(&str) -> Option<String>) -> Self {
        let of_scope = |scope: Scope| devices.iter().filter(move |d| d.scope == scope);
        let all: Vec<&Device> =
            GPU_SCOPES.iter().map(|s| of_scope(*s).collect::<Vec<_>>()).find(|d| !d.is_empty()).unwrap_or_default();
        let cpus = CPU_SCOPES.iter().map(|s| of_scope(*s).collect::<Vec<_>>()).find(|d| !d.is_empty());
        let mut visible = Self {
            names: devices.iter().map(|d| (d.id.clone(), d.name.clone())).collect(),
            cpus: cpus.unwrap_or_default().iter().map(|d| d.id.clone()).collect(),
            is_simulated: devices.iter().any(|d| d.energy_source == EnergySource::Simulated),
            ..Self::default()
        };
        let of_vendor = |v: &Vendor| all.iter().filter(|d| d.id.starts_with(v.prefix)).map(|d| d.id.clone()).collect();
        let mut known: Vec<String> = Vec::new();
        for vendor in &VENDORS {
            let mut gpus: Vec<String> = of_vendor(vendor);
            if gpus.is_empty() {
                continue;
            }
            let is_only_vendor = gpus.len() == all.len();
            known.extend(gpus.iter().cloned());
            let mut selector = (vendor.variables.first().and_then(|v| v.first()).copied().unwrap_or_default(), None);
            for names in vendor.variables {
                let Some((name, value)) = names.iter().find_map(|n| Some((*n, variable(n)?))) else { continue };
                let (selected, words, strange) = select(&gpus, &value);
                if strange {
                    visible.unmeasured = Some(format!("{name}={value}"));
                }
                (gpus, selector) = (selected, (name, Some(words)));
            }
            let words = selector.1.unwrap_or_else(|| (0..gpus.len()).map(|i| i.to_string()).collect());
            // Of two vendors on one node nobody can say which the next run uses: then nothing is set.
            visible.selector = is_only_vendor.then_some((selector.0, words));
            visible.sets_order = vendor.prefix == "nvml:" && variable("CUDA_DEVICE_ORDER").is_none();
            visible.gpus.append(&mut gpus);
        }
        visible.gpus.extend(all.iter().filter(|d| !known.contains(&d.id)).map(|d| d.id.clone()));
        visible
    }

    /// Whether anything can be measured at all.
    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty() && self.cpus.is_empty()
    }

    /// What the `source` column of runs says.
    pub fn origin(&self) -> Origin {
        if self.is_simulated { Origin::Simulated } else { Origin::Measured }
    }

    /// The devices whose energy is that of a run on `num_gpus` GPUs; none where nothing measures them.
    pub fn of_run(&self, num_gpus: u32) -> Result<Vec<String>, String> {
        if self.unmeasured.is_some() {
            return Ok(Vec::new());
        }
        if self.gpus.is_empty() {
            return Ok(self.cpus.clone());
        }
        let count = num_gpus as usize;
        match self.gpus.get(..count) {
            Some(first) => Ok(first.to_vec()),
            None => {
                let seen = self.selector.as_ref().map_or(String::new(), |(name, _)| format!(" (see ${name})"));
                Err(format!("the point needs {count} GPUs and {} with a counter are visible{seen}", self.gpus.len()))
            }
        }
    }

    /// The devices of a run at this point, as what its runs are labelled with; refuses those that are another GPU than the
    /// point's.
    pub fn deployed(&self, point: &Point) -> Result<Deployed, String> {
        let devices = self.of_run(point.num_gpus())?;
        let mut names: Vec<&str> = Vec::new();
        for id in &devices {
            let Some(name) = self.names.get(id).map(String::as_str).filter(|name| !names.contains(name)) else {
                continue;
            };
            self.check_gpu(id, name, point)?;
            names.push(name);
        }
        let device_name = (!names.is_empty()).then(|| names.join(", "));
        Ok(Deployed { devices, device_name, kv_capacity_tokens: None })
    }

    fn check_gpu(&self, id: &str, name: &str, point: &Point) -> Result<(), String> {
        // What a simulated counter is called is nobody's claim.
        if self.is_simulated {
            return Ok(());
        }
        let asked = &point.gpu.gpu_model;
        let (Some(found), Some(card)) = (GpuCard::builtin(name), GpuCard::builtin(asked)) else { return Ok(()) };
        if found.gpu_model == card.gpu_model {
            return Ok(());
        }
        Err(format!(
            "the point's gpu_model is `{asked}`, and {id} is a `{name}`: its joules would be those of another GPU; write \
             gpu_model = \"{}\" for this node, or run the point on a node with {asked}",
            found.gpu_model
        ))
    }

    /// Variables with which a started process sees just the GPUs of [`of_run`](Self::of_run).
    pub fn environment(&self, num_gpus: u32) -> Vec<(String, String)> {
        let count = num_gpus as usize;
        let Some((name, words)) = self.selector.as_ref().filter(|(_, words)| words.len() > count) else {
            return Vec::new();
        };
        let first = words.get(..count).unwrap_or_default().join(",");
        let mut variables = vec![((*name).to_owned(), first)];
        if self.sets_order {
            // NVML counts by bus; CUDA, if nothing is said, by speed.
            variables.push(("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()));
        }
        variables
    }
}

/// The GPUs that a variable's value selects, its words for them, and whether it names one that is not among `gpus`.
///
/// As the runtimes do: numbers or (the beginning of) unique identifiers, up to the first that means nothing.
fn select(gpus: &[String], value: &str) -> (Vec<String>, Vec<String>, bool) {
    let (mut selected, mut words) = (Vec::new(), Vec::new());
    for word in value.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let number = word.split('.').next().and_then(|n| n.parse::<i64>().ok());
        let found = match number {
            Some(n) => usize::try_from(n).ok().and_then(|n| gpus.get(n)),
            None => gpus.iter().find(|id| id.split_once(':').is_some_and(|(_, id)| id.starts_with(word))),
        };
        match found {
            Some(id) if !selected.contains(id) => {
                selected.push(id.clone());
                words.push(word.to_owned());
            }
            Some(_) => {}
            // -1 and the like hide all that follow; a name that is unknown is something that no counter measures.
            None => return (selected, words, number.is_none() && !word.eq_ignore_ascii_case("none")),
        }
    }
    (selected, words, false)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sweep::Plan;

    fn device(id: &str, scope: Scope) -> Device {
        Device {
            id: id.to_owned(),
            name: "stub".to_owned(),
            scope,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        }
    }

    fn node() -> Vec<Device> {
        let mut devices: Vec<Device> =
            ["a1", "b2", "c3", "d4"].iter().map(|u| device(&format!("nvml:GPU-{u}"), Scope::Gpu)).collect();
        devices.push(device("rapl:package-0", Scope::CpuPackage));
        devices.push(device("rapl:package-0-dram", Scope::Dram));
        devices
    }

    fn seen(devices: &[Device], variables: &[(&str, &str)]) -> VisibleDevices {
        let of = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        VisibleDevices::of(devices, of)
    }

    fn ids(ids: &[&str]) -> Result<Vec<String>, String> {
        Ok(ids.iter().map(|id| (*id).to_owned()).collect())
    }

    #[test]
    fn a_run_has_the_first_gpus_and_never_a_cpu_beside_them() {
        let all = seen(&node(), &[]);
        assert_eq!(all.of_run(2), ids(&["nvml:GPU-a1", "nvml:GPU-b2"]));
        let set: Vec<_> = all.environment(2);
        assert_eq!(set[0], ("CUDA_VISIBLE_DEVICES".to_owned(), "0,1".to_owned()));
        assert_eq!(set[1], ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()));
        assert!(all.environment(4).is_empty(), "a run on all GPUs finds the environment as it is");
        assert!(all.of_run(5).is_err_and(|e| e.contains("needs 5 GPUs and 4")));
    }

    #[test]
    fn the_vendors_variable_selects_and_orders() {
        let some = seen(&node(), &[("CUDA_VISIBLE_DEVICES", "3,GPU-b,0")]);
        assert_eq!(some.of_run(3), ids(&["nvml:GPU-d4", "nvml:GPU-b2", "nvml:GPU-a1"]));
        assert_eq!(some.environment(1)[0].1, "3");
        let cut = seen(&node(), &[("CUDA_VISIBLE_DEVICES", "2,-1,0")]);
        assert_eq!(cut.of_run(1), ids(&["nvml:GPU-c3"]));
        assert!(cut.of_run(2).is_err());
        // A slice of a GPU has no counter of its own; a GPU's would count the neighbours' joules.
        let slice = seen(&node(), &[("CUDA_VISIBLE_DEVICES", "MIG-77")]);
        assert_eq!(slice.of_run(1), ids(&[]));
    }

    #[test]
    fn amds_two_variables_select_one_after_the_other() {
        let node: Vec<Device> = ["w", "x", "y", "z"].iter().map(|u| device(&format!("amd:{u}"), Scope::Gpu)).collect();
        let both = seen(&node, &[("ROCR_VISIBLE_DEVICES", "1,2,3"), ("HIP_VISIBLE_DEVICES", "2,0")]);
        assert_eq!(both.of_run(2), ids(&["amd:z", "amd:x"]));
        assert_eq!(both.environment(1), [("HIP_VISIBLE_DEVICES".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn a_device_that_is_another_gpu_than_the_points_is_refused() {
        let source = "local el = require 'energylens'\nreturn el.sweep { name = 'g', design = el.factorial {},\n\
                      workload = el.simulated {}, axes = { model = 'llama-2-7b', gpu_model = 'a100-80gb',\n\
                      input_tokens = 64, output_tokens = 16, batch_size = 1 } }";
        let plan = Plan::from_source("g.lua", source, Path::new("."), &mut |_| ()).expect("a plan");
        let on = |name: &str| {
            let gpu = Device { name: name.to_owned(), ..device("nvml:GPU-a", Scope::Gpu) };
            VisibleDevices::of(&[gpu], |_| None).deployed(&plan.points[0])
        };
        let right = on("NVIDIA A100-SXM4-80GB").expect("the GPU that was asked for");
        assert_eq!(right.devices, ["nvml:GPU-a"]);
        assert_eq!(right.device_name.as_deref(), Some("NVIDIA A100-SXM4-80GB"));
        let wrong = on("NVIDIA H100 80GB HBM3").expect_err("another GPU");
        for part in
            ["`A100-SXM4-80GB`", "nvml:GPU-a is a `NVIDIA H100 80GB HBM3`", "write gpu_model = \"H100-SXM5-80GB\""]
        {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
        // Nobody knows what that is.
        assert_eq!(on("Graphics Device").map(|d| d.device_name), Ok(Some("Graphics Device".to_owned())));
    }

    #[test]
    fn a_node_without_gpus_counts_its_packages_and_one_without_counters_nothing() {
        let cpus = seen(&node()[4..], &[]);
        assert_eq!(cpus.of_run(1), ids(&["rapl:package-0"]));
        assert_eq!(seen(&node(), &[("CUDA_VISIBLE_DEVICES", "")]).of_run(1), ids(&["rapl:package-0"]));
        assert_eq!(seen(&[], &[]).of_run(8), ids(&[]));
    }
}
