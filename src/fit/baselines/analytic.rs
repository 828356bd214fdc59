//! Closed forms of others, fitted to the same rows. `n` is the input, `m` the output length, `g = t p` the GPUs of a
//! replica; energies are those of all replicas.

use std::collections::BTreeMap;

use nalgebra::{DMatrix, DVector};

use super::columns::{carded_case, case};
use super::{Estimate, Estimator};
use crate::card::GpuCard;
use crate::dataset::Row;
use crate::fit::nnls::nnls;
use crate::fit::stats::{Configuration, configuration};
use crate::law::{Case, Symbol};

/// Bytes of one activation (bf16).
const ACTIVATION_BYTES: f64 = 2.0;
/// MaverIQ's exponents for fp16 full models (its latency_exponents.csv): alpha, beta, gamma, delta.
const MAVERIQ: (f64, f64, f64, f64) = (0.921, 0.802, 1.062, 0.259);
/// Utilisation at which power saturates, and the power law below it (2507.11417).
const SATURATION: f64 = 0.45;
const POWER_LAW: f64 = 0.7;
/// Wilkins: rows of one deployment that three coefficients need.
const WILKINS_ROWS: usize = 5;

/// Roofline times of one batch on one replica.
struct Roofline {
    prefill_s: f64,
    decode_s: f64,
    flops: f64,
}

/// Each phase takes as long as its arithmetic or its memory traffic, whichever is longer, and its all-reduces.
fn roofline_times(case: &Case, gpu: &GpuCard) -> Roofline {
    let (b, n) = (case.batch_size, case.input_tokens);
    let steps = (case.output_tokens - 1.0).max(0.0);
    let context = n + steps / 2.0;
    let gpus = case.tensor_parallel * case.pipeline_parallel;
    let attention = |queries: f64, keys: f64| 4.0 * case.n_layers * case.hidden_size * b * queries * keys;
    let prefill_flops = 2.0 * case.active_params * b * n + 0.5 * attention(n, n);
    let step_flops = 2.0 * case.active_params * b + attention(1.0, context);
    let step_bytes = case.weight_bytes * case.value(Symbol::Coverage) + case.kv_bytes_per_token * b * context;
    let longer = |flops: f64, bytes: f64| {
        (flops / (gpus * gpu.peak_flops)).max(bytes / (gpus * gpu.memory_bandwidth_bytes_per_s))
    };
    // Two ring all-reduces per layer, each moving 2 (t-1)/t of the message over every link.
    let t = case.tensor_parallel;
    let reduce_s = |tokens: f64| {
        let message = ACTIVATION_BYTES * tokens * case.hidden_size;
        4.0 * case.n_layers * (t - 1.0) / t * message / gpu.link_bandwidth_bytes_per_s.max(1.0)
    };
    Roofline {
        prefill_s: longer(prefill_flops, case.weight_bytes) + reduce_s(b * n),
        decode_s: steps * (longer(step_flops, step_bytes) + reduce_s(b)),
        flops: prefill_flops + steps * step_flops,
    }
}

/// The row's card numbers, its GPU and its roofline.
fn on_card(row: &Row) -> Option<(Case, GpuCard, Roofline)> {
    let (case, gpu) = (carded_case(row)?, GpuCard::builtin(&row.gpu_model)?);
    let times = roofline_times(&case, &gpu);
    Some((case, gpu, times))
}

fn no_card(rows: &[Row]) -> String {
    let names = rows.first().map(|r| format!("{} on {}", r.model, r.gpu_model)).unwrap_or_default();
    format!("needs a model card and a GPU card, and has none for {names}")
}

pub(super) fn roofline(rows: &[Row]) -> Result<Estimator, String> {
    let basis = |row: &Row| {
        let (case, gpu, times) = on_card(row)?;
        let power_w = gpu.power_limit_w * case.tensor_parallel * case.pipeline_parallel * case.data_parallel;
        Some(vec![power_w * times.prefill_s, power_w * times.decode_s])
    };
    if rows.iter().all(|r| basis(r).is_none()) {
        return Err(no_card(rows));
    }
    non_negative(rows, basis)
}

