//! What do the laws of measured GPUs say of a GPU on which nothing was measured?
//!
//! Each law is carried over term by term, as a prior would be, and the answers are averaged in logs, each counting by how
//! sure it is. Two platforms differ by what each differs from the usual one; so the mean over `n` measured GPUs is off by
//! `(1 + 1/n) / 2` of the variance that separates two.

use super::{EXPONENT, OWN, Prices, prices};
use crate::dataset::Row;
use crate::fit::baselines::Estimate;
use crate::law::{Law, Model, Scenario, Skeleton, Target, same_gpu, same_label};

/// The answer of `model` for a row of a GPU that it may never have seen; `None` where it has no law for the row's model.
pub(crate) fn predict(model: &Model, target: Target, row: &Row) -> Option<Estimate> {
    let laws = nearest(model, target, row);
    let gpus = laws.iter().map(|l| l.gpu_model.as_str()).collect::<std::collections::BTreeSet<_>>().len();
    let strangeness = 0.5 * (1.0 + 1.0 / gpus.max(1) as f64);
    let (mut weights, mut log, mut reach) = (0.0, 0.0, 0.0);
    for law in laws {
        let scenario = scenario(model, law, row)?;
        let here = if same_gpu(&law.gpu_model, &row.gpu_model) {
            law.clone()
        } else {
            carried(law, &row.gpu_model, strangeness)
        };
        let p = here.predict(&scenario.case(row).ok()?, here.knows(&row.model));
        let own = (p.high / p.value).ln();
        if !p.value.is_finite() || p.value <= 0.0 || !own.is_finite() || own <= 0.0 {
            continue;
        }
        let weight = own.powi(-2);
        (weights, log, reach) = (weights + weight, log + weight * p.value.ln(), reach + weight * own);
    }
    (weights > 0.0).then(|| {
        let (value, reach) = ((log / weights).exp(), (reach / weights).exp());
        Estimate { value, interval: Some((value / reach, value * reach)) }
    })
}

/// The laws of the row's model, or of all models; of these the ones whose engine and precision agree best.
fn nearest<'a>(model: &'a Model, target: Target, row: &Row) -> Vec<&'a Law> {
    let agrees = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => usize::from(same_label(a, b)),
        (a, b) => usize::from(a == b),
    };
    let rank = |law: &Law| agrees(&law.engine, &row.engine) + agrees(&law.precision, &row.precision);
    let serves = |law: &&Law| law.skeleton.target == target && (law.model.is_none() || law.knows(&row.model));
    let best = model.laws.iter().filter(serves).map(rank).max();
    model.laws.iter().filter(serves).filter(|law| Some(rank(law)) == best).collect()
}

/// The row's model on the row's GPU: its card as fitted, the share of memory that the engine was seen to use, and nothing
/// that was measured on another GPU's memory.
fn scenario(model: &Model, law: &Law, row: &Row) -> Option<Scenario> {
    let fitted = model.scenario_for(law, row).ok()?;
    if same_gpu(&fitted.gpu_model, &row.gpu_model) {
        return Some(fitted);
    }
    let card = crate::card::GpuCard::builtin(&row.gpu_model);
    Some(Scenario {
        gpu_model: row.gpu_model.clone(),
        gpu_memory_bytes: row.gpu_memory_bytes.or(card.map(|card| card.memory_bytes)),
        kv_capacity_tokens: Vec::new(),
        ..fitted
    })
}

/// `law` as it is believed to hold on another GPU; `strangeness` is the share of the variance between two platforms that
/// counts.
fn carried(law: &Law, gpu_model: &str, strangeness: f64) -> Law {
    // A law of an earlier version does not name the resources of its terms; the built-in structure does.
    let built_in = Skeleton::default_for(law.skeleton.target);
    let form = |s: &Skeleton| s.terms.iter().map(|t| (t.product.clone(), t.scaling.clone())).collect::<Vec<_>>();
    let skeleton = if form(&built_in) == form(&law.skeleton) { &built_in } else { &law.skeleton };
    let Prices { ratios, shared } = prices(law, gpu_model, skeleton);
    let price = |j: usize| ratios.get(j).copied().unwrap_or(1.0);
    let mut there = law.clone();
    gpu_model.clone_into(&mut there.gpu_model);
    for (j, c) in there.coefficients.iter_mut().enumerate() {
        c.value *= price(j);
        c.low *= price(j);
        c.std_error = c.std_error.map(|s| s * price(j));
        c.high = c.high.map(|high| high * price(j));
    }
    let values: Vec<f64> = there.coefficients.iter().map(|c| c.value).collect();
    for (i, row) in there.covariance.iter_mut().enumerate() {
        for (j, entry) in row.iter_mut().enumerate() {
            let widened = match (values.get(i), values.get(j)) {
                (Some(a), Some(b)) => a * b * (shared * shared + if i == j { OWN * OWN } else { 0.0 }),
                (None, None) if i == j => EXPONENT * EXPONENT,
                _ => 0.0,
            };
            *entry = *entry * price(i) * price(j) + strangeness * widened;
        }
    }
    there
}
