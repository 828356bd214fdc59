//! `splitwise`: rows of the performance model behind the Splitwise simulator (prompt and token times on A100 and H100).
//!
//! Energy of the batch is derived by whoever made the file (mean power as a share of the board limit, times time);
//! most rows carry none.

use super::{Cells, Foreign, Format, RejectedRow, Row, blank, renamed};

pub(super) const FOREIGN: Foreign = Foreign {
    format: Format::Splitwise,
    columns: &[
        "run_id",
        "model",
        "gpu",
        "n_gpus",
        "tp",
        "batch",
        "input_tokens",
        "output_tokens",
        "energy_j",
        "time_s",
        "ttft_s",
        "itl_s",
    ],
    row,
    notes: &[
        "energy is derived by the source (mean power as a share of 400 W, times GPUs, times time), not counted; repeats \
         share one power reading, so their spread says little about the energy's uncertainty",
        "the power reading at 8192 prompt tokens is implausibly low, and tensor_parallel 2 at batch 64 is an outlier, \
         according to whoever prepared the file; both are kept",
        "engine and precision are not in the file and stay empty",
    ],
};

const MODELS: [(&str, &str); 2] = [("llama2-70b", "meta-llama/Llama-2-70b-hf"), ("bloom-176b", "bigscience/bloom")];
const GPUS: [(&str, &str); 2] = [("a100-80gb", "A100-SXM4-80GB"), ("h100-80gb", "H100-SXM5-80GB")];

fn row(cells: &Cells<'_>) -> Result<Option<Row>, RejectedRow> {
    let Some(energy_j) = cells.positive("energy_j")? else { return Ok(None) };
    Ok(Some(Row {
        model: renamed(cells.required_name("model")?, &MODELS),
        gpu_model: renamed(cells.required_name("gpu")?, &GPUS),
        num_gpus: cells.required_count("n_gpus")?,
        tensor_parallel: cells.required_count("tp")?,
        batch_size: cells.required_amount("batch")?,
        input_tokens: cells.amount("input_tokens")?,
        output_tokens: cells.required_amount("output_tokens")?,
        energy_j: Some(energy_j),
        duration_s: cells.positive("time_s")?,
        mean_ttft_s: cells.positive("ttft_s")?,
        mean_tpot_s: cells.positive("itl_s")?,
        ..blank(cells)
    }))
}