pub(super) fn maveriq(rows: &[Row]) -> Result<Estimator, String> {
    let (alpha, beta, gamma, delta) = MAVERIQ;
    non_negative(rows, move |row| {
        let c = case(row)?;
        let (t, p, m) = (c.tensor_parallel, c.pipeline_parallel, c.output_tokens);
        let gpus = t * p * c.data_parallel;
        let reference = gpus / (t * p.powf(alpha));
        let tensor = gpus * (t - 1.0).powf(beta) / p.powf(gamma);
        let pipeline = gpus * (p - 1.0).powf(delta);
        let b1 = c.batch_size - 1.0;
        let reference = [1.0, b1, m, b1 * m].map(|v| reference * v);
        Some(reference.into_iter().chain([tensor, tensor * m, pipeline, pipeline * m]).collect())
    })
}

/// The polynomial is shared by all deployments, each with a factor of its own: the published form knows no parallelism
/// and could not choose at all.
pub(super) fn sweetspot(rows: &[Row]) -> Result<Estimator, String> {
    let polynomial = non_negative(rows, |row| {
        let c = case(row)?;
        let (b, n, m) = (c.batch_size, c.input_tokens, c.output_tokens);
        Some([1.0, b * n, b * n * n, m, b * n * m, b * m * m].map(|v| v * c.data_parallel).to_vec())
    })?;
    let mut ratios: BTreeMap<Configuration, Vec<f64>> = BTreeMap::new();
    for row in rows {
        let ratio = polynomial(row).and_then(|e| Some((row.energy_j? / e.value).ln())).filter(|r| r.is_finite());
        ratios.entry(configuration(row)).or_default().extend(ratio);
    }
    let factors: BTreeMap<Configuration, f64> = ratios
        .into_iter()
        .filter(|(_, logs)| !logs.is_empty())
        .map(|(c, logs)| (c, (logs.iter().sum::<f64>() / logs.len() as f64).exp()))
        .collect();
    Ok(Box::new(move |row| Some((polynomial(row)?.value * factors.get(&configuration(row))?).into())))
}

/// Ordinary least squares without intercept, as published: energy per query times queries, one fit per deployment
/// ("system"). The paper's batch is fixed, so each batch size with enough rows gets its own fit; the others share one.
pub(super) fn wilkins(rows: &[Row]) -> Result<Estimator, String> {
    type System = (Configuration, Option<u64>);
    let systems = |row: &Row| -> [System; 2] {
        let deployment = configuration(row);
        [(deployment, Some(row.batch_size.to_bits())), (deployment, None)]
    };
    let mut by_system: BTreeMap<System, Vec<([f64; 3], f64)>> = BTreeMap::new();
    for row in rows {
        if let (Some(basis), Some(energy_j)) = (queries(row), row.energy_j) {
            systems(row).into_iter().for_each(|s| by_system.entry(s).or_default().push((basis, energy_j)));
        }
    }
    let enough = by_system.iter().filter(|(_, entries)| entries.len() >= WILKINS_ROWS);
    let fits: BTreeMap<System, Vec<f64>> = enough.filter_map(|(s, entries)| Some((*s, ordinary(entries)?))).collect();
    if fits.is_empty() {
        let most = by_system.values().map(Vec::len).max().unwrap_or(0);
        return Err(format!("needs {WILKINS_ROWS} rows of one deployment that differ in lengths, has at most {most}"));
    }
    Ok(Box::new(move |row| {
        let coefficients = systems(row).iter().find_map(|s| fits.get(s))?;
        Some(queries(row)?.iter().zip(coefficients).map(|(b, k)| b * k).sum::<f64>().into())
    }))
}

