//! `energylens cards`: what is known of models and GPUs before anything is measured.

use std::path::PathBuf;

use clap::Args;
use energylens::card::{GpuCard, ModelCard};
use energylens::source::Scope;
use serde_json::json;

use super::output::short;
use super::sources::SourceArguments;
use super::{Outcome, output};

/// Show model and GPU cards: the built-in ones, or the card of a config.json.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens cards path/to/config.json")]
pub(crate) struct Arguments {
    /// A Hugging Face style config.json, or the directory it lies in.
    config: Option<PathBuf>,
    #[command(flatten)]
    sources: SourceArguments,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// The cards of this node's GPUs, with the memory and power limit that the driver tells.
fn of_this_node(sources: &SourceArguments) -> anyhow::Result<Vec<GpuCard>> {
    let detection = sources.detect()?;
    let gpus = detection.devices().filter(|d| d.scope == Scope::Gpu);
    Ok(gpus.filter_map(|d| GpuCard::of_driver(&d.name, d.memory_bytes, d.power_limit_w)).collect())
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let (models, gpus): (Vec<ModelCard>, Vec<GpuCard>) = match &a.config {
        Some(path) => (vec![ModelCard::from_hugging_face(path, None)?], Vec::new()),
        None => (
            ModelCard::builtin_names().filter_map(ModelCard::builtin).collect(),
            GpuCard::builtin_names().filter_map(GpuCard::builtin).collect(),
        ),
    };
    let own = if a.config.is_none() { of_this_node(&a.sources)? } else { Vec::new() };
    if a.json {
        output::print_json(&json!({ "models": models, "gpus": gpus, "this_node": own }))?;
        return Ok(Outcome::Done);
    }
    let headers =
        ["model", "architecture", "params", "active", "layers", "hidden", "KV B/token", "experts", "B/weight"];
    let mut table = output::table(&headers, &[2, 3, 4, 5, 6, 7, 8]);
    for m in &models {
        let experts =
            if m.num_experts > 0.0 { format!("{} of {}", m.experts_per_token, m.num_experts) } else { "-".to_owned() };
        table.add_row([
            m.model.clone(),
            m.architecture.to_string(),
            short(m.params),
            short(m.active_params),
            m.n_layers.to_string(),
            m.hidden_size.to_string(),
            m.kv_bytes_per_token.to_string(),
            experts,
            m.bytes_per_weight.to_string(),
        ]);
    }
    output::print(&table.trim_fmt())?;
    if !gpus.is_empty() {
        output::print(&format!("\n{}", gpu_table("GPU", &gpus)))?;
    }
    if !own.is_empty() {
        output::print(&format!("\n{}", gpu_table("this node, by its driver", &own)))?;
    }
    Ok(Outcome::Done)
}

fn gpu_table(title: &str, gpus: &[GpuCard]) -> String {
    let mut table =
        output::table(&[title, "memory GB", "TFLOP/s", "GB/s", "link GB/s", "limit W", "idle W"], &[1, 2, 3, 4, 5, 6]);
    for g in gpus {
        let giga = |v: f64| format!("{:.0}", v / 1e9);
        table.add_row([
            g.gpu_model.clone(),
            giga(g.memory_bytes),
            format!("{:.0}", g.peak_flops / 1e12),
            giga(g.memory_bandwidth_bytes_per_s),
            giga(g.link_bandwidth_bytes_per_s),
            g.power_limit_w.to_string(),
            g.idle_power_w.to_string(),
        ]);
    }
    table.trim_fmt()
}
