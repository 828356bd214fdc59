//! The accuracy that stands beside every fit.

use std::collections::{BTreeMap, BTreeSet};

use super::{HeldOutRow, ValidateOptions, Validation, validate};
use crate::dataset::{Dataset, Row};
use crate::fit::baselines::Predictor;
use crate::fit::split::{Scheme, units};
use crate::fit::{Error, FitOptions};
use crate::law::{HeldOut, Law, Model, Pool, Target};

/// Folds over workloads.
const FOLDS: usize = 5;
/// Models from which on each is left out once.
const MODELS: usize = 3;

/// Held-out predictions of one law: what a parity plot shows.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutRows {
    /// Index into [`Model::laws`].
    pub law: usize,
    /// Held out by workload.
    pub rows: Vec<HeldOutRow>,
    /// Held out by model: empty unless models are pooled and there are at least three.
    pub unseen_models: Vec<HeldOutRow>,
}

/// Fills [`Law::held_out`] of the energy laws of `model`, which was fitted to `dataset` with `options`.
///
/// Workloads are dealt into five folds. Where models are pooled and there are three or more, each is also left out once;
/// those figures stand beside the others, under the predictor's name followed by `, unseen models`. Laws with a single
/// workload get nothing.
pub fn attach_held_out(
    model: &mut Model,
    dataset: &Dataset,
    options: &FitOptions,
    seed: u64,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<HeldOutRows>, Error> {
    let pool = model.pool;
    let energy_laws = || 0..model.laws.len();
    let count = energy_laws().count();
    let mut found = Vec::new();
    for index in energy_laws() {
        let Some(law) = model.laws.get(index).filter(|l| l.skeleton.target == Target::EnergyJ) else { continue };
        let rows: Vec<Row> = dataset.rows.iter().filter(|r| holds_for(law, r)).cloned().collect();
        let workloads = units(&rows).into_iter().collect::<BTreeSet<_>>().len();
        let models = rows.iter().map(|r| r.model.as_str()).collect::<BTreeSet<_>>().len();
        if workloads < 2 {
            continue;
        }
        let scope = Dataset { rows, ..Dataset::default() };
        let judge = |scheme: Scheme| {
            let progress = |done: usize, total: usize| progress(index * total + done, count * total);
            let options = ValidateOptions {
                scheme,
                seed,
                pool,
                predictors: Predictor::QUICK.to_vec(),
                skeleton: options.skeleton.clone(),
                prior: options.prior.clone(),
                progress: &progress,
                ..ValidateOptions::default()
            };
            validate(&scope, &options)
        };
        let by_workload = match judge(Scheme::Workloads { folds: workloads.min(FOLDS) }) {
            // Rows without energy or card count above, but cannot be held out.
            Err(Error::NothingToHoldOut { .. }) => continue,
            other => other?,
        };
        let by_model = (pool == Pool::Models && models >= MODELS).then(|| judge(Scheme::Models)).transpose()?;
        let held_out = summary(&by_workload, by_model.as_ref());
        if let Some(law) = model.laws.get_mut(index) {
            law.held_out = Some(held_out);
        }
        found.push(HeldOutRows {
            law: index,
            rows: by_workload.predictions,
            unseen_models: by_model.map_or_else(Vec::new, |v| v.predictions),
        });
    }
    Ok(found)
}

fn holds_for(law: &Law, row: &Row) -> bool {
    law.model.as_ref().is_none_or(|m| *m == row.model)
        && (&law.gpu_model, &law.engine, &law.precision) == (&row.gpu_model, &row.engine, &row.precision)
}

pub(super) fn summary(by_workload: &Validation, by_model: Option<&Validation>) -> HeldOut {
    let named = |validation: &Validation, suffix: &str| -> BTreeMap<String, BTreeMap<String, f64>> {
        let scores = validation.scores.iter();
        scores.filter_map(|s| Some((format!("{}{suffix}", s.predictor), s.figures.as_ref()?.by_name()))).collect()
    };
    let mut figures = named(by_workload, "");
    let mut scheme = by_workload.scheme.clone();
    if let Some(by_model) = by_model {
        figures.extend(named(by_model, ", unseen models"));
        scheme.push_str("; unseen models: ");
        scheme.push_str(&by_model.scheme);
    }
    HeldOut {
        scheme,
        seed: by_workload.seed,
        training_rows: by_workload.training_rows_min,
        figures,
        groups: by_workload.groups,
    }
}
