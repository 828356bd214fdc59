use super::*;
use crate::law::Skeleton;
use synthetic::{COEFFICIENTS, EXPONENTS, observations};

fn core(rows: &[Observation], seed: u64) -> Core {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let lines: Vec<usize> = (1..=rows.len()).collect();
    fit_core(&skeleton, rows, &lines, seed, None)
}

#[test]
fn a_law_without_noise_is_found_again() {
    let mut skeleton = Skeleton::default_for(Target::EnergyJ);
    // Priors weigh as in data that repeats to 3 %; here they would be all that is wrong.
    skeleton.exponents.iter_mut().for_each(|e| e.prior_sd = 10.0);
    let rows = observations(&skeleton, 120, 0.0, 1);
    let core = fit_core(&skeleton, &rows, &(1..=120).collect::<Vec<_>>(), 0, None);
    for (found, truth) in core.coefficients.iter().zip(COEFFICIENTS) {
        assert!((found / truth - 1.0).abs() < 0.01, "{found} is not {truth}");
    }
    for (found, truth) in core.exponents.iter().zip(EXPONENTS) {
        assert!((found - truth).abs() < 0.005, "{found} is not {truth}");
    }
}

#[test]
fn a_few_wild_rows_do_not_bend_the_law() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let held_out = observations(&skeleton, 200, 0.0, 99);
    let mape = |core: &Core| {
        let error = |o: &Observation| {
            let predicted: f64 = skeleton.contributions(&core.coefficients, &core.exponents, &o.case).iter().sum();
            (predicted / o.value - 1.0).abs()
        };
        held_out.iter().map(error).sum::<f64>() / held_out.len() as f64
    };
    let mut rows = observations(&skeleton, 60, 0.02, 2);
    let clean = mape(&core(&rows, 0));
    for i in [3, 17, 40] {
        rows[i].value *= 4.0;
    }
    let core = core(&rows, 0);
    let wild = mape(&core);
    assert!(clean < 0.03 && wild < clean + 0.02, "held-out MAPE {clean} without, {wild} with wild rows");
    let lines = core.inference.verdicts.iter().find_map(|v| match v {
        Verdict::Outliers { lines, .. } => Some(lines.clone()),
        _ => None,
    });
    let mut lines = lines.expect("outliers are named");
    lines.sort_unstable();
    assert_eq!(lines, [4, 18, 41]);
}

