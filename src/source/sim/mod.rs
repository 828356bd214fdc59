//! A node of GPUs that serves language models, in virtual time: the place to try the whole path without hardware.
//!
//! Start at [`SimNode`]: [`execute`](SimNode::execute) lays what a batch does to every GPU on the node's timeline, and a
//! [`source`](SimNode::source) then polls through that timeline on a clock of its own. `physics` says how long a
//! forward pass takes and what it draws, `engine` what a batch makes of passes, `counter` what of it is seen.
//!
//! It is physics with hand-set constants, not any law that is fitted to it; it knows the true joules, and
//! [`true_energy_j`](SimNode::true_energy_j) is for tests and for a demo's last line. Limits: one node, bf16 arithmetic
//! (narrower weights save bytes, not FLOPs), temperature in steady state, no clock ramps, equal requests.
//!
//! ```
//! use energylens::card::{Architecture, GpuCard, ModelCard, Vendor};
//! use energylens::source::sim::{BatchRequest, SimNode, SimOptions};
//!
//! let gpu = GpuCard {
//!     gpu_model: "A100-SXM4-80GB".to_owned(),
//!     vendor: Vendor::Nvidia,
//!     memory_bytes: 80e9,
//!     peak_flops: 312e12,
//!     memory_bandwidth_bytes_per_s: 2.039e12,
//!     link_bandwidth_bytes_per_s: 300e9,
//!     power_limit_w: 400.0,
//!     idle_power_w: 60.0,
//! };
//! let model = ModelCard {
//!     model: "meta-llama/Llama-2-7b-hf".to_owned(),
//!     architecture: Architecture::Dense,
//!     params: 6.74e9,
//!     active_params: 6.74e9,
//!     n_layers: 32.0,
//!     hidden_size: 4096.0,
//!     kv_bytes_per_token: 524_288.0,
//!     num_experts: 0.0,
//!     experts_per_token: 0.0,
//!     bytes_per_weight: 2.0,
//!     ssm_share: 0.0,
//! };
//! let node = SimNode::new(&[(gpu, 2)], SimOptions::default());
//! let batch = node.execute(&BatchRequest {
//!     model,
//!     gpu_model: "A100-SXM4-80GB".to_owned(),
//!     tensor_parallel: 2,
//!     pipeline_parallel: 1,
//!     data_parallel: 1,
//!     batch_size: 8,
//!     input_tokens: 512,
//!     output_tokens: 64,
//! })?;
//! let joules = node.true_energy_j(&batch.devices[0], batch.t_begin_mono_ns, batch.t_end_mono_ns);
//! assert!(joules.is_some_and(|j| j > 50.0));
//! # Ok::<(), energylens::source::sim::SimError>(())
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::card::GpuCard;
use crate::clock::{Clock, SimClock};
use crate::schema::EnergySource;
use crate::source::{Device, Scope};
use crate::units::{NS_PER_MS, s_to_ns};

mod counter;
mod engine;
mod hardware;
mod live;
mod physics;
mod request;
#[cfg(test)]
mod tests;
mod timeline;

pub use counter::{Fault, SimSource};
pub use live::{LiveSource, live_sources};
pub use request::{BatchOutcome, BatchRequest, Deployment, SimError};

use counter::{ActiveFault, Schedule};
use engine::{Replica, Share};
use hardware::Hardware;
use physics::Shard;
use timeline::Timeline;

/// Within a run the power of each stretch deviates by this relative standard deviation.
const RIPPLE: f64 = 0.01;

/// How a node starts.
#[derive(Debug, Clone, PartialEq)]
pub struct SimOptions {
    /// Seed of all noise, refresh phases and counter offsets.
    pub seed: u64,
    /// Instant at which the node's timeline begins.
    pub t_start_mono_ns: i64,
    /// Relative standard deviation of a run's energy from deployment to deployment; half of its variance is in the
    /// power, half in the time.
    pub run_noise: f64,
    /// Nominal refresh period of every counter, ns, up to 100 ms; each card's own where `None`.
    pub refresh_ns: Option<i64>,
    /// Faults by device index; several may strike one device.
    pub faults: Vec<(usize, Fault)>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { seed: 0, t_start_mono_ns: 0, run_noise: 0.02, refresh_ns: None, faults: Vec::new() }
    }
}

