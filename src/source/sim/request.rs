//! What may be asked of the node, what comes back, and what it refuses.

use super::engine::{Replica, Share};
use crate::card::{GpuCard, ModelCard};
use crate::units::BYTES_PER_GIB;

/// One batch of equal requests, all sent at once, and the deployment that shall serve it.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRequest {
    /// Model.
    pub model: ModelCard,
    /// GPUs to use, by the `gpu_model` of their card.
    pub gpu_model: String,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Replicas that share the batch.
    pub data_parallel: u32,
    /// Sequences over all replicas.
    pub batch_size: u32,
    /// Input tokens per sequence, vision tokens included.
    pub input_tokens: u32,
    /// Output tokens per sequence; 1 is prefill only.
    pub output_tokens: u32,
}

/// Servers that are up.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Identifiers of the GPUs that they hold.
    pub devices: Vec<String>,
    /// Tokens that the KV cache of one replica holds; `None` when the model keeps none.
    pub kv_capacity_tokens: Option<f64>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOutcome {
    /// The requests were sent.
    pub t_begin_mono_ns: i64,
    /// Every sequence that found room at once had its first token, on the slowest replica.
    pub t_first_token_mono_ns: i64,
    /// The last token of the slowest replica.
    pub t_end_mono_ns: i64,
    /// Mean time from request to first token, queueing included.
    pub mean_ttft_s: f64,
    /// Mean time per output token after the first; `None` when there is only one.
    pub mean_tpot_s: Option<f64>,
    /// Tokens that the KV cache of one replica holds; `None` when the model keeps none.
    pub kv_capacity_tokens: Option<f64>,
    /// Identifiers of the GPUs that served.
    pub devices: Vec<String>,
}

/// Why the node refuses a deployment or a batch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimError {
    /// Weights and one sequence exceed the memory of a replica.
    #[error(
        "{model} needs {:.1} GiB on each replica for its weights and one sequence; {:.1} GiB are available \
         (tensor_parallel {tensor_parallel} x pipeline_parallel {pipeline_parallel})",
        needed_bytes / BYTES_PER_GIB, available_bytes / BYTES_PER_GIB
    )]
    OutOfMemory {
        /// Model that does not fit.
        model: String,
        /// Bytes of weights and of one whole sequence.
        needed_bytes: f64,
        /// Bytes that the engine may use.
        available_bytes: f64,
        /// Tensor-parallel degree asked for.
        tensor_parallel: u32,
        /// Pipeline-parallel degree asked for.
        pipeline_parallel: u32,
    },
    /// The node has too few GPUs of the model asked for.
    #[error("{needed} GPUs of model {gpu_model} are needed; the simulated node has {available}")]
    NotEnoughGpus {
        /// GPU model asked for.
        gpu_model: String,
        /// How many the deployment takes.
        needed: u64,
        /// How many there are.
        available: u64,
    },
    /// The model cannot be cut that way.
    #[error("{what} {found} cannot be used: expected {expected}")]
    InvalidParallelism {
        /// Which degree.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What it must satisfy.
        expected: String,
    },
    /// A number of the request or of a card that no server accepts.
    #[error("{what} is {found}: expected {expected}")]
    InvalidRequest {
        /// Which number.
        what: &'static str,
        /// Its value.
        found: f64,
        /// What it must satisfy.
        expected: &'static str,
    },
    /// No deployment is running.
    #[error("no deployment is running: expected one to be started by the request")]
    NothingDeployed,
}

fn check(what: &'static str, found: f64, good: bool, expected: &'static str) -> Result<(), SimError> {
    if good && found.is_finite() { Ok(()) } else { Err(SimError::InvalidRequest { what, found, expected }) }
}

impl BatchRequest {
    /// GPUs of the deployment.
    pub fn num_gpus(&self) -> u64 {
        // Three u32 fit into u128 but not always into u64; saturation is as far beyond any node.
        u64::from(self.tensor_parallel)
            .saturating_mul(u64::from(self.pipeline_parallel))
            .saturating_mul(u64::from(self.data_parallel))
    }

    /// What must be equal for a running server to take the batch.
    pub(super) fn deployment_key(&self) -> String {
        format!(
            "{}|{}|{}|{}|{}|{}|{}",
            self.model.model,
            self.model.bytes_per_weight,
            self.model.params,
            self.gpu_model,
            self.tensor_parallel,
            self.pipeline_parallel,
            self.data_parallel
        )
    }

