//! From a table row to a [`Case`]: cards and memory fill in what the row does not say.

use serde::{Deserialize, Serialize};

use super::case::Case;
use crate::card::ModelCard;
use crate::card::model::routed_share;
use crate::dataset::Row;

/// Share of GPU memory that engines hand to weights and KV cache together (vLLM's `gpu_memory_utilization` default).
pub(super) const MEMORY_UTILISATION: f64 = 0.9;

/// The card numbers that enter a law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Layers.
    pub n_layers: f64,
    /// Active parameters.
    pub active_params: f64,
    /// Weight bytes.
    pub weight_bytes: f64,
    /// Hidden size.
    pub hidden_size: f64,
    /// KV-cache bytes per token.
    pub kv_bytes_per_token: f64,
    /// Routed experts per layer.
    pub num_experts: f64,
    /// Experts that one token visits.
    pub experts_per_token: f64,
    /// Share of the weights that belong to routed experts; 1 where nothing better is known.
    #[serde(default = "Case::all_routed")]
    pub routed_share: f64,
    /// True when nothing is known of the model and every number above is a placeholder: the law then holds for this
    /// scenario alone, and its coefficients have no physical unit.
    pub nominal: bool,
}

/// What is missing before a configuration can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The law needs the prompt length.
    #[error("input_tokens is missing, and the law needs the prompt length")]
    NoInputTokens,
    /// Neither columns nor a known card.
    #[error(
        "nothing is known of model `{model}`: add the columns {columns}, or use a model that `energylens cards` lists"
    )]
    UnknownModel {
        /// The name.
        model: String,
        /// Columns that would do.
        columns: String,
    },
}

impl Descriptors {
    /// Placeholders for a model of which nothing is known.
    pub fn nominal() -> Self {
        Self {
            n_layers: 1.0,
            active_params: 1.0,
            weight_bytes: 1.0,
            hidden_size: 1.0,
            kv_bytes_per_token: 1.0,
            num_experts: 0.0,
            experts_per_token: 0.0,
            routed_share: 1.0,
            nominal: true,
        }
    }

    /// From a card.
    pub fn from_card(card: &ModelCard) -> Self {
        Self {
            n_layers: card.n_layers,
            active_params: card.active_params,
            weight_bytes: card.weight_bytes(),
            hidden_size: card.hidden_size,
            kv_bytes_per_token: card.kv_bytes_per_token,
            num_experts: card.num_experts,
            experts_per_token: card.experts_per_token,
            routed_share: routed_share(card.params, card.active_params, card.num_experts, card.experts_per_token),
            nominal: false,
        }
    }

    /// From the row's own columns, with `card` for those it does not have.
    pub fn from_row(row: &Row, card: Option<&ModelCard>) -> Result<Self, ResolveError> {
        let mut missing = Vec::new();
        let mut pick = |column: &'static str, own: Option<f64>, carded: Option<f64>| {
            own.or(carded).unwrap_or_else(|| {
                missing.push(column);
                f64::NAN
            })
        };
        let params = pick("params", row.params, card.map(|c| c.params));
        let bytes_per_weight = row.bytes_per_weight.or_else(|| bytes_of(row.precision.as_deref()?));
        let bytes_per_weight = pick("bytes_per_weight", bytes_per_weight, card.map(|c| c.bytes_per_weight));
        let num_experts = row.num_experts.or(card.map(|c| c.num_experts)).unwrap_or(0.0);
        let (active, visited) = (
            row.active_params.or(card.map(|c| c.active_params)),
            row.experts_per_token.or(card.map(|c| c.experts_per_token)),
        );
        // A model that routes is not described without these two; one that does not needs neither.
        let (active_params, experts_per_token) = if num_experts > 1.0 {
            (pick("active_params", active, None), pick("experts_per_token", visited, None))
        } else {
            (active.unwrap_or(params), visited.unwrap_or(0.0))
        };
        let found = Self {
            n_layers: pick("n_layers", row.n_layers, card.map(|c| c.n_layers)),
            active_params,
            weight_bytes: params * bytes_per_weight,
            hidden_size: pick("hidden_size", row.hidden_size, card.map(|c| c.hidden_size)),
            kv_bytes_per_token: pick("kv_bytes_per_token", row.kv_bytes_per_token, card.map(|c| c.kv_bytes_per_token)),
            num_experts,
            experts_per_token,
            routed_share: routed_share(params, active_params, num_experts, experts_per_token),
            nominal: false,
        };
        if missing.is_empty() {
            Ok(found)
        } else {
            Err(ResolveError::UnknownModel { model: row.model.clone(), columns: missing.join(", ") })
        }
    }

    /// The case of a row of this model. `kv_capacity_tokens` is what the caller knows of the cache at this row's degrees.
    pub fn case(&self, row: &Row, kv_capacity_tokens: Option<f64>) -> Result<Case, ResolveError> {
        let data_parallel = f64::from(row.data_parallel.max(1));
        Ok(Case {
            phase: row.phase,
            tensor_parallel: f64::from(row.tensor_parallel),
            pipeline_parallel: f64::from(row.pipeline_parallel),
            data_parallel,
            batch_size: row.batch_size / data_parallel,
            input_tokens: row.input_tokens.ok_or(ResolveError::NoInputTokens)?,
            output_tokens: row.output_tokens,
            n_layers: self.n_layers,
            active_params: self.active_params,
            weight_bytes: self.weight_bytes,
            hidden_size: self.hidden_size,
            kv_bytes_per_token: self.kv_bytes_per_token,
            num_experts: self.num_experts,
            experts_per_token: self.experts_per_token,
            routed_share: self.routed_share,
            kv_capacity_tokens,
        })
    }
}

