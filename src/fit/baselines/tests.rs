use super::*;
use crate::fit::synthetic::row;
use crate::schema::Phase;

/// TP 1, 2, 4 x PP 1, 2 x three batches, inputs and outputs: 162 rows.
fn grid(energy_j: impl Fn(&Row) -> f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (t, p) in [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)] {
        for batch in [1.0, 8.0, 32.0] {
            for input in [128.0, 700.0, 2048.0] {
                rows.extend([32.0, 150.0, 512.0].map(|output| {
                    let mut row = row(t, p, batch, input, output);
                    row.energy_j = Some(energy_j(&row));
                    row
                }));
            }
        }
    }
    rows
}

fn context() -> Context {
    Context { pool: Pool::None, across_hardware: false, seed: 1, skeleton: None, prior: None, target: Target::EnergyJ }
}

/// Largest relative error on configurations between those of the grid.
fn worst(predictor: Predictor, rows: &[Row], truth: impl Fn(&Row) -> f64) -> f64 {
    let estimator = predictor.fit(rows, &context()).expect("the grid is enough to learn from");
    [row(2, 1, 8.0, 1000.0, 100.0), row(4, 2, 32.0, 300.0, 400.0), row(1, 1, 1.0, 500.0, 64.0)]
        .iter()
        .map(|r| (estimator(r).expect("an answer").value / truth(r) - 1.0).abs())
        .fold(0.0, f64::max)
}

fn input(row: &Row) -> f64 {
    row.input_tokens.unwrap_or(f64::NAN)
}

fn degrees(row: &Row) -> (f64, f64) {
    (f64::from(row.tensor_parallel), f64::from(row.pipeline_parallel))
}

#[test]
fn regressions_find_their_own_forms_again() {
    let plane = |r: &Row| 50.0 + 7.0 * degrees(r).0 + 2.0 * r.batch_size + 0.03 * input(r) + 0.5 * r.output_tokens;
    assert!(worst(Predictor::Linear, &grid(plane), plane) < 1e-9);
    let powers = |r: &Row| 3.0 * degrees(r).0.powf(0.4) * r.batch_size.powf(0.7) * r.output_tokens * input(r).powf(0.1);
    assert!(worst(Predictor::LogLinear, &grid(powers), powers) < 1e-9);
    let bent =
        |r: &Row| powers(r) * (0.05 * r.batch_size.ln() * input(r).ln() + 0.03 * r.output_tokens.ln().powi(2)).exp();
    assert!(worst(Predictor::LogQuadratic, &grid(bent), bent) < 0.02);
    assert!(worst(Predictor::LogLinear, &grid(bent), bent) > 0.05);
}

#[test]
fn forms_of_others_are_found_again() {
    let sweetspot = |r: &Row| {
        let (b, n, m) = (r.batch_size, input(r), r.output_tokens);
        let factor = 1.0 + 0.1 * degrees(r).0;
        factor * (30.0 + 0.02 * b * n + 1e-6 * b * n * n + 2.0 * m + 3e-5 * b * n * m + 2e-5 * b * m * m)
    };
    assert!(worst(Predictor::SweetSpot, &grid(sweetspot), sweetspot) < 0.02);
    let wilkins = |r: &Row| {
        let (n, m) = (input(r), r.output_tokens);
        r.batch_size * (1.0 + degrees(r).0) * (0.1 * n + 3.0 * m + 4e-3 * n * m)
    };
    assert!(worst(Predictor::Wilkins, &grid(wilkins), wilkins) < 1e-6);
    let maveriq = |r: &Row| {
        let ((t, p), m) = (degrees(r), r.output_tokens);
        let reference = 5.0 + 0.5 * (r.batch_size - 1.0) + 2.0 * m + 0.1 * (r.batch_size - 1.0) * m;
        t * p
            * (reference / (t * p.powf(0.921)) + 0.3 * m * (t - 1.0).powf(0.802) / p.powf(1.062) + 0.2 * m * (p - 1.0))
    };
    // (p-1)^0.259 is 1 at p = 2, the only pipeline degree of the grid above 1.
    assert!(worst(Predictor::MaverIq, &grid(maveriq), maveriq) < 1e-6);
}

