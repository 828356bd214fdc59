//! Rows that share a law: the rows of one scenario, or of one platform when models are pooled.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::problem::Observation;
use super::{Error, MIN_ROWS};
use crate::card::{GpuCard, ModelCard};
use crate::dataset::quality::rejecting;
use crate::dataset::{Dataset, RejectedRow, Row};
use crate::law::{Descriptors, Pool, Scenario, Skeleton, Target};
use crate::schema::{EnergySource, Method, Phase};

/// What models differ by before it was measured, and how many models that guess counts for. On simulated worlds a law
/// pooled over a dozen models is off by some 10 % on the next one.
const EXPECTED_OFFSET_LOG: f64 = 0.2;
/// See [`EXPECTED_OFFSET_LOG`].
const EXPECTED_OFFSETS: f64 = 2.0;

/// The rows of one law, with the facts needed to evaluate them.
pub(crate) struct Group {
    pub(crate) model: Option<String>,
    pub(crate) gpu_model: String,
    pub(crate) engine: Option<String>,
    pub(crate) precision: Option<String>,
    pub(crate) simulated: bool,
    pub(crate) rows: Vec<Row>,
    /// One per model.
    pub(crate) scenarios: Vec<Scenario>,
}

/// Splits the rows that carry energy into groups; the rest comes back with reasons.
pub(crate) fn groups(dataset: &Dataset, pool: Pool) -> Result<(Vec<Group>, Vec<RejectedRow>), Error> {
    groups_for(dataset, pool, &[Target::EnergyJ])
}

/// The same for any targets: a row without energy can still say how long something took.
pub(crate) fn groups_for(
    dataset: &Dataset,
    pool: Pool,
    targets: &[Target],
) -> Result<(Vec<Group>, Vec<RejectedRow>), Error> {
    let mut refused = Vec::new();
    let with_total: HashSet<&str> =
        dataset.rows.iter().filter(|r| r.phase == Phase::Total).map(|r| r.run_id.as_str()).collect();
    let mut by_scenario: BTreeMap<String, Vec<Cow<'_, Row>>> = BTreeMap::new();
    let marked: HashSet<&str> =
        dataset.rows.iter().filter(|r| r.method == Some(Method::Marks)).map(|r| r.run_id.as_str()).collect();
    for row in &dataset.rows {
        if row.phase == Phase::Decode && !row.run_id.is_empty() && with_total.contains(row.run_id.as_str()) {
            continue;
        }
        // One decode, measured twice: the difference carries the errors of two windows, the marks those of one.
        if row.method == Some(Method::Difference) && marked.contains(row.run_id.as_str()) {
            continue;
        }
        // A prefill row repeats the time to the first token of its run's whole batch, where there is one.
        let repeats = row.phase == Phase::Prefill && with_total.contains(row.run_id.as_str());
        let row = match row.mean_ttft_s {
            Some(_) if repeats => Cow::Owned(Row { mean_ttft_s: None, ..row.clone() }),
            _ => Cow::Borrowed(row),
        };
        // Nothing is amiss with a row that has no place for what is asked.
        let has_place = |target: &Target| carries(&row, *target) && !(repeats && *target == Target::MeanTtftS);
        if !targets.iter().any(has_place) {
            continue;
        }
        match usable(&row, targets) {
            Ok(()) => by_scenario.entry(row.scenario_key()).or_default().push(row),
            Err((column, reason)) => {
                refused.push(RejectedRow { line: row.line, column: Some(column.to_owned()), reason })
            }
        }
    }
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (key, mut rows) in by_scenario {
        let Some(first) = rows.first().cloned() else { continue };
        rows.retain(|row| match disagreement(&first, row) {
            Some((column, reason)) => {
                refused.push(RejectedRow { line: row.line, column: Some(column.to_owned()), reason });
                false
            }
            None => true,
        });
        let simulated = first.source == EnergySource::Simulated;
        let scenario = match scenario(&rows, pool) {
            Ok(scenario) => scenario,
            Err(reason) => {
                refused.extend(rows.iter().map(|r| RejectedRow { line: r.line, column: None, reason: reason.clone() }));
                continue;
            }
        };
        let (key, model) = match pool {
            Pool::None => (key, Some(first.model.clone())),
            Pool::Models => (first.platform_key(), None),
        };
        let group = groups.entry(key.clone()).or_insert_with(|| Group {
            model,
            gpu_model: first.gpu_model.clone(),
            engine: first.engine.clone(),
            precision: first.precision.clone(),
            simulated,
            rows: Vec::new(),
            scenarios: Vec::new(),
        });
        if rows.iter().any(|r| (r.source == EnergySource::Simulated) != group.simulated) {
            return Err(Error::MixedSources { scope: key });
        }
        group.rows.extend(rows.into_iter().map(Cow::into_owned));
        group.scenarios.push(scenario);
    }
    Ok((groups.into_values().collect(), refused))
}

