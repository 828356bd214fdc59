//! How many bytes a weight has: the data type, and what quantisation left of it.

use serde_json::{Map, Value};

use super::HuggingFaceError;
use super::keys::Keys;

/// Bytes of one element of the named data type.
pub(super) fn dtype_bytes(dtype: &str) -> Option<f64> {
    match dtype.trim_start_matches("torch.") {
        "float32" | "float" | "fp32" => Some(4.0),
        "bfloat16" | "float16" | "half" | "bf16" | "fp16" => Some(2.0),
        "float8_e4m3fn" | "float8_e5m2" | "fp8" | "int8" | "uint8" => Some(1.0),
        _ => None,
    }
}

/// Bytes of one quantised matrix weight, its share of the scales included; `None` if nothing is quantised.
pub(super) fn quantised_bytes(config: Option<&Map<String, Value>>) -> Result<Option<f64>, HuggingFaceError> {
    let Some(config) = config else { return Ok(None) };
    let keys = Keys::new(config);
    let method = keys.text(&["quant_method", "quant_algo"]).unwrap_or_default().to_ascii_lowercase();
    let bits = match keys.count(&["bits", "w_bit", "num_bits", "weight_bits"])? {
        Some(bits) => Some(bits),
        None => match config.get("config_groups").and_then(Value::as_object) {
            // compressed-tensors: groups of layers; the first that quantises weights stands for all.
            Some(groups) => groups
                .values()
                .filter_map(|g| g.get("weights")?.get("num_bits")?.as_f64())
                .find(|b| (1.0..=16.0).contains(b)),
            None => None,
        },
    };
    let bits = match bits {
        Some(bits) => bits,
        None if keys.flag(&["load_in_4bit", "_load_in_4bit"]) == Some(true) => 4.0,
        None if keys.flag(&["load_in_8bit", "_load_in_8bit"]) == Some(true) => 8.0,
        None if method.contains("fp8") => 8.0,
        // Four-bit floats with one 8-bit scale per block of 32 (mxfp4) or 16 (nvfp4).
        None if method.contains("mxfp4") => 4.25,
        None if method.contains("nvfp4") || method.contains("fp4") => 4.5,
        None => return Ok(None),
    };
    if !(1.0..=32.0).contains(&bits) {
        return Ok(None);
    }
    // Integer groups carry a 16-bit scale and a zero point of the weights' own width.
    let scales = match keys.count(&["group_size", "q_group_size"]) {
        Ok(Some(group)) if group >= 8.0 && bits < 8.0 => (2.0 + bits / 8.0) / group,
        _ => 0.0,
    };
    Ok(Some(bits / 8.0 + scales))
}