#[test]
fn the_roofline_of_a_prefill_worked_by_hand() {
    // Llama-2-70B, one A100, batch 1, 1000 tokens in, prefill only. Arithmetic bounds it: 2 N n + 2 L h n^2 FLOP over the
    // peak, at the power limit.
    let card = crate::card::ModelCard::builtin("meta-llama/Llama-2-70b-hf").expect("a built-in model");
    let gpu = GpuCard::builtin("A100-SXM4-80GB").expect("a built-in GPU");
    let flops = 2.0 * card.active_params * 1000.0 + 2.0 * 80.0 * 8192.0 * 1e6;
    let energy_j = gpu.power_limit_w * flops / gpu.peak_flops;
    let mut prefill = row(1, 1, 1.0, 1000.0, 1.0);
    prefill.phase = Phase::Prefill;
    let truth = |r: &Row| if r.output_tokens == 1.0 { 1.5 * energy_j } else { f64::NAN };
    let rows: Vec<Row> = (0..4).map(|_| Row { energy_j: Some(truth(&prefill)), ..prefill.clone() }).collect();
    let estimator = Predictor::Roofline.fit(&rows, &context()).expect("cards are there");
    let double = estimator(&Row { batch_size: 2.0, ..prefill.clone() }).expect("an answer").value;
    assert!((double / (3.0 * energy_j) - 1.0).abs() < 1e-6, "{double} is not {}", 3.0 * energy_j);
}

#[test]
fn power_follows_utilisation_up_to_saturation() {
    // The same prefill, measured to take twice its roofline time: utilisation 0.5 is beyond 0.45, so the power is the limit.
    let gpu = GpuCard::builtin("A100-SXM4-80GB").expect("a built-in GPU");
    let card = crate::card::ModelCard::builtin("meta-llama/Llama-2-70b-hf").expect("a built-in model");
    let roofline_s = (2.0 * card.active_params * 1000.0 + 2.0 * 80.0 * 8192.0 * 1e6) / gpu.peak_flops;
    let at = |slower: f64| {
        let mut prefill = row(1, 1, 1.0, 1000.0, 1.0);
        (prefill.phase, prefill.energy_j) = (Phase::Prefill, Some(1.0));
        prefill.duration_s = Some(slower * roofline_s);
        Predictor::MfuPower.fit(&[prefill.clone()], &context()).expect("a duration")(&prefill).expect("an answer").value
    };
    assert!((at(2.0) / (gpu.power_limit_w * 2.0 * roofline_s) - 1.0).abs() < 1e-9);
    let power_w = gpu.idle_power_w + (gpu.power_limit_w - gpu.idle_power_w) * (0.1f64 / 0.45).powf(0.7);
    assert!((at(10.0) / (power_w * 10.0 * roofline_s) - 1.0).abs() < 1e-9);
}

#[test]
fn latency_stands_for_energy_where_the_power_is_constant() {
    // 10 ms a step at 500 W, whatever else is asked: the latency law has a term for that.
    let timed = |row: Row| Row {
        duration_s: Some(0.01 * row.output_tokens),
        kv_capacity_tokens: Some(1e9),
        energy_j: Some(5.0 * row.output_tokens),
        ..row
    };
    let rows: Vec<Row> = grid(|_| 1.0).into_iter().map(timed).collect();
    let estimator = Predictor::LatencyProxy.fit(&rows, &context()).expect("durations are there");
    let found = estimator(&timed(row(2, 1, 8.0, 1000.0, 100.0))).expect("an answer").value;
    assert!((found / 500.0 - 1.0).abs() < 0.02, "{found}");
}

#[test]
fn the_nearest_neighbour_of_a_measured_row_is_itself() {
    let rows = grid(|r| r.batch_size * r.output_tokens + degrees(r).0);
    let estimator = Predictor::NearestNeighbours.fit(&rows, &context()).expect("the grid is enough");
    for row in rows.iter().step_by(20) {
        let found = estimator(row).expect("an answer").value;
        assert!((found / row.energy_j.expect("measured") - 1.0).abs() < 1e-6, "{found}");
    }
}

