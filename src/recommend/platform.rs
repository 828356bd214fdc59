//! One model on one GPU, engine and precision: its laws, its memory, and the cases of its configurations.

use super::Error;
use super::label::{Names, Varies};
use super::lengths::Lengths;
use super::request::Request;
use super::search::degrees_up_to;
use crate::card::{GpuCard, ModelCard};
use crate::dataset::Row;
use crate::law::{Case, Descriptors, Law, Model, ResolveError, Scenario, Target, same_gpu};
use crate::schema::{EnergySource, Phase, nearest};

/// Slack of range checks, as in [`Law::outside`].
const SLACK: f64 = 1e-3;

/// Names that a message lists before it stops.
const NAMES: usize = 5;

/// Everything that is fixed while degrees and batch sizes are searched.
#[derive(Debug)]
pub(super) struct Platform<'a> {
    row: Row,
    lengths: Lengths,
    scenario: Scenario,
    energy: &'a Law,
    others: Vec<&'a Law>,
    /// Quantities besides energy without whose laws the request cannot be answered.
    needed: Vec<Target>,
    gpu_memory_bytes: Option<f64>,
    known_model: bool,
    /// Columns of the workload that contradict what the model file knows of the model.
    unused_columns: Vec<&'static str>,
}

/// The platforms of a request.
#[derive(Debug)]
pub(super) struct Platforms<'a> {
    pub(super) judged: Vec<Platform<'a>>,
    /// What differs among them and those that are not judged.
    pub(super) varies: Varies,
    /// Those that lack a law that is needed, in words.
    pub(super) not_judged: Vec<String>,
}

/// The platforms that `request` leaves open and `model` has an energy law for.
pub(super) fn platforms<'a>(model: &'a Model, request: &Request) -> Result<Platforms<'a>, Error> {
    let energy_laws: Vec<&Law> = model.laws.iter().filter(|l| l.skeleton.target == Target::EnergyJ).collect();
    let name = model_name(&energy_laws, request)?;
    let lengths = request.lengths();
    let agrees = |asked: &Option<String>, known: Option<&String>| match (asked, known) {
        (Some(a), Some(k)) => a.eq_ignore_ascii_case(k),
        _ => true,
    };
    let mut found: Vec<Platform<'a>> = Vec::new();
    for law in &energy_laws {
        if !(law.model.as_ref().is_none_or(|m| *m == name)
            && request.gpu_model.as_ref().is_none_or(|gpu| same_gpu(gpu, &law.gpu_model))
            && agrees(&request.engine, law.engine.as_ref())
            && agrees(&request.precision, law.precision.as_ref()))
        {
            continue;
        }
        let row = template(request, &name, law);
        let scenario = model.scenario_for(law, &row).map_err(|e| unknown_model(e, &energy_laws))?;
        let others = Target::ALL.iter().filter(|t| **t != Target::EnergyJ);
        // A single output token has no time per token after the first.
        let others = others.filter(|t| **t != Target::MeanTpotS || has_second_token(&lengths));
        let gpu_card = || GpuCard::builtin(&law.gpu_model).map(|card| card.memory_bytes);
        found.push(Platform {
            gpu_memory_bytes: request.card.gpu_memory_bytes.or(scenario.gpu_memory_bytes).or_else(gpu_card),
            others: others.filter_map(|t| model.law_for(*t, &row).ok()).collect(),
            known_model: law.knows(&name),
            unused_columns: if law.knows(&name) { unused_columns(&scenario, &row) } else { Vec::new() },
            needed: request.needed_laws().into_iter().map(|(_, target)| target).collect(),
            energy: law,
            row,
            scenario,
            lengths: lengths.clone(),
        });
    }
    if found.is_empty() {
        let asked = [Some(&name), request.gpu_model.as_ref(), request.engine.as_ref(), request.precision.as_ref()];
        return Err(Error::NoLaw {
            asked: asked.into_iter().flatten().cloned().collect::<Vec<_>>().join(" / "),
            known: listing(energy_laws.iter().map(|l| l.scope())),
        });
    }
    let varies = Varies::among(found.iter().map(Platform::names));
    let mut not_judged = Vec::new();
    for (asker, target) in request.needed_laws() {
        // A platform without that law cannot be judged, and so not recommended.
        let asked = found.iter().map(|p| p.row.scenario_key()).next().unwrap_or_default();
        let (judged, lacking): (Vec<_>, Vec<_>) = found.into_iter().partition(|p| p.law(target).is_some());
        if judged.is_empty() {
            return Err(Error::NoLawForLimit { asker, target, asked });
        }
        let said = lacking.iter().map(|p| {
            let (gpu_model, engine, precision) = p.names();
            let name = varies.names(gpu_model, engine, precision).join(", ");
            format!("{name}: the model has no law of {target} for it, so that {asker} cannot be judged")
        });
        not_judged.extend(said);
        found = judged;
    }
    Ok(Platforms { judged: found, varies, not_judged })
}

