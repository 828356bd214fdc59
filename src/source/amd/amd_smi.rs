//! AMD SMI (`libamd_smi.so`), opened at run time: the only library that ROCm 10 nodes still have.
//!
//! Of its functions only those are called whose signature and types are the same from ROCm 6.0 to 7.x (compared in the
//! `amdsmi.h` of several releases): identifiers, the energy counter, and figures that come as plain integers or in a struct whose
//! first members never moved, into buffers larger than any release's struct. `amdsmi_get_power_info` is not among them: its
//! struct changed twice and its arguments once, so power comes from the kernel's hwmon file.
//!
//! One source for all GPUs: the counter was seen to step backwards where several threads called the library.

mod api;

use std::path::Path;

use self::api::{Api, Handle, Status, verdict};
use super::accumulator::{self, Candidate, is_absent, is_pair_card, join_dies, scaled_to_uj};
use super::card::{Card, PciAddress};
use super::{LinkError, sysfs};
use crate::source::{CounterSource, Device, ReadError, Reading, Telemetry};

fn read_error(id: &str, status: Status) -> ReadError {
    match status {
        // What remains of a GPU that left, or was reset or repartitioned.
        1 | 31 => ReadError::Gone(format!("{id}: {}", verdict(status))),
        32 | 34 => ReadError::Fatal(format!("AMD SMI stopped answering: {}", verdict(status))),
        _ => ReadError::Transient(format!("{id} did not answer: {}", verdict(status))),
    }
}

#[derive(Debug)]
struct Gpu {
    handle: Handle,
    card: Option<Card>,
    has_counter: bool,
    last_counter_uj: Option<u64>,
}

/// The GPUs that AMD SMI sees.
#[derive(Debug)]
pub(super) struct AmdSmiSource {
    // Before the library goes, nothing else needs it: handles are only numbers to us.
    api: Api,
    gpus: Vec<Gpu>,
    devices: Vec<Device>,
}

// SAFETY: handles point into the library, which keeps them until it is shut down, and hold nothing of a thread. All calls go
// through `&mut self`, so one thread at a time makes them.
unsafe impl Send for AmdSmiSource {}

/// Opens the library at `path`, or the first that the loader finds, and probes every GPU once. Cards of `cards` are taken out
/// of it as they are recognised.
pub(super) fn open(
    path: Option<&Path>,
    cards: &mut Vec<Card>,
    notes: &mut Vec<String>,
) -> Result<AmdSmiSource, LinkError> {
    let api = api::open(path)?;
    let handles = api.gpus();
    if handles.is_empty() {
        return Err(LinkError::NoDevices);
    }
    let mut seen: Vec<PciAddress> = Vec::new();
    let mut candidates = Vec::new();
    for (index, handle) in handles.into_iter().enumerate() {
        let pci = api.pci(handle);
        if let Some(pci) = pci {
            if let Some(whole) = seen.iter().find(|known| known.is_same_gpu(pci)) {
                notes.push(format!("{pci} is a partition of {whole}: it is not counted again"));
                continue;
            }
            seen.push(pci);
        }
        let card = cards.iter().position(|card| pci.is_some() && card.pci == pci).map(|place| cards.remove(place));
        candidates.extend(probe(&api, index, handle, pci, card, notes));
    }
    let (gpus, devices) = join_dies(candidates, notes).into_iter().map(|c| (c.handle, c.device)).unzip();
    Ok(AmdSmiSource { api, gpus, devices })
}

fn probe(
    api: &Api,
    index: usize,
    handle: Handle,
    pci: Option<PciAddress>,
    card: Option<Card>,
    notes: &mut Vec<String>,
) -> Option<Candidate<Gpu>> {
    let counts = api.energy(handle).map(|(counts, ..)| counts);
    let has_counter = counts.is_ok_and(|counts| !is_absent(counts));
    let mut device = match &card {
        Some(card) => sysfs::describe(card, has_counter),
        None => {
            let id = match (api.uuid(handle), pci) {
                (Some(uuid), _) => format!("amd:{uuid}"),
                (None, Some(pci)) => format!("amd:{pci}"),
                (None, None) => format!("amd:index-{index}"),
            };
            sysfs::unseen(id, has_counter)
        }
    };
    // The marketing name, where the kernel shows a number only.
    if device.name.is_empty() || device.name.starts_with("AMD GPU") {
        device.name = api.name(handle).unwrap_or_else(|| format!("AMD GPU {index}"));
    }
    device.memory_bytes = device.memory_bytes.or_else(|| api.memory_total(handle));
    accumulator::warn(&device, notes);
    if !has_counter {
        let why = match counts {
            Err(status) => verdict(status),
            Ok(_) => "its accumulator is not there".to_owned(),
        };
        let label = format!("{} ({})", device.id, device.name);
        if card.as_ref().and_then(Card::power_w).is_none() {
            notes.push(format!("{label} has neither an energy counter ({why}) nor a power sensor"));
            return None;
        }
        notes.push(format!(
            "{label} has no energy counter ({why}): its power is integrated instead, which misses what happens between \
             readings"
        ));
    }
    let is_pair_card = is_pair_card(&device.name, card.as_ref().and_then(|card| card.pci_device));
    let gpu = Gpu { handle, card, has_counter, last_counter_uj: None };
    Some(Candidate { device, is_pair_card, counts: counts.ok(), handle: gpu })
}

impl CounterSource for AmdSmiSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let (Some(gpu), Some(Device { id, .. })) = (self.gpus.get_mut(index), self.devices.get(index)) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; AMD SMI has {} devices",
                self.devices.len()
            )));
        };
        let power_w = |gpu: &Gpu| gpu.card.as_ref().and_then(Card::power_w);
        if !gpu.has_counter {
            let power_w = power_w(gpu).ok_or_else(|| ReadError::Transient(format!("{id} tells no power")))?;
            return Ok(Reading { power_w: Some(power_w), ..Reading::default() });
        }
        let (counts, resolution_uj, timestamp_ns) = self.api.energy(gpu.handle).map_err(|e| read_error(id, e))?;
        let garbage = |problem| ReadError::Transient(format!("energy counter of {id} {problem}"));
        if is_absent(counts) {
            return Err(garbage("has all bits set: expected a count".to_owned()));
        }
        let uj = scaled_to_uj(counts, resolution_uj).map_err(garbage)?;
        let t_device_ns = i64::try_from(timestamp_ns).ok().filter(|ns| *ns > 0);
        let mut reading = Reading { energy_counter_uj: Some(uj), t_device_ns, power_w: None };
        if gpu.last_counter_uj.replace(uj) != Some(uj) {
            reading.power_w = power_w(gpu);
        }
        Ok(reading)
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        let gpu = self.gpus.get_mut(index)?;
        let told = self.api.telemetry(gpu.handle);
        Some(match &mut gpu.card {
            Some(card) => super::fill(card.telemetry(), told),
            None => told,
        })
    }
}