    /// Sequences of the replica with that number: the batch is dealt out evenly, the first replicas take the rest.
    pub(super) fn sequences_of_replica(&self, number: u32) -> u32 {
        let replicas = self.data_parallel.max(1);
        self.batch_size / replicas + u32::from(number < self.batch_size % replicas)
    }

    pub(super) fn check(&self) -> Result<(), SimError> {
        let model = &self.model;
        let positive = |what, x: f64| check(what, x, x > 0.0, "a positive number");
        positive("batch_size", f64::from(self.batch_size))?;
        positive("input_tokens", f64::from(self.input_tokens))?;
        positive("output_tokens", f64::from(self.output_tokens))?;
        positive("params", model.params)?;
        positive("active_params", model.active_params)?;
        check("active_params", model.active_params, model.active_params <= model.params, "at most params")?;
        positive("bytes_per_weight", model.bytes_per_weight)?;
        check("n_layers", model.n_layers, model.n_layers >= 1.0, "at least 1")?;
        check("hidden_size", model.hidden_size, model.hidden_size >= 1.0, "at least 1")?;
        let kv = model.kv_bytes_per_token;
        check("kv_bytes_per_token", kv, kv >= 0.0, "0 or a positive number")?;
        check("ssm_share", model.ssm_share, (0.0..=1.0).contains(&model.ssm_share), "a share in [0, 1]")?;
        check("num_experts", model.num_experts, model.num_experts >= 0.0, "0 or a positive number")?;
        let visited = model.experts_per_token;
        check("experts_per_token", visited, (0.0..=model.num_experts).contains(&visited), "at most num_experts")?;
        self.check_parallelism()
    }

    fn check_parallelism(&self) -> Result<(), SimError> {
        let (t, p, d) = (self.tensor_parallel, self.pipeline_parallel, self.data_parallel);
        let refuse = |what, found, expected| Err(SimError::InvalidParallelism { what, found, expected });
        for (what, degree) in [("tensor_parallel", t), ("pipeline_parallel", p), ("data_parallel", d)] {
            if degree == 0 {
                return refuse(what, 0, "at least 1".to_owned());
            }
        }
        if self.model.hidden_size % f64::from(t) != 0.0 {
            return refuse("tensor_parallel", t, format!("a divisor of hidden_size {}", self.model.hidden_size));
        }
        if f64::from(p) > self.model.n_layers {
            return refuse("pipeline_parallel", p, format!("at most n_layers {}", self.model.n_layers));
        }
        Ok(())
    }
}

/// Refuses GPU cards whose numbers would make time or power meaningless.
pub(super) fn check_card(card: &GpuCard) -> Result<(), SimError> {
    for (what, x) in [
        ("memory_bytes", card.memory_bytes),
        ("peak_flops", card.peak_flops),
        ("memory_bandwidth_bytes_per_s", card.memory_bandwidth_bytes_per_s),
        ("link_bandwidth_bytes_per_s", card.link_bandwidth_bytes_per_s),
        ("idle_power_w", card.idle_power_w),
        ("power_limit_w", card.power_limit_w),
    ] {
        check(what, x, x > 0.0, "a positive number")?;
    }
    let ceiling_w = 0.8 * card.power_limit_w;
    check("idle_power_w", card.idle_power_w, card.idle_power_w < ceiling_w, "less than 80 % of power_limit_w")
}

/// Tokens that the KV cache of one replica holds, or why the request does not fit it.
pub(super) fn kv_capacity_tokens(replica: &Replica<'_>, request: &BatchRequest) -> Result<Option<f64>, SimError> {
    let share = Share {
        sequences: 1.0,
        input_tokens: f64::from(request.input_tokens),
        output_tokens: f64::from(request.output_tokens),
    };
    let space = replica.cache_space(share);
    if space.free_bytes < space.bytes_per_sequence {
        return Err(SimError::OutOfMemory {
            model: request.model.model.clone(),
            needed_bytes: request.model.weight_bytes() + space.bytes_per_sequence,
            available_bytes: replica.available_bytes(),
            tensor_parallel: request.tensor_parallel,
            pipeline_parallel: request.pipeline_parallel,
        });
    }
    let per_token = request.model.kv_bytes_per_token;
    Ok((per_token > 0.0).then(|| (space.free_bytes / per_token).floor()))
}
