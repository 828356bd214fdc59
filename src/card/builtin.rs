//! The built-in tables: well-known models and GPUs, found by the names people write.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::{GpuCard, ModelCard, Vendor};
use crate::schema;

/// An entry found under its name or an alias.
struct Entry<T> {
    card: T,
    /// Normalised name and aliases.
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct ModelTable {
    model: Vec<ModelFacts>,
}

#[derive(Deserialize)]
struct ModelFacts {
    name: String,
    aliases: Vec<String>,
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests compare with what the model's page states"))]
    published_params: f64,
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests compare with what the model's page states"))]
    published_active_params: Option<f64>,
    config: Value,
}

#[derive(Deserialize)]
struct GpuTable {
    gpu: Vec<GpuFacts>,
}

#[derive(Deserialize)]
struct GpuFacts {
    name: String,
    aliases: Vec<String>,
    vendor: Vendor,
    memory_mib: f64,
    peak_tflops: f64,
    memory_gb_per_s: f64,
    link_gb_per_s: f64,
    power_limit_w: f64,
    idle_w: f64,
}

/// The tables are part of the program, so a fault in them is ours; tests read every entry.
fn model_facts() -> Vec<ModelFacts> {
    toml::from_str::<ModelTable>(include_str!("models.toml")).map(|t| t.model).unwrap_or_default()
}

static MODELS: LazyLock<Vec<Entry<ModelCard>>> = LazyLock::new(|| {
    let entry = |facts: ModelFacts| {
        // Each name also without its tuning words: `llama-2-70b` finds `Llama-2-70b-hf`.
        let full = std::iter::once(&facts.name).chain(&facts.aliases).map(|n| normalised_model(n));
        let keys = full.flat_map(|key| std::iter::successors(Some(key), |k| without_variant(k))).collect();
        ModelCard::from_config(&facts.name, &facts.config).ok().map(|card| Entry { card, keys })
    };
    model_facts().into_iter().filter_map(entry).collect()
});

static GPUS: LazyLock<Vec<Entry<GpuCard>>> = LazyLock::new(|| {
    let facts = toml::from_str::<GpuTable>(include_str!("gpus.toml")).map(|t| t.gpu).unwrap_or_default();
    let entry = |facts: GpuFacts| Entry {
        keys: std::iter::once(&facts.name).chain(&facts.aliases).map(|n| normalised_gpu(n)).collect(),
        card: GpuCard {
            gpu_model: facts.name,
            vendor: facts.vendor,
            memory_bytes: facts.memory_mib * 1_048_576.0,
            peak_flops: facts.peak_tflops * 1e12,
            memory_bandwidth_bytes_per_s: facts.memory_gb_per_s * 1e9,
            link_bandwidth_bytes_per_s: facts.link_gb_per_s * 1e9,
            power_limit_w: facts.power_limit_w,
            idle_power_w: facts.idle_w,
        },
    };
    facts.into_iter().map(entry).collect()
});

impl ModelCard {
    /// The card of a well-known model, by its name on Hugging Face or the way people shorten it: with or without the
    /// organisation, in any case and punctuation, with or without `-hf`, `-instruct`, `-it`, `-chat` or `-base`.
    ///
    /// ```
    /// use energylens::card::ModelCard;
    /// let card = ModelCard::builtin("llama2-70b").unwrap();
    /// assert_eq!(card.model, "meta-llama/Llama-2-70b-hf");
    /// ```
    pub fn builtin(name: &str) -> Option<Self> {
        let mut key = normalised_model(name);
        loop {
            if let Some(entry) = MODELS.iter().find(|e| e.keys.contains(&key)) {
                return Some(entry.card.clone());
            }
            key = without_variant(&key)?;
        }
    }

    /// Names of the built-in models.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|e| e.card.model.as_str())
    }

    /// The built-in name that a misspelt one probably means.
    pub fn nearest_builtin(name: &str) -> Option<&'static str> {
        nearest(&normalised_model(name), &MODELS, |card| &card.model)
    }
}

impl GpuCard {
    /// The card of a well-known GPU, by driver name or the way people shorten it: `a100-80gb`, `NVIDIA H100 80GB HBM3`.
    pub fn builtin(name: &str) -> Option<Self> {
        let key = normalised_gpu(name);
        GPUS.iter().find(|e| e.keys.contains(&key)).map(|e| e.card.clone())
    }

