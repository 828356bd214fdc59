//! The model card: the numbers of an architecture that decide what a token costs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Family of an architecture; it labels rows, while the law works with the card's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Every weight takes part in every token.
    Dense,
    /// A router sends each token to a few experts per layer.
    Moe,
    /// State-space layers only: no KV cache.
    Ssm,
    /// State-space layers with some attention layers between.
    Hybrid,
    /// Vision-language: images enter as tokens.
    Vlm,
}

impl Architecture {
    /// The spelling in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Moe => "moe",
            Self::Ssm => "ssm",
            Self::Hybrid => "hybrid",
            Self::Vlm => "vlm",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "dense" | "transformer" => Ok(Self::Dense),
            "moe" | "mixture-of-experts" => Ok(Self::Moe),
            "ssm" | "mamba" | "state-space" => Ok(Self::Ssm),
            "hybrid" | "hybrid-ssm" => Ok(Self::Hybrid),
            "vlm" | "vision-language" | "vision_language" | "multimodal" => Ok(Self::Vlm),
            other => Err(format!("architecture `{other}` is unknown; expected dense, moe, ssm, hybrid or vlm")),
        }
    }
}

/// What the law and the planner need to know of a model. Counts are `f64`: they only ever enter products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Name, in Hugging Face spelling where the model has one.
    pub model: String,
    /// Family.
    pub architecture: Architecture,
    /// All parameters.
    pub params: f64,
    /// Parameters that take part in one token; equals `params` unless the model routes.
    pub active_params: f64,
    /// Layers, of every kind.
    pub n_layers: f64,
    /// Width of the residual stream.
    pub hidden_size: f64,
    /// KV-cache bytes of one token over all attention layers; 0 for pure state-space models.
    pub kv_bytes_per_token: f64,
    /// Routed experts per MoE layer; 0 when the model does not route.
    pub num_experts: f64,
    /// Routed experts that one token visits; 0 when the model does not route.
    pub experts_per_token: f64,
    /// Bytes of one weight as stored on the GPU.
    pub bytes_per_weight: f64,
    /// Share of the layers that are state-space layers, in [0, 1].
    pub ssm_share: f64,
}

impl ModelCard {
    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> f64 {
        self.params * self.bytes_per_weight
    }

    /// Share of the weights that one decode step reads when `sequences` are in flight:
    /// `c(B) = 1 - (1 - k/E)^B` under uniform independent routing, 1 for models that do not route.
    pub fn expert_coverage(&self, sequences: f64) -> f64 {
        expert_coverage(self.num_experts, self.experts_per_token, sequences)
    }
}

/// See [`ModelCard::expert_coverage`].
pub fn expert_coverage(num_experts: f64, experts_per_token: f64, sequences: f64) -> f64 {
    if num_experts > 1.0 && experts_per_token > 0.0 && experts_per_token < num_experts {
        1.0 - (1.0 - experts_per_token / num_experts).powf(sequences.max(1.0))
    } else {
        1.0
    }
}

/// Share of the weights that belong to routed experts. The rest (attention, embeddings, shared experts) every token reads.
///
/// From `active = shared + routed·k/E` and `params = shared + routed`. Where the active parameters are not known apart
/// (`active_params` as large as `params`), all weights count as routed.
pub fn routed_share(params: f64, active_params: f64, num_experts: f64, experts_per_token: f64) -> f64 {
    let visited = experts_per_token / num_experts;
    let routes = num_experts > 1.0 && visited > 0.0 && visited < 1.0;
    if routes && active_params < params {
        ((1.0 - active_params / params) / (1.0 - visited)).clamp(0.0, 1.0)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mixtral_does_not_route() {
        // 46.7 B of which 12.9 B active, 2 of 8 experts: routed = 33.8 / 0.75 = 45.07 B.
        assert!((routed_share(46.7e9, 12.9e9, 8.0, 2.0) - 45.066_667 / 46.7).abs() < 1e-6);
        assert_eq!(routed_share(46.7e9, 46.7e9, 8.0, 2.0), 1.0);
        assert_eq!(routed_share(7e9, 7e9, 0.0, 0.0), 1.0);
    }

    #[test]
    fn coverage_is_the_share_of_experts_hit() {
        assert_eq!(expert_coverage(0.0, 0.0, 32.0), 1.0);
        assert!((expert_coverage(8.0, 2.0, 1.0) - 0.25).abs() < 1e-12);
        assert!((expert_coverage(8.0, 2.0, 2.0) - (1.0 - 0.75_f64.powi(2))).abs() < 1e-12);
        assert!(expert_coverage(8.0, 2.0, 1e4) > 0.999_999);
    }
}
