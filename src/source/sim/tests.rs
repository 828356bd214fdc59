//! The node as its users see it.

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

#[test]
fn look() {
    for g in ["A100-SXM4-80GB", "H100-SXM5-80GB", "MI300X", "PVC"] {
        for (t, p, d) in [(2, 1, 1), (4, 1, 1), (8, 1, 1), (2, 2, 1), (4, 2, 1), (1, 8, 1), (2, 1, 4)] {
            for (b, s, m) in [
                (1, 512, 1),
                (1, 512, 128),
                (16, 512, 128),
                (64, 512, 128),
                (1, 4096, 1),
                (16, 2048, 1),
                (256, 1024, 256),
            ] {
                let node = SimNode::new(&[(gpu(g), 8)], SimOptions { run_noise: 0.0, ..Default::default() });
                match node.execute(&request(llama_70b(), g, (t, p, d), (b, s, m))) {
                    Ok(o) => {
                        let e: f64 = o
                            .devices
                            .iter()
                            .map(|x| node.true_energy_j(x, o.t_begin_mono_ns, o.t_end_mono_ns).unwrap())
                            .sum();
                        let dur = (o.t_end_mono_ns - o.t_begin_mono_ns) as f64 * 1e-9;
                        println!(
                            "{g} t{t} p{p} d{d} B{b} S{s} m{m}: ttft {:.3} tpot {:.4} dur {dur:.2} E {e:.0} P/gpu {:.0} cap {:?}",
                            o.mean_ttft_s,
                            o.mean_tpot_s.unwrap_or(f64::NAN),
                            e / dur / (t * p * d) as f64,
                            o.kv_capacity_tokens
                        );
                    }
                    Err(e) => println!("{g} t{t} p{p} d{d} B{b}: {e}"),
                }
            }
        }
    }
}
