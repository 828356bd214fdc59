//! `anl-bench`: power results of argonne-lcf/LLM-Inference-Bench (one GPU, static batches, three engines).

use super::{Cells, Foreign, Format, RejectedRow, Row, blank, renamed};

pub(super) const FOREIGN: Foreign = Foreign {
    format: Format::AnlBench,
    columns: &[
        "run_id",
        "model",
        "gpu",
        "n_gpus",
        "batch",
        "input_tokens",
        "output_tokens",
        "energy_j",
        "time_s",
        "engine",
    ],
    row,
    notes: &[
        "energy is derived by the source (mean power times latency), not counted",
        "the file names GPUs without form factor or memory: A100, H100 and GH200 are kept at that",
        "parallel degrees are not in the file; all runs used one GPU",
        "precision is not in the file and stays empty",
    ],
};

const GPUS: [(&str, &str); 3] =
    [("Nvidia A100 GPU", "A100"), ("Nvidia H100 GPU", "H100"), ("Nvidia GH200 GPU", "GH200")];

fn row(cells: &Cells<'_>) -> Result<Option<Row>, RejectedRow> {
    let Some(energy_j) = cells.positive("energy_j")? else { return Ok(None) };
    let num_gpus = cells.required_count("n_gpus")?;
    if num_gpus != 1 {
        let reason =
            format!("expected 1 (the file has no parallel degrees to tell how more were used), found {num_gpus}");
        return Err(cells.refuse("n_gpus", reason));
    }
    Ok(Some(Row {
        model: cells.required_name("model")?,
        engine: cells.name("engine")?,
        gpu_model: renamed(cells.required_name("gpu")?, &GPUS),
        batch_size: cells.required_amount("batch")?,
        input_tokens: cells.amount("input_tokens")?,
        output_tokens: cells.required_amount("output_tokens")?,
        energy_j: Some(energy_j),
        duration_s: cells.positive("time_s")?,
        ..blank(cells)
    }))
}
