//! A finished run as a row of the `runs` table.

use super::session::Measured;
use crate::schema::RunStatus;
use crate::store::{RunRow, Serving};
use crate::sweep::server::Latency;
use crate::sweep::workload::Workload;
use crate::sweep::{Point, Run};

/// The row of a run that was measured; its begin, status and error are still to come.
pub(super) fn row(run: &Run, point: &Point, workload: &Workload, host: &str, measured: Measured) -> RunRow {
    let Measured { deployed, prefill, decode, total, latency, told } = measured;
    let (devices, device_name, kv_capacity_tokens) =
        deployed.map_or((Vec::new(), None, None), |d| (d.devices, d.device_name, d.kv_capacity_tokens));
    // Without a total window the first token is all there is to time.
    let ttft = if total.batches > 0 { total.mean(total.ttft_s) } else { prefill.mean(prefill.ttft_s) };
    let (mean_ttft_s, mean_tpot_s) = told.unwrap_or((ttft, total.mean(total.tpot_s)));
    let (model, gpu) = (&point.model, &point.gpu);
    RunRow {
        run_id: run.run_id.clone(),
        point_id: point.point_id.clone(),
        repeat: run.repeat,
        status: RunStatus::Done,
        error: None,
        host: host.to_owned(),
        source: workload.origin(),
        devices,
        device_name,
        t_begin_mono_ns: 0,
        t_end_mono_ns: workload.now(),
        prefill_batches: prefill.batches,
        decode_batches: (decode.batches > 0).then_some(decode.batches),
        total_batches: total.batches,
        prefill_duration_s: prefill.mean(prefill.duration_s),
        total_duration_s: total.mean(total.duration_s),
        mean_ttft_s,
        mean_tpot_s,
        serving: serving(workload, latency.as_ref()),
        model: model.model.clone(),
        architecture: Some(model.architecture.as_str().to_owned()),
        engine: Some(point.engine.clone()),
        precision: Some(point.precision.clone()),
        gpu_model: gpu.gpu_model.clone(),
        num_gpus: point.num_gpus(),
        tensor_parallel: point.tensor_parallel,
        pipeline_parallel: point.pipeline_parallel,
        data_parallel: point.data_parallel,
        expert_parallel: 1,
        batch_size: f64::from(point.batch_size),
        input_tokens: Some(f64::from(point.input_tokens)),
        output_tokens: f64::from(point.output_tokens),
        kv_capacity_tokens,
        params: Some(model.params),
        active_params: Some(model.active_params),
        n_layers: Some(model.n_layers),
        hidden_size: Some(model.hidden_size),
        kv_bytes_per_token: Some(model.kv_bytes_per_token),
        num_experts: Some(model.num_experts),
        experts_per_token: Some(model.experts_per_token),
        bytes_per_weight: Some(model.bytes_per_weight),
        gpu_memory_bytes: Some(gpu.memory_bytes),
        // The journal knows them.
        job_id: None,
        step_id: None,
    }
}

fn serving(workload: &Workload, latency: Option<&Latency>) -> Serving {
    let ttft = latency.and_then(|l| l.ttft);
    let tpot = latency.and_then(|l| l.tpot);
    let itl = latency.and_then(|l| l.itl);
    Serving {
        engine_version: workload.facts().and_then(|f| f.engine_version.clone()),
        completed_requests: latency.map(|l| l.requests),
        output_tokens_per_s: latency.and_then(|l| l.output_tokens_per_s),
        p50_ttft_s: ttft.map(|p| p.p50_s),
        p90_ttft_s: ttft.map(|p| p.p90_s),
        p99_ttft_s: ttft.map(|p| p.p99_s),
        p50_tpot_s: tpot.map(|p| p.p50_s),
        p90_tpot_s: tpot.map(|p| p.p90_s),
        p99_tpot_s: tpot.map(|p| p.p99_s),
        p50_itl_s: itl.map(|p| p.p50_s),
        p90_itl_s: itl.map(|p| p.p90_s),
        p99_itl_s: itl.map(|p| p.p99_s),
    }
}
