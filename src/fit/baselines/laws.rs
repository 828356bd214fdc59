//! The law itself as a predictor, and energy by way of a law of latency.

use super::{Context, Estimate, Estimator};
use crate::dataset::{Dataset, Row};
use crate::fit::transfer::unmeasured;
use crate::fit::{FitOptions, fit_model};
use crate::law::{Model, Scenario, Target};

/// Name under which rows of all GPUs meet when one law of latency is to hold across hardware.
const ANY_GPU: &str = "any";

pub(super) fn law(rows: &[Row], context: &Context) -> Result<Estimator, String> {
    let target = context.target;
    let model = fitted(rows.to_vec(), context, target)?;
    if context.across_hardware {
        return Ok(Box::new(move |row| unmeasured::predict(&model, target, row)));
    }
    Ok(Box::new(move |row| {
        let p = model.predict(target, row).ok()?;
        Some(Estimate { value: p.value, interval: Some((p.low, p.high)) })
    }))
}

/// `E = c T`: `T` from the latency law, `c` the geometric mean of `E / T` over the training rows.
pub(super) fn latency_proxy(rows: &[Row], context: &Context) -> Result<Estimator, String> {
    if rows.iter().all(|r| r.duration_s.is_none()) {
        return Err("no training row has duration_s".to_owned());
    }
    let across = context.across_hardware;
    let labels = rows.iter().map(|r| labelled(r, across)).collect();
    let model = fitted(labels, context, Target::DurationS)?;
    let latency = move |row: &Row| Some(model.predict(Target::DurationS, &labelled(row, across)).ok()?.value);
    let ratios: Vec<f64> = rows.iter().filter_map(|r| Some((r.energy_j? / latency(r)?).ln())).collect();
    if ratios.is_empty() {
        return Err("no scope has enough rows with duration_s for a latency law".to_owned());
    }
    let power_w = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
    Ok(Box::new(move |row| latency(row).map(|t| Estimate::from(power_w * t))))
}

fn fitted(rows: Vec<Row>, context: &Context, target: Target) -> Result<Model, String> {
    let dataset = Dataset { rows, ..Dataset::default() };
    let options = FitOptions {
        pool: context.pool,
        seed: context.seed,
        targets: vec![target],
        // One of energy is none of the times that rivals rest on.
        skeleton: context.skeleton.as_ref().and_then(|skeleton| skeleton.serving(target)),
        // The rival by way of latency starts from rows alone.
        prior: context.prior.clone().filter(|_| target == context.target),
        ..FitOptions::default()
    };
    fit_model(&dataset, &options).map(|f| f.model).map_err(|e| e.to_string())
}

/// The row as it enters a law of latency that rivals share. Across hardware the GPU's name goes, but not what its memory means for the cache.
fn labelled(row: &Row, across_hardware: bool) -> Row {
    if !across_hardware {
        return row.clone();
    }
    let capacity = Scenario::of_stranger(row).ok().and_then(|s| s.kv_capacity(row));
    Row { gpu_model: ANY_GPU.to_owned(), kv_capacity_tokens: row.kv_capacity_tokens.or(capacity), ..row.clone() }
}