/// Bytes of one weight in a numeric format, by its usual names.
fn bytes_of(precision: &str) -> Option<f64> {
    let precision = precision.to_ascii_lowercase();
    let has = |names: &[&str]| names.iter().any(|n| precision.contains(n));
    match () {
        () if has(&["bf16", "fp16", "float16", "half"]) => Some(2.0),
        () if has(&["fp8", "int8", "w8"]) => Some(1.0),
        () if has(&["int4", "fp4", "w4", "awq", "gptq"]) => Some(0.5),
        () if has(&["fp32", "float32"]) => Some(4.0),
        () => None,
    }
}

/// KV capacity of one replica from memory: `(t p memory u - weights) / KV bytes per token`.
///
/// `utilisation` is the share of memory that the engine hands out, 0.9 where nothing better is known. `None` for models
/// without KV cache, and where the weights alone would not fit: the formula then knows less than the run that worked.
pub fn memory_kv_capacity(
    descriptors: &Descriptors,
    gpu_memory_bytes: f64,
    tensor_parallel: f64,
    pipeline_parallel: f64,
    utilisation: Option<f64>,
) -> Option<f64> {
    if descriptors.nominal || descriptors.kv_bytes_per_token <= 0.0 {
        return None;
    }
    let usable = tensor_parallel * pipeline_parallel * gpu_memory_bytes * utilisation.unwrap_or(MEMORY_UTILISATION);
    let tokens = (usable - descriptors.weight_bytes) / descriptors.kv_bytes_per_token;
    (tokens >= 1.0).then_some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_llama_70b_on_four_a100s() {
        let card = Descriptors {
            n_layers: 80.0,
            active_params: 69e9,
            weight_bytes: 138e9,
            hidden_size: 8192.0,
            kv_bytes_per_token: 327_680.0,
            num_experts: 0.0,
            experts_per_token: 0.0,
            routed_share: 1.0,
            nominal: false,
        };
        // 4 * 80e9 * 0.9 = 288e9; 150e9 left; / 327680 = 457,763 tokens.
        let tokens = memory_kv_capacity(&card, 80e9, 4.0, 1.0, None).unwrap();
        assert!((tokens - 457_763.67).abs() < 0.1, "{tokens}");
        assert_eq!(memory_kv_capacity(&card, 80e9, 1.0, 1.0, None), None);
        assert_eq!(memory_kv_capacity(&Descriptors::nominal(), 80e9, 1.0, 1.0, None), None);
    }

    #[test]
    fn a_model_that_routes_is_not_taken_for_a_dense_one() {
        let full = Row {
            params: Some(30.5e9),
            active_params: Some(3.3e9),
            n_layers: Some(48.0),
            hidden_size: Some(2048.0),
            kv_bytes_per_token: Some(98_304.0),
            num_experts: Some(128.0),
            experts_per_token: Some(8.0),
            bytes_per_weight: Some(2.0),
            ..Row::new("own-moe", "A100")
        };
        assert!(Descriptors::from_row(&full, None).is_ok());
        for (row, column) in [
            (Row { active_params: None, ..full.clone() }, "active_params"),
            (Row { experts_per_token: None, ..full }, "experts_per_token"),
        ] {
            let message = Descriptors::from_row(&row, None).unwrap_err().to_string();
            assert!(message.contains(column), "{message}");
        }
    }

    #[test]
    fn precision_names_give_bytes() {
        for (name, bytes) in [("bf16", 2.0), ("FP8-E4M3", 1.0), ("awq", 0.5), ("float32", 4.0)] {
            assert_eq!(bytes_of(name), Some(bytes), "{name}");
        }
        assert_eq!(bytes_of("mystery"), None);
    }
}