    /// The card of a GPU that a driver reports: the built-in rates, and the memory that this board really has.
    pub fn of_driver(name: &str, memory_bytes: Option<u64>, power_limit_w: Option<f64>) -> Option<Self> {
        let card = Self::builtin(name)?;
        Some(Self {
            memory_bytes: memory_bytes.filter(|b| *b > 0).map_or(card.memory_bytes, |b| b as f64),
            power_limit_w: power_limit_w.filter(|w| *w > 0.0).unwrap_or(card.power_limit_w),
            ..card
        })
    }

    /// Names of the built-in GPUs.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        GPUS.iter().map(|e| e.card.gpu_model.as_str())
    }

    /// The built-in name that a misspelt one probably means.
    pub fn nearest_builtin(name: &str) -> Option<&'static str> {
        nearest(&normalised_gpu(name), &GPUS, |card| &card.gpu_model)
    }
}

fn nearest<T>(key: &str, entries: &'static [Entry<T>], name: fn(&T) -> &String) -> Option<&'static str> {
    let found = schema::nearest(key, entries.iter().flat_map(|e| e.keys.iter().map(String::as_str)))?;
    entries.iter().find(|e| e.keys.iter().any(|k| k == found)).map(|e| name(&e.card).as_str())
}

/// Lower-case letters and digits of the part after the organisation: nobody agrees on the hyphens.
fn normalised_model(name: &str) -> String {
    alphanumerics(name.rsplit('/').next().unwrap_or(name))
}

fn normalised_gpu(name: &str) -> String {
    let key = alphanumerics(name);
    match key.strip_prefix("nvidia") {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => key,
    }
}

fn alphanumerics(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The name without its last word on how the weights were tuned, which changes no shape.
fn without_variant(key: &str) -> Option<String> {
    const VARIANTS: [&str; 6] = ["hf", "instruct", "it", "chat", "base", "fp16"];
    VARIANTS.iter().find_map(|v| key.strip_suffix(v)).filter(|rest| !rest.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Architecture;

    #[test]
    fn every_model_is_counted_within_two_per_cent_of_what_its_page_states() {
        let facts = model_facts();
        assert_eq!(facts.len(), MODELS.len());
        for (facts, entry) in facts.iter().zip(MODELS.iter()) {
            let ratio = entry.card.params / facts.published_params;
            assert!((ratio - 1.0).abs() < 0.02, "{}: counted {:.4e}, ratio {ratio}", facts.name, entry.card.params);
            if let Some(active) = facts.published_active_params {
                let ratio = entry.card.active_params / active;
                assert!(
                    (ratio - 1.0).abs() < 0.03,
                    "{}: active {:.4e}, ratio {ratio}",
                    facts.name,
                    entry.card.active_params
                );
            }
        }
    }

    #[test]
    fn no_name_or_alias_means_two_cards() {
        for keys in [MODELS.iter().map(|e| &e.keys).collect::<Vec<_>>(), GPUS.iter().map(|e| &e.keys).collect()] {
            let mut all: Vec<_> = keys.iter().enumerate().flat_map(|(i, k)| k.iter().map(move |k| (k, i))).collect();
            all.sort();
            all.dedup();
            for pair in all.windows(2) {
                assert_ne!(pair[0].0, pair[1].0, "{} names two cards", pair[0].0);
            }
        }
    }

    #[test]
    fn models_are_found_as_people_write_them() {
        let cases = [
            ("llama2-70b", "meta-llama/Llama-2-70b-hf"),
            ("llama-2-70b-hf", "meta-llama/Llama-2-70b-hf"),
            ("meta-llama/Llama-2-70b-chat-hf", "meta-llama/Llama-2-70b-hf"),
            ("bloom-176b", "bigscience/bloom"),
            ("LLAMA-3.1-70B", "meta-llama/Llama-3.1-70B"),
            ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
            ("google/gemma-2-27b-it", "google/gemma-2-27b"),
            ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.1"),
            ("google/codegemma-1.1-2b", "google/gemma-2b"),
            ("deepseek-v2-lite", "deepseek-ai/DeepSeek-V2-Lite"),
        ];
        for (written, name) in cases {
            assert_eq!(ModelCard::builtin(written).map(|c| c.model).as_deref(), Some(name), "{written}");
        }
        assert_eq!(ModelCard::builtin("gpt-4"), None);
        assert_eq!(ModelCard::builtin(""), None);
        assert_eq!(ModelCard::nearest_builtin("lama-2-70b"), Some("meta-llama/Llama-2-70b-hf"));
    }

    #[test]
    fn gpus_are_found_as_drivers_and_people_write_them() {
        let cases = [
            ("a100-80gb", "A100-SXM4-80GB"),
            ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
            ("Nvidia A100 GPU", "A100-SXM4-80GB"),
            ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB"),
            ("H100 80GB HBM3", "H100-SXM5-80GB"),
            ("h100-80gb", "H100-SXM5-80GB"),
            ("Nvidia GH200 GPU", "GH200-96GB"),
            ("Max 1550", "Max-1550"),
            ("PVC", "Max-1550"),
            ("NVIDIA GeForce RTX 4090", "RTX-4090"),
            ("mi300x", "MI300X"),
        ];
        for (written, name) in cases {
            assert_eq!(GpuCard::builtin(written).map(|c| c.gpu_model).as_deref(), Some(name), "{written}");
        }
        assert_eq!(GpuCard::builtin("nvidia"), None);
        assert_eq!(GpuCard::nearest_builtin("a100-80g"), Some("A100-SXM4-80GB"));
    }

    #[test]
    fn gpu_rates_are_those_of_real_hardware() {
        for gpu in GPUS.iter().map(|e| &e.card) {
            assert!((0.3e12..1e13).contains(&gpu.memory_bandwidth_bytes_per_s), "{}", gpu.gpu_model);
            assert!((1e14..3e15).contains(&gpu.peak_flops), "{}", gpu.gpu_model);
            assert!((1e10..3e11).contains(&gpu.memory_bytes), "{}", gpu.gpu_model);
            // Bytes are far dearer than FLOPs on all of them: 50 to 500 FLOPs per byte.
            let balance = gpu.peak_flops / gpu.memory_bandwidth_bytes_per_s;
            assert!((50.0..500.0).contains(&balance), "{}: {balance}", gpu.gpu_model);
            assert!(gpu.idle_power_w < 0.45 * gpu.power_limit_w, "{}", gpu.gpu_model);
        }
    }

    #[test]
    fn kv_and_families_are_as_published() {
        // Llama-2-70B: 80 layers x 2 x 8 heads x 128 x 2 bytes = 320 KiB; DeepSeek-V3: 61 x 576 x 2.
        let kv = |name: &str| ModelCard::builtin(name).unwrap().kv_bytes_per_token;
        assert_eq!(kv("llama-2-70b"), 327_680.0);
        assert_eq!(kv("deepseek-v3"), 70_272.0);
        assert_eq!(kv("mamba-2.8b"), 0.0);
        assert_eq!(kv("falcon-7b"), 8192.0);
        assert_eq!(kv("jamba"), 4.0 * 2.0 * 1024.0 * 2.0);
        let family = |name: &str| ModelCard::builtin(name).unwrap().architecture;
        assert_eq!(family("mamba-2.8b"), Architecture::Ssm);
        assert_eq!(family("jamba"), Architecture::Hybrid);
        assert_eq!(family("zamba2"), Architecture::Hybrid);
        assert_eq!(family("qwen3-30b-a3b"), Architecture::Moe);
        assert_eq!(family("qwen2-vl"), Architecture::Vlm);
        assert_eq!(ModelCard::builtin("jamba").unwrap().ssm_share, 0.875);
    }

    #[test]
    fn memory_and_power_limit_are_the_drivers_where_it_tells() {
        let sheet = GpuCard::builtin("NVIDIA H100 80GB HBM3").unwrap();
        let told = GpuCard::of_driver("NVIDIA H100 80GB HBM3", Some(85_520_809_984), Some(500.0)).unwrap();
        assert_eq!((told.memory_bytes, told.power_limit_w), (85_520_809_984.0, 500.0));
        assert_eq!(told.peak_flops, sheet.peak_flops);
        assert_eq!(GpuCard::of_driver("NVIDIA H100 80GB HBM3", Some(0), None), Some(sheet));
        assert_eq!(GpuCard::of_driver("Voodoo 2", Some(12 << 20), None), None);
    }
}
