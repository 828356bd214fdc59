//! One row of the `phases` table in memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::{EnergySource, Method, Phase};

/// What one phase of one run cost, and on what it ran. Optional facts are `None` where the source does not say;
/// nothing is imputed here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Where the row stands in its file, from 1 (the header is not counted): what messages name.
    pub line: usize,
    /// Identifier of the run.
    pub run_id: String,
    /// What the energy covers.
    pub phase: Phase,
    /// Model name.
    pub model: String,
    /// Architecture label as given.
    pub architecture: Option<String>,
    /// Inference engine.
    pub engine: Option<String>,
    /// Numeric format of the weights.
    pub precision: Option<String>,
    /// GPU model name.
    pub gpu_model: String,
    /// GPUs of the run.
    pub num_gpus: u32,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Pipeline-parallel degree.
    pub pipeline_parallel: u32,
    /// Data-parallel degree.
    pub data_parallel: u32,
    /// Expert-parallel degree.
    pub expert_parallel: u32,
    /// Sequences in flight over all replicas.
    pub batch_size: f64,
    /// Input tokens per sequence; the law needs them.
    pub input_tokens: Option<f64>,
    /// Output tokens per sequence.
    pub output_tokens: f64,
    /// Energy of one batch, all GPUs, J. `None` in configurations that are to be predicted.
    pub energy_j: Option<f64>,
    /// Standard uncertainty of `energy_j`, J.
    pub energy_j_std: Option<f64>,
    /// Duration of one batch of the phase, s.
    pub duration_s: Option<f64>,
    /// Mean time to first token, s.
    pub mean_ttft_s: Option<f64>,
    /// Mean time per output token after the first, s.
    pub mean_tpot_s: Option<f64>,
    /// Tokens that the KV cache of one replica holds.
    pub kv_capacity_tokens: Option<f64>,
    /// All parameters.
    pub params: Option<f64>,
    /// Parameters that take part in one token.
    pub active_params: Option<f64>,
    /// Layers.
    pub n_layers: Option<f64>,
    /// Width of the residual stream.
    pub hidden_size: Option<f64>,
    /// KV-cache bytes of one token.
    pub kv_bytes_per_token: Option<f64>,
    /// Routed experts per MoE layer.
    pub num_experts: Option<f64>,
    /// Routed experts that one token visits.
    pub experts_per_token: Option<f64>,
    /// Bytes of one weight.
    pub bytes_per_weight: Option<f64>,
    /// Memory of one GPU, bytes.
    pub gpu_memory_bytes: Option<f64>,
    /// Reasons to doubt the row; empty is good.
    pub quality: Vec<String>,
    /// Where the energy comes from.
    pub source: EnergySource,
    /// How a decode's energy was found.
    #[serde(default)]
    pub method: Option<Method>,
    /// Mean power in the run's idle phase, all GPUs, W.
    #[serde(default)]
    pub idle_power_w: Option<f64>,
}

impl Row {
    /// One sequence on one GPU, imported, of which nothing else is known: what sources fill in as far as they can.
    pub fn new(model: &str, gpu_model: &str) -> Self {
        Self {
            line: 1,
            run_id: String::new(),
            phase: Phase::Total,
            model: model.to_owned(),
            architecture: None,
            engine: None,
            precision: None,
            gpu_model: gpu_model.to_owned(),
            num_gpus: 1,
            tensor_parallel: 1,
            pipeline_parallel: 1,
            data_parallel: 1,
            expert_parallel: 1,
            batch_size: 1.0,
            input_tokens: None,
            output_tokens: 1.0,
            energy_j: None,
            energy_j_std: None,
            duration_s: None,
            mean_ttft_s: None,
            mean_tpot_s: None,
            kv_capacity_tokens: None,
            params: None,
            active_params: None,
            n_layers: None,
            hidden_size: None,
            kv_bytes_per_token: None,
            num_experts: None,
            experts_per_token: None,
            bytes_per_weight: None,
            gpu_memory_bytes: None,
            quality: Vec::new(),
            source: EnergySource::Imported,
            method: None,
            idle_power_w: None,
        }
    }

    /// What is asked, apart from how it is deployed and which part of it the row covers.
    ///
    /// Rows of one key are split between training and held-out rows together, never apart.
    pub fn workload_key(&self) -> String {
        let input = self.input_tokens.unwrap_or(f64::NAN);
        format!("{}|{}|{input}|{}", self.scenario_key(), self.batch_size, self.output_tokens)
    }

    /// Model, hardware, engine and precision: one law per scenario unless models are pooled.
    pub fn scenario_key(&self) -> String {
        format!("{} / {}", self.model, self.platform_key())
    }

    /// Hardware, engine and precision: one law per platform when models are pooled.
    pub fn platform_key(&self) -> String {
        let or = |s: &Option<String>| s.clone().unwrap_or_else(|| "-".to_owned());
        format!("{} / {} / {}", self.gpu_model, or(&self.engine), or(&self.precision))
    }
}

/// Rows that may be used, and what was refused on the way, so that nothing disappears quietly.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// Good rows, in file order.
    pub rows: Vec<Row>,
    /// Rows that were refused, each with its reason.
    pub rejected: Vec<RejectedRow>,
    /// What a reader should know of the file as a whole: separators guessed, columns ignored, facts the source lacks.
    pub notes: Vec<String>,
}

/// A row that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedRow {
    /// Where it stands in its file, from 1.
    pub line: usize,
    /// Column at fault, where there is one.
    pub column: Option<String>,
    /// What was expected, what was found, and the likely fix.
    pub reason: String,
}

impl fmt::Display for RejectedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "row {}, column {column}: {}", self.line, self.reason),
            None => write!(f, "row {}: {}", self.line, self.reason),
        }
    }
}