/// `n`, `m` and `nm` of all queries of the batch.
fn queries(row: &Row) -> Option<[f64; 3]> {
    let c = case(row)?;
    let (n, m) = (c.input_tokens, c.output_tokens);
    Some([n, m, n * m].map(|v| v * c.batch_size * c.data_parallel))
}

/// Least squares of three columns; `None` where the rows do not tell them apart.
fn ordinary(entries: &[([f64; 3], f64)]) -> Option<Vec<f64>> {
    let scale = [0, 1, 2].map(|j| entries.iter().map(|(b, _)| b[j]).fold(0.0, f64::max));
    if scale.iter().any(|s| *s <= 0.0) {
        return None;
    }
    let scaled = entries.iter().flat_map(|(b, _)| b.iter().zip(scale).map(|(v, s)| v / s));
    let a = DMatrix::from_row_iterator(entries.len(), 3, scaled.collect::<Vec<_>>());
    let y = DVector::from_iterator(entries.len(), entries.iter().map(|(_, e)| *e));
    let svd = a.svd(true, true);
    let rank = svd.rank(1e-9 * svd.singular_values.max());
    let solution = svd.solve(&y, 1e-12).ok()?;
    (rank == 3).then(|| solution.iter().zip(scale).map(|(k, s)| k / s).collect())
}

pub(super) fn mfu_power(rows: &[Row]) -> Result<Estimator, String> {
    if rows.iter().all(|r| on_card(r).is_none()) {
        return Err(no_card(rows));
    }
    let slower = rows.iter().filter_map(|row| {
        let (_, _, times) = on_card(row)?;
        Some((row.duration_s? / (times.prefill_s + times.decode_s)).ln())
    });
    let slower: Vec<f64> = slower.filter(|r| r.is_finite()).collect();
    if slower.is_empty() {
        return Err("no training row has duration_s".to_owned());
    }
    let slowdown = (slower.iter().sum::<f64>() / slower.len() as f64).exp();
    Ok(Box::new(move |row| {
        let (case, gpu, times) = on_card(row)?;
        let gpus = case.tensor_parallel * case.pipeline_parallel;
        let time_s = slowdown * (times.prefill_s + times.decode_s);
        let mfu = times.flops / (time_s * gpus * gpu.peak_flops);
        let load = (mfu / SATURATION).powf(POWER_LAW).min(1.0);
        let power_w = gpu.idle_power_w + (gpu.power_limit_w - gpu.idle_power_w) * load;
        Some((power_w * gpus * case.data_parallel * time_s).into())
    }))
}

/// Fits `E = sum_j k_j basis_j`, `k >= 0`, by least squares on relative errors.
fn non_negative(rows: &[Row], basis: impl Fn(&Row) -> Option<Vec<f64>> + 'static) -> Result<Estimator, String> {
    let entries: Vec<(Vec<f64>, f64)> =
        rows.iter().filter_map(|r| Some((basis(r)?, r.energy_j.filter(|e| *e > 0.0)?))).collect();
    let terms = entries.first().map_or(0, |(b, _)| b.len());
    if terms == 0 || entries.len() <= terms {
        return Err(format!("needs more than {terms} rows to learn from, has {}", entries.len()));
    }
    let a = DMatrix::from_row_iterator(
        entries.len(),
        terms,
        entries.iter().flat_map(|(b, e)| b.iter().map(move |v| v / e)),
    );
    let ones = DVector::from_element(entries.len(), 1.0);
    let coefficients = nnls(&(a.transpose() * &a), &(a.transpose() * ones), &[]);
    if coefficients.iter().all(|k| *k == 0.0) {
        return Err("no term takes part".to_owned());
    }
    Ok(Box::new(move |row| {
        let value = basis(row)?.iter().zip(coefficients.iter()).map(|(b, k)| b * k).sum::<f64>();
        Some(Estimate::from(value))
    }))
}
