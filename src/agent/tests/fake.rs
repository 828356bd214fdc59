//! Counters whose every refresh is known, and the test's hand on them.

use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::MS;
use crate::clock::Clock;
use crate::schema::EnergySource;
use crate::source::{CounterSource, Device, ReadError, Reading, Scope};

/// Counters that refresh at given instants: refresh number k shows k joules.
pub(super) struct FakeSource {
    devices: Vec<Device>,
    clock: Arc<dyn Clock>,
    twin: Twin,
}

/// The test's hand on a [`FakeSource`] that the sampler owns.
#[derive(Clone, Default)]
pub(in crate::agent) struct Twin(pub(super) Arc<Mutex<Vec<FakeDevice>>>);

#[derive(Clone, Default)]
pub(in crate::agent) struct FakeDevice {
    pub(super) refreshes_ns: Vec<i64>,
    pub(super) reads: u64,
    pub(super) gone_from_ns: Option<i64>,
    pub(super) failing_ns: Option<(i64, i64)>,
    pub(super) fatal_from_ns: Option<i64>,
    pub(super) power_only: bool,
    pub(super) has_left: bool,
    pub(super) panics_after_reads: Option<u64>,
}

impl Twin {
    pub(super) fn reads(&self) -> u64 {
        self.0.lock().unwrap().iter().map(|d| d.reads).sum()
    }

    pub(super) fn refreshes(&self, device: usize) -> Vec<i64> {
        self.0.lock().unwrap()[device].refreshes_ns.clone()
    }
}

pub(in crate::agent) fn fake(clock: &Arc<dyn Clock>, devices: Vec<FakeDevice>) -> (Vec<Box<dyn CounterSource>>, Twin) {
    let twin = Twin(Arc::new(Mutex::new(devices.clone())));
    let devices = devices.iter().enumerate().map(|(i, d)| Device {
        id: format!("fake:{i}"),
        name: "fake".to_owned(),
        scope: Scope::Gpu,
        energy_source: if d.power_only { EnergySource::Power } else { EnergySource::Counter },
        counter_modulus_uj: None,
        counter_step_uj: None,
        power_limit_w: None,
        memory_bytes: None,
    });
    let source = FakeSource { devices: devices.collect(), clock: clock.clone(), twin: twin.clone() };
    (vec![Box::new(source)], twin)
}

impl CounterSource for FakeSource {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let now = self.clock.now();
        let device = &mut self.twin.0.lock().unwrap()[index];
        assert!(!device.has_left, "device {index} was read after it had left");
        device.reads += 1;
        let bug = device.panics_after_reads.is_some_and(|n| device.reads > n);
        assert!(!bug, "a bug in the wrapper, on purpose");
        if device.gone_from_ns.is_some_and(|t| now >= t) {
            device.has_left = true;
            return Err(ReadError::Gone("fell off the bus".to_owned()));
        }
        if device.fatal_from_ns.is_some_and(|t| now >= t) {
            return Err(ReadError::Fatal("driver unloaded".to_owned()));
        }
        if device.failing_ns.is_some_and(|(from, to)| (from..to).contains(&now)) {
            return Err(ReadError::Transient("busy".to_owned()));
        }
        let refreshes = device.refreshes_ns.partition_point(|t| *t <= now) as u64;
        Ok(Reading {
            energy_counter_uj: (!device.power_only).then_some(refreshes * 1_000_000),
            power_w: Some(if device.power_only { refreshes as f64 } else { 300.0 }),
            t_device_ns: None,
        })
    }
}

/// Refreshes from 0 to `until_ns`, each `period_ns` after the one before, give or take a uniform `jitter` share.
pub(super) fn refreshes(seed: u64, period_ns: i64, jitter: f64, until_ns: i64) -> Vec<i64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut t = rng.random_range(0..period_ns);
    let mut all = Vec::new();
    while t < until_ns {
        all.push(t);
        t += period_ns + (period_ns as f64 * jitter * rng.random_range(-1.0..1.0)) as i64;
    }
    all
}

pub(in crate::agent) fn counter(seed: u64, period_ms: i64, jitter: f64, until_ns: i64) -> FakeDevice {
    FakeDevice { refreshes_ns: refreshes(seed, period_ms * MS, jitter, until_ns), ..FakeDevice::default() }
}

/// Eight counters of the periods that are known of real ones.
pub(super) fn eight(until_ns: i64, jitter: f64) -> Vec<FakeDevice> {
    [20, 20, 25, 33, 50, 66, 80, 100].iter().zip(0..).map(|(p, seed)| counter(seed, *p, jitter, until_ns)).collect()
}