#[test]
fn data_that_never_leaves_one_gpu_says_so() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rows = observations(&skeleton, 400, 0.02, 3);
    rows.retain(|o| o.case.tensor_parallel == 1.0 && o.case.pipeline_parallel == 1.0);
    let verdicts = core(&rows, 0).inference.verdicts;
    let unidentified: Vec<_> = verdicts
        .iter()
        .filter_map(|v| match v {
            Verdict::Unidentified { parameters, .. } => Some(parameters.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    for parameter in ["a1", "a2", "a3", "a4", "k6"] {
        assert!(unidentified.iter().any(|u| u == parameter), "{parameter} should be unidentified: {unidentified:?}");
    }
}

#[test]
fn intervals_of_unseen_rows_hold_nine_in_ten() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let (mut inside, mut all) = (0, 0);
    for seed in 0..20 {
        let rows = observations(&skeleton, 50, 0.05, 1000 + seed);
        let group = synthetic::group(&rows);
        let law = fit_law(&group, skeleton.clone(), seed).expect("fifty rows are enough");
        for unseen in observations(&skeleton, 50, 0.05, 5000 + seed) {
            let p = law.predict(&unseen.case, true);
            inside += usize::from(p.low <= unseen.value && unseen.value <= p.high);
            all += 1;
        }
    }
    let share = inside as f64 / all as f64;
    assert!((0.85..=0.95).contains(&share), "{share} of {all}");
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let rows = observations(&skeleton, 50, 0.05, 4);
    assert_eq!(core(&rows, 5).coefficients, core(&rows, 5).coefficients);
}

fn priced() -> Skeleton {
    Skeleton::default_for(Target::EnergyJ).priced(&crate::card::GpuCard::builtin("A100-SXM4-80GB").expect("built in"))
}

#[test]
fn priors_leave_a_law_alone_that_many_rows_determine() {
    let skeleton = priced();
    let rows = observations(&skeleton, 400, 0.0, 1);
    let lines: Vec<usize> = (1..=rows.len()).collect();
    let core = fit_core(&skeleton, &rows, &lines, 0, None);
    for unseen in observations(&skeleton, 100, 0.0, 2) {
        let predicted: f64 = skeleton.contributions(&core.coefficients, &core.exponents, &unseen.case).iter().sum();
        assert!((predicted / unseen.value - 1.0).abs() < 0.02, "{predicted} is not {}", unseen.value);
    }
}

#[test]
fn twelve_rows_with_priors_beat_twelve_without() {
    let (with, without) = (priced(), Skeleton::default_for(Target::EnergyJ));
    let mape = |skeleton: &Skeleton| {
        let error = |seed: u64| {
            let rows = observations(skeleton, 12, 0.034, 100 + seed);
            let lines: Vec<usize> = (1..=rows.len()).collect();
            let core = fit_core(skeleton, &rows, &lines, seed, None);
            let off = |o: &Observation| {
                let predicted: f64 = skeleton.contributions(&core.coefficients, &core.exponents, &o.case).iter().sum();
                (predicted / o.value - 1.0).abs()
            };
            observations(skeleton, 100, 0.0, 900 + seed).iter().map(off).sum::<f64>() / 100.0
        };
        (0..10).map(error).sum::<f64>() / 10.0
    };
    let (with, without) = (mape(&with), mape(&without));
    assert!(with < 0.8 * without, "{with} with priors, {without} without");
}

#[test]
fn a_term_that_no_row_shows_keeps_its_prior_and_says_so() {
    let skeleton = priced();
    let mut rows = observations(&skeleton, 400, 0.02, 3);
    rows.retain(|o| o.case.tensor_parallel == 1.0);
    let lines: Vec<usize> = (1..=rows.len()).collect();
    let core = fit_core(&skeleton, &rows, &lines, 0, None);
    // All-reduce: 8 bytes at 400 W / 300 GB/s.
    assert!((core.coefficients[6] / (8.0 * 400.0 / 300e9) - 1.0).abs() < 1e-6, "{}", core.coefficients[6]);
    let named = core.inference.verdicts.iter().any(
        |v| matches!(v, Verdict::Unidentified { parameters, why } if parameters.contains(&"k6".to_owned()) && why.contains("card")),
    );
    assert!(named, "k6 should be called unidentified");
}

/// Rows of a known law, as a table of somebody else would have them.
fn table(n: usize, noise: f64, seed: u64) -> Vec<crate::dataset::Row> {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rows = synthetic::group(&observations(&skeleton, n, noise, seed)).rows;
    for row in &mut rows {
        (row.model, row.gpu_model) = ("meta-llama/Llama-2-70b-hf".to_owned(), "A100-SXM4-80GB".to_owned());
    }
    rows
}

fn fitted(rows: Vec<crate::dataset::Row>) -> Result<Fitted, Error> {
    fit_model(
        &Dataset { rows, ..Dataset::default() },
        &FitOptions { targets: vec![Target::EnergyJ], ..Default::default() },
    )
}

#[test]
fn rows_that_agree_by_luck_do_not_make_the_law_certain() {
    for gpu in ["A100-SXM4-80GB", "of which no card is known"] {
        let mut row = synthetic::row(4, 1, 2.0, 512.0, 128.0);
        (row.gpu_model, row.energy_j) = (gpu.to_owned(), Some(4000.0));
        let model = fitted(vec![row.clone(); 8]).unwrap().model;
        let far = crate::dataset::Row { batch_size: 128.0, ..row };
        let p = model.predict(Target::EnergyJ, &far).unwrap();
        assert!(p.high / p.low > 1.5, "eight copies of one row give {} to {} far away on {gpu}", p.low, p.high);
    }
}

#[test]
fn a_scenario_with_too_few_rows_is_refused_and_not_forgotten() {
    let mut rows = table(40, 0.02, 9);
    for row in &mut rows[..3] {
        row.model = "another".to_owned();
    }
    let fitted = fitted(rows).unwrap();
    let lines: Vec<_> = fitted.refused.iter().map(|r| r.line).collect();
    assert_eq!((lines, fitted.model.training.rows), (vec![1, 2, 3], 37));
    assert!(fitted.refused[0].reason.contains("has 3 usable rows; a fit needs 4"), "{}", fitted.refused[0].reason);
}

#[test]
fn rows_that_cannot_be_part_of_the_law_are_refused_by_column() {
    let mut rows = table(40, 0.02, 10);
    (rows[5].phase, rows[5].output_tokens) = (crate::schema::Phase::Decode, 1.0);
    for row in &mut rows {
        row.bytes_per_weight = Some(2.0);
    }
    rows[7].bytes_per_weight = Some(1.0);
    let fitted = fitted(rows).unwrap();
    let refused: Vec<_> = fitted.refused.iter().map(|r| (r.line, r.column.as_deref().unwrap_or(""))).collect();
    assert_eq!(refused, [(6, "output_tokens"), (8, "bytes_per_weight")]);
    assert!(fitted.model.laws[0].sigma_log < 0.05);
}

#[test]
fn of_a_decode_that_was_measured_twice_one_row_is_fitted() {
    use crate::schema::{Method, Phase};
    let mut rows = table(40, 0.02, 12);
    rows[6].run_id = "twice".to_owned();
    let decode = |method| crate::dataset::Row { phase: Phase::Decode, method: Some(method), ..rows[6].clone() };
    let twice = [decode(Method::Difference), decode(Method::Marks)];
    rows.retain(|row| row.run_id != twice[0].run_id);
    let single = rows.len();
    rows.extend(twice);
    assert_eq!(fitted(rows).unwrap().model.training.rows, single + 1);
}

#[test]
fn a_row_that_fits_two_laws_is_asked_to_say_which() {
    let mut rows = table(80, 0.02, 11);
    for (i, row) in rows.iter_mut().enumerate() {
        row.precision = Some(if i < 40 { "bf16" } else { "fp8" }.to_owned());
    }
    let mut question = crate::dataset::Row { energy_j: None, ..rows[0].clone() };
    let model = fitted(rows).unwrap().model;
    assert!(model.predict(Target::EnergyJ, &question).is_ok());
    question.precision = None;
    let message = model.predict(Target::EnergyJ, &question).unwrap_err().to_string();
    assert!(message.contains("is ambiguous") && message.contains("fill in engine and precision"), "{message}");
}

#[test]
fn names_that_mean_one_model_find_its_law() {
    let model = fitted(table(40, 0.02, 12)).unwrap().model;
    let mut question = table(1, 0.0, 13).remove(0);
    (question.model, question.gpu_model) = ("llama-2-70b-hf".to_owned(), "NVIDIA A100-SXM4-80GB".to_owned());
    assert!(model.predict(Target::EnergyJ, &question).is_ok());
    question.model = "meta-llama/Llama-2-7b-hf".to_owned();
    assert!(model.predict(Target::EnergyJ, &question).is_err());
}

#[test]
fn what_does_not_fit_and_what_is_beyond_numbers_is_said() {
    let model = fitted(table(40, 0.02, 14)).unwrap().model;
    // 138e9 bytes of weights on one GPU of some 80e9, where the rows say nothing else; or of half of that, of which no row
    // can say anything.
    let mut question = crate::dataset::Row { kv_capacity_tokens: None, ..synthetic::row(1, 1, 1.0, 64.0, 64.0) };
    let own = model.scenarios[0].gpu_memory_bytes.expect("the GPU has a card");
    let is_measured = model.scenarios[0].kv_capacity_tokens.iter().any(|(t, p, _)| (*t, *p) == (1, 1));
    for (memory, fits) in [(own, is_measured), (own / 2.0, false)] {
        question.gpu_memory_bytes = Some(memory);
        let remarks = model.predict(Target::EnergyJ, &question).map(|p| p.outside.join("; "));
        assert_eq!(remarks.unwrap().contains("weights and one sequence need"), !fits, "{memory}");
    }
    question.batch_size = 1e300;
    question.input_tokens = Some(1e200);
    assert!(model.predict(Target::EnergyJ, &question).unwrap_err().to_string().contains("expected a figure above 0"));
}

#[test]
fn a_structure_that_serves_no_law_is_not_left_out_quietly() {
    let skeleton = Some(Skeleton::default_for(Target::DurationS));
    let options = FitOptions { skeleton, ..FitOptions::default() };
    // These rows carry energy alone.
    let dataset = Dataset { rows: table(40, 0.02, 14), ..Dataset::default() };
    let error = fit_model(&dataset, &options).unwrap_err().to_string();
    assert!(error.contains("the skeleton `energylens-latency` predicts duration_s"), "{error}");
}

#[test]
fn an_interval_is_as_wide_as_its_kind_of_row_scatters() {
    use crate::law::{RowKind, Scatter};
    let mut model = fitted(table(40, 0.02, 15)).unwrap().model;
    let law = &mut model.laws[0];
    law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0);
    law.scatter = [(RowKind::Prefill, 0.1), (RowKind::Batch, 0.03)]
        .map(|(kind, sigma_log)| (kind, Scatter { sigma_log, degrees_of_freedom: 1e6 }))
        .into();
    (law.sigma_log, law.degrees_of_freedom) = (0.05, 1e6);
    let batch = synthetic::row(4, 1, 2.0, 512.0, 128.0);
    let prefill = crate::dataset::Row { phase: crate::schema::Phase::Prefill, ..batch.clone() };
    let first_token = crate::dataset::Row { output_tokens: 1.0, ..batch.clone() };
    let reach = |model: &Model, row: &crate::dataset::Row| {
        let mut row = row.clone();
        (row.model, row.gpu_model) = ("meta-llama/Llama-2-70b-hf".to_owned(), "A100-SXM4-80GB".to_owned());
        let p = model.predict(Target::EnergyJ, &row).unwrap();
        (p.high / p.value).ln() / 1.6449
    };
    for (row, sigma) in [(&batch, 0.03), (&prefill, 0.1), (&first_token, 0.1)] {
        assert!((reach(&model, row) - sigma).abs() < 1e-4, "{} is not {sigma}", reach(&model, row));
    }
    // A file of an earlier version knows one scatter.
    let mut text: serde_json::Value = serde_json::to_value(&model).unwrap();
    text["laws"][0].as_object_mut().unwrap().remove("scatter");
    let old: Model = serde_json::from_value(text).unwrap();
    assert!((reach(&old, &prefill) - 0.05).abs() < 1e-4);
}
