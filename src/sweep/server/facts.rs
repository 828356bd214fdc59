//! What a server says about itself: its version, the size of its KV cache, its model's name and vocabulary.
//!
//! Every engine has its own place for each, and none needs to be told apart: whoever has no such place answers 404.
//! Where log and address differ on the KV cache the log is believed: it tells what was allocated.

use serde_json::Value;
use ureq::Agent;

use super::http;

/// What is known of a server that is up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Version of the engine.
    pub engine_version: Option<String>,
    /// Tokens that the KV cache of one replica holds.
    pub kv_capacity_tokens: Option<f64>,
    /// What it calls its model.
    pub served_model: Option<String>,
    /// Tokens of its vocabulary.
    pub vocab_size: Option<u32>,
    /// Most tokens of one sequence.
    pub max_context_tokens: Option<u64>,
}

/// What a server that is ready answers, each as it was; `None` where it does not.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) models: Option<Value>,
    pub(super) version: Option<Value>,
    pub(super) server_info: Option<Value>,
    pub(super) props: Option<Value>,
    pub(super) metrics: Option<String>,
}

impl Answers {
    /// Asks the server at `url`.
    pub(super) fn ask(agent: &Agent, url: &str) -> Self {
        let json = |path: &str| http::json(agent, &format!("{url}{path}"));
        Self {
            models: json("/v1/models"),
            version: json("/version"),
            server_info: json("/get_server_info").or_else(|| json("/server_info")),
            props: json("/props"),
            metrics: http::text(agent, &format!("{url}/metrics")),
        }
    }

    /// What they say, together with the log.
    pub(super) fn facts(&self, log: &str) -> Facts {
        let model = self.models.as_ref().and_then(|m| m.pointer("/data/0"));
        let props = self.props.as_ref();
        let info = self.server_info.as_ref();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let version = text(self.version.as_ref().and_then(|v| v.get("version")));
        let slots = props.and_then(|p| p.get("total_slots")).and_then(Value::as_u64);
        let slot_tokens = props.and_then(|p| p.pointer("/default_generation_settings/n_ctx")).and_then(Value::as_u64);
        let n_vocab = model.and_then(|m| m.pointer("/meta/n_vocab")).and_then(Value::as_u64);
        let context = model.and_then(|m| m.get("max_model_len")).and_then(Value::as_u64);
        let of_info = || info.and_then(|i| find(i, "max_total_num_tokens", 4)).and_then(Value::as_f64);
        let of_metrics = || self.metrics.as_deref().and_then(metrics_capacity);
        let of_slots = || Some(slots? as f64 * slot_tokens? as f64);
        let capacity = log_capacity(log).or_else(of_info).or_else(of_metrics).or_else(of_slots);
        Facts {
            engine_version: version
                .or_else(|| text(info.and_then(|i| i.get("version"))))
                .or_else(|| text(props.and_then(|p| p.get("build_info"))))
                .map(|v| super::stream::short(&v)),
            kv_capacity_tokens: capacity.filter(|tokens| *tokens > 0.0),
            served_model: text(model.and_then(|m| m.get("id"))),
            vocab_size: n_vocab.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 1),
            max_context_tokens: context.or(slot_tokens),
        }
    }
}

/// The value under `key`, at most so many levels deep.
fn find<'a>(value: &'a Value, key: &str, levels: u32) -> Option<&'a Value> {
    let deeper = levels.checked_sub(1)?;
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key, deeper))),
        Value::Array(list) => list.iter().find_map(|v| find(v, key, deeper)),
        _ => None,
    }
}

/// The number at the start of `text`, thousands set apart by commas or not.
fn number(text: &str) -> Option<f64> {
    let digits: String =
        text.trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().ok()
}

/// Tokens of the KV cache as a log tells them.
pub(super) fn log_capacity(log: &str) -> Option<f64> {
    let after = |marker: &'static str| {
        log.lines().filter_map(move |line| line.split_once(marker)).filter_map(|(_, rest)| number(rest))
    };
    // Workers and replicas may differ by a few blocks: the smallest decides.
    let smallest = |found: &mut dyn Iterator<Item = f64>| found.reduce(f64::min);
    smallest(&mut after("GPU KV cache size: "))
        .or_else(|| smallest(&mut after("max_total_num_tokens=")))
        // TensorRT-LLM first allocates a small cache to see what is left, and then the real one.
        .or_else(|| after("for max tokens in paged KV cache (").next_back())
        .or_else(|| log.lines().filter_map(llama_cells).reduce(f64::max))
        .or_else(|| log.lines().find_map(llama_slots))
}

/// `load_model: initializing, n_slots = 4, n_ctx_slot = 1024, kv_unified = 'false'`: slots with a cache of their own each,
/// or all with one.
fn llama_slots(line: &str) -> Option<f64> {
    let after = |name: &str| line.split_once(name).map(|(_, rest)| rest);
    let (slots, tokens) = (number(after("n_slots = ")?)?, number(after("n_ctx_slot = ")?)?);
    let is_shared = after("kv_unified = ").is_some_and(|rest| rest.starts_with("'true'"));
    Some(if is_shared { tokens } else { slots * tokens })
}

/// `llama_kv_cache: size = 16.00 MiB (  4096 cells,   4 layers,  4/2 seqs), ...`: cells of each of two streams. A model
/// with a sliding window has a second, smaller cache.
fn llama_cells(line: &str) -> Option<f64> {
    let (head, inside) = line.split_once(" MiB (")?;
    let (cells, rest) = inside.split_once(" cells,")?;
    if !head.contains("llama_kv_cache") || !head.contains("size") {
        return None;
    }
    let streams =
        rest.split_once(" seqs)").and_then(|(before, _)| before.rsplit_once('/')).and_then(|(_, n)| number(n));
    Some(number(cells)? * streams.unwrap_or(1.0))
}

/// Tokens of the KV cache as metrics tell them.
pub(super) fn metrics_capacity(metrics: &str) -> Option<f64> {
    let of_vllm = |line: &str| {
        let labels = line.strip_prefix("vllm:cache_config_info{")?;
        let label = |name: &str| {
            let at = labels.find(&format!("{name}=\""))?;
            number(labels.get(at + name.len() + 2..)?)
        };
        label("kv_cache_size_tokens").or_else(|| Some(label("num_gpu_blocks")? * label("block_size")?))
    };
    let of_sglang =
        |line: &str| line.starts_with("sglang:max_total_num_tokens").then(|| line.rsplit(' ').next())??.parse().ok();
    metrics.lines().filter_map(|line| of_vllm(line).or_else(|| of_sglang(line))).reduce(f64::min)
}

#[cfg(test)]
mod tests;
