//! Roofline, power and cap of single passes.

use super::*;
use crate::source::sim::physics::{Forward, Pass, pass, shared_and_routed_params, waiting_power_w};

fn one_pass(gpu_model: &str, model: &ModelCard, t: f64, forward: Forward) -> Pass {
    let shard = Shard { tensor_parallel: t, pipeline_parallel: 1.0 };
    pass(&Hardware::of(&gpu(gpu_model)), model, shard, forward, 1.0)
}

#[test]
fn decode_of_one_sequence_takes_the_time_to_read_the_weights() {
    for name in GPUS {
        let card = gpu(name);
        let ideal_s = llama_70b().weight_bytes() / card.memory_bandwidth_bytes_per_s;
        let decode = one_pass(name, &llama_70b(), 1.0, Forward::decode(1.0, 512.0));
        let ratio = decode.busy_s / ideal_s;
        assert!((1.0..1.75).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn prefill_of_a_long_prompt_takes_the_time_to_compute_it() {
    // 2 FLOPs per parameter and token; 80 layers of causal attention, 4·h·S²/2 each.
    let flops = 2.0 * 68.98e9 * 4096.0 + 80.0 * 2.0 * 8192.0 * 4096.0_f64.powi(2);
    for name in GPUS {
        let share_of_peak =
            flops / gpu(name).peak_flops / one_pass(name, &llama_70b(), 1.0, Forward::prefill(4096.0, 4096.0)).busy_s;
        assert!((0.3..0.75).contains(&share_of_peak), "{name}: {share_of_peak}");
    }
}

#[test]
fn tensor_parallelism_shortens_decode_by_less_than_its_degree() {
    for name in GPUS {
        let times: Vec<f64> =
            [1.0, 2.0, 4.0, 8.0].map(|t| one_pass(name, &llama_70b(), t, Forward::decode(8.0, 1024.0)).busy_s).to_vec();
        for pair in times.windows(2) {
            let speedup = pair[0] / pair[1];
            assert!((1.02..2.0).contains(&speedup), "{name}: {times:?}");
        }
    }
}

#[test]
fn power_never_leaves_the_range_from_waiting_to_the_limit() {
    for name in GPUS {
        let card = gpu(name);
        for factor in [0.9, 1.0, 1.1] {
            for t in [1.0, 8.0] {
                for forward in [1.0, 16.0, 512.0, 8192.0].into_iter().flat_map(|tokens| {
                    [Forward::prefill(tokens, tokens), Forward::decode(tokens, 64.0), Forward::decode(tokens, 8192.0)]
                }) {
                    let shard = Shard { tensor_parallel: t, pipeline_parallel: 1.0 };
                    let hardware = Hardware::of(&card);
                    let pass = pass(&hardware, &llama_70b(), shard, forward, factor);
                    assert!(pass.power_w <= card.power_limit_w, "{name} {forward:?}: {}", pass.power_w);
                    assert!(pass.power_w >= waiting_power_w(&hardware, factor), "{name} {forward:?}");
                    assert!(pass.busy_s.is_finite() && pass.busy_s > 0.0);
                }
            }
        }
    }
}

#[test]
fn a_lower_power_limit_makes_prefill_slower_and_cheaper_but_leaves_decode_alone() {
    let shard = Shard { tensor_parallel: 2.0, pipeline_parallel: 1.0 };
    let at = |limit_w: f64, forward| {
        // Only the limit changes: the GPU and its energy per operation stay the same.
        let mut hardware = Hardware::of(&gpu("H100-SXM5-80GB"));
        hardware.card.power_limit_w = limit_w;
        pass(&hardware, &llama_70b(), shard, forward, 1.0)
    };
    let prefill = Forward::prefill(4096.0, 4096.0);
    let (free, capped) = (at(700.0, prefill), at(450.0, prefill));
    assert!((capped.power_w - 450.0).abs() < 0.5, "{}", capped.power_w);
    assert!(capped.busy_s > 1.1 * free.busy_s);
    // A lower clock needs less voltage: fewer joules for the same work.
    assert!(capped.power_w * capped.busy_s < free.power_w * free.busy_s);
    let decode = Forward::decode(1.0, 512.0);
    assert!(at(450.0, decode).busy_s < 1.02 * at(700.0, decode).busy_s);
}

#[test]
fn a_limit_that_no_clock_can_keep_stretches_the_work() {
    let mut hardware = Hardware::of(&gpu(A100));
    hardware.card.power_limit_w = 150.0;
    let shard = Shard { tensor_parallel: 1.0, pipeline_parallel: 1.0 };
    let forward = Forward::decode(32.0, 4096.0);
    let stretched = pass(&hardware, &llama_70b(), shard, forward, 1.0);
    assert_eq!(stretched.power_w, 150.0);
    assert!(stretched.busy_s > 2.0 * one_pass(A100, &llama_70b(), 1.0, forward).busy_s);
}

#[test]
fn mixtral_splits_into_its_shared_and_routed_parameters() {
    // 46.7 = s + r and 12.9 = s + r/4: r = 45.07, s = 1.63 (attention, embeddings, routers).
    let (shared, routed) = shared_and_routed_params(&mixtral());
    assert!((routed - 45.0667e9).abs() < 1e6 && (shared - 1.6333e9).abs() < 1e6, "{shared} {routed}");
    assert_eq!(shared_and_routed_params(&llama_70b()), (68.98e9, 0.0));
}

#[test]
fn decode_of_a_mixture_reads_more_experts_as_the_batch_grows() {
    // At one token two of eight experts are read, at 64 all of them: (1.63 + 45.07) / (1.63 + 45.07/4) = 3.62 times the
    // bytes. The dense model reads the same whatever the batch.
    let step = |model: &ModelCard, batch| one_pass("MI300X", model, 1.0, Forward::decode(batch, 64.0)).busy_s;
    let mixture = step(&mixtral(), 64.0) / step(&mixtral(), 1.0);
    let dense = step(&llama_7b(), 64.0) / step(&llama_7b(), 1.0);
    // Launches hide part of it at one token: 8.6 ms of launch against 7.1 ms of reading.
    assert!((1.8..3.7).contains(&mixture), "{mixture}");
    assert!(dense < 1.7, "{dense}");
}

#[test]
fn decode_of_a_state_space_model_does_not_know_the_context() {
    let step = |model: &ModelCard, context| one_pass(A100, model, 1.0, Forward::decode(32.0, context)).busy_s;
    assert_eq!(step(&mamba(), 128.0), step(&mamba(), 131_072.0));
    // 32 sequences of 8192 tokens of KV at 0.5 MiB are 137 GB against 13.5 GB of weights.
    assert!(step(&llama_7b(), 8192.0) > 5.0 * step(&llama_7b(), 128.0));
}

#[test]
fn the_square_of_the_prompt_counts_for_attention_only() {
    // Eight prompts of 1024 or one of 8192: the same tokens, eight times the attention.
    let time = |model: &ModelCard, prompt| one_pass(A100, model, 1.0, Forward::prefill(8192.0, prompt)).busy_s;
    // 32 layers, 4·4096 FLOPs a pair, 8192·(8192 - 1024)/2 pairs more: 15.4 TFLOP at FlashAttention's 25 to 60 % of peak.
    let more_s = time(&llama_7b(), 8192.0) - time(&llama_7b(), 1024.0);
    let share_of_peak = 15.39e12 / 312e12 / more_s;
    assert!((0.25..0.6).contains(&share_of_peak), "{share_of_peak}");
    assert!(time(&mamba(), 8192.0) <= 1.001 * time(&mamba(), 1024.0));
}
