//! Chosen configurations as a Lua sweep.

use std::collections::BTreeSet;

use super::Error;
use super::answer::figure;
use super::next::NextMeasurement;
use super::platform::Platform;
use super::request::Request;
use crate::card::{GpuCard, ModelCard};

/// Precisions that a sweep may name.
const PRECISIONS: [&str; 8] = ["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"];

/// A configuration and where it runs.
pub(super) struct Measured<'a> {
    pub(super) platform: &'a Platform<'a>,
    pub(super) point: &'a NextMeasurement,
}

/// A sweep of exactly these configurations: axes of all their values, and a `where` that keeps the wanted combinations.
pub(super) fn sweep_file(measured: &[Measured<'_>], request: &Request) -> Result<String, Error> {
    let Some(first) = measured.first() else { return Err(Error::Workload("nothing is left to measure".to_owned())) };
    let points: Vec<&NextMeasurement> = measured.iter().map(|m| m.point).collect();
    let gpus: BTreeSet<String> = measured.iter().map(gpu).collect::<Result<_, _>>()?;
    let gpus: Vec<String> = gpus.iter().map(|g| quoted(g)).collect();
    let degrees = |of: fn(&NextMeasurement) -> u64| choice(points.iter().map(|p| of(p)));
    let node_gpus = points.iter().map(|p| p.tensor_parallel * p.pipeline_parallel * p.data_parallel).max().unwrap_or(1);
    let mut text = format!(
        "-- The {} configurations whose measurement is expected to improve the choice most, by energylens recommend.\n\
         -- `energylens plan` shows them, `energylens run` measures them; fit again with the new rows added.\n\
         local el = require \"energylens\"\n\nlocal wanted = {{\n",
        points.len()
    );
    for m in measured {
        text.push_str(&format!(
            "  [\"{}\"] = true, -- expected saving {} %, known to {} %\n",
            key(m)?,
            figure(m.point.expected_saving_percent),
            figure(m.point.uncertainty_percent)
        ));
    }
    text.push_str("}\n\nreturn el.sweep {\n  name = \"next\",\n  axes = {\n");
    let mut axis = |name: &str, value: String| text.push_str(&format!("    {name} = {value},\n"));
    axis("model", model(first.platform)?);
    let gpus = match gpus.as_slice() {
        [only] => only.clone(),
        several => format!("el.choice {{ {} }}", several.join(", ")),
    };
    axis("gpu_model", gpus);
    if let Some(precision) = precision(measured) {
        axis("precision", quoted(&precision));
    }
    axis("tensor_parallel", degrees(|p| u64::from(p.tensor_parallel)));
    axis("pipeline_parallel", degrees(|p| u64::from(p.pipeline_parallel)));
    axis("data_parallel", degrees(|p| u64::from(p.data_parallel)));
    axis("batch_size", degrees(|p| p.batch_size));
    axis("input_tokens", whole(request.input_tokens).to_string());
    axis("output_tokens", whole(request.output_tokens).to_string());
    text.push_str(
        "  },\n  where = function(p)\n    return wanted[string.format(\"%s %d %d %d %d\", p.gpu_model, p.tensor_parallel, \
         p.pipeline_parallel,\n      p.data_parallel, p.batch_size)] == true\n  end,\n  design = el.factorial {},\n",
    );
    text.push_str(&workload(measured, node_gpus));
    text.push_str("}\n");
    Ok(text)
}

/// Engines that a sweep starts by a name of its own: as rows call them, and as Lua does.
const SERVERS: [(&str, &str); 3] = [("vllm", "el.vllm"), ("sglang", "el.sglang"), ("llama.cpp", "el.llama_server")];

/// What the rows behind the law were measured with, or a place for it that has to be filled in before it can be run.
fn workload(measured: &[Measured<'_>], gpus: u32) -> String {
    let of = |m: &Measured<'_>| (m.platform.energy().simulated, m.platform.engine().map(str::to_ascii_lowercase));
    let mut all: Vec<(bool, Option<String>)> = measured.iter().map(of).collect();
    all.sort();
    all.dedup();
    let one = |engine: &str| {
        let server = SERVERS.iter().find(|(name, _)| *name == engine).map(|(_, server)| {
            format!(
                "  -- The rows were measured with {engine}. Give it the options it had then (docs/servers.md).\n  \
                 workload = {server} {{ gpus = {gpus} }},\n"
            )
        });
        server.unwrap_or_else(|| {
            format!(
                "  -- FILL IN: the rows were measured with {engine}, and they do not say how it was started.\n  \
                 workload = el.fill_in {{ engine = {}, gpus = {gpus} }},\n",
                quoted(&column(engine))
            )
        })
    };
    match all.as_slice() {
        [(true, _)] => format!(
            "  -- As the rows before it, on the simulated node.\n  workload = el.simulated {{ gpus = {gpus} }},\n"
        ),
        [(false, Some(engine))] => one(engine),
        _ => {
            let which: Vec<&str> = all.iter().filter_map(|(_, engine)| engine.as_deref()).collect();
            let said = match which.as_slice() {
                [] => "the rows do not say what they were measured with".to_owned(),
                some => format!("the rows were measured with {}; a sweep has one workload", some.join(" and ")),
            };
            format!(
                "  -- FILL IN: {said}.\n  workload = el.fill_in {{ engine = {}, gpus = {gpus} }},\n",
                quoted(&column(which.first().copied().unwrap_or("unnamed")))
            )
        }
    }
}

/// An engine as the column of that name takes it.
fn column(engine: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = engine.chars().take(64).map(plain).collect();
    if name.is_empty() || name == "simulated" { "unnamed".to_owned() } else { name }
}

/// How a combination is told apart in the sweep.
fn key(m: &Measured<'_>) -> Result<String, Error> {
    let p = m.point;
    let degrees = format!("{} {} {}", p.tensor_parallel, p.pipeline_parallel, p.data_parallel);
    Ok(format!("{} {degrees} {}", gpu(m)?, p.batch_size))
}

/// The GPU by the name of its card.
fn gpu(m: &Measured<'_>) -> Result<String, Error> {
    let name = m.platform.gpu_model();
    GpuCard::builtin(name).map(|card| card.gpu_model).ok_or_else(|| Error::NoSweep {
        model: m.platform.model().to_owned(),
        problem: format!("`energylens cards` does not list the GPU {name}, and a sweep needs its data sheet"),
    })
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

/// The precision that all of them have, where a sweep knows it.
fn precision(measured: &[Measured<'_>]) -> Option<String> {
    let of = |m: &Measured<'_>| m.platform.precision().map(str::to_ascii_lowercase);
    let first = of(measured.first()?)?;
    let all = measured.iter().all(|m| of(m).as_deref() == Some(&first));
    (all && PRECISIONS.contains(&first.as_str())).then_some(first)
}

fn choice(values: impl Iterator<Item = u64>) -> String {
    let values: BTreeSet<u64> = values.collect();
    let values: Vec<String> = values.iter().map(u64::to_string).collect();
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