/// One simulated GPU: its constants, its past and what ails its counter.
#[derive(Debug)]
struct GpuState {
    id: String,
    hardware: Arc<Hardware>,
    timeline: Timeline,
    schedule: Schedule,
    /// What the counter had counted before the node's timeline began, J.
    counter_offset_j: f64,
    faults: Vec<ActiveFault>,
}

impl GpuState {
    /// Idles until `t_ns` and lets the faults on the way take note of the energy at which they strike.
    fn idle_until(&mut self, t_ns: i64) {
        self.timeline.extend(t_ns, self.hardware.card.idle_power_w);
        for fault in &mut self.faults {
            fault.observe(&self.schedule, |t| self.timeline.energy_j(t));
        }
    }
}

/// The running deployment: its noise stays while it serves.
#[derive(Debug)]
struct Running {
    key: String,
    gpus: Vec<usize>,
    time_factor: f64,
    power_factor: f64,
}

#[derive(Debug)]
struct NodeState {
    t_start_ns: i64,
    now_ns: i64,
    run_noise: f64,
    rng: ChaCha8Rng,
    gpus: Vec<GpuState>,
    running: Option<Running>,
    readers: Vec<Weak<SimClock>>,
}

/// A handle on one simulated node; clones share it.
#[derive(Debug, Clone)]
pub struct SimNode {
    state: Arc<Mutex<NodeState>>,
}

