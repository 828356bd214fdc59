//! `mlenergy-v2`: the ML.ENERGY leaderboard, version 2 (counter energy of vLLM under load, per request).
//!
//! The engine batched by itself, so energy per request is shared among the sequences in flight: times the mean batch it
//! is the energy of one such batch.

use super::{Cells, Foreign, Format, RejectedRow, Row, blank};

pub(super) const FOREIGN: Foreign = Foreign {
    format: Format::MlenergyV2,
    columns: &[
        "run_id",
        "task",
        "model",
        "gpu",
        "n_gpus",
        "tp",
        "pp",
        "batch",
        "output_tokens",
        "energy_j",
        "itl_s",
        "engine",
        "avg_batch_size",
    ],
    row,
    notes: &[
        "input_tokens is not in the file and stays empty: the law cannot use these rows until it is filled in",
        "energy_j is energy per request times the mean batch that ran; batch_size is that mean, not the cap",
        "rows of image tasks say nothing about image tokens",
        "precision and durations are not in the file and stay empty",
    ],
};

fn row(cells: &Cells<'_>) -> Result<Option<Row>, RejectedRow> {
    let Some(per_request_j) = cells.positive("energy_j")? else { return Ok(None) };
    let batch_size = cells.required_amount("avg_batch_size")?;
    let is_multimodal = cells.text("task").is_some_and(|task| task.starts_with("mllm"));
    let (tensor_parallel, pipeline_parallel) = (cells.required_count("tp")?, cells.required_count("pp")?);
    Ok(Some(Row {
        model: cells.required_name("model")?,
        architecture: is_multimodal.then(|| "vlm".to_owned()),
        engine: cells.name("engine")?,
        gpu_model: cells.required_name("gpu")?,
        num_gpus: cells.required_count("n_gpus")?,
        tensor_parallel,
        pipeline_parallel,
        batch_size,
        output_tokens: cells.required_amount("output_tokens")?,
        energy_j: Some(per_request_j * batch_size),
        mean_tpot_s: cells.positive("itl_s")?,
        ..blank(cells)
    }))
}
