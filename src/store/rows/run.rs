//! Rows of the `runs` table.

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::super::columns;
use super::super::error::{Error, Result};
use super::builder::BatchBuilder;
use super::mark::unknown;
use super::serving::Serving;
use crate::schema::{Origin, RUNS, RunStatus};

/// One run: what was asked, what came of it. Facts that nobody knows are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Identifier of the run: the point's hash and the repeat.
    pub run_id: String,
    /// Identifier of the point, shared by its repeats.
    pub point_id: String,
    /// Which repeat of the point, from 0.
    pub repeat: u32,
    /// What came of it.
    pub status: RunStatus,
    /// Why a failed run failed.
    pub error: Option<String>,
    /// Node that ran it.
    pub host: String,
    /// Whether it was simulated.
    pub source: Origin,
    /// Devices whose energy belongs to the run.
    pub devices: Vec<String>,
    /// What the driver calls these devices.
    #[serde(default)]
    pub device_name: Option<String>,
    /// Instant at which the run began.
    pub t_begin_mono_ns: i64,
    /// Instant at which the run ended.
    pub t_end_mono_ns: i64,
    /// Batches with one output token inside the prefill window.
    pub prefill_batches: u32,
    /// Decodes inside the decode window; `None` where decode was not marked on its own.
    #[serde(default)]
    pub decode_batches: Option<u32>,
    /// Whole batches inside the total window.
    pub total_batches: u32,
    /// Mean duration of one prefill-only batch.
    pub prefill_duration_s: Option<f64>,
    /// Mean duration of one whole batch.
    pub total_duration_s: Option<f64>,
    /// Mean time from request to first output token.
    pub mean_ttft_s: Option<f64>,
    /// Mean time per output token after the first.
    pub mean_tpot_s: Option<f64>,
    /// What the clients of a server had to wait.
    #[serde(default)]
    pub serving: Serving,
    /// Model name.
    pub model: String,
    /// Architecture label.
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
    /// Input tokens per sequence.
    pub input_tokens: Option<f64>,
    /// Output tokens per sequence.
    pub output_tokens: f64,
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
    /// Slurm job that the run was part of.
    #[serde(default)]
    pub job_id: Option<String>,
    /// Step of that job.
    #[serde(default)]
    pub step_id: Option<String>,
}

