//! A law carried to a platform where nothing but ten rows was measured, on simulated GPUs of three kinds. The simulator's
//! true joules stand in for measured ones, with its run-to-run noise of 2 %.

use std::sync::Arc;

use energylens::card::{GpuCard, ModelCard};
use energylens::dataset::{Dataset, Row};
use energylens::fit::split::Scheme;
use energylens::fit::{FitOptions, Predictor, ValidateOptions, fit_model, validate};
use energylens::law::{Model, Pool, Target};
use energylens::schema::EnergySource;
use energylens::source::sim::{BatchRequest, SimNode, SimOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MODELS: [&str; 3] = ["meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-14B", "meta-llama/Llama-3.1-70B"];

/// `count` rows of random workloads and deployments of `models` on `gpu`.
fn rows(gpu: &str, models: &[&str], count: usize, seed: u64) -> Vec<Row> {
    let card = GpuCard::builtin(gpu).expect("a built-in GPU");
    let node = SimNode::new(&[(card.clone(), 8)], SimOptions { seed, ..SimOptions::default() });
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    while rows.len() < count {
        let model = ModelCard::builtin(models[rng.random_range(0..models.len())]).expect("a built-in model");
        let pick = |rng: &mut ChaCha8Rng, values: &[u32]| values[rng.random_range(0..values.len())];
        let request = BatchRequest {
            gpu_model: card.gpu_model.clone(),
            tensor_parallel: pick(&mut rng, &[1, 2, 4, 8]),
            pipeline_parallel: 1,
            data_parallel: 1,
            batch_size: pick(&mut rng, &[1, 2, 4, 8, 16, 32, 64]),
            input_tokens: pick(&mut rng, &[128, 256, 512, 1024, 2048]),
            output_tokens: pick(&mut rng, &[16, 64, 256]),
            model,
        };
        // What does not fit into memory is not measured.
        let Ok(batch) = node.execute(&request) else { continue };
        let joules = |device: &String| node.true_energy_j(device, batch.t_begin_mono_ns, batch.t_end_mono_ns);
        let energy_j = batch.devices.iter().map(joules).sum::<Option<f64>>().expect("the node knows its past");
        rows.push(Row {
            line: rows.len() + 1,
            source: EnergySource::Simulated,
            num_gpus: request.tensor_parallel,
            tensor_parallel: request.tensor_parallel,
            batch_size: f64::from(request.batch_size),
            input_tokens: Some(f64::from(request.input_tokens)),
            output_tokens: f64::from(request.output_tokens),
            energy_j: Some(energy_j),
            duration_s: Some((batch.t_end_mono_ns - batch.t_begin_mono_ns) as f64 / 1e9),
            kv_capacity_tokens: batch.kv_capacity_tokens,
            ..Row::new(&request.model.model, &card.gpu_model)
        });
    }
    rows
}

fn fitted(rows: Vec<Row>, pool: Pool, prior: Option<&Arc<Model>>) -> Model {
    let options = FitOptions { pool, prior: prior.cloned(), targets: vec![Target::EnergyJ], ..FitOptions::default() };
    fit_model(&Dataset { rows, ..Dataset::default() }, &options).expect("enough rows").model
}

/// Mean relative error and the share of 90 % intervals that hold.
fn judged(model: &Model, unseen: &[Row]) -> (f64, f64) {
    let judge = |row: &Row| {
        let energy_j = row.energy_j.expect("measured");
        let p = model.predict(Target::EnergyJ, row).expect("the law covers it");
        ((p.value / energy_j - 1.0).abs(), f64::from(u8::from(p.low <= energy_j && energy_j <= p.high)))
    };
    let all: Vec<(f64, f64)> = unseen.iter().map(judge).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    (mean(|a| a.0), mean(|a| a.1))
}

fn spread(pool: Pool, models: &[&str], gpus: &[&str]) -> Vec<[f64; 5]> {
    let prior = Arc::new(fitted(rows("A100-SXM4-80GB", models, 60 * models.len(), 1), pool, None));
    let mut figures = Vec::new();
    for gpu in gpus {
        for seed in 0..4 {
            let measured = |count| rows(gpu, models, count, 100 + seed);
            let unseen = rows(gpu, models, 80, 900 + seed);
            let (with, holds) = judged(&fitted(measured(10), pool, Some(&prior)), &unseen);
            let (without, _) = judged(&fitted(measured(10), pool, None), &unseen);
            let (many, many_hold) = judged(&fitted(measured(50), pool, None), &unseen);
            println!(
                "{gpu} seed {seed}: 10 rows with prior {:.1} % (holds {:.0} %), without {:.1} %, 50 rows {:.1} % (holds {:.0} %)",
                100.0 * with,
                100.0 * holds,
                100.0 * without,
                100.0 * many,
                100.0 * many_hold
            );
            figures.push([with, holds, without, many, many_hold]);
        }
    }
    figures
}

fn mean(figures: &[[f64; 5]], column: usize) -> f64 {
    figures.iter().map(|f| f[column]).sum::<f64>() / figures.len() as f64
}

#[test]
fn ten_rows_and_another_gpus_law_beat_ten_rows_alone() {
    let figures = spread(Pool::None, &MODELS[..1], &["H100-SXM5-80GB", "MI300X"]);
    let (with, without, many) = (mean(&figures, 0), mean(&figures, 2), mean(&figures, 3));
    println!("mean: with {with:.3}, without {without:.3}, fifty {many:.3}, holds {:.2}", mean(&figures, 1));
    // One model's rows lean on the prices of the card in any case; what another GPU's law adds is little.
    assert!(with < without && with < 0.04, "{with} with, {without} without a prior");
    assert!((0.75..=1.0).contains(&mean(&figures, 1)), "holds {}", mean(&figures, 1));
}

#[test]
fn a_pooled_law_carries_over_too() {
    let figures = spread(Pool::Models, &MODELS, &["H100-SXM5-80GB"]);
    let (with, without) = (mean(&figures, 0), mean(&figures, 2));
    println!("mean: with {with:.3}, without {without:.3}, fifty {:.3}", mean(&figures, 3));
    assert!(with < 0.8 * without, "{with} with, {without} without a prior");
}

#[test]
fn ten_rows_and_another_gpus_law_of_times_beat_ten_rows_alone() {
    let options =
        |prior: Option<Arc<Model>>| FitOptions { targets: vec![Target::DurationS], prior, ..FitOptions::default() };
    let fitted = |rows: Vec<Row>, prior| {
        let dataset = Dataset { rows, ..Dataset::default() };
        fit_model(&dataset, &options(prior)).expect("enough rows").model
    };
    let prior = Arc::new(fitted(rows("A100-SXM4-80GB", &MODELS[..1], 60, 1), None));
    let (mut with, mut without) = (0.0, 0.0);
    for seed in 0..4 {
        let measured = || rows("H100-SXM5-80GB", &MODELS[..1], 10, 100 + seed);
        let unseen = rows("H100-SXM5-80GB", &MODELS[..1], 80, 900 + seed);
        let off = |model: &Model| {
            let error = |row: &Row| {
                let duration_s = row.duration_s.expect("measured");
                (model.predict(Target::DurationS, row).expect("the law covers it").value / duration_s - 1.0).abs()
            };
            unseen.iter().map(error).sum::<f64>() / 80.0 / 4.0
        };
        with += off(&fitted(measured(), Some(prior.clone())));
        without += off(&fitted(measured(), None));
    }
    println!("durations: with prior {with:.3}, without {without:.3}");
    assert!(with < 0.9 * without, "{with} with, {without} without a prior");
}

#[test]
fn hardware_that_was_left_out_lies_within_its_intervals() {
    let judge = |gpus: &[&str]| {
        let all = gpus.iter().zip(1..).flat_map(|(gpu, seed)| rows(gpu, &MODELS[..1], 60, seed));
        let rows = all.enumerate().map(|(i, row)| Row { line: i + 1, ..row }).collect();
        let predictors = vec![Predictor::Law];
        let options = ValidateOptions { scheme: Scheme::Hardware, predictors, ..ValidateOptions::default() };
        let dataset = Dataset { rows, ..Dataset::default() };
        let found = validate(&dataset, &options).expect("several GPUs");
        let figures = found.figures(Predictor::Law).expect("a card of each").clone();
        println!("{gpus:?}: {figures:?}");
        (figures.mape.expect("energies"), figures.coverage.expect("intervals"))
    };
    for gpus in [&["A100-SXM4-80GB", "H100-SXM5-80GB"][..], &["A100-SXM4-80GB", "H100-SXM5-80GB", "MI300X"][..]] {
        let (mape, holds) = judge(gpus);
        assert!(mape < 0.35 && holds > 0.75, "{gpus:?}: {mape}, {holds} of the intervals hold");
    }
}

#[test]
fn a_prior_that_saw_the_rows_is_refused_by_validation() {
    let dataset = Dataset { rows: rows("A100-SXM4-80GB", &MODELS[..1], 40, 1), ..Dataset::default() };
    let prior = Some(Arc::new(fitted(dataset.rows.clone(), Pool::None, None)));
    let refused = validate(&dataset, &ValidateOptions { prior: prior.clone(), ..ValidateOptions::default() });
    let message = refused.expect_err("the prior has seen these rows").to_string();
    assert!(message.contains("expected a prior of another platform"), "{message}");
    let elsewhere = Dataset { rows: rows("H100-SXM5-80GB", &MODELS[..1], 40, 2), ..Dataset::default() };
    let predictors = vec![Predictor::Law];
    let options = ValidateOptions { prior, predictors, training_rows: Some(10), ..ValidateOptions::default() };
    assert!(validate(&elsewhere, &options).is_ok());
}

#[test]
fn a_prior_without_a_fitting_law_says_what_it_has() {
    let prior = Arc::new(fitted(rows("A100-SXM4-80GB", &MODELS[..1], 40, 1), Pool::None, None));
    let mut skeleton = energylens::law::Skeleton::default_for(Target::EnergyJ);
    skeleton.terms.pop();
    let options = FitOptions {
        prior: Some(prior),
        targets: vec![Target::EnergyJ],
        skeleton: Some(skeleton),
        ..FitOptions::default()
    };
    let dataset = Dataset { rows: rows("H100-SXM5-80GB", &MODELS[..1], 12, 2), ..Dataset::default() };
    let message = fit_model(&dataset, &options).expect_err("another structure").to_string();
    assert!(message.contains("has no law of energy_j") && message.contains("A100-SXM4-80GB"), "{message}");
}