/// Columns of the row that say another thing of the model than its scenario, which is taken: the law was fitted with it.
fn unused_columns(scenario: &Scenario, row: &Row) -> Vec<&'static str> {
    let d = &scenario.descriptors;
    let own = Descriptors::from_row(row, ModelCard::builtin(&row.model).as_ref()).ok();
    // Placeholders contradict nothing, and half of a card does not say how large the weights are.
    if d.nominal {
        return Vec::new();
    }
    let weights = |given: Option<f64>| given.and(own.as_ref().map(|own| own.weight_bytes));
    let columns = [
        ("params", weights(row.params), d.weight_bytes, 0.02),
        ("bytes_per_weight", weights(row.bytes_per_weight), d.weight_bytes, 0.02),
        ("active_params", row.active_params, d.active_params, 0.02),
        ("n_layers", row.n_layers, d.n_layers, 1e-3),
        ("hidden_size", row.hidden_size, d.hidden_size, 1e-3),
        ("kv_bytes_per_token", row.kv_bytes_per_token, d.kv_bytes_per_token, 1e-3),
        ("num_experts", row.num_experts, d.num_experts, 1e-3),
        ("experts_per_token", row.experts_per_token, d.experts_per_token, 1e-3),
    ];
    let agrees = |given: f64, known: f64, slack: f64| (given - known).abs() <= slack * known.abs().max(given.abs());
    let said = columns.into_iter().filter_map(|(name, given, known, slack)| Some((name, given?, known, slack)));
    said.filter(|(_, given, known, slack)| !agrees(*given, *known, *slack)).map(|(name, ..)| name).collect()
}

/// Whether any request has a time per token after the first.
pub(super) fn has_second_token(lengths: &Lengths) -> bool {
    lengths.classes.iter().any(|c| c.output_tokens >= 2.0)
}

/// The model that is asked for, in the spelling of the model file.
fn model_name(laws: &[&Law], request: &Request) -> Result<String, Error> {
    let mut known: Vec<&String> = laws.iter().flat_map(|l| l.model.iter().chain(&l.fitted_models)).collect();
    known.sort();
    known.dedup();
    let Some(asked) = &request.model else {
        return match known.as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(Error::NoLaw { asked: "any model".to_owned(), known: "none".to_owned() }),
            _ => Err(Error::WhichModel { known: listing(known.iter().map(|m| (*m).clone())) }),
        };
    };
    let same = |name: &str| known.iter().find(|k| k.eq_ignore_ascii_case(name)).map(|k| (*k).clone());
    let carded = || ModelCard::builtin(asked).map(|card| card.model);
    if let Some(name) = same(asked).or_else(|| same(&carded()?)) {
        return Ok(name);
    }
    // A stranger is welcome where a law holds for all models.
    if laws.iter().any(|l| l.model.is_none()) {
        return Ok(carded().unwrap_or_else(|| asked.clone()));
    }
    // People leave the organisation out: `llama-2-70b-hf` is as near as `meta-llama/Llama-2-70b-hf`.
    let spellings = |k: &String| {
        let full = k.to_lowercase();
        let bare = full.rsplit('/').next().unwrap_or_default().to_owned();
        [(full, k.clone()), (bare, k.clone())]
    };
    let spellings: Vec<(String, String)> = known.iter().flat_map(|k| spellings(k)).collect();
    let near = nearest(asked, spellings.iter().map(|(spelling, _)| spelling.as_str()));
    let near = near.and_then(|n| spellings.iter().find(|(spelling, _)| spelling == n)).map(|(_, name)| name);
    Err(match near {
        Some(near) => {
            Error::UnknownName { what: "model", found: asked.clone(), hint: format!("did you mean `{near}`?") }
        }
        None => Error::NoLaw { asked: asked.clone(), known: listing(laws.iter().map(|l| l.scope())) },
    })
}

