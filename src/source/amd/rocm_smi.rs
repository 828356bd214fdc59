//! ROCm SMI (`librocm_smi64.so`), opened at run time through the patched `rocm_smi_lib`: nodes whose ROCm is older than AMD
//! SMI, or whose AMD SMI does not start.
//!
//! One source for all GPUs: the counter was seen to step backwards where several threads called the library.

use std::path::Path;

use rocm_smi_lib::{RocmErr, RocmSmi};

use super::accumulator::{self, Candidate, is_absent, is_pair_card, join_dies, scaled_to_uj};
use super::card::{Card, PciAddress};
use super::{LinkError, sysfs};
use crate::source::{CounterSource, Device, ReadError, Reading, Telemetry};

/// `RSMI_TEMP_TYPE_JUNCTION` and `RSMI_TEMP_TYPE_EDGE`.
const TEMPERATURES: [u32; 2] = [1, 0];

struct Gpu {
    index: u32,
    card: Option<Card>,
    has_counter: bool,
    last_counter_uj: Option<u64>,
}

/// The GPUs that ROCm SMI sees.
pub(super) struct RocmSmiSource {
    smi: RocmSmi,
    gpus: Vec<Gpu>,
    devices: Vec<Device>,
}

/// Opens the library at `path`, or the first that the loader finds, and probes every GPU once.
pub(super) fn open(
    path: Option<&Path>,
    cards: &mut Vec<Card>,
    notes: &mut Vec<String>,
) -> Result<RocmSmiSource, LinkError> {
    let shown = || path.map_or_else(|| "librocm_smi64.so".to_owned(), |path| path.display().to_string());
    let opened = match path {
        Some(path) => RocmSmi::init_from(path),
        None => RocmSmi::init(),
    };
    let smi = opened.map_err(|error| match error {
        RocmErr::RsmiLibLoadingError => LinkError::NotThere { path: shown() },
        other => LinkError::Init { path: shown(), verdict: other.to_string() },
    })?;
    let mut seen: Vec<PciAddress> = Vec::new();
    let mut candidates = Vec::new();
    // A count that is garbage must not become a loop of four thousand million calls.
    for index in 0..smi.get_device_count().min(1024) {
        let pci = smi.get_device_pci_id(index).ok().and_then(pci_address);
        if let Some(pci) = pci {
            if let Some(whole) = seen.iter().find(|known| known.is_same_gpu(pci)) {
                notes.push(format!("{pci} is a partition of {whole}: it is not counted again"));
                continue;
            }
            seen.push(pci);
        }
        let card = cards.iter().position(|card| pci.is_some() && card.pci == pci).map(|place| cards.remove(place));
        candidates.extend(probe(&smi, index, pci, card, notes));
    }
    if candidates.is_empty() && seen.is_empty() {
        return Err(LinkError::NoDevices);
    }
    let (gpus, devices) = join_dies(candidates, notes).into_iter().map(|c| (c.handle, c.device)).unzip();
    Ok(RocmSmiSource { smi, gpus, devices })
}

/// ROCm SMI's own packing: the domain in the upper half, bus, device and function in the lowest 16 bits; newer releases keep a
/// partition number between them.
fn pci_address(id: u64) -> Option<PciAddress> {
    let field = |shift: u32, bits: u32| u8::try_from(id >> shift & ((1 << bits) - 1)).ok();
    Some(PciAddress {
        domain: u32::try_from(id >> 32).ok()?,
        bus: field(8, 8)?,
        device: field(3, 5)?,
        function: field(0, 3)?,
    })
}