impl SimNode {
    /// A node with so many GPUs of each card, `sim:0` onwards in the order given, idle since
    /// [`t_start_mono_ns`](SimOptions::t_start_mono_ns).
    pub fn new(gpus: &[(GpuCard, usize)], options: SimOptions) -> Self {
        let t_start_ns = options.t_start_mono_ns;
        // Readers remember no more than a few periods of 100 ms.
        let refresh_ns = options.refresh_ns.map(|ns| ns.clamp(10_000, 100 * NS_PER_MS));
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let mut states = Vec::new();
        for (card, count) in gpus {
            let hardware = Arc::new(Hardware::of(card));
            for _ in 0..*count {
                let index = states.len();
                let schedule = Schedule::new(t_start_ns, refresh_ns.unwrap_or(hardware.refresh_ns), rng.random());
                // Drivers count since they were loaded, minutes to weeks ago: 10 kJ to 1 GJ.
                let counter_offset_j = 10_f64.powf(4.0 + 5.0 * rng.random::<f64>());
                let ailing = options.faults.iter().filter(|(device, _)| *device == index);
                states.push(GpuState {
                    id: format!("sim:{index}"),
                    hardware: Arc::clone(&hardware),
                    timeline: Timeline::starting_at(t_start_ns),
                    schedule,
                    counter_offset_j,
                    faults: ailing.map(|(_, fault)| ActiveFault::new(*fault)).collect(),
                });
            }
        }
        let run_noise = if options.run_noise.is_finite() { options.run_noise.clamp(0.0, 0.5) } else { 0.0 };
        let state = NodeState {
            t_start_ns,
            now_ns: t_start_ns,
            run_noise,
            rng,
            gpus: states,
            running: None,
            readers: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, NodeState> {
        // Every change below leaves the state valid at each step, so another thread's panic does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// End of the timeline laid so far, `t_mono_ns`.
    pub fn now(&self) -> i64 {
        self.state().now_ns
    }

    /// Lets the whole node idle; negative and non-finite durations are none.
    pub fn idle(&self, duration_s: f64) {
        if duration_s > 0.0 && duration_s.is_finite() {
            let mut state = self.state();
            let t_ns = state.now_ns.saturating_add(s_to_ns(duration_s));
            state.idle_until(t_ns);
        }
    }

    /// Starts the servers that `request` needs in place of those that ran, and draws the noise that they will have.
    /// Takes no virtual time; lay out an [`idle`](Self::idle) for loading.
    pub fn deploy(&self, request: &BatchRequest) -> Result<Deployment, SimError> {
        self.state().deploy(request)
    }

    /// Serves one batch, deploying first if another model or layout is running. GPUs that take no part idle.
    pub fn execute(&self, request: &BatchRequest) -> Result<BatchOutcome, SimError> {
        self.state().execute(request)
    }

    /// Joules that `device` truly took between two instants; `None` for unknown devices and for instants that are
    /// forgotten or not yet laid out. Only tests and the last line of a demo may look at it.
    pub fn true_energy_j(&self, device: &str, from_ns: i64, to_ns: i64) -> Option<f64> {
        let state = self.state();
        let gpu = state.gpus.iter().find(|gpu| gpu.id == device)?;
        Some(gpu.timeline.energy_j(to_ns)? - gpu.timeline.energy_j(from_ns)?)
    }

    /// What the counters show at `clock.now()`. The timeline is kept for as long as the source lives and lags; see
    /// [`forget`](Self::forget).
    pub fn source(&self, clock: SimClock) -> SimSource {
        let clock = Arc::new(clock);
        let mut state = self.state();
        state.readers.push(Arc::downgrade(&clock));
        let devices = state.gpus.iter().map(device_of).collect();
        drop(state);
        SimSource::new(self.clone(), clock, devices)
    }

    /// Drops the timeline that every living source has passed, so that memory stays flat over a long sweep. Ask for
    /// [`true_energy_j`](Self::true_energy_j) before.
    pub fn forget(&self) {
        let mut state = self.state();
        state.readers.retain(|reader| reader.strong_count() > 0);
        let slowest = state.readers.iter().filter_map(Weak::upgrade).map(|clock| clock.now()).min().unwrap_or(i64::MAX);
        let t_ns = slowest.min(state.now_ns).saturating_sub(counter::HISTORY_NS);
        for gpu in &mut state.gpus {
            gpu.timeline.forget_before(t_ns);
        }
    }

    /// Stretches of constant power that the node remembers, over all GPUs: what [`forget`](Self::forget) bounds.
    pub fn remembered_stretches(&self) -> usize {
        self.state().gpus.iter().map(|gpu| gpu.timeline.len()).sum()
    }
}

fn device_of(gpu: &GpuState) -> Device {
    let card = &gpu.hardware.card;
    let modulus = gpu.faults.iter().find_map(|active| match active.fault {
        Fault::Wrap { modulus_uj } => Some(modulus_uj),
        _ => None,
    });
    Device {
        id: gpu.id.clone(),
        name: card.gpu_model.clone(),
        scope: Scope::Gpu,
        energy_source: EnergySource::Simulated,
        counter_modulus_uj: modulus,
        counter_step_uj: None,
        power_limit_w: Some(card.power_limit_w),
        memory_bytes: Some(card.memory_bytes as u64),
    }
}

impl NodeState {
    fn idle_until(&mut self, t_ns: i64) {
        self.now_ns = self.now_ns.max(t_ns);
        for gpu in &mut self.gpus {
            gpu.idle_until(self.now_ns);
        }
    }

    /// A normal deviate. Kept within four standard deviations: a run may be odd, not absurd.
    fn deviate(&mut self) -> f64 {
        Normal::standard().inverse_cdf(self.rng.random::<f64>()).clamp(-4.0, 4.0)
    }

    fn deploy(&mut self, request: &BatchRequest) -> Result<Deployment, SimError> {
        request.check()?;
        let needed = request.num_gpus();
        let alike: Vec<usize> = (0..self.gpus.len())
            .filter(|&i| self.gpus[i].hardware.card.gpu_model.eq_ignore_ascii_case(&request.gpu_model))
            .collect();
        if needed > alike.len() as u64 {
            return Err(SimError::NotEnoughGpus {
                gpu_model: request.gpu_model.clone(),
                needed,
                available: alike.len() as u64,
            });
        }
        let gpus: Vec<usize> = alike.into_iter().take(needed as usize).collect();
        let hardware = Arc::clone(&self.gpus[gpus[0]].hardware);
        request::check_card(&hardware.card)?;
        let replica = replica(&hardware, request, 1.0, 1.0);
        let kv_capacity_tokens = request::kv_capacity_tokens(&replica, request)?;

        let sigma = self.run_noise / 2_f64.sqrt();
        let time_factor = (sigma * self.deviate()).exp();
        let power_factor = (sigma * self.deviate()).exp();
        let devices = gpus.iter().map(|&i| self.gpus[i].id.clone()).collect();
        self.running = Some(Running { key: request.deployment_key(), gpus, time_factor, power_factor });
        Ok(Deployment { devices, kv_capacity_tokens })
    }

    fn execute(&mut self, request: &BatchRequest) -> Result<BatchOutcome, SimError> {
        request.check()?;
        if self.running.as_ref().is_none_or(|running| running.key != request.deployment_key()) {
            self.deploy(request)?;
        }
        let Some(running) = self.running.take() else {
            return Err(SimError::NothingDeployed);
        };
        let outcome = self.serve(request, &running);
        self.running = Some(running);
        outcome
    }

    fn serve(&mut self, request: &BatchRequest, running: &Running) -> Result<BatchOutcome, SimError> {
        let hardware = Arc::clone(&self.gpus[running.gpus[0]].hardware);
        let replica = replica(&hardware, request, running.time_factor, running.power_factor);
        let kv_capacity_tokens = request::kv_capacity_tokens(&replica, request)?;
        let t_begin_ns = self.now_ns;
        let mut t_end_ns = t_begin_ns;
        let mut t_first_ns = t_begin_ns;
        let (mut ttft_s, mut tpot_s) = (0.0, Some(0.0));
        let batch = f64::from(request.batch_size);
        let per_replica = (request.tensor_parallel * request.pipeline_parallel) as usize;

        for (number, gpus) in running.gpus.chunks(per_replica).enumerate() {
            let sequences = request.sequences_of_replica(number as u32);
            if sequences == 0 {
                continue;
            }
            let share = Share {
                sequences: f64::from(sequences),
                input_tokens: f64::from(request.input_tokens),
                output_tokens: f64::from(request.output_tokens),
            };
            let run = replica.serve(share, || RIPPLE * self.deviate());
            let mut t_ns = t_begin_ns;
            for stretch in &run.stretches {
                t_ns = t_ns.saturating_add(s_to_ns(stretch.duration_s));
                for &i in gpus {
                    self.gpus[i].timeline.extend(t_ns, stretch.power_w);
                }
            }
            t_end_ns = t_end_ns.max(t_ns);
            t_first_ns = t_first_ns.max(t_begin_ns.saturating_add(s_to_ns(run.first_token_s)));
            let weight = share.sequences / batch;
            ttft_s += weight * run.mean_ttft_s;
            tpot_s = tpot_s.zip(run.mean_tpot_s).map(|(sum, tpot)| sum + weight * tpot);
        }
        // A replica that finishes first waits with its clocks up; everybody else idles.
        let waiting_w = physics::waiting_power_w(&hardware, running.power_factor);
        for &i in &running.gpus {
            self.gpus[i].timeline.extend(t_end_ns, waiting_w);
        }
        self.idle_until(t_end_ns);
        Ok(BatchOutcome {
            t_begin_mono_ns: t_begin_ns,
            t_first_token_mono_ns: t_first_ns,
            t_end_mono_ns: t_end_ns,
            mean_ttft_s: ttft_s,
            mean_tpot_s: tpot_s,
            kv_capacity_tokens,
            devices: running.gpus.iter().map(|&i| self.gpus[i].id.clone()).collect(),
        })
    }
}

fn replica<'a>(gpu: &'a Hardware, request: &'a BatchRequest, time_factor: f64, power_factor: f64) -> Replica<'a> {
    let shard = Shard {
        tensor_parallel: f64::from(request.tensor_parallel),
        pipeline_parallel: f64::from(request.pipeline_parallel),
    };
    Replica { gpu, model: &request.model, shard, time_factor, power_factor }
}