fn usable(row: &Row, targets: &[Target]) -> Result<(), (&'static str, String)> {
    if row.input_tokens.is_none() {
        return Err(("input_tokens", "input_tokens is missing, and the law needs the prompt length".to_owned()));
    }
    let needs_energy = targets.contains(&Target::EnergyJ);
    if needs_energy && target_value(row, Target::EnergyJ).is_none() {
        return Err(("energy_j", "energy_j is missing; a fit needs joules".to_owned()));
    }
    if !needs_energy && targets.iter().all(|t| target_value(row, *t).is_none()) {
        let column = targets.first().map_or("duration_s", |t| t.as_str());
        return Err((column, format!("{column} is missing, and it is what is to be fitted")));
    }
    if row.phase == Phase::Decode && row.output_tokens <= 1.0 {
        let reason = "a decode row needs at least 2 output tokens: the first one belongs to the prefill";
        return Err(("output_tokens", reason.to_owned()));
    }
    if let Some(reason) = rejecting(&row.quality) {
        return Err(("quality", format!("the row was marked {reason}")));
    }
    Ok(())
}

/// Facts of one scenario, agreed over its rows. Without a card, a scenario law still works on placeholders; a pooled one
/// cannot.
fn scenario(rows: &[Cow<'_, Row>], pool: Pool) -> Result<Scenario, String> {
    let Some(first) = rows.first() else { return Err("no rows".to_owned()) };
    let card = ModelCard::builtin(&first.model);
    let mut descriptors = Err(String::new());
    for row in rows {
        let own = Descriptors::from_row(row, card.as_ref()).map_err(|e| e.to_string());
        if descriptors.is_err() {
            descriptors = own;
        }
    }
    let descriptors = match (descriptors, pool) {
        (Ok(d), _) => d,
        (Err(_), Pool::None) => Descriptors::nominal(),
        (Err(reason), Pool::Models) => return Err(reason),
    };
    let gpu_memory_bytes = rows
        .iter()
        .find_map(|r| r.gpu_memory_bytes)
        .or_else(|| GpuCard::builtin(&first.gpu_model).map(|g| g.memory_bytes));
    let measured: BTreeMap<(u32, u32), f64> = rows
        .iter()
        .filter_map(|r| Some(((r.tensor_parallel, r.pipeline_parallel), r.kv_capacity_tokens?)))
        .filter(|(_, tokens)| *tokens > 0.0)
        .collect();
    // What engines really left for the cache, for the degrees that were not measured.
    let mut shares: Vec<f64> = measured
        .iter()
        .filter_map(|((t, p), tokens)| {
            let memory = f64::from(*t) * f64::from(*p) * gpu_memory_bytes?;
            Some((tokens * descriptors.kv_bytes_per_token + descriptors.weight_bytes) / memory)
        })
        .filter(|share| (0.3..=1.0).contains(share) && !descriptors.nominal)
        .collect();
    shares.sort_by(f64::total_cmp);
    Ok(Scenario {
        model: first.model.clone(),
        architecture: first.architecture.clone().or(card.map(|c| c.architecture.to_string())),
        gpu_model: first.gpu_model.clone(),
        engine: first.engine.clone(),
        precision: first.precision.clone(),
        descriptors,
        gpu_memory_bytes,
        memory_utilisation: shares.get(shares.len() / 2).copied(),
        kv_capacity_tokens: measured.into_iter().map(|((t, p), tokens)| (t, p, tokens)).collect(),
    })
}

/// Why `row` cannot share a card with `first`: a column that both fill in, and differently.
fn disagreement(first: &Row, row: &Row) -> Option<(&'static str, String)> {
    let columns = [
        ("params", first.params, row.params),
        ("active_params", first.active_params, row.active_params),
        ("n_layers", first.n_layers, row.n_layers),
        ("hidden_size", first.hidden_size, row.hidden_size),
        ("kv_bytes_per_token", first.kv_bytes_per_token, row.kv_bytes_per_token),
        ("num_experts", first.num_experts, row.num_experts),
        ("experts_per_token", first.experts_per_token, row.experts_per_token),
        ("bytes_per_weight", first.bytes_per_weight, row.bytes_per_weight),
    ];
    columns.into_iter().find_map(|(name, a, b)| {
        let (a, b) = (a?, b?);
        let differs = (a - b).abs() > 1e-3 * a.abs().max(b.abs());
        let reason = format!(
            "{b} differs from the {a} of row {}, the same model, GPU, engine and precision; give what differs another model name or precision",
            first.line
        );
        differs.then_some((name, reason))
    })
}

impl Group {
    /// `skeleton` with priors for the group's GPU; they stay silent where the terms are not in physical units because a
    /// model has no card, or the GPU has none.
    pub(crate) fn priced(&self, skeleton: Skeleton) -> Skeleton {
        match GpuCard::builtin(&self.gpu_model) {
            Some(gpu) if self.without_card().is_none() => skeleton.priced(&gpu),
            _ => skeleton,
        }
    }

    /// The scenario or platform, in words.
    pub(crate) fn scope(&self) -> String {
        match (&self.model, self.rows.first()) {
            (Some(_), Some(row)) => row.scenario_key(),
            (None, Some(row)) => row.platform_key(),
            (_, None) => self.gpu_model.clone(),
        }
    }

    /// Models of the group.
    pub(crate) fn models(&self) -> Vec<String> {
        self.rows.iter().map(|r| r.model.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A model of which nothing is known, if there is one.
    pub(crate) fn without_card(&self) -> Option<String> {
        self.scenarios.iter().find(|s| s.descriptors.nominal).map(|s| s.model.clone())
    }

    /// What `target` has to explain: one observation and its row's line each.
    pub(crate) fn observations(&self, target: Target) -> Vec<(Observation, usize)> {
        self.rows
            .iter()
            .filter_map(|row| {
                let value = target_value(row, target)?;
                let scenario = self.scenarios.iter().find(|s| s.model == row.model)?;
                let case = scenario.case(row).ok()?;
                let relative_std = match target {
                    Target::EnergyJ => row.energy_j_std.map(|s| s / value).filter(|s| s.is_finite() && *s >= 0.0),
                    _ => None,
                };
                Some((Observation { case, value, relative_std }, row.line))
            })
            .collect()
    }
}

/// Whether a row of this phase and length can say anything of `target`: a decode has no first token, and what stops at its
/// first token has none after it.
fn carries(row: &Row, target: Target) -> bool {
    match target {
        Target::EnergyJ | Target::DurationS => true,
        Target::MeanTtftS => row.phase != Phase::Decode,
        Target::MeanTpotS => row.phase == Phase::Total && row.output_tokens > 1.0,
    }
}

/// The measured value of `target` in a row of a group; rows that repeat another's value have lost it there.
pub(crate) fn target_value(row: &Row, target: Target) -> Option<f64> {
    let value = match target {
        Target::EnergyJ => row.energy_j,
        Target::DurationS => row.duration_s,
        Target::MeanTtftS => row.mean_ttft_s,
        Target::MeanTpotS => row.mean_tpot_s,
    };
    let value = value.filter(|_| carries(row, target));
    value.filter(|v| v.is_finite() && *v > 0.0)
}

/// Standard deviation of the log offset of a model that was left out of the fit: what a stranger's interval must add.
///
/// Leave-one-model-out, each refit started at the full fit's exponents.
pub(crate) fn between_models(skeleton: &Skeleton, group: &Group, seed: u64, exponents: &[f64]) -> f64 {
    let models = group.models();
    let observations = group.observations(skeleton.target);
    let line_model: BTreeMap<usize, &str> = group.rows.iter().map(|r| (r.line, r.model.as_str())).collect();
    let mut offsets = Vec::new();
    for left_out in &models {
        let is_left_out = |line: &usize| line_model.get(line).is_some_and(|m| m == left_out);
        let (test, train): (Vec<_>, Vec<_>) = observations.iter().copied().partition(|(_, line)| is_left_out(line));
        if train.len() < MIN_ROWS.max(skeleton.parameter_count()) || test.is_empty() {
            continue;
        }
        let (train, lines): (Vec<_>, Vec<_>) = train.into_iter().unzip();
        let core = super::fit_core(skeleton, &train, &lines, seed, Some(exponents));
        let error = |o: &Observation| {
            let predicted: f64 = skeleton.contributions(&core.coefficients, &core.exponents, &o.case).iter().sum();
            (predicted / o.value).ln()
        };
        let errors: Vec<f64> = test.iter().map(|(o, _)| error(o)).filter(|e| e.is_finite()).collect();
        if !errors.is_empty() {
            offsets.push(errors.iter().sum::<f64>() / errors.len() as f64);
        }
    }
    let squares: f64 = offsets.iter().map(|o| o * o).sum();
    // A few models that happen to agree say little of the next one.
    let expected = EXPECTED_OFFSETS * EXPECTED_OFFSET_LOG * EXPECTED_OFFSET_LOG;
    ((squares + expected) / (offsets.len() as f64 + EXPECTED_OFFSETS)).sqrt()
}

#[cfg(test)]
mod tests;