fn unknown_model(error: ResolveError, laws: &[&Law]) -> Error {
    let ResolveError::UnknownModel { model, .. } = &error else { return error.into() };
    let known = laws.iter().flat_map(|l| &l.fitted_models).map(String::as_str);
    match nearest(model, known) {
        Some(near) => {
            Error::UnknownName { what: "model", found: model.clone(), hint: format!("did you mean `{near}`?") }
        }
        None => error.into(),
    }
}

fn listing(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join("; ");
    match names.len() {
        0 => "none".to_owned(),
        n if n > NAMES => format!("{shown}; and {} more", n - NAMES),
        _ => shown,
    }
}

fn template(request: &Request, model: &str, law: &Law) -> Row {
    let card = &request.card;
    Row {
        line: 1,
        run_id: String::new(),
        phase: Phase::Total,
        model: model.to_owned(),
        architecture: None,
        engine: law.engine.clone().or_else(|| request.engine.clone()),
        precision: law.precision.clone().or_else(|| request.precision.clone()),
        gpu_model: law.gpu_model.clone(),
        num_gpus: 1,
        tensor_parallel: 1,
        pipeline_parallel: 1,
        data_parallel: 1,
        expert_parallel: 1,
        batch_size: 1.0,
        input_tokens: Some(request.input_tokens),
        output_tokens: request.output_tokens,
        energy_j: None,
        energy_j_std: None,
        duration_s: None,
        mean_ttft_s: None,
        mean_tpot_s: None,
        kv_capacity_tokens: None,
        params: card.params,
        active_params: card.active_params,
        n_layers: card.n_layers,
        hidden_size: card.hidden_size,
        kv_bytes_per_token: card.kv_bytes_per_token,
        num_experts: card.num_experts,
        experts_per_token: card.experts_per_token,
        bytes_per_weight: card.bytes_per_weight,
        gpu_memory_bytes: card.gpu_memory_bytes,
        quality: Vec::new(),
        source: EnergySource::Imported,
        method: None,
        idle_power_w: None,
    }
}

impl<'a> Platform<'a> {
    pub(super) fn model(&self) -> &str {
        &self.row.model
    }

    pub(super) fn gpu_model(&self) -> &str {
        &self.row.gpu_model
    }

    pub(super) fn engine(&self) -> Option<&str> {
        self.row.engine.as_deref()
    }

    pub(super) fn precision(&self) -> Option<&str> {
        self.row.precision.as_deref()
    }

