//! Which layers attend, which keep a state, which route: the several ways in which configurations say it.

use serde_json::Value;

use super::HuggingFaceError;
use super::keys::{Keys, bad};

/// More layers than any model has; a list as long as this is not walked.
const MOST_LAYERS: f64 = 10_000.0;

/// How many layers are of which kind. A layer of most models has a mixer (attention or state space) and an MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LayerCounts {
    /// All layers as the configuration counts them.
    pub(super) layers: f64,
    /// Layers with attention, hence with a KV cache.
    pub(super) attention: f64,
    /// Layers with a state-space mixer.
    pub(super) ssm: f64,
    /// Layers with one plain MLP.
    pub(super) dense_mlp: f64,
    /// Layers with routed experts.
    pub(super) moe: f64,
    /// Layers that call a shared transformer block besides their own mixer (Zamba2).
    pub(super) shared_block: f64,
}

impl LayerCounts {
    /// Reads whichever of the notations the configuration uses; `routed` says whether it has experts at all.
    pub(super) fn read(keys: &Keys<'_>, model_type: &str, routed: bool) -> Result<Self, HuggingFaceError> {
        if let Some(pattern) = keys.text(&["hybrid_override_pattern"]) {
            return Self::from_pattern(pattern);
        }
        let layers = keys.need(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"])?;
        if layers > MOST_LAYERS {
            return Err(bad("num_hidden_layers", "at most 10,000", &Value::from(layers)));
        }
        let mut counts = Self { layers, attention: layers, ssm: 0.0, dense_mlp: layers, moe: 0.0, shared_block: 0.0 };
        if matches!(model_type, "mamba" | "mamba2" | "falcon_mamba") || is_mamba_ssm(keys) {
            // Pure state-space models have no MLP; the original mamba-ssm format may name a few attention layers.
            counts.attention = keys.list(&["attn_layer_idx"]).map_or(0.0, |l| (l.len() as f64).min(layers));
            counts.ssm = layers - counts.attention;
            counts.dense_mlp = 0.0;
            return Ok(counts);
        }
        if model_type == "zamba2" {
            counts.ssm = layers;
            counts.shared_block = match keys.list(&["hybrid_layer_ids"]) {
                Some(ids) => ids.len() as f64,
                None => keys.list(&["layers_block_type"]).map_or(0.0, |l| named(l, &["hybrid"])),
            }
            .min(layers);
            counts.attention = counts.shared_block;
            counts.dense_mlp = 0.0;
            return Ok(counts);
        }
        if let Some(attention) = attention_layers(keys, layers)? {
            counts.attention = attention;
            counts.ssm = layers - attention;
        }
        if routed {
            counts.moe = moe_layers(keys, layers)?;
            counts.dense_mlp = layers - counts.moe;
        }
        Ok(counts)
    }

    /// Nemotron-H: one letter per layer, each with one mixer only: `M` state space, `*` attention, `-` MLP, `E` experts.
    fn from_pattern(pattern: &str) -> Result<Self, HuggingFaceError> {
        let mut counts = Self { layers: 0.0, attention: 0.0, ssm: 0.0, dense_mlp: 0.0, moe: 0.0, shared_block: 0.0 };
        for letter in pattern.chars() {
            let kind = match letter {
                'M' => &mut counts.ssm,
                '*' => &mut counts.attention,
                '-' => &mut counts.dense_mlp,
                'E' => &mut counts.moe,
                _ => return Err(bad("hybrid_override_pattern", "only the letters M, *, - and E", &pattern.into())),
            };
            *kind += 1.0;
            counts.layers += 1.0;
        }
        if !(1.0..=MOST_LAYERS).contains(&counts.layers) {
            return Err(bad("hybrid_override_pattern", "1 to 10,000 letters", &pattern.into()));
        }
        Ok(counts)
    }
}

/// The original mamba-ssm format: no model type, but an `ssm_cfg`.
fn is_mamba_ssm(keys: &Keys<'_>) -> bool {
    keys.object(&["ssm_cfg"]).is_some() && keys.value(&["num_attention_heads"]).is_none()
}

fn named(list: &[Value], names: &[&str]) -> f64 {
    list.iter().filter(|v| v.as_str().is_some_and(|s| names.contains(&s))).count() as f64
}

/// Number of attention layers where only some attend; `None` where all do.
fn attention_layers(keys: &Keys<'_>, layers: f64) -> Result<Option<f64>, HuggingFaceError> {
    if let Some(period) = keys.count(&["attn_layer_period"])? {
        let offset = keys.count(&["attn_layer_offset"])?.unwrap_or(0.0);
        return Ok(Some(every(layers, period.max(1.0), offset)));
    }
    if let Some(list) = keys.list(&["attn_layer_indices"]) {
        return Ok(Some((list.len() as f64).min(layers)));
    }
    if let Some(list) = keys.list(&["layers_block_type", "layer_types", "block_types", "_block_types"]) {
        // Many attention-only models list `full_attention` and `sliding_attention` here.
        let ssm = named(list, &["mamba", "mamba2", "linear_attention", "recurrent", "ssm"]).min(layers);
        return Ok((ssm > 0.0).then_some(layers - ssm));
    }
    Ok(None)
}

/// Number of layers with routed experts, in a model that has some.
fn moe_layers(keys: &Keys<'_>, layers: f64) -> Result<f64, HuggingFaceError> {
    if let Some(period) = keys.count(&["expert_layer_period"])? {
        let offset = keys.count(&["expert_layer_offset"])?.unwrap_or(0.0);
        return Ok(every(layers, period.max(1.0), offset));
    }
    if let Some(list) = keys.list(&["moe_layers"]) {
        return Ok((list.len() as f64).min(layers));
    }
    let step = keys
        .count(&["decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", "moe_layer_interval"])
        .or_else(|e| if keys.list(&["moe_layer_freq"]).is_some() { Ok(None) } else { Err(e) })?
        .unwrap_or(1.0)
        .max(1.0);
    let first_dense = keys.count(&["first_k_dense_replace"])?.unwrap_or(0.0);
    let plain = keys.list(&["mlp_only_layers"]).map_or(0.0, |l| l.len() as f64);
    Ok(((((layers - first_dense) / step).floor()) - plain).clamp(0.0, layers))
}

/// How many of the layers 0.. satisfy `layer % period == offset`.
fn every(layers: f64, period: f64, offset: f64) -> f64 {
    if offset >= layers { 0.0 } else { ((layers - offset) / period).ceil() }
}
