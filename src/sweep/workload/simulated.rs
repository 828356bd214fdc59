//! The simulated node as a workload.

use super::{Batch, Deployed};
use crate::card::GpuCard;
use crate::source::sim::{BatchRequest, SimNode, SimOptions};
use crate::sweep::{Error, Plan, Point};

/// The simulated node as a workload.
#[derive(Debug)]
pub struct SimulatedWorkload {
    pub(super) node: SimNode,
}

impl SimulatedWorkload {
    pub(super) fn new(
        plan: &Plan,
        gpus: u32,
        run_noise: f64,
        finished_runs: usize,
        t_start_mono_ns: i64,
    ) -> Result<Self, Error> {
        let mut cards: Vec<GpuCard> = Vec::new();
        for point in &plan.points {
            match cards.iter().find(|c| c.gpu_model == point.gpu.gpu_model) {
                None => cards.push(point.gpu.clone()),
                Some(card) if *card != point.gpu => {
                    let message = format!("the plan has two different cards called `{}`", card.gpu_model);
                    return Err(Error::Workload(message));
                }
                Some(_) => {}
            }
        }
        let node_gpus: Vec<(GpuCard, usize)> = cards.into_iter().map(|c| (c, gpus as usize)).collect();
        let seed = plan.seed.wrapping_add((finished_runs as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let options = SimOptions { seed, t_start_mono_ns, run_noise, ..SimOptions::default() };
        Ok(Self { node: SimNode::new(&node_gpus, options) })
    }

    pub(super) fn deploy(&mut self, point: &Point) -> Result<Deployed, String> {
        let up = self.node.deploy(&request(point, point.output_tokens)).map_err(|e| e.to_string())?;
        Ok(Deployed { devices: up.devices, device_name: None, kv_capacity_tokens: up.kv_capacity_tokens })
    }

    pub(super) fn batch(&mut self, point: &Point, output_tokens: u32) -> Result<Batch, String> {
        let done = self.node.execute(&request(point, output_tokens)).map_err(|e| e.to_string())?;
        Ok(Batch {
            duration_s: crate::units::ns_to_s(done.t_end_mono_ns - done.t_begin_mono_ns),
            mean_ttft_s: done.mean_ttft_s,
            mean_tpot_s: done.mean_tpot_s,
        })
    }
}

fn request(point: &Point, output_tokens: u32) -> BatchRequest {
    BatchRequest {
        model: point.model.clone(),
        gpu_model: point.gpu.gpu_model.clone(),
        tensor_parallel: point.tensor_parallel,
        pipeline_parallel: point.pipeline_parallel,
        data_parallel: point.data_parallel,
        batch_size: point.batch_size,
        input_tokens: point.input_tokens,
        output_tokens,
    }
}
