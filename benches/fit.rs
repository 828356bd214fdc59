//! Promise: one law from 50 rows in 20 ms on one core.
//!
//! Rows follow the energylens law for Llama-2-70B on A100s over TP x PP x batch x lengths, with 5 % noise: what a fit
//! meets. Prints the median, best and worst over fits of different rows. Run with `cargo bench --bench fit`.

use std::time::Instant;

use energylens::dataset::{Dataset, Row};
use energylens::fit::{FitOptions, fit_model};
use energylens::law::{Scenario, Skeleton, Target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const ROWS: usize = 50;
const FITS: u64 = 40;
/// Coefficients and exponents of the magnitude seen on A100s.
const COEFFICIENTS: [f64; 8] = [0.01, 3e-12, 4e-13, 2.5e-10, 3e-12, 3e-10, 2e-10, 0.03];
const EXPONENTS: [f64; 4] = [0.25, 0.15, -0.2, 0.4];
const NOISE: f64 = 0.05;

fn main() {
    let options = FitOptions { targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let mut times_ms: Vec<f64> = (0..FITS)
        .map(|seed| {
            let dataset = dataset(seed);
            let begin = Instant::now();
            let fitted = fit_model(&dataset, &options).expect("fifty rows are enough");
            let elapsed_ms = begin.elapsed().as_secs_f64() * 1e3;
            assert_eq!(fitted.model.laws.len(), 1);
            elapsed_ms
        })
        .collect();
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| times_ms[((times_ms.len() - 1) as f64 * share) as usize];
    println!("law fit, {ROWS} rows: median {:.2} ms, best {:.2} ms, worst {:.2} ms", at(0.5), at(0.0), at(1.0));
}

fn dataset(seed: u64) -> Dataset {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows = (1..=ROWS).map(|line| {
        let mut pick = |values: &[f64]| values[rng.random_range(0..values.len())];
        let (t, p) = (pick(&[1.0, 2.0, 4.0, 8.0]), pick(&[1.0, 2.0, 4.0]));
        let batch = pick(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        let mut row: Row = serde_json::from_value(json!({
            "line": line, "run_id": "", "phase": "total", "quality": [], "source": "simulated",
            "model": "meta-llama/Llama-2-70b-hf", "gpu_model": "A100-SXM4-80GB", "num_gpus": (t * p) as u32,
            "tensor_parallel": t as u32, "pipeline_parallel": p as u32, "data_parallel": 1, "expert_parallel": 1,
            "batch_size": batch,
            "input_tokens": (64.0 * 2f64.powf(rng.random_range(0.0..7.0))).round(),
            "output_tokens": 2f64.powf(rng.random_range(0.0..9.0)).round(),
            "kv_capacity_tokens": 100_000.0 * t * p,
        }))
        .expect("the row is whole");
        let case = Scenario::of_stranger(&row).and_then(|s| s.case(&row)).expect("the model has a card");
        let truth: f64 = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case).iter().sum();
        let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        row.energy_j = Some(truth * (NOISE * normal).exp());
        row
    });
    Dataset { rows: rows.collect(), ..Dataset::default() }
}
