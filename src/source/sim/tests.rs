//! The node as its users see it: cards with data-sheet numbers, and the facts that must hold on any of them.

mod counters;
mod passes;
mod serving;

use super::*;
use crate::card::{Architecture, ModelCard, Vendor};

fn gpu(name: &str) -> GpuCard {
    let (vendor, memory_bytes, peak_flops, bandwidth, link, power_limit_w, idle_power_w) = match name {
        "A100-SXM4-80GB" => (Vendor::Nvidia, 80e9, 312e12, 2.039e12, 300e9, 400.0, 60.0),
        "H100-SXM5-80GB" => (Vendor::Nvidia, 80e9, 989e12, 3.35e12, 450e9, 700.0, 75.0),
        "MI300X" => (Vendor::Amd, 192e9, 1307e12, 5.3e12, 448e9, 750.0, 140.0),
        _ => (Vendor::Intel, 128e9, 832e12, 3.28e12, 160e9, 600.0, 130.0),
    };
    GpuCard {
        gpu_model: name.to_owned(),
        vendor,
        memory_bytes,
        peak_flops,
        memory_bandwidth_bytes_per_s: bandwidth,
        link_bandwidth_bytes_per_s: link,
        power_limit_w,
        idle_power_w,
    }
}

fn llama_70b() -> ModelCard {
    ModelCard {
        model: "meta-llama/Llama-2-70b-hf".to_owned(),
        architecture: Architecture::Dense,
        params: 68.98e9,
        active_params: 68.98e9,
        n_layers: 80.0,
        hidden_size: 8192.0,
        kv_bytes_per_token: 327_680.0,
        num_experts: 0.0,
        experts_per_token: 0.0,
        bytes_per_weight: 2.0,
        ssm_share: 0.0,
    }
}

fn request(model: ModelCard, gpu_model: &str, layout: (u32, u32, u32), load: (u32, u32, u32)) -> BatchRequest {
    let ((tensor_parallel, pipeline_parallel, data_parallel), (batch_size, input_tokens, output_tokens)) =
        (layout, load);
    BatchRequest {
        model,
        gpu_model: gpu_model.to_owned(),
        tensor_parallel,
        pipeline_parallel,
        data_parallel,
        batch_size,
        input_tokens,
        output_tokens,
    }
}

fn mixtral() -> ModelCard {
    ModelCard {
        model: "mistralai/Mixtral-8x7B-v0.1".to_owned(),
        architecture: Architecture::Moe,
        params: 46.7e9,
        active_params: 12.9e9,
        n_layers: 32.0,
        hidden_size: 4096.0,
        kv_bytes_per_token: 131_072.0,
        num_experts: 8.0,
        experts_per_token: 2.0,
        bytes_per_weight: 2.0,
        ssm_share: 0.0,
    }
}

fn llama_7b() -> ModelCard {
    ModelCard {
        model: "meta-llama/Llama-2-7b-hf".to_owned(),
        params: 6.74e9,
        active_params: 6.74e9,
        n_layers: 32.0,
        hidden_size: 4096.0,
        kv_bytes_per_token: 524_288.0,
        ..llama_70b()
    }
}

fn mamba() -> ModelCard {
    ModelCard {
        model: "mamba-7b".to_owned(),
        architecture: Architecture::Ssm,
        kv_bytes_per_token: 0.0,
        ssm_share: 1.0,
        ..llama_7b()
    }
}

const A100: &str = "A100-SXM4-80GB";
const GPUS: [&str; 4] = [A100, "H100-SXM5-80GB", "MI300X", "PVC"];

/// Eight GPUs of one model without noise from run to run.
fn quiet_node(gpu_model: &str) -> SimNode {
    SimNode::new(&[(gpu(gpu_model), 8)], SimOptions { run_noise: 0.0, ..SimOptions::default() })
}

/// Duration and true energy of the GPUs that served.
fn served(node: &SimNode, request: &BatchRequest) -> (f64, f64, BatchOutcome) {
    let outcome = node.execute(request).unwrap();
    let energy_j = outcome
        .devices
        .iter()
        .map(|d| node.true_energy_j(d, outcome.t_begin_mono_ns, outcome.t_end_mono_ns).unwrap())
        .sum();
    (crate::units::ns_to_s(outcome.t_end_mono_ns - outcome.t_begin_mono_ns), energy_j, outcome)
}
