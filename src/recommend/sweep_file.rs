//! Chosen configurations as a Lua sweep.
//!
//! A sweep has one workload, so that of configurations of several engines it holds those of the engine that most have. It
//! holds any precisions that it has names for, or a single one that it has none for. What that leaves out is said.

use std::collections::BTreeSet;

use super::Error;
use super::answer::figure;
use super::next::NextMeasurement;
use super::platform::Platform;
use super::request::Request;
use crate::card::{GpuCard, ModelCard};
use crate::law::same_label;

/// Precisions that a sweep may name.
const PRECISIONS: [&str; 8] = ["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"];

/// A configuration and where it runs.
pub(super) struct Measured<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) point: &'a NextMeasurement,
}

/// A sweep, and what of the configurations it could not say.
pub(super) struct Sweep {
    pub(super) text: String,
    pub(super) notes: Vec<String>,
    /// Which of the configurations it holds.
    pub(super) kept: Vec<bool>,
}

/// A sweep of these configurations: axes of all their values, and a `where` that keeps the wanted combinations.
pub(super) fn sweep_file(all: &[Measured<'_>], request: &Request) -> Result<Sweep, Error> {
    let engine = most(all.iter().map(Measured::engine));
    let of_engine = |m: &&Measured<'_>| engine.as_ref() == Some(&m.engine());
    let precision = most(all.iter().filter(of_engine).map(Measured::precision_class));
    let is_kept = |m: &&Measured<'_>| of_engine(m) && precision.as_ref() == Some(&m.precision_class());
    let kept: Vec<bool> = all.iter().map(|m| is_kept(&m)).collect();
    let measured: Vec<&Measured<'_>> = all.iter().filter(is_kept).collect();
    let Some(first) = measured.first() else { return Err(Error::Workload("nothing is left to measure".to_owned())) };
    let notes = notes(all, first, &kept);
    let text = text(&measured, first, &notes, request)?;
    Ok(Sweep { text, notes, kept })
}

fn text(
    measured: &[&Measured<'_>],
    first: &Measured<'_>,
    notes: &[String],
    request: &Request,
) -> Result<String, Error> {
    let points: Vec<&NextMeasurement> = measured.iter().map(|m| m.point).collect();
    let gpus: BTreeSet<String> = measured.iter().map(|m| m.gpu()).collect::<Result<_, _>>()?;
    let precisions: BTreeSet<&str> = measured.iter().filter_map(|m| m.precision().ok()).collect();
    let degrees = |of: fn(&NextMeasurement) -> u64| choice(points.iter().map(|p| of(p)));
    let node_gpus = points.iter().map(|p| p.tensor_parallel * p.pipeline_parallel * p.data_parallel).max().unwrap_or(1);
    let mut text = format!(
        "-- The {} configurations whose measurement is expected to improve the choice most, by energylens recommend.\n\
         -- `energylens plan` shows them, `energylens run` measures them; fit again with the new rows added.\n",
        points.len()
    );
    notes.iter().for_each(|note| text.push_str(&format!("-- {}\n", in_a_comment(note))));
    text.push_str("local el = require \"energylens\"\n\nlocal wanted = {\n");
    let keyed = precisions.len() > 1;
    for m in measured {
        text.push_str(&format!(
            "  [\"{}\"] = true, -- expected saving {} %, known to {} %\n",
            m.key(keyed)?,
            figure(m.point.expected_saving_percent),
            figure(m.point.uncertainty_percent)
        ));
    }
    text.push_str("}\n\nreturn el.sweep {\n  name = \"next\",\n  axes = {\n");
    let mut axis = |name: &str, value: String| text.push_str(&format!("    {name} = {value},\n"));
    axis("model", model(first.platform)?);
    axis("gpu_model", one_of(gpus.iter().map(|g| quoted(g)).collect()));
    if !precisions.is_empty() {
        axis("precision", one_of(precisions.iter().map(|p| quoted(p)).collect()));
    }
    axis("tensor_parallel", degrees(|p| u64::from(p.tensor_parallel)));
    axis("pipeline_parallel", degrees(|p| u64::from(p.pipeline_parallel)));
    axis("data_parallel", degrees(|p| u64::from(p.data_parallel)));
    axis("batch_size", degrees(|p| p.batch_size));
    axis("input_tokens", whole(request.input_tokens).to_string());
    axis("output_tokens", whole(request.output_tokens).to_string());
    let (format, names) = if keyed { ("%s %s", "p.gpu_model, p.precision") } else { ("%s", "p.gpu_model") };
    text.push_str(&format!(
        "  }},\n  where = function(p)\n    return wanted[string.format(\"{format} %d %d %d %d\", {names}, \
         p.tensor_parallel, p.pipeline_parallel,\n      p.data_parallel, p.batch_size)] == true\n  end,\n  \
         design = el.factorial {{}},\n",
    ));
    text.push_str(&workload(first, node_gpus));
    text.push_str("}\n");
    Ok(text)
}

/// What occurs most often; of what occurs as often, what came first.
fn most<T: PartialEq>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for item in items {
        match counts.iter_mut().find(|(known, _)| *known == item) {
            Some((_, count)) => *count += 1,
            None => counts.push((item, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(item, _)| item)
}

impl Measured<'_> {
    /// What its rows were measured with: whether simulated, and the engine.
    fn engine(&self) -> (bool, Option<String>) {
        (self.platform.energy().simulated, self.platform.engine().map(str::to_ascii_lowercase))
    }

    fn engine_in_words(&self) -> String {
        match self.engine() {
            (true, _) => "the simulated node".to_owned(),
            (false, engine) => engine.unwrap_or_else(|| "an engine that the rows do not name".to_owned()),
        }
    }

    /// The precision by the name that a sweep has for it, or else as the rows call it.
    fn precision(&self) -> Result<&'static str, Option<String>> {
        let own = self.platform.precision().ok_or(None)?;
        let name = PRECISIONS.into_iter().find(|name| same_label(name, own));
        name.ok_or_else(|| Some(own.to_ascii_lowercase()))
    }

    /// Precisions of one class may share a sweep.
    fn precision_class(&self) -> Result<(), Option<String>> {
        self.precision().map(|_| ())
    }

    fn precision_in_words(&self) -> String {
        match self.precision() {
            Ok(name) => name.to_owned(),
            Err(own) => own.unwrap_or_else(|| "a precision that the rows do not name".to_owned()),
        }
    }

    /// How its combination is told apart in the sweep.
    fn key(&self, with_precision: bool) -> Result<String, Error> {
        let p = self.point;
        let degrees = format!("{} {} {}", p.tensor_parallel, p.pipeline_parallel, p.data_parallel);
        let precision = self.precision().ok().filter(|_| with_precision);
        let precision = precision.map(|name| format!(" {name}")).unwrap_or_default();
        Ok(format!("{}{precision} {degrees} {}", self.gpu()?, p.batch_size))
    }

    /// The GPU by the name of its card.
    fn gpu(&self) -> Result<String, Error> {
        let name = self.platform.gpu_model();
        GpuCard::builtin(name).map(|card| card.gpu_model).ok_or_else(|| Error::NoSweep {
            model: self.platform.model().to_owned(),
            problem: format!("`energylens cards` does not list the GPU {name}, and a sweep needs its data sheet"),
        })
    }
}

/// What the sweep of `first` leaves out, and what it cannot say.
fn notes(all: &[Measured<'_>], first: &Measured<'_>, kept: &[bool]) -> Vec<String> {
    let left_out = all.iter().zip(kept).filter(|(_, kept)| !**kept).map(|(m, _)| m);
    let mut notes: Vec<String> = left_out
        .map(|m| {
            let p = m.point;
            let degrees = format!("TP {} x PP {} x DP {}", p.tensor_parallel, p.pipeline_parallel, p.data_parallel);
            let what = format!("not in the sweep: {degrees}, batch {} on {}", p.batch_size, p.gpu_model);
            if m.engine() == first.engine() {
                let (own, other) = (m.precision_in_words(), first.precision_in_words());
                format!("{what} in {own}, which no sweep holds beside {other}")
            } else {
                let (own, other) = (m.engine_in_words(), first.engine_in_words());
                format!("{what} with {own}; a sweep has one engine, and this one has {other}")
            }
        })
        .collect();
    if let Err(Some(own)) = first.precision() {
        notes.push(format!(
            "the rows were measured in {own}, which no sweep can name: see to it that it is measured so"
        ));
    }
    notes
}

/// Text from outside that no line break carries out of a comment.
fn in_a_comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Engines that a sweep starts by a name of its own: as rows call them, and as Lua does.
const SERVERS: [(&str, &str); 3] = [("vllm", "el.vllm"), ("sglang", "el.sglang"), ("llama.cpp", "el.llama_server")];

/// What the rows behind the law were measured with, or a place for it that has to be filled in before it can be run.
fn workload(first: &Measured<'_>, gpus: u32) -> String {
    let engine = match first.engine() {
        (true, _) => {
            return format!(
                "  -- As the rows before it, on the simulated node.\n  workload = el.simulated {{ gpus = {gpus} }},\n"
            );
        }
        (false, Some(engine)) => engine,
        (false, None) => {
            return format!(
                "  -- FILL IN: the rows do not say what they were measured with.\n  \
                 workload = el.fill_in {{ engine = \"unnamed\", gpus = {gpus} }},\n"
            );
        }
    };
    match SERVERS.iter().find(|(name, _)| *name == engine) {
        Some((_, server)) => format!(
            "  -- The rows were measured with {engine}. Give it the options it had then (docs/servers.md).\n  \
             workload = {server} {{ gpus = {gpus} }},\n"
        ),
        None => format!(
            "  -- FILL IN: the rows were measured with {}, and they do not say how it was started.\n  \
             workload = el.fill_in {{ engine = {}, gpus = {gpus} }},\n",
            in_a_comment(&engine),
            quoted(&column(&engine))
        ),
    }
}

/// An engine as the column of that name takes it.
fn column(engine: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = engine.chars().take(64).map(plain).collect();
    if name.is_empty() || name == "simulated" { "unnamed".to_owned() } else { name }
}

/// The model by its name, or its card in full.
fn model(platform: &Platform<'_>) -> Result<String, Error> {
    let name = platform.model();
    if ModelCard::builtin(name).is_some() {
        return Ok(quoted(name));
    }
    let d = &platform.scenario().descriptors;
    if d.nominal {
        let problem = "nothing is known of its size; add its card's columns to the rows and fit again".to_owned();
        return Err(Error::NoSweep { model: name.to_owned(), problem });
    }
    let mut card = vec![
        format!("model = {}", quoted(name)),
        // Two bytes a weight: only their product matters here.
        format!("params = {}", 0.5 * d.weight_bytes),
        format!("n_layers = {}", d.n_layers),
        format!("hidden_size = {}", d.hidden_size),
        format!("kv_bytes_per_token = {}", d.kv_bytes_per_token),
    ];
    if d.num_experts > 1.0 {
        card.push(format!("active_params = {}", d.active_params.min(0.5 * d.weight_bytes)));
        card.push(format!("num_experts = {}, experts_per_token = {}", d.num_experts, d.experts_per_token));
    }
    Ok(format!("{{ {} }}", card.join(", ")))
}

fn choice(values: impl Iterator<Item = u64>) -> String {
    let values: BTreeSet<u64> = values.collect();
    one_of(values.iter().map(u64::to_string).collect())
}

/// An axis of these values, which Lua reads as they are.
fn one_of(values: Vec<String>) -> String {
    match values.as_slice() {
        [only] => only.clone(),
        several => format!("el.choice {{ {} }}", several.join(", ")),
    }
}

fn whole(tokens: f64) -> u64 {
    tokens.round().max(1.0) as u64
}

/// A Lua string: what is not plain ASCII as its bytes.
fn quoted(text: &str) -> String {
    let plain = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b'"' && b != b'\\';
    let body: String =
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("\\{b:03}") }).collect();
    format!("\"{body}\"")
}
