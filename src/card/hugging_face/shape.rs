//! From the keys of a configuration to counted parameters.

use serde_json::{Map, Value};

use super::HuggingFaceError;
use super::keys::Keys;
use super::layers::LayerCounts;
use super::weights::{dtype_bytes, quantised_bytes};
use crate::card::{Architecture, ModelCard};

/// Counted parameters of a model, by what becomes of them.
pub(super) struct Shape {
    counts: LayerCounts,
    hidden: f64,
    /// Input embedding and output head (one matrix when tied).
    embedding: f64,
    /// Everything every token passes: attention, state spaces, plain MLPs, shared experts, routers, norms.
    always: f64,
    /// One routed expert, times the layers that route.
    one_expert: f64,
    experts: f64,
    experts_per_token: f64,
    /// Vision tower and projector.
    vision: f64,
    has_vision: bool,
    kv_elements_per_token: f64,
    dtype_bytes: f64,
    quantised_bytes: Option<f64>,
}

const HIDDEN: &[&str] = &["hidden_size", "n_embd", "d_model", "n_embed"];
const HEADS: &[&str] = &["num_attention_heads", "n_head", "n_heads", "num_heads"];
const EXPERTS: &[&str] =
    &["num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", "num_moe_experts"];
const EXPERTS_PER_TOKEN: &[&str] =
    &["num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "moe_k"];

impl Shape {
    /// Reads a whole configuration; a vision-language one keeps its language model in `text_config`.
    pub(super) fn read(object: &Map<String, Value>) -> Result<Self, HuggingFaceError> {
        let outer = Keys::new(object);
        let nested = outer.object(&["text_config", "llm_config", "language_config"]);
        let defaults = nested.map(class_defaults);
        let text = match (nested, &defaults) {
            (Some(nested), Some(defaults)) => Keys::new(nested).or_from(defaults),
            _ => outer.clone(),
        };
        // The vision tower's own `hidden_size` must not be taken for the language model's, so only these come from outside.
        let model_type = text.text(&["model_type"]).unwrap_or_default().to_ascii_lowercase();
        let tied =
            outer.flag(&["tie_word_embeddings"]).or_else(|| text.flag(&["tie_word_embeddings", "tie_embeddings"]));

        let hidden = text.need(HIDDEN)?;
        let vocabulary = text.need(&["vocab_size", "padded_vocab_size"])?;
        let experts = text.count(EXPERTS)?.filter(|e| *e > 1.0).unwrap_or(0.0);
        let routed = experts > 0.0;
        let experts_per_token = if routed { text.need(EXPERTS_PER_TOKEN)?.min(experts) } else { 0.0 };
        let counts = LayerCounts::read(&text, &model_type, routed)?;

        let norms = 2.0 * hidden * counts.layers + hidden;
        let mut always = norms;
        let mut kv_elements_per_token = 0.0;
        if counts.attention > 0.0 {
            let attention = Attention::read(&text, &model_type, hidden)?;
            if counts.shared_block > 0.0 {
                always += shared_blocks(&text, hidden, &counts, &attention)?;
            } else {
                always += counts.attention * attention.params;
            }
            kv_elements_per_token = counts.attention * attention.kv_elements;
        }
        if counts.ssm > 0.0 {
            always += counts.ssm * state_space(&text, &model_type, hidden)?;
        }
        let matrices = if gated(&text, &model_type) { 3.0 } else { 2.0 };
        if counts.dense_mlp > 0.0 {
            always += counts.dense_mlp * matrices * hidden * intermediate(&text, &model_type, hidden)?;
        }
        let mut one_expert = 0.0;
        if counts.moe > 0.0 {
            let width = match text.count(&["moe_intermediate_size", "expert_hidden_size"])? {
                Some(width) if width > 0.0 => width,
                _ => intermediate(&text, &model_type, hidden)?,
            };
            one_expert = counts.moe * matrices * hidden * width;
            let shared_width = match text.count(&[
                "shared_expert_intermediate_size",
                "shared_intermediate_size",
                "moe_shared_expert_intermediate_size",
            ])? {
                Some(shared) => shared,
                None => {
                    width
                        * text
                            .count(&["n_shared_experts", "num_shared_experts", "moe_num_shared_experts"])?
                            .unwrap_or(0.0)
                }
            };
            always += counts.moe * (hidden * experts + matrices * hidden * shared_width);
        }
        let tied = tied.unwrap_or_else(|| ties_by_default(&model_type));
        let vision_config = outer.object(&["vision_config", "vision_cfg", "img_processor"]);
        let dtype = text
            .text(&["torch_dtype", "dtype"])
            .or_else(|| outer.text(&["torch_dtype", "dtype"]))
            .and_then(dtype_bytes)
            .unwrap_or(2.0);
        Ok(Self {
            counts,
            hidden,
            embedding: hidden * vocabulary * if tied { 1.0 } else { 2.0 },
            always,
            one_expert,
            experts: if counts.moe > 0.0 { experts } else { 0.0 },
            experts_per_token: if counts.moe > 0.0 { experts_per_token } else { 0.0 },
            vision: vision_config.map_or(Ok(0.0), |v| vision_tower(v, hidden))?,
            has_vision: vision_config.is_some() || matches!(model_type.as_str(), "chameleon" | "emu3" | "janus"),
            kv_elements_per_token,
            dtype_bytes: dtype,
            quantised_bytes: quantised_bytes(outer.object(&["quantization_config"]))?,
        })
    }

    /// The card, or an error where the counts leave what a model can have.
    pub(super) fn card(&self, name: &str) -> Result<ModelCard, HuggingFaceError> {
        let matrices = self.always + self.one_expert * self.experts;
        let params = matrices + self.embedding + self.vision;
        let active_params = params - self.one_expert * (self.experts - self.experts_per_token);
        if !(1.0..=1e15).contains(&params) {
            return Err(HuggingFaceError::BadValue {
                key: "hidden_size".to_owned(),
                expected: "shapes that give at most 10^15 parameters",
                found: format!("shapes that give {params:.3e}"),
            });
        }
        let architecture = if self.has_vision {
            Architecture::Vlm
        } else if self.counts.ssm > 0.0 {
            if self.counts.attention > 0.0 { Architecture::Hybrid } else { Architecture::Ssm }
        } else if self.experts > 0.0 {
            Architecture::Moe
        } else {
            Architecture::Dense
        };
        // Quantisers leave embeddings, the head and the vision tower as they are.
        let bytes_per_weight = match self.quantised_bytes {
            Some(quantised) => (matrices * quantised + (params - matrices) * self.dtype_bytes) / params,
            None => self.dtype_bytes,
        };
        // The cache keeps the type of the activations: 16 bits unless the model computes in 32.
        let kv_element_bytes = self.dtype_bytes.max(2.0);
        let mixers = self.counts.ssm + self.counts.attention - self.counts.shared_block;
        Ok(ModelCard {
            model: name.to_owned(),
            architecture,
            params,
            active_params,
            n_layers: self.counts.layers,
            hidden_size: self.hidden,
            kv_bytes_per_token: self.kv_elements_per_token * kv_element_bytes,
            num_experts: self.experts,
            experts_per_token: self.experts_per_token,
            bytes_per_weight,
            ssm_share: if mixers > 0.0 { (self.counts.ssm - self.counts.shared_block).max(0.0) / mixers } else { 0.0 },
        })
    }
}

/// One attention layer.
struct Attention {
    params: f64,
    kv_elements: f64,
    query_width: f64,
}

impl Attention {
    fn read(keys: &Keys<'_>, model_type: &str, hidden: f64) -> Result<Self, HuggingFaceError> {
        let heads = keys.need(HEADS)?;
        if let Some(rank) = keys.count(&["kv_lora_rank"])?.filter(|r| *r > 0.0) {
            return Self::compressed(keys, hidden, heads, rank);
        }
        let head = match keys.count(&["head_dim", "attention_head_dim", "kv_channels"])? {
            Some(head) if head > 0.0 => head,
            _ => (hidden / heads).floor().max(1.0),
        };
        let kv_heads = match keys.count(&[
            "num_key_value_heads",
            "num_kv_heads",
            "n_head_kv",
            "kv_n_heads",
            "multi_query_group_num",
            "n_kv_heads",
        ])? {
            Some(kv) if kv > 0.0 && keys.flag(&["new_decoder_architecture"]) != Some(false) => kv,
            // Falcon's first architecture and gpt_bigcode: one head for all queries.
            _ if keys.flag(&["multi_query"]) == Some(true)
                && (matches!(model_type, "gpt_bigcode" | "falcon" | "refinedwebmodel" | "refinedweb")) =>
            {
                1.0
            }
            Some(kv) if kv > 0.0 => kv,
            _ => heads,
        };
        let query_width = heads * head;
        let kv_width = kv_heads * head;
        Ok(Self { params: hidden * (2.0 * query_width + 2.0 * kv_width), kv_elements: 2.0 * kv_width, query_width })
    }

    /// Multi-head latent attention (DeepSeek): what is cached is one latent and one rotary key per token.
    fn compressed(keys: &Keys<'_>, hidden: f64, heads: f64, rank: f64) -> Result<Self, HuggingFaceError> {
        let rotary = keys.need(&["qk_rope_head_dim"])?;
        let plain = keys.need(&["qk_nope_head_dim"])?;
        let value = keys.need(&["v_head_dim"])?;
        let query_width = heads * (plain + rotary);
        let query = match keys.count(&["q_lora_rank"])?.filter(|r| *r > 0.0) {
            Some(query_rank) => query_rank * (hidden + query_width),
            None => hidden * query_width,
        };
        let keys_and_values = hidden * (rank + rotary) + rank * heads * (plain + value);
        let output = heads * value * hidden;
        Ok(Self { params: query + keys_and_values + output, kv_elements: rank + rotary, query_width })
    }
}

/// Zamba2: `num_mem_blocks` transformer blocks, each called from many layers on the concatenation of the residual
/// stream and the embedding, with a small adapter and a projection per call.
fn shared_blocks(
    keys: &Keys<'_>,
    hidden: f64,
    counts: &LayerCounts,
    attention: &Attention,
) -> Result<f64, HuggingFaceError> {
    let blocks = keys.count(&["num_mem_blocks"])?.unwrap_or(1.0).min(counts.shared_block);
    let width = keys.need(&["intermediate_size", "ffn_hidden_size"])?;
    let rank = keys.count(&["adapter_rank"])?.unwrap_or(0.0);
    let block = attention.query_width * (3.0 * 2.0 * hidden + hidden) + 3.0 * hidden * width;
    let per_call = hidden * hidden + rank * (hidden + 2.0 * width);
    Ok(blocks * block + counts.shared_block * per_call)
}

/// One state-space mixer: Mamba (Gu and Dao, arXiv 2312.00752) or Mamba-2 (arXiv 2405.21060) by the keys present.
fn state_space(keys: &Keys<'_>, model_type: &str, hidden: f64) -> Result<f64, HuggingFaceError> {
    let expand = keys.ratio(&["mamba_expand", "expand"])?.unwrap_or(2.0);
    let heads = keys.count(&["mamba_n_heads", "n_mamba_heads", "mamba_num_heads"])?;
    let head = keys.count(&["mamba_d_head", "mamba_headdim", "mamba_head_dim"])?;
    let second = model_type == "mamba2" || heads.is_some() || keys.text(&["layer"]) == Some("Mamba2");
    let inner = match (heads, head) {
        (Some(heads), Some(head)) if heads * head > 0.0 => heads * head,
        _ if model_type.contains("mamba") && !second => {
            keys.count(&["intermediate_size", "d_inner"])?.unwrap_or(expand * hidden)
        }
        _ => expand * hidden,
    };
    let kernel = keys.count(&["mamba_d_conv", "conv_kernel", "d_conv"])?.unwrap_or(4.0);
    let state = keys.count(&["mamba_d_state", "ssm_state_size", "state_size", "d_state"])?;
    if second {
        let state = state.unwrap_or(128.0);
        let groups = keys.count(&["mamba_n_groups", "mamba_ngroups", "n_groups", "ngroups"])?.unwrap_or(1.0);
        let heads = match heads {
            Some(heads) => heads,
            None => keys.count(&["num_heads"])?.unwrap_or((inner / 64.0).ceil()),
        };
        let mixed = inner + 2.0 * groups * state;
        return Ok(hidden * (inner + mixed + heads) + mixed * (kernel + 1.0) + 3.0 * heads + inner + inner * hidden);
    }
    let state = state.unwrap_or(16.0);
    let rank = match keys.value(&["mamba_dt_rank", "time_step_rank", "dt_rank"]) {
        Some((_, Value::String(_))) | None => (hidden / 16.0).ceil(),
        Some(_) => keys.need(&["mamba_dt_rank", "time_step_rank", "dt_rank"])?,
    };
    Ok(hidden * 2.0 * inner
        + inner * (kernel + 1.0)
        + inner * (rank + 2.0 * state)
        + rank * inner
        + inner
        + inner * state
        + inner
        + inner * hidden)
}

/// Width of the MLP; the older families leave it out when it is four times the hidden size.
fn intermediate(keys: &Keys<'_>, model_type: &str, hidden: f64) -> Result<f64, HuggingFaceError> {
    let names = &["intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "mlp_hidden_size"];
    if let Some(width) = keys.count(names)?.filter(|w| *w > 0.0) {
        return Ok(width);
    }
    if let Some(ratio) = keys.ratio(&["expansion_ratio", "mlp_ratio"])?.filter(|r| *r > 0.0) {
        return Ok(ratio * hidden);
    }
    if is_plain_family(model_type) {
        return Ok(4.0 * hidden);
    }
    Err(HuggingFaceError::MissingKey { keys: "intermediate_size".to_owned() })
}

/// Families from before gated MLPs became the rule.
fn is_plain_family(model_type: &str) -> bool {
    const PLAIN: [&str; 14] = [
        "gpt2",
        "gptj",
        "gpt_neo",
        "gpt_neox",
        "gpt_bigcode",
        "bloom",
        "falcon",
        "refinedweb",
        "refinedwebmodel",
        "opt",
        "mpt",
        "phi",
        "codegen",
        "biogpt",
    ];
    PLAIN.contains(&model_type)
}

/// Whether an MLP has three matrices (gated) or two.
fn gated(keys: &Keys<'_>, model_type: &str) -> bool {
    if keys.text(&["mlp_hidden_act", "hidden_act"]) == Some("relu2") {
        return false;
    }
    !(is_plain_family(model_type) || matches!(model_type, "starcoder2" | "nemotron" | "nemotron_h"))
}

/// What the model class does where the file is silent, as files usually are about a default.
fn ties_by_default(model_type: &str) -> bool {
    matches!(
        model_type,
        "gpt2"
            | "bloom"
            | "falcon"
            | "refinedweb"
            | "refinedwebmodel"
            | "opt"
            | "mpt"
            | "gpt_bigcode"
            | "gpt_neo"
            | "gemma"
            | "gemma2"
            | "gemma3"
            | "gemma3_text"
            | "mamba"
            | "mamba2"
            | "falcon_mamba"
            | "zamba"
            | "zamba2"
            | "starcoder2"
            | "cohere"
            | "cohere2"
            | "phi3small"
    )
}

/// Nested language models list only what differs from their class; these are the classes met in practice.
fn class_defaults(nested: &Map<String, Value>) -> Map<String, Value> {
    let pairs: &[(&str, u64)] = match nested.get("model_type").and_then(Value::as_str) {
        Some("llama") | None => &[
            ("hidden_size", 4096),
            ("intermediate_size", 11_008),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("vocab_size", 32_000),
        ],
        Some("mistral") => &[
            ("hidden_size", 4096),
            ("intermediate_size", 14_336),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("num_key_value_heads", 8),
            ("vocab_size", 32_000),
        ],
        _ => &[],
    };
    pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect()
}

/// Vision transformer and projector. The tower is a few per cent of the model, and configurations leave much of it out:
/// missing keys take CLIP's values.
fn vision_tower(config: &Map<String, Value>, language_hidden: f64) -> Result<f64, HuggingFaceError> {
    let keys = Keys::new(config);
    let width = keys.count(&["embed_dim", "hidden_size", "width", "image_dim_out"])?.unwrap_or(1024.0);
    let layers = keys.count(&["depth", "num_hidden_layers", "layers"])?.unwrap_or(24.0);
    let mlp = match keys.count(&["intermediate_size"])? {
        Some(mlp) => mlp,
        None => width * keys.ratio(&["mlp_ratio"])?.unwrap_or(4.0),
    };
    let patch = keys.count(&["patch_size", "spatial_patch_size"])?.unwrap_or(14.0);
    let mlp_matrices = if keys.text(&["hidden_act"]) == Some("silu") { 3.0 } else { 2.0 };
    let tower = layers * (4.0 * width * width + mlp_matrices * width * mlp) + 3.0 * patch * patch * width;
    // Qwen merges 2 x 2 patches before projecting; others project each patch.
    let merged = width * keys.count(&["spatial_merge_size"])?.map_or(1.0, |m| m * m);
    let projector_hidden = if merged > width { merged } else { language_hidden };
    Ok(tower + merged * projector_hidden + projector_hidden * language_hidden)
}