    pub(super) fn names(&self) -> Names<'_> {
        (self.gpu_model(), self.engine(), self.precision())
    }

    pub(super) fn energy(&self) -> &'a Law {
        self.energy
    }

    pub(super) fn known_model(&self) -> bool {
        self.known_model
    }

    pub(super) fn law(&self, target: Target) -> Option<&'a Law> {
        if target == Target::EnergyJ {
            return Some(self.energy);
        }
        self.others.iter().copied().find(|l| l.skeleton.target == target)
    }

    /// The case of one configuration; `batch` counts the sequences of all replicas.
    pub(super) fn case(&self, tensor: u32, pipeline: u32, replicas: u32, batch: f64) -> Result<Case, ResolveError> {
        self.scenario.case(&self.row_at(tensor, pipeline, replicas, batch))
    }

    /// The same for every class of lengths that `target` is defined for, with the classes' shares.
    pub(super) fn cases(&self, target: Target, base: Case) -> Vec<(f64, Case)> {
        let is_defined = |output: f64| target != Target::MeanTpotS || output >= 2.0;
        let classes = || self.lengths.classes.iter().filter(|c| is_defined(c.output_tokens));
        let total: f64 = classes().map(|c| c.share).sum();
        classes()
            .map(|c| {
                let case = Case { input_tokens: c.input_tokens, output_tokens: c.output_tokens, ..base };
                (if total > 0.0 { c.share / total } else { c.share }, case)
            })
            .collect()
    }

    /// What one GPU usually draws while nothing is asked of it, by its card.
    pub(super) fn idle_power_w(&self) -> Option<f64> {
        GpuCard::builtin(&self.row.gpu_model).map(|card| card.idle_power_w)
    }

    /// What is known of the model and its cache.
    pub(super) fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    fn row_at(&self, tensor: u32, pipeline: u32, replicas: u32, batch: f64) -> Row {
        Row {
            tensor_parallel: tensor,
            pipeline_parallel: pipeline,
            data_parallel: replicas,
            num_gpus: tensor.saturating_mul(pipeline).saturating_mul(replicas),
            batch_size: batch,
            ..self.row.clone()
        }
    }

    /// Pairs of degrees on at most `max_gpus` GPUs.
    pub(super) fn degrees(&self, max_gpus: u32) -> Vec<(u32, u32)> {
        let ends = |symbol: &str| {
            let domain = self.energy.domain.get(symbol);
            domain.into_iter().flat_map(|d| [d.low, d.high]).filter(|v| v.fract() == 0.0).map(|v| v as u32)
        };
        let capacities = &self.scenario.kv_capacity_tokens;
        let tensor = degrees_up_to(max_gpus, ends("t").chain(capacities.iter().map(|c| c.0)));
        let pipeline = degrees_up_to(max_gpus, ends("p").chain(capacities.iter().map(|c| c.1)));
        let layers = if self.scenario.descriptors.nominal { f64::INFINITY } else { self.scenario.descriptors.n_layers };
        let pairs = tensor.iter().flat_map(|t| pipeline.iter().map(move |p| (*t, *p)));
        pairs.filter(|(t, p)| t.checked_mul(*p).is_some_and(|n| n <= max_gpus) && f64::from(*p) <= layers).collect()
    }

    /// The values of `symbol` that all laws were fitted on without which the request cannot be answered.
    pub(super) fn range(&self, symbol: &str) -> (f64, f64) {
        let needed = self.needed.iter().filter_map(|target| self.law(*target));
        let domains = std::iter::once(self.energy).chain(needed).filter_map(|law| law.domain.get(symbol));
        domains.fold((f64::NEG_INFINITY, f64::INFINITY), |(low, high), d| {
            let slack = SLACK * d.high.abs();
            (low.max(d.low - slack), high.min(d.high + slack))
        })
    }

    /// Whether they were fitted on such a value of `symbol`.
    pub(super) fn covers(&self, symbol: &str, value: f64) -> bool {
        let (low, high) = self.range(symbol);
        (low..=high).contains(&value)
    }

    /// Bytes needed and bytes there, if weights and one sequence do not fit; `None` where they do or nothing is known.
    /// A measured cache capacity outweighs the arithmetic: that run worked, on a GPU of that memory.
    pub(super) fn memory_shortage(&self, tensor: u32, pipeline: u32) -> Option<(f64, f64)> {
        let card = &self.scenario.descriptors;
        let sequence_tokens = self.lengths.longest_tokens;
        let measured = self.scenario.measured_capacity(tensor, pipeline);
        if let Some(tokens) = measured.filter(|_| !self.scenario.is_other_memory(self.row.gpu_memory_bytes)) {
            return (tokens < sequence_tokens).then_some((sequence_tokens, tokens));
        }
        if card.nominal {
            return None;
        }
        let needed = card.weight_bytes + card.kv_bytes_per_token * sequence_tokens;
        let share = self.scenario.memory_share(tensor, pipeline);
        let there = f64::from(tensor) * f64::from(pipeline) * self.gpu_memory_bytes? * share;
        (needed > there).then_some((needed, there))
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.known_model {
            warnings.push(format!(
                "{} was not among the fitted models: the law carries it over by its card alone",
                self.row.model
            ));
        }
        if self.scenario.descriptors.nominal {
            warnings.push(format!("nothing is known of {}'s size: memory is not checked", self.row.model));
        } else if self.gpu_memory_bytes.is_none() {
            warnings.push(format!("the memory of {} is not known: it is not checked", self.row.gpu_model));
        }
        if !self.unused_columns.is_empty() {
            warnings.push(format!(
                "{} of the workload contradict what was fitted of {} and are not used; a model that was not fitted needs a \
                 name of its own",
                self.unused_columns.join(", "),
                self.row.model
            ));
        }
        warnings
    }
}
