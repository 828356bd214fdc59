//! Simulated GPUs in real time: something for `agent`, `doctor` and `record` to read on a machine without any counter.
//!
//! Each GPU is a node of its own that serves batches of changing size with pauses in between. The timeline is laid a
//! little ahead of the clock whenever it is read.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{BatchRequest, SimNode, SimOptions, SimSource};
use crate::card::{GpuCard, ModelCard};
use crate::clock::{Clock, SimClock};
use crate::source::{CounterSource, Device, ReadError, Reading, Telemetry};
use crate::units::{NS_PER_S, ns_to_s};

/// One of each, so that their counters refresh at different periods: 100, 50, 20 and 40 ms.
const GPU_MODELS: [&str; 4] = ["a100-80gb", "h100-80gb", "mi300x", "pvc"];
/// Fits every one of them.
const MODEL: &str = "llama-2-7b";
/// The timeline is laid so far ahead of the clock.
const AHEAD_NS: i64 = NS_PER_S as i64;
/// A clock that jumped further than this (the machine slept) finds an idle GPU.
const ASLEEP_NS: i64 = 600 * NS_PER_S as i64;

/// One simulated GPU in the time of a real clock.
pub struct LiveSource {
    node: SimNode,
    clock: Arc<dyn Clock>,
    /// Follows `clock` for the node's own source.
    reader: SimClock,
    counters: SimSource,
    device: Device,
    model: Option<ModelCard>,
    rng: ChaCha8Rng,
}

/// So many simulated GPUs, `sim:0` onwards, each with a load of its own that depends on `seed` alone.
pub fn live_sources(count: usize, seed: u64, clock: &Arc<dyn Clock>) -> Vec<LiveSource> {
    let cards: Vec<GpuCard> = GPU_MODELS.iter().filter_map(|name| GpuCard::builtin(name)).collect();
    let of = |(index, card): (usize, &GpuCard)| LiveSource::new(index, card, seed, clock);
    cards.iter().cycle().take(count).enumerate().filter_map(of).collect()
}

impl LiveSource {
    fn new(index: usize, card: &GpuCard, seed: u64, clock: &Arc<dyn Clock>) -> Option<Self> {
        let seed = seed.wrapping_add(index as u64);
        let t_start_mono_ns = clock.now();
        let options = SimOptions { seed, t_start_mono_ns, ..SimOptions::default() };
        let node = SimNode::new(&[(card.clone(), 1)], options);
        let reader = SimClock::starting_at(t_start_mono_ns);
        let counters = node.source(reader.clone());
        let device = Device { id: format!("sim:{index}"), ..counters.devices().first()?.clone() };
        let model = ModelCard::builtin(MODEL);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Some(Self { node, clock: clock.clone(), reader, counters, device, model, rng })
    }

    /// Lays the timeline until it reaches beyond `t_ns`.
    fn lay_until(&mut self, t_ns: i64) {
        if t_ns.saturating_sub(self.node.now()) > ASLEEP_NS {
            self.node.idle(ns_to_s(t_ns.saturating_sub(self.node.now())));
        }
        while self.node.now() <= t_ns {
            self.node.forget();
            self.node.idle(0.2 + 1.8 * self.rng.random::<f64>());
            let request = self.model.clone().map(|model| self.request(model));
            // A batch that the GPU refuses leaves it idle.
            let _ = request.map(|request| self.node.execute(&request));
        }
    }

    fn request(&mut self, model: ModelCard) -> BatchRequest {
        let mut power_of_two = |least: u32, most: u32| 1 << self.rng.random_range(least..=most);
        BatchRequest {
            model,
            gpu_model: self.device.name.clone(),
            tensor_parallel: 1,
            pipeline_parallel: 1,
            data_parallel: 1,
            batch_size: power_of_two(0, 6),
            input_tokens: power_of_two(7, 11),
            output_tokens: power_of_two(4, 7),
        }
    }
}

impl CounterSource for LiveSource {
    fn devices(&self) -> &[Device] {
        std::slice::from_ref(&self.device)
    }

    fn read(&mut self, index: usize) -> Result<Reading, ReadError> {
        let now_ns = self.clock.now();
        self.reader.sleep_until(now_ns);
        self.lay_until(now_ns.saturating_add(AHEAD_NS));
        self.counters.read(index)
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        (index == 0).then(|| Telemetry { power_limit_w: self.device.power_limit_w, ..Telemetry::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::EnergySource;
    use crate::units::NS_PER_MS;

    #[test]
    fn every_gpu_is_labelled_simulated_and_draws_between_idle_and_its_limit() {
        let sim = SimClock::starting_at(5_000_000_000);
        let clock: Arc<dyn Clock> = Arc::new(sim.clone());
        let mut gpus = live_sources(5, 1, &clock);
        let ids: Vec<_> = gpus.iter().map(|g| g.devices()[0].id.clone()).collect();
        assert_eq!(ids, ["sim:0", "sim:1", "sim:2", "sim:3", "sim:4"]);
        assert!(gpus.iter().all(|g| g.devices()[0].energy_source == EnergySource::Simulated));
        let first: Vec<u64> = gpus.iter_mut().map(|g| g.read(0).unwrap().energy_counter_uj.unwrap()).collect();
        let mut moved = vec![0; gpus.len()];
        let mut last = first.clone();
        for _ in 0..6_000 {
            sim.sleep_until(sim.now() + 10 * NS_PER_MS);
            for (i, gpu) in gpus.iter_mut().enumerate() {
                let now = gpu.read(0).unwrap().energy_counter_uj.unwrap();
                assert!(now >= last[i]);
                moved[i] += u32::from(now > last[i]);
                last[i] = now;
            }
        }
        for (i, gpu) in gpus.iter().enumerate() {
            let mean_w = (last[i] - first[i]) as f64 / 1e6 / 60.0;
            let limit_w = gpu.devices()[0].power_limit_w.unwrap();
            assert!(mean_w > 30.0 && mean_w <= limit_w, "{mean_w} W of {limit_w}");
            // Refresh periods of 20 to 100 ms over 60 s.
            assert!((590..=3_100).contains(&moved[i]), "{} moves", moved[i]);
        }
        assert!(gpus.iter().all(|g| g.node.remembered_stretches() < 500), "the past is forgotten");
    }

    #[test]
    fn a_machine_that_slept_finds_an_idle_gpu_at_once() {
        let sim = SimClock::starting_at(0);
        let clock: Arc<dyn Clock> = Arc::new(sim.clone());
        let mut gpu = live_sources(1, 1, &clock).remove(0);
        let before = gpu.read(0).unwrap().energy_counter_uj.unwrap();
        sim.sleep_until(36_000 * NS_PER_S as i64);
        let after = gpu.read(0).unwrap().energy_counter_uj.unwrap();
        let idle_w = GpuCard::builtin(GPU_MODELS[0]).unwrap().idle_power_w;
        let mean_w = (after - before) as f64 / 1e6 / 36_000.0;
        assert!((mean_w - idle_w).abs() < 0.02 * idle_w, "{mean_w} W against {idle_w} W");
    }
}
