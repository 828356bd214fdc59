//! A GPU at 300 W whose counter never surprises, for tests and benches of what recording costs.

use std::sync::Arc;

use energylens::clock::Clock;
use energylens::schema::EnergySource;
use energylens::source::{CounterSource, Device, ReadError, Reading, Scope};

struct Steady {
    device: Device,
    clock: Arc<dyn Clock>,
    refresh_ns: i64,
}

impl CounterSource for Steady {
    fn devices(&self) -> &[Device] {
        std::slice::from_ref(&self.device)
    }

    fn read(&mut self, _: usize) -> Result<Reading, ReadError> {
        let refreshes = (self.clock.now() / self.refresh_ns).unsigned_abs();
        Ok(Reading { energy_counter_uj: Some(refreshes * 6_000_000), power_w: Some(300.0), t_device_ns: None })
    }
}

/// One source per refresh period, ms.
pub(crate) fn steady_gpus(clock: &Arc<dyn Clock>, refreshes_ms: &[i64]) -> Vec<Box<dyn CounterSource>> {
    let gpu = |(i, ms): (usize, &i64)| -> Box<dyn CounterSource> {
        let device = Device {
            id: format!("sim:{i}"),
            name: "steady".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        };
        Box::new(Steady { device, clock: clock.clone(), refresh_ns: ms * 1_000_000 })
    };
    refreshes_ms.iter().enumerate().map(gpu).collect()
}