fn probe(
    smi: &RocmSmi,
    index: u32,
    pci: Option<PciAddress>,
    card: Option<Card>,
    notes: &mut Vec<String>,
) -> Option<Candidate<Gpu>> {
    let counts = smi.get_device_energy_count(index).map(|energy| energy.counts);
    let has_counter = counts.is_ok_and(|counts| !is_absent(counts));
    let unique_id = smi.get_device_unique_id(index).ok().filter(|id| *id != 0);
    let mut device = match &card {
        Some(card) => sysfs::describe(card, has_counter),
        None => {
            let id = match (unique_id, pci) {
                (Some(id), _) => format!("amd:GPU-{id:016x}"),
                (None, Some(pci)) => format!("amd:{pci}"),
                (None, None) => format!("amd:index-{index}"),
            };
            sysfs::unseen(id, has_counter)
        }
    };
    if device.name.is_empty() || device.name.starts_with("AMD GPU") {
        let name = smi.get_device_name(index).ok().filter(|name| !name.trim().is_empty());
        device.name = name.unwrap_or_else(|| format!("AMD GPU {index}"));
    }
    let watts = |uw: u64| uw as f64 / 1e6;
    device.power_limit_w =
        device.power_limit_w.or_else(|| smi.get_device_power_cap(index).ok().filter(|uw| *uw > 0).map(watts));
    device.memory_bytes = device.memory_bytes.or_else(|| smi.get_device_vram_total(index).ok());
    accumulator::warn(&device, notes);
    if !has_counter {
        let why = match counts {
            Err(error) => error.to_string(),
            Ok(_) => "its accumulator is not there".to_owned(),
        };
        let label = format!("{} ({})", device.id, device.name);
        if power_w(smi, index, card.as_ref()).is_none() {
            notes.push(format!("{label} has neither an energy counter ({why}) nor a power sensor"));
            return None;
        }
        notes.push(format!(
            "{label} has no energy counter ({why}): its power is integrated instead, which misses what happens between \
             readings"
        ));
    }
    let pci_device = card.as_ref().and_then(|card| card.pci_device).or_else(|| smi.get_device_id(index).ok());
    let is_pair_card = is_pair_card(&device.name, pci_device);
    let gpu = Gpu { index, card, has_counter, last_counter_uj: None };
    Some(Candidate { device, is_pair_card, counts: counts.ok(), handle: gpu })
}

/// From the kernel's file, which costs less, or from the library.
fn power_w(smi: &RocmSmi, index: u32, card: Option<&Card>) -> Option<f64> {
    card.and_then(Card::power_w).or_else(|| {
        let power = smi.get_device_power_data(index).ok()?;
        power.average.or(power.current_socket).ok().map(|uw| uw as f64 / 1e6)
    })
}

fn read_error(id: &str, error: RocmErr) -> ReadError {
    match error {
        RocmErr::RsmiStatusInputOutOfBounds | RocmErr::RsmiStatusNotFound | RocmErr::RsmiStatusInvalidArgs => {
            ReadError::Gone(format!("{id}: {error}"))
        }
        RocmErr::RsmiStatusInitError => ReadError::Fatal(format!("ROCm SMI stopped answering: {error}")),
        _ => ReadError::Transient(format!("{id} did not answer: {error}")),
    }
}

impl CounterSource for RocmSmiSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let (Some(gpu), Some(Device { id, .. })) = (self.gpus.get_mut(index), self.devices.get(index)) else {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; ROCm SMI has {} devices",
                self.devices.len()
            )));
        };
        if !gpu.has_counter {
            let power_w = power_w(&self.smi, gpu.index, gpu.card.as_ref())
                .ok_or_else(|| ReadError::Transient(format!("{id} tells no power")))?;
            return Ok(Reading { power_w: Some(power_w), ..Reading::default() });
        }
        let energy = self.smi.get_device_energy_count(gpu.index).map_err(|e| read_error(id, e))?;
        let garbage = |problem| ReadError::Transient(format!("energy counter of {id} {problem}"));
        if is_absent(energy.counts) {
            return Err(garbage("has all bits set: expected a count".to_owned()));
        }
        let uj = scaled_to_uj(energy.counts, energy.resolution_uj).map_err(garbage)?;
        let t_device_ns = i64::try_from(energy.timestamp_ns).ok().filter(|ns| *ns > 0);
        let mut reading = Reading { energy_counter_uj: Some(uj), t_device_ns, power_w: None };
        if gpu.last_counter_uj.replace(uj) != Some(uj) {
            reading.power_w = power_w(&self.smi, gpu.index, gpu.card.as_ref());
        }
        Ok(reading)
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        let gpu = self.gpus.get_mut(index)?;
        let (smi, index) = (&self.smi, gpu.index);
        let told = Telemetry {
            temperature_c: TEMPERATURES.into_iter().find_map(|kind| smi.get_device_temperature(index, kind).ok()),
            utilization: smi
                .get_device_busy_percent(index)
                .ok()
                .filter(|percent| *percent <= 100)
                .map(|percent| f64::from(percent) / 100.0),
            memory_used_bytes: smi.get_device_vram_used(index).ok(),
            power_limit_w: smi.get_device_power_cap(index).ok().filter(|uw| *uw > 0).map(|uw| uw as f64 / 1e6),
            ..Telemetry::default()
        };
        Some(match &mut gpu.card {
            Some(card) => super::fill(card.telemetry(), told),
            None => told,
        })
    }
}
