//! Promise: a recommendation over a million configurations in 0.2 s.
//!
//! A law of energy and one of the time per token, fitted to fifty rows of Llama-2-70B on A100s, are asked for a mean batch
//! that any number of replicas may share: for one pair of lengths without and with a limit, which is what is promised, and
//! for what costs more, a trace of many lengths and a model of experts. Prints the median, best and worst of so many answers, and the processor time of
//! one, all threads together, which says more where the machine is shared. Run with `cargo bench --bench recommend`.

use std::time::Instant;

use energylens::dataset::{Dataset, Row};
use energylens::fit::{FitOptions, fit_model};
use energylens::law::{Model, Scenario, Skeleton, Target};
use energylens::recommend::{Lengths, Limit, Request, Trace, recommend};
use serde_json::json;

const ANSWERS: usize = 15;
/// So many GPUs that a million configurations come out.
const GPUS: u32 = 270_000;
/// Requests of the trace, all of other lengths.
const TRACED: u32 = 200;

fn main() {
    let dense = model("meta-llama/Llama-2-70b-hf");
    let experts = model("mistralai/Mixtral-8x7B-v0.1");
    let limits = vec!["mean_tpot_s=0.5".parse().expect("a limit")];
    let one = |limits: Vec<Limit>| Request {
        max_gpus: GPUS,
        batch_size: Some(f64::from(GPUS) + 0.5),
        limits,
        ..Request::new(1024.0, 256.0)
    };
    let trace = Request { max_gpus: GPUS, batch_size: Some(f64::from(GPUS) + 0.5), ..traced() };
    for (what, model, request) in [
        ("no limit", &dense, one(Vec::new())),
        ("a limit on mean_tpot_s", &dense, one(limits)),
        ("a trace of 200 lengths", &dense, trace),
        ("a model of experts", &experts, one(Vec::new())),
    ] {
        let mut count = 0;
        let cpu_begin_s = cpu_s();
        let mut times_ms: Vec<f64> = (0..ANSWERS)
            .map(|_| {
                let begin = Instant::now();
                count = recommend(model, &request).expect("an answer").candidates;
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let cpu_ms = (cpu_s() - cpu_begin_s) * 1e3 / ANSWERS as f64;
        times_ms.sort_by(f64::total_cmp);
        let at = |share: f64| times_ms[((times_ms.len() - 1) as f64 * share) as usize];
        println!(
            "recommend, {count} configurations, {what}: median {:.0} ms, best {:.0} ms, worst {:.0} ms; {cpu_ms:.0} ms of \
             processor time",
            at(0.5),
            at(0.0),
            at(1.0)
        );
    }
}

/// Requests from 32 to 4096 tokens of input and from 4 to 512 of output, spread evenly over the logarithms.
fn traced() -> Request {
    let step = |i: u32, stride: u32| f64::from(i * stride % TRACED) / f64::from(TRACED);
    let requests: Vec<(f64, f64)> = (0..TRACED)
        .map(|i| (2_f64.powf(5.0 + 7.0 * step(i, 1)).round(), 2_f64.powf(2.0 + 7.0 * step(i, 77)).round()))
        .collect();
    let lengths = Lengths::of_requests(&requests).expect("there are requests");
    Request::of_trace(Trace { path: "trace".into(), lengths, arrival_rate: None, no_rate: None }, None)
        .expect("a trace is a workload")
}

/// Processor time of this process so far, all threads together.
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Rows that follow the built-in skeletons exactly, fitted.
fn model(name: &str) -> Model {
    let energy = Skeleton::default_for(Target::EnergyJ);
    let time = Skeleton::default_for(Target::MeanTpotS);
    let mut rows = Vec::new();
    for (i, t) in [1_u32, 2, 4, 8].iter().cycle().take(56).enumerate() {
        let p = [1_u32, 2][i / 4 % 2];
        let batch = [1.0, 3.0, 8.0, 20.0, 64.0, 128.0, 40.0][i / 8 % 7];
        let mut row: Row = serde_json::from_value(json!({
            "line": i + 1, "run_id": i.to_string(), "phase": "total", "quality": [], "source": "simulated",
            "model": name, "gpu_model": "A100-SXM4-80GB", "num_gpus": t * p,
            "tensor_parallel": t, "pipeline_parallel": p, "data_parallel": 1, "expert_parallel": 1, "batch_size": batch,
            "input_tokens": ([64.0, 500.0, 4000.0][i % 3]), "output_tokens": ([16.0, 200.0, 512.0, 64.0, 128.0][i % 5]),
            "kv_capacity_tokens": 100_000.0 * f64::from(t * p),
        }))
        .expect("the row is whole");
        let case = Scenario::of_stranger(&row).and_then(|s| s.case(&row)).expect("the model has a card");
        let figure =
            |skeleton: &Skeleton, k: &[f64], a: &[f64]| -> f64 { skeleton.contributions(k, a, &case).iter().sum() };
        row.energy_j =
            Some(figure(&energy, &[0.01, 3e-12, 4e-13, 2.5e-10, 3e-12, 3e-10, 2e-10, 0.03], &[0.25, 0.15, -0.2, 0.4]));
        row.mean_tpot_s =
            Some(figure(&time, &[6.4e-15, 6e-15, 5e-13, 6.4e-15, 5e-13, 1e-12, 5e-6, 2e-5], &[-0.9, 1.0, -0.9, -0.8]));
        rows.push(row);
    }
    let options = FitOptions { targets: vec![Target::EnergyJ, Target::MeanTpotS], ..FitOptions::default() };
    fit_model(&Dataset { rows, ..Dataset::default() }, &options).expect("the rows are enough").model
}
