//! Whether two rows, or a row and a law, speak of the same model on the same platform.
//!
//! People write `llama-2-70b-hf`, `meta-llama/Llama-2-70b-hf`, `A100-80GB` and `NVIDIA A100-SXM4-80GB`; the built-in
//! cards know which of these are one.

use crate::card::{GpuCard, ModelCard};
use crate::dataset::Row;

/// Whether two model names mean one model.
pub(crate) fn same_model(a: &str, b: &str) -> bool {
    let card = |name| ModelCard::builtin(name).map(|c| c.model);
    a.eq_ignore_ascii_case(b) || (card(a).is_some() && card(a) == card(b))
}

/// Whether two GPU names mean one GPU.
pub(crate) fn same_gpu(a: &str, b: &str) -> bool {
    let card = |name| GpuCard::builtin(name).map(|c| c.gpu_model);
    a.eq_ignore_ascii_case(b) || (card(a).is_some() && card(a) == card(b))
}

/// How well a row's platform agrees with a law's: `None` where it does not, else a rank. Engine and precision that one
/// side leaves open agree with anything, and count less than those that are the same.
pub(crate) fn agreement(
    row: &Row,
    gpu_model: &str,
    engine: Option<&String>,
    precision: Option<&String>,
) -> Option<u32> {
    let label = |asked: Option<&String>, known: Option<&String>| match (asked, known) {
        (Some(a), Some(k)) => same_label(a, k).then_some(2),
        (None, None) => Some(2),
        _ => Some(1),
    };
    let gpu = same_gpu(&row.gpu_model, gpu_model).then_some(0)?;
    Some(gpu + label(row.engine.as_ref(), engine)? + label(row.precision.as_ref(), precision)?)
}

/// Whether two names of an engine or a precision mean one.
pub(crate) fn same_label(a: &str, b: &str) -> bool {
    let plain = |label: &str| {
        let label = label.to_ascii_lowercase().replace("torch.", "");
        match label.as_str() {
            "bfloat16" => "bf16".to_owned(),
            "float16" | "half" => "fp16".to_owned(),
            _ => label,
        }
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_thing_are_one_thing() {
        assert!(same_model("llama-2-70b-hf", "meta-llama/Llama-2-70b-hf"));
        assert!(same_model("my-own-7B", "my-own-7b"));
        assert!(!same_model("my-own-7b", "my-own-8b"));
        assert!(!same_model("meta-llama/Llama-2-70b-hf", "meta-llama/Llama-2-13b-hf"));
        assert!(same_gpu("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"));
        assert!(!same_gpu("A100-SXM4-40GB", "A100-SXM4-80GB"));
    }

    #[test]
    fn a_named_precision_beats_an_open_one_and_another_is_none() {
        let row = Row { precision: Some("bfloat16".to_owned()), ..Row::new("m", "g") };
        let rank = |precision: Option<&str>| agreement(&row, "g", None, precision.map(str::to_owned).as_ref());
        assert_eq!((rank(Some("bf16")), rank(None), rank(Some("fp8"))), (Some(4), Some(3), None));
    }
}