#[test]
fn learners_without_form_stay_within_what_they_saw() {
    let truth = |r: &Row| r.batch_size * r.output_tokens * degrees(r).0.sqrt();
    let rows = grid(truth);
    let energies: Vec<f64> = rows.iter().filter_map(|r| r.energy_j).collect();
    let (low, high) = energies.iter().fold((f64::INFINITY, 0.0f64), |(l, h), e| (l.min(*e), h.max(*e)));
    let beyond = row(4, 2, 512.0, 4096.0, 4096.0);
    for predictor in [Predictor::RandomForest, Predictor::GradientBoosting, Predictor::NearestNeighbours] {
        let estimator = predictor.fit(&rows, &context()).expect("the grid is enough");
        let value = estimator(&beyond).expect("an answer").value;
        assert!((low..=1.02 * high).contains(&value), "{predictor}: {value} outside {low} to {high}");
        assert!(value > 0.8 * high, "{predictor}: {value} is far below {high}, its nearest row");
        let again = predictor.fit(&rows, &context()).expect("the grid is enough");
        assert_eq!(again(&beyond), estimator(&beyond), "{predictor} is not reproducible");
    }
}

#[test]
fn rules_look_at_the_deployment_or_the_clock() {
    let fewest = Predictor::FewestGpus.fit(&[], &context()).expect("a rule needs no rows");
    let score = |t, p| fewest(&row(t, p, 1.0, 1.0, 1.0)).expect("an answer").value;
    assert!(score(1, 2) < score(4, 1) && score(1, 2) == score(2, 1));
    let fastest = Predictor::LatencyOptimal.fit(&[], &context()).expect("a rule needs no rows");
    assert_eq!(fastest(&row(1, 1, 1.0, 1.0, 1.0)), None);
    let timed = Row { duration_s: Some(2.5), ..row(1, 1, 1.0, 1.0, 1.0) };
    assert_eq!(fastest(&timed), Some(Estimate::from(2.5)));
}

#[test]
fn what_cannot_be_learnt_is_refused_with_a_reason() {
    let few: Vec<Row> = grid(|r| r.batch_size).into_iter().take(2).collect();
    for predictor in Predictor::ALL.iter().filter(|p| p.scale() == Scale::Value && **p != Predictor::Roofline) {
        let refused = predictor.fit(&few, &context()).err();
        assert!(refused.as_ref().is_some_and(|r| !r.is_empty()), "{predictor} learns from two rows");
    }
    let strange: Vec<Row> = grid(|_| 1.0).into_iter().map(|r| Row { model: "strange/model".to_owned(), ..r }).collect();
    let refused = Predictor::Roofline.fit(&strange, &context()).err().expect("no card");
    assert!(refused.contains("strange/model"), "{refused}");
    assert!(Predictor::LatencyProxy.fit(&grid(|_| 1.0), &context()).is_err_and(|r| r.contains("duration_s")));
}

#[test]
fn another_scenario_gets_no_answer() {
    let estimator = Predictor::LogLinear.fit(&grid(|r| r.batch_size), &context()).expect("the grid is enough");
    let elsewhere = Row { gpu_model: "H100-SXM5-80GB".to_owned(), ..row(1, 1, 1.0, 128.0, 32.0) };
    assert_eq!(estimator(&elsewhere), None);
}

#[test]
fn across_hardware_energies_follow_the_cards() {
    let hopper = |r: Row| Row { gpu_model: "H100-SXM5-80GB".to_owned(), ..r };
    let truth = |r: &Row| common_unit_j(r) * 1e12 * r.batch_size * r.output_tokens;
    let rows = grid(truth);
    let across = Context { across_hardware: true, ..context() };
    let estimator = Predictor::LogLinear.fit(&rows, &across).expect("the grid is enough");
    let unseen = hopper(row(2, 1, 8.0, 700.0, 150.0));
    let found = estimator(&unseen).expect("an answer").value;
    assert!((found / truth(&unseen) - 1.0).abs() < 1e-9);
    assert!((common_unit_j(&unseen) / common_unit_j(&rows[0]) - 1.0).abs() > 0.01, "the cards differ");
}

#[test]
fn names_parse_and_misspelt_ones_find_their_neighbour() {
    for predictor in Predictor::ALL {
        assert_eq!(predictor.as_str().parse(), Ok(*predictor));
    }
    assert!("randomforest".parse::<Predictor>().unwrap_err().contains("`random-forest`"));
}
