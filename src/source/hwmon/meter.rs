//! Power meters that firmware announces through ACPI: the sockets and modules of NVIDIA Grace, whole servers elsewhere.

use std::collections::BTreeSet;

use super::{Candidate, Entry, Quantity, watts};
use crate::schema::EnergySource;
use crate::source::{Device, Scope};

/// Kernel driver of ACPI power meters.
const DRIVER: &str = "power_meter";

/// Every meter, labelled by what it measures.
pub(super) fn candidates(entries: &[Entry], notes: &mut Vec<String>) -> Vec<Candidate> {
    let mut ids = BTreeSet::new();
    let mut candidates = Vec::new();
    for entry in entries.iter().filter(|e| e.name == DRIVER) {
        if entry.number("power1_is_battery") == Some(1) {
            continue;
        }
        // The mean of an interval loses less between two polls than an instant does.
        let Some(path) = entry.find("power1_average").or_else(|| entry.find("power1_input")) else {
            notes.push(format!("power meter {} shows no power: expected power1_average", entry.entry));
            continue;
        };
        let label = entry.text("power1_oem_info");
        let scope = scope(label.as_deref());
        let id = match &label {
            Some(label) => format!("hwmon:{}", slug(label)),
            None => format!("hwmon:{}", entry.parent.as_deref().unwrap_or(&entry.entry)),
        };
        // Two meters of one label are two meters; their place tells them apart.
        let id =
            if ids.contains(&id) { format!("{id}@{}", entry.parent.as_deref().unwrap_or(&entry.entry)) } else { id };
        if !ids.insert(id.clone()) {
            notes.push(format!("power meter {} repeats {id}: it is not counted again", entry.entry));
            continue;
        }
        let name = label.unwrap_or_else(|| "ACPI power meter".to_owned());
        let interval = entry.number("power1_average_interval").filter(|ms| *ms > 0);
        let seen = interval.map_or_else(|| "power".to_owned(), |ms| format!("the mean power of {ms} ms"));
        notes.push(format!("{name} shows {seen}, no energy: {}", covers(scope)));
        candidates.push(Candidate {
            quantity: Quantity::PowerUw,
            path,
            limit: entry.find("power1_cap"),
            device: Device {
                id,
                name,
                scope,
                energy_source: EnergySource::Power,
                counter_modulus_uj: None,
                counter_step_uj: None,
                power_limit_w: entry.number("power1_cap_max").filter(|uw| *uw > 0).map(watts),
                memory_bytes: None,
            },
        });
    }
    candidates
}

/// What a label such as `Grace Power Socket 0` says is measured. Servers whose meter has no label measure all of it.
fn scope(label: Option<&str>) -> Scope {
    let label = label.unwrap_or_default().to_ascii_lowercase();
    match label.split_whitespace().next() {
        Some("module") => Scope::Module,
        Some("grace") => Scope::CpuPackage,
        Some("cpu" | "sysio") => Scope::Rail,
        _ => Scope::Node,
    }
}

fn covers(scope: Scope) -> &'static str {
    match scope {
        Scope::Module => "it contains its CPU and GPU, and is never added to them",
        Scope::CpuPackage => "the CPU with its memory",
        Scope::Rail => "a part of its CPU's power, and never added to it",
        _ => "what it covers is the firmware's choice, usually the whole node",
    }
}

/// `Grace Power Socket 0` becomes `grace-power-socket-0`.
fn slug(label: &str) -> String {
    let word = |part: &str| part.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let parts: Vec<String> = label.split_whitespace().map(word).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "meter".to_owned() } else { parts.join("-") }
}
