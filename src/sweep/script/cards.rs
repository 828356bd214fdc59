//! Models and GPUs as scripts name or describe them.

use mlua::Value;

use super::api::{Card, borrowed};
use super::fields::{Fields, show};
use crate::card::{Architecture, GpuCard, ModelCard, Vendor};

/// A built-in name, `el.card_from`, or a table of card fields.
pub(super) fn model_card(axes: &Fields<'_>, value: &Value) -> mlua::Result<ModelCard> {
    match value {
        Value::String(name) => {
            let name = name.to_string_lossy();
            ModelCard::builtin(&name).ok_or_else(|| {
                let hint = match ModelCard::nearest_builtin(&name) {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => {
                        "; describe it with a table of card fields, or el.card_from \"path/config.json\"".to_owned()
                    }
                };
                axes.fail("model", format!("model {} is not built in{hint}", show(value)))
            })
        }
        Value::UserData(_) => borrowed(value, |c: &Card| c.0.clone()).ok_or_else(|| {
            axes.fail(
                "model",
                "axis `model` has something that is no model; expected a name, a card or el.choice of them",
            )
        }),
        Value::Table(_) => described_model(axes, value),
        other => Err(axes.fail("model", format!("axis `model` has {}; expected a name or a card", show(other)))),
    }
}

fn described_model(axes: &Fields<'_>, value: &Value) -> mlua::Result<ModelCard> {
    const KNOWN: [&str; 11] = [
        "model",
        "architecture",
        "params",
        "active_params",
        "n_layers",
        "hidden_size",
        "kv_bytes_per_token",
        "num_experts",
        "experts_per_token",
        "bytes_per_weight",
        "ssm_share",
    ];
    let place = axes.place;
    let card = Fields::at(place, axes.line_of("model"), value, "model card", "field", &KNOWN, 0)?;
    let model = card.text("model", "a name")?;
    let params = card.number("params", 1.0, 1e15, None)?;
    let kv_bytes_per_token = card.number("kv_bytes_per_token", 0.0, 1e9, None)?;
    let num_experts = card.number("num_experts", 0.0, 1e6, Some(0.0))?;
    let ssm_share = card.number("ssm_share", 0.0, 1.0, Some(0.0))?;
    let architecture = match card.get("architecture")? {
        Value::Nil if num_experts > 1.0 => Architecture::Moe,
        Value::Nil if ssm_share >= 1.0 => Architecture::Ssm,
        Value::Nil if ssm_share > 0.0 => Architecture::Hybrid,
        Value::Nil => Architecture::Dense,
        _ => {
            let text = card.text("architecture", "dense, moe, ssm, hybrid or vlm")?;
            text.parse().map_err(|message: String| card.fail("architecture", message))?
        }
    };
    Ok(ModelCard {
        model,
        architecture,
        params,
        active_params: card.number("active_params", 1.0, params, Some(params))?,
        n_layers: card.number("n_layers", 1.0, 1e5, None)?,
        hidden_size: card.number("hidden_size", 1.0, 1e7, None)?,
        kv_bytes_per_token,
        num_experts,
        experts_per_token: card.number("experts_per_token", 0.0, num_experts, Some(num_experts.min(1.0)))?,
        bytes_per_weight: card.number("bytes_per_weight", 0.1, 8.0, Some(2.0))?,
        ssm_share,
    })
}

/// A built-in name or a table of card fields.
pub(super) fn gpu_card(axes: &Fields<'_>, value: &Value) -> mlua::Result<GpuCard> {
    const KNOWN: [&str; 8] = [
        "gpu_model",
        "vendor",
        "memory_bytes",
        "peak_flops",
        "memory_bandwidth_bytes_per_s",
        "link_bandwidth_bytes_per_s",
        "power_limit_w",
        "idle_power_w",
    ];
    match value {
        Value::String(name) => {
            let name = name.to_string_lossy();
            GpuCard::builtin(&name).ok_or_else(|| {
                let hint = match GpuCard::nearest_builtin(&name) {
                    Some(near) => format!("; did you mean `{near}`?"),
                    None => "; describe it with a table of card fields".to_owned(),
                };
                axes.fail("gpu_model", format!("GPU {} is not built in{hint}", show(value)))
            })
        }
        Value::Table(_) => {
            let card = Fields::at(axes.place, axes.line_of("gpu_model"), value, "GPU card", "field", &KNOWN, 0)?;
            let vendor = match card.text("vendor", "nvidia, amd or intel")?.as_str() {
                "nvidia" => Vendor::Nvidia,
                "amd" => Vendor::Amd,
                "intel" => Vendor::Intel,
                other => {
                    let message = format!("vendor `{other}` is unknown; expected nvidia, amd or intel");
                    return Err(card.fail("vendor", message));
                }
            };
            let power_limit_w = card.number("power_limit_w", 1.0, 1e5, None)?;
            Ok(GpuCard {
                gpu_model: card.text("gpu_model", "a name")?,
                vendor,
                memory_bytes: card.number("memory_bytes", 1e6, 1e14, None)?,
                peak_flops: card.number("peak_flops", 1e9, 1e18, None)?,
                memory_bandwidth_bytes_per_s: card.number("memory_bandwidth_bytes_per_s", 1e6, 1e15, None)?,
                link_bandwidth_bytes_per_s: card.number("link_bandwidth_bytes_per_s", 1e6, 1e15, None)?,
                power_limit_w,
                idle_power_w: card.number("idle_power_w", 0.0, power_limit_w, None)?,
            })
        }
        other => {
            Err(axes.fail("gpu_model", format!("axis `gpu_model` has {}; expected a name or a card", show(other))))
        }
    }
}