impl RunRow {
    /// The rows as a batch.
    pub fn batch(rows: &[Self]) -> Result<RecordBatch> {
        BatchBuilder::new(&RUNS)
            .texts("run_id", rows.iter().map(|r| Some(r.run_id.as_str())))
            .labels("point_id", rows.iter().map(|r| Some(r.point_id.as_str())))
            .u32s("repeat", rows.iter().map(|r| Some(r.repeat)))
            .labels("status", rows.iter().map(|r| Some(r.status.as_str())))
            .texts("error", rows.iter().map(|r| r.error.as_deref()))
            .labels("host", rows.iter().map(|r| Some(r.host.as_str())))
            .labels("source", rows.iter().map(|r| Some(r.source.as_str())))
            .label_lists("devices", rows.iter().map(|r| r.devices.iter().map(String::as_str)))
            .labels("device_name", rows.iter().map(|r| r.device_name.as_deref()))
            .i64s("t_begin_mono_ns", rows.iter().map(|r| Some(r.t_begin_mono_ns)))
            .i64s("t_end_mono_ns", rows.iter().map(|r| Some(r.t_end_mono_ns)))
            .u32s("prefill_batches", rows.iter().map(|r| Some(r.prefill_batches)))
            .u32s("decode_batches", rows.iter().map(|r| r.decode_batches))
            .u32s("total_batches", rows.iter().map(|r| Some(r.total_batches)))
            .f64s("prefill_duration_s", rows.iter().map(|r| r.prefill_duration_s))
            .f64s("total_duration_s", rows.iter().map(|r| r.total_duration_s))
            .f64s("mean_ttft_s", rows.iter().map(|r| r.mean_ttft_s))
            .f64s("mean_tpot_s", rows.iter().map(|r| r.mean_tpot_s))
            .labels("engine_version", rows.iter().map(|r| r.serving.engine_version.as_deref()))
            .u32s("completed_requests", rows.iter().map(|r| r.serving.completed_requests))
            .f64s("output_tokens_per_s", rows.iter().map(|r| r.serving.output_tokens_per_s))
            .f64s("p50_ttft_s", rows.iter().map(|r| r.serving.p50_ttft_s))
            .f64s("p90_ttft_s", rows.iter().map(|r| r.serving.p90_ttft_s))
            .f64s("p99_ttft_s", rows.iter().map(|r| r.serving.p99_ttft_s))
            .f64s("p50_tpot_s", rows.iter().map(|r| r.serving.p50_tpot_s))
            .f64s("p90_tpot_s", rows.iter().map(|r| r.serving.p90_tpot_s))
            .f64s("p99_tpot_s", rows.iter().map(|r| r.serving.p99_tpot_s))
            .f64s("p50_itl_s", rows.iter().map(|r| r.serving.p50_itl_s))
            .f64s("p90_itl_s", rows.iter().map(|r| r.serving.p90_itl_s))
            .f64s("p99_itl_s", rows.iter().map(|r| r.serving.p99_itl_s))
            .labels("model", rows.iter().map(|r| Some(r.model.as_str())))
            .labels("architecture", rows.iter().map(|r| r.architecture.as_deref()))
            .labels("engine", rows.iter().map(|r| r.engine.as_deref()))
            .labels("precision", rows.iter().map(|r| r.precision.as_deref()))
            .labels("gpu_model", rows.iter().map(|r| Some(r.gpu_model.as_str())))
            .u32s("num_gpus", rows.iter().map(|r| Some(r.num_gpus)))
            .u32s("tensor_parallel", rows.iter().map(|r| Some(r.tensor_parallel)))
            .u32s("pipeline_parallel", rows.iter().map(|r| Some(r.pipeline_parallel)))
            .u32s("data_parallel", rows.iter().map(|r| Some(r.data_parallel)))
            .u32s("expert_parallel", rows.iter().map(|r| Some(r.expert_parallel)))
            .f64s("batch_size", rows.iter().map(|r| Some(r.batch_size)))
            .f64s("input_tokens", rows.iter().map(|r| r.input_tokens))
            .f64s("output_tokens", rows.iter().map(|r| Some(r.output_tokens)))
            .f64s("kv_capacity_tokens", rows.iter().map(|r| r.kv_capacity_tokens))
            .f64s("params", rows.iter().map(|r| r.params))
            .f64s("active_params", rows.iter().map(|r| r.active_params))
            .f64s("n_layers", rows.iter().map(|r| r.n_layers))
            .f64s("hidden_size", rows.iter().map(|r| r.hidden_size))
            .f64s("kv_bytes_per_token", rows.iter().map(|r| r.kv_bytes_per_token))
            .f64s("num_experts", rows.iter().map(|r| r.num_experts))
            .f64s("experts_per_token", rows.iter().map(|r| r.experts_per_token))
            .f64s("bytes_per_weight", rows.iter().map(|r| r.bytes_per_weight))
            .f64s("gpu_memory_bytes", rows.iter().map(|r| r.gpu_memory_bytes))
            .labels("job_id", rows.iter().map(|r| r.job_id.as_deref()))
            .labels("step_id", rows.iter().map(|r| r.step_id.as_deref()))
            .finish()
    }

    /// The rows of a batch.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        (0..batch.num_rows()).map(|row| RowOf { row, batch: batch.slice(row, 1) }.run()).collect()
    }
}

/// One row, as a batch of one: a `runs` table has few rows and forty columns, so values are looked up by name.
struct RowOf {
    row: usize,
    batch: RecordBatch,
}

