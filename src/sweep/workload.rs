//! What a run runs on. Today: the simulated node; real servers come beside it.

mod spec;

pub use self::spec::{CommandSpec, ScriptSpec, ServerSpec, WorkloadSpec};
use super::{Error, Plan, Point};
use crate::card::GpuCard;
use crate::schema::Origin;
use crate::source::sim::{BatchRequest, SimNode, SimOptions};

/// A running workload.
#[derive(Debug)]
pub enum Workload {
    /// The built-in simulated node.
    Simulated(SimulatedWorkload),
}

/// The simulated node as a workload.
#[derive(Debug)]
pub struct SimulatedWorkload {
    node: SimNode,
}

/// Servers that are up for a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployed {
    /// Devices whose energy belongs to the runs.
    pub devices: Vec<String>,
    /// Tokens that the KV cache of one replica holds.
    pub kv_capacity_tokens: Option<f64>,
}

/// One batch that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// From sending the requests to the last token, s.
    pub duration_s: f64,
    /// Mean time from request to first output token, s.
    pub mean_ttft_s: f64,
    /// Mean time per output token after the first, s.
    pub mean_tpot_s: Option<f64>,
}

impl Workload {
    /// Starts what the plan asks for; simulated time begins at `t_start_mono_ns`.
    ///
    /// A resumed sweep passes an instant behind the recording so far, and how many runs it has behind it, so that the
    /// noise goes on instead of starting over.
    pub fn start(plan: &Plan, finished_runs: usize, t_start_mono_ns: i64) -> Result<Self, Error> {
        match &plan.workload {
            WorkloadSpec::Simulated { gpus, run_noise } => {
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
                let node_gpus: Vec<(GpuCard, usize)> = cards.into_iter().map(|c| (c, *gpus as usize)).collect();
                let seed = plan.seed.wrapping_add((finished_runs as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let options = SimOptions { seed, t_start_mono_ns, run_noise: *run_noise, ..SimOptions::default() };
                Ok(Self::Simulated(SimulatedWorkload { node: SimNode::new(&node_gpus, options) }))
            }
            other => Err(Error::Workload(format!("{} cannot be run yet", other.engine()))),
        }
    }

    /// The simulated node, for whoever reads its counters.
    pub fn sim_node(&self) -> Option<&SimNode> {
        match self {
            Self::Simulated(simulated) => Some(&simulated.node),
        }
    }

    /// What the `source` column of runs and marks says.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Simulated(_) => Origin::Simulated,
        }
    }

    /// The present instant on the workload's time, `t_mono_ns`.
    pub fn now(&self) -> i64 {
        match self {
            Self::Simulated(simulated) => simulated.node.now(),
        }
    }

    /// Starts what `point` needs; a failure is an outcome of the run, in words.
    pub(super) fn deploy(&mut self, point: &Point) -> Result<Deployed, String> {
        match self {
            Self::Simulated(simulated) => {
                let up = simulated.node.deploy(&request(point, point.output_tokens)).map_err(|e| e.to_string())?;
                Ok(Deployed { devices: up.devices, kv_capacity_tokens: up.kv_capacity_tokens })
            }
        }
    }

    /// Lets everything idle.
    pub(super) fn idle(&mut self, duration_s: f64) {
        match self {
            Self::Simulated(simulated) => simulated.node.idle(duration_s),
        }
    }

    /// Runs one batch of the point with so many output tokens.
    pub(super) fn batch(&mut self, point: &Point, output_tokens: u32) -> Result<Batch, String> {
        match self {
            Self::Simulated(simulated) => {
                let done = simulated.node.execute(&request(point, output_tokens)).map_err(|e| e.to_string())?;
                Ok(Batch {
                    duration_s: crate::units::ns_to_s(done.t_end_mono_ns - done.t_begin_mono_ns),
                    mean_ttft_s: done.mean_ttft_s,
                    mean_tpot_s: done.mean_tpot_s,
                })
            }
        }
    }

    /// Between two runs: whatever nobody will ask for again may go.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Simulated(simulated) => simulated.node.forget(),
        }
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
