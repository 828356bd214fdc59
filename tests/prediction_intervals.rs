//! Do nine in ten of the 90 % intervals hold? On simulated nodes of three makes with models of four kinds: laws of fifty
//! rows each, judged on rows of other workloads. The simulator is not the law: what the law bends wrongly counts.

use std::collections::BTreeMap;

use energylens::card::{GpuCard, ModelCard};
use energylens::dataset::{Dataset, Row};
use energylens::fit::{FitOptions, fit_model};
use energylens::law::Target;
use energylens::schema::{EnergySource, Phase};
use energylens::source::sim::{BatchRequest, SimNode, SimOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// GPU and model: dense small and large, mixtures of experts, a hybrid, a vision model.
const NODES: [(&str, &str); 6] = [
    ("A100-SXM4-80GB", "meta-llama/Llama-3.1-8B"),
    ("H100-SXM5-80GB", "meta-llama/Llama-3.1-70B"),
    ("MI300X", "mistralai/Mixtral-8x7B-v0.1"),
    ("A100-SXM4-80GB", "Qwen/Qwen3-30B-A3B"),
    ("H100-SXM5-80GB", "ibm-ai-platform/Bamba-9B-v1"),
    ("MI300X", "Qwen/Qwen2-VL-7B-Instruct"),
];
const SEEDS: u64 = 4;
const LEARNT: usize = 50;
const UNSEEN: usize = 100;

/// `count` rows of random workloads and deployments, a quarter of them prefill alone.
fn rows(gpu: &str, model: &str, count: usize, seed: u64) -> Vec<Row> {
    let card = GpuCard::builtin(gpu).expect("a built-in GPU");
    let node = SimNode::new(&[(card.clone(), 8)], SimOptions { seed, ..SimOptions::default() });
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    while rows.len() < count {
        let pick = |rng: &mut ChaCha8Rng, values: &[u32]| values[rng.random_range(0..values.len())];
        let prefill = rng.random_bool(0.25);
        let request = BatchRequest {
            gpu_model: card.gpu_model.clone(),
            tensor_parallel: pick(&mut rng, &[1, 2, 4]),
            pipeline_parallel: pick(&mut rng, &[1, 2]),
            data_parallel: 1,
            batch_size: pick(&mut rng, &[1, 2, 4, 8, 16, 32, 64]),
            input_tokens: pick(&mut rng, &[128, 256, 512, 1024, 2048]),
            output_tokens: if prefill { 1 } else { pick(&mut rng, &[16, 64, 256]) },
            model: ModelCard::builtin(model).expect("a built-in model"),
        };
        // What does not fit into memory is not measured.
        let Ok(batch) = node.execute(&request) else { continue };
        let joules = |device: &String| node.true_energy_j(device, batch.t_begin_mono_ns, batch.t_end_mono_ns);
        let energy_j = batch.devices.iter().map(joules).sum::<Option<f64>>().expect("the node knows its past");
        rows.push(Row {
            line: rows.len() + 1,
            source: EnergySource::Simulated,
            phase: if prefill { Phase::Prefill } else { Phase::Total },
            num_gpus: request.tensor_parallel * request.pipeline_parallel,
            tensor_parallel: request.tensor_parallel,
            pipeline_parallel: request.pipeline_parallel,
            batch_size: f64::from(request.batch_size),
            input_tokens: Some(f64::from(request.input_tokens)),
            output_tokens: f64::from(request.output_tokens),
            energy_j: Some(energy_j),
            kv_capacity_tokens: batch.kv_capacity_tokens,
            ..Row::new(model, &card.gpu_model)
        });
    }
    rows
}

#[test]
fn nine_in_ten_intervals_hold_over_nodes_and_models() {
    let options = FitOptions { targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let mut held: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (gpu, model) in NODES {
        for seed in 0..SEEDS {
            let learnt = Dataset { rows: rows(gpu, model, LEARNT, seed), ..Dataset::default() };
            let law = fit_model(&learnt, &options).expect("fifty rows are enough").model;
            let seen: Vec<String> = learnt.rows.iter().map(Row::workload_key).collect();
            let unseen = rows(gpu, model, UNSEEN, 1000 + seed);
            for row in unseen.iter().filter(|r| !seen.contains(&r.workload_key())) {
                let energy_j = row.energy_j.expect("measured");
                let p = law.predict(Target::EnergyJ, row).expect("the law covers it");
                let holds = usize::from(p.low <= energy_j && energy_j <= p.high);
                for label in ["all".to_owned(), format!("{gpu} {model}"), row.phase.as_str().to_owned()] {
                    let count = held.entry(label).or_default();
                    *count = (count.0 + holds, count.1 + 1);
                }
            }
        }
    }
    for (label, (holds, rows)) in &held {
        println!("{label}: {:.1} % of {rows}", 100.0 * *holds as f64 / *rows as f64);
    }
    let share = |label: &str| held.get(label).map_or(0.0, |(holds, rows)| *holds as f64 / *rows as f64);
    assert!((0.85..=0.95).contains(&share("all")), "{:.3} of all", share("all"));
    // Of one node and model a law may err one way for a whole phase; none may be sure of what is wrong.
    for label in held.keys() {
        assert!(share(label) >= 0.75, "{:.3} of {label}", share(label));
    }
}