impl RowOf {
    fn run(&self) -> Result<RunRow> {
        Ok(RunRow {
            run_id: self.text("run_id")?,
            point_id: self.text("point_id")?,
            repeat: self.u32("repeat")?,
            status: self.text("status")?.parse().map_err(unknown("status"))?,
            error: self.text_opt("error")?,
            host: self.text("host")?,
            source: self.text("source")?.parse().map_err(unknown("source"))?,
            devices: self.list("devices")?,
            device_name: self.text_opt("device_name")?,
            t_begin_mono_ns: self.i64("t_begin_mono_ns")?,
            t_end_mono_ns: self.i64("t_end_mono_ns")?,
            prefill_batches: self.u32("prefill_batches")?,
            decode_batches: self.u32_opt("decode_batches")?,
            total_batches: self.u32("total_batches")?,
            prefill_duration_s: self.f64_opt("prefill_duration_s")?,
            total_duration_s: self.f64_opt("total_duration_s")?,
            mean_ttft_s: self.f64_opt("mean_ttft_s")?,
            mean_tpot_s: self.f64_opt("mean_tpot_s")?,
            serving: self.serving()?,
            model: self.text("model")?,
            architecture: self.text_opt("architecture")?,
            engine: self.text_opt("engine")?,
            precision: self.text_opt("precision")?,
            gpu_model: self.text("gpu_model")?,
            num_gpus: self.u32("num_gpus")?,
            tensor_parallel: self.u32("tensor_parallel")?,
            pipeline_parallel: self.u32("pipeline_parallel")?,
            data_parallel: self.u32("data_parallel")?,
            expert_parallel: self.u32("expert_parallel")?,
            batch_size: self.f64("batch_size")?,
            input_tokens: self.f64_opt("input_tokens")?,
            output_tokens: self.f64("output_tokens")?,
            kv_capacity_tokens: self.f64_opt("kv_capacity_tokens")?,
            params: self.f64_opt("params")?,
            active_params: self.f64_opt("active_params")?,
            n_layers: self.f64_opt("n_layers")?,
            hidden_size: self.f64_opt("hidden_size")?,
            kv_bytes_per_token: self.f64_opt("kv_bytes_per_token")?,
            num_experts: self.f64_opt("num_experts")?,
            experts_per_token: self.f64_opt("experts_per_token")?,
            bytes_per_weight: self.f64_opt("bytes_per_weight")?,
            gpu_memory_bytes: self.f64_opt("gpu_memory_bytes")?,
            job_id: self.text_opt("job_id")?,
            step_id: self.text_opt("step_id")?,
        })
    }

    fn serving(&self) -> Result<Serving> {
        Ok(Serving {
            engine_version: self.text_opt("engine_version")?,
            completed_requests: self.u32_opt("completed_requests")?,
            output_tokens_per_s: self.f64_opt("output_tokens_per_s")?,
            p50_ttft_s: self.f64_opt("p50_ttft_s")?,
            p90_ttft_s: self.f64_opt("p90_ttft_s")?,
            p99_ttft_s: self.f64_opt("p99_ttft_s")?,
            p50_tpot_s: self.f64_opt("p50_tpot_s")?,
            p90_tpot_s: self.f64_opt("p90_tpot_s")?,
            p99_tpot_s: self.f64_opt("p99_tpot_s")?,
            p50_itl_s: self.f64_opt("p50_itl_s")?,
            p90_itl_s: self.f64_opt("p90_itl_s")?,
            p99_itl_s: self.f64_opt("p99_itl_s")?,
        })
    }

    fn has(&self, name: &str) -> bool {
        columns::has(&self.batch, name)
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::column(name, format!("a value in row {}", self.row + 1), "none"))
    }

    fn text_opt(&self, name: &str) -> Result<Option<String>> {
        if !self.has(name) {
            return Ok(None);
        }
        Ok(columns::text_at(&columns::text(&self.batch, name)?, 0).map(str::to_owned))
    }

    fn text(&self, name: &str) -> Result<String> {
        let text = columns::text_at(&columns::text(&self.batch, name)?, 0).map(str::to_owned);
        self.needed(name, text)
    }

    fn list(&self, name: &str) -> Result<Vec<String>> {
        Ok(columns::text_lists(&self.batch, name)?.into_iter().next().unwrap_or_default())
    }

    fn u32(&self, name: &str) -> Result<u32> {
        self.needed(name, columns::value(&columns::u32s(&self.batch, name)?, 0))
    }

    fn u32_opt(&self, name: &str) -> Result<Option<u32>> {
        if !self.has(name) {
            return Ok(None);
        }
        Ok(columns::value(&columns::u32s(&self.batch, name)?, 0))
    }

    fn i64(&self, name: &str) -> Result<i64> {
        self.needed(name, columns::value(&columns::i64s(&self.batch, name)?, 0))
    }

    fn f64_opt(&self, name: &str) -> Result<Option<f64>> {
        if !self.has(name) {
            return Ok(None);
        }
        Ok(columns::value(&columns::f64s(&self.batch, name)?, 0))
    }

    fn f64(&self, name: &str) -> Result<f64> {
        self.needed(name, columns::value(&columns::f64s(&self.batch, name)?, 0))
    }
}
