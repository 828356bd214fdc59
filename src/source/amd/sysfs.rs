//! The kernel's own files: `gpu_metrics`, and the hwmon tree where a card has no such thing. Needs no library.

use super::accumulator::{Candidate, counts_to_uj, is_pair_card, join_dies, modulus_uj};
use super::card::{Card, MetricsFailure};
use crate::schema::EnergySource;
use crate::source::{CounterSource, Device, ReadError, Reading, Scope, Telemetry};

/// Where a card's energy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Metrics,
    HwmonEnergy,
    HwmonPower,
}

/// One card. A source of its own: the files of different cards may be read at the same time, one card's by one reader.
#[derive(Debug)]
pub(super) struct SysfsSource {
    devices: [Device; 1],
    card: Card,
    via: Via,
    last_counter_uj: Option<u64>,
}

/// A source for each card that can be measured.
pub(super) fn open(cards: Vec<Card>, notes: &mut Vec<String>) -> Vec<SysfsSource> {
    let candidates = cards.into_iter().filter_map(|card| probe(card, notes)).collect();
    join_dies(candidates, notes)
        .into_iter()
        .map(|c: Candidate<(Card, Via)>| {
            let (card, via) = c.handle;
            SysfsSource { devices: [c.device], card, via, last_counter_uj: None }
        })
        .collect()
}

fn probe(card: Card, notes: &mut Vec<String>) -> Option<Candidate<(Card, Via)>> {
    let label = format!("{} ({})", card.id(), card.name);
    let metrics = card.metrics();
    let counts = metrics.as_ref().and_then(|m| m.as_ref().ok()).and_then(|m| m.energy_counts);
    let via = if counts.is_some() {
        Via::Metrics
    } else if card.hwmon_energy_uj().is_some() {
        Via::HwmonEnergy
    } else {
        let why = match metrics {
            None => "there is no gpu_metrics".to_owned(),
            Some(Err(failure)) => format!("gpu_metrics {failure}"),
            Some(Ok(_)) => "its accumulator is not there".to_owned(),
        };
        if card.power_w().is_none() {
            notes.push(format!("{label} has neither an energy counter ({why}) nor a power sensor"));
            return None;
        }
        notes.push(format!(
            "{label} has no energy counter ({why}): its power is integrated instead, which misses what happens between \
             readings"
        ));
        Via::HwmonPower
    };
    let device = describe(&card, via != Via::HwmonPower);
    let is_pair_card = is_pair_card(&card.name, card.pci_device);
    Some(Candidate { device, is_pair_card, counts, handle: (card, via) })
}

/// What the libraries alone know of a GPU that the kernel's files do not show; the name is still to come.
pub(super) fn unseen(id: String, has_counter: bool) -> Device {
    Device {
        id,
        name: String::new(),
        scope: Scope::Gpu,
        energy_source: if has_counter { EnergySource::Counter } else { EnergySource::Power },
        counter_modulus_uj: None,
        counter_step_uj: None,
        power_limit_w: None,
        memory_bytes: None,
    }
}

/// The device of a card, whoever reads its energy.
pub(super) fn describe(card: &Card, has_counter: bool) -> Device {
    Device {
        id: card.id(),
        name: card.name.clone(),
        scope: Scope::Gpu,
        energy_source: if has_counter { EnergySource::Counter } else { EnergySource::Power },
        counter_modulus_uj: if has_counter { modulus_uj(card) } else { None },
        counter_step_uj: None,
        power_limit_w: card.power_limit_w(),
        memory_bytes: card.memory_bytes,
    }
}

impl SysfsSource {
    /// The counter and the driver's timestamp.
    fn counter(&self) -> Result<(u64, Option<i64>, Option<f64>), ReadError> {
        let [Device { id, .. }] = &self.devices;
        let unread = |problem: &str| {
            if self.card.is_present() {
                ReadError::Transient(format!("metrics of {id}: {problem}"))
            } else {
                ReadError::Gone(format!("{id}: its files are gone"))
            }
        };
        if self.via == Via::HwmonEnergy {
            return self.card.hwmon_energy_uj().map(|uj| (uj, None, None)).ok_or_else(|| unread("no energy1_input"));
        }
        let metrics = match self.card.metrics() {
            Some(Ok(metrics)) => metrics,
            // ENODEV: the driver was unbound, or the card fell off the bus.
            Some(Err(MetricsFailure::Io(e))) if e.raw_os_error() == Some(libc::ENODEV) => {
                return Err(ReadError::Gone(format!("{id}: {e}")));
            }
            Some(Err(failure)) => return Err(unread(&failure.to_string())),
            None => return Err(unread("gpu_metrics is not open")),
        };
        let counts = metrics.energy_counts.ok_or_else(|| unread("the energy accumulator is not there"))?;
        let uj = counts_to_uj(counts).ok_or_else(|| unread("the energy accumulator is beyond 2^64 uJ"))?;
        Ok((uj, metrics.timestamp_ns, metrics.power_w))
    }
}

impl CounterSource for SysfsSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let [Device { id, .. }] = &self.devices;
        if index != 0 {
            return Err(ReadError::Fatal(format!(
                "device index {index} does not exist; the source of {id} has one device"
            )));
        }
        if self.via == Via::HwmonPower {
            return match self.card.power_w() {
                Some(power_w) => Ok(Reading { power_w: Some(power_w), ..Reading::default() }),
                None if self.card.is_present() => Err(ReadError::Transient(format!("{id} tells no power"))),
                None => Err(ReadError::Gone(format!("{id}: its files are gone"))),
            };
        }
        let (uj, t_device_ns, metrics_power_w) = self.counter()?;
        let mut reading = Reading { energy_counter_uj: Some(uj), t_device_ns, power_w: None };
        if self.last_counter_uj.replace(uj) != Some(uj) {
            // In the snapshot it costs nothing; the hwmon file is another question to the driver.
            reading.power_w = metrics_power_w.or_else(|| self.card.power_w());
        }
        Ok(reading)
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        (index == 0).then(|| self.card.telemetry())
    }
}
