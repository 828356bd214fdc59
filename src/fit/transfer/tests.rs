use std::sync::Arc;

use super::*;
use crate::dataset::Dataset;
use crate::fit::synthetic::{COEFFICIENTS, EXPONENTS, observations, row};
use crate::fit::{Error, FitOptions, fit_model};
use crate::law::{Scenario, Target};

const A100: &str = "A100-SXM4-80GB";
const H100: &str = "H100-SXM5-80GB";

/// Rows of Llama-2-70B on `gpu` whose `target` follows the law, `factor` times.
fn rows(gpu: &str, engine: Option<&str>, target: Target, factor: f64, count: usize) -> Vec<Row> {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let of = |(i, o): (usize, &crate::fit::problem::Observation)| {
        let (t, p) = (o.case.tensor_parallel as u32, o.case.pipeline_parallel as u32);
        let mut row = Row {
            line: i + 1,
            gpu_model: gpu.to_owned(),
            engine: engine.map(str::to_owned),
            kv_capacity_tokens: o.case.kv_capacity_tokens,
            ..row(t, p, o.case.batch_size, o.case.input_tokens, o.case.output_tokens)
        };
        let case = Scenario::of_stranger(&row).and_then(|s| s.case(&row)).expect("a card");
        let truth: f64 = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case).iter().sum();
        let noise = (o.value / skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &o.case).iter().sum::<f64>()).ln();
        let value = Some(factor * truth * noise.exp());
        match target {
            Target::EnergyJ => row.energy_j = value,
            _ => row.duration_s = value.map(|v| v / 400.0),
        }
        row
    };
    observations(&skeleton, count, 0.02, 7).iter().enumerate().map(of).collect()
}

fn model(rows: Vec<Row>, target: Target) -> Model {
    let dataset = Dataset { rows, ..Dataset::default() };
    fit_model(&dataset, &FitOptions { targets: vec![target], ..FitOptions::default() }).expect("enough rows").model
}

#[test]
fn times_are_priced_at_rates_and_energies_at_joules() {
    let card = |name| GpuCard::builtin(name).expect("a built-in GPU");
    let (old, new) = (card(A100), card(H100));
    let flops = old.peak_flops / new.peak_flops;
    let bytes = old.memory_bandwidth_bytes_per_s / new.memory_bandwidth_bytes_per_s;
    let law = |target| model(rows(A100, None, target, 1.0, 40), target).laws.remove(0);
    let time = prices(&law(Target::DurationS), H100, &Skeleton::default_for(Target::DurationS));
    let links = old.link_bandwidth_bytes_per_s / new.link_bandwidth_bytes_per_s;
    for (ratio, expected) in time.ratios.iter().zip([flops, flops, bytes, flops, bytes, links, 1.0, 1.0]) {
        assert!((ratio / expected - 1.0).abs() < 1e-9, "{:?}", time.ratios);
    }
    let energy = prices(&law(Target::EnergyJ), H100, &Skeleton::default_for(Target::EnergyJ));
    let watts = new.power_limit_w / old.power_limit_w;
    assert!((energy.ratios[1] / (watts * flops) - 1.0).abs() < 1e-9, "{:?}", energy.ratios);
    assert!((energy.ratios[0] / watts - 1.0).abs() < 1e-9, "{:?}", energy.ratios);
    assert_eq!(
        (energy.shared, prices(&law(Target::EnergyJ), "nobody's", &law(Target::EnergyJ).skeleton).shared),
        (SHARED, UNPRICED)
    );
}

#[test]
fn the_law_of_the_same_gpu_is_nearer_than_that_of_the_same_engine() {
    // The A100's rows are more and of the same engine; the H100's are of the same GPU.
    let both =
        [rows(A100, Some("sglang"), Target::EnergyJ, 1.0, 60), rows(H100, Some("vllm"), Target::EnergyJ, 0.7, 40)];
    let prior = Arc::new(model(both.concat(), Target::EnergyJ));
    let here = Dataset { rows: rows(H100, Some("sglang"), Target::EnergyJ, 0.75, 12), ..Dataset::default() };
    let options = FitOptions { targets: vec![Target::EnergyJ], prior: Some(prior.clone()), ..FitOptions::default() };
    let law = fit_model(&here, &options).expect("twelve rows and a prior").model.laws.remove(0);
    assert!(law.prior.as_deref().is_some_and(|p| p.contains(H100)), "{:?}", law.prior);
    // Another engine is another platform; the same one, or one that is left open, is not.
    assert!(prior_is_elsewhere(&prior, &here.rows).is_ok());
    let of = |engine| rows(H100, engine, Target::EnergyJ, 1.0, 4);
    for seen in [of(Some("vllm")), of(Some("VLLM")), of(None)] {
        assert!(prior_is_elsewhere(&prior, &seen).is_err_and(|e| e.to_string().contains(H100)), "{seen:?}");
    }
}

#[test]
fn rows_are_not_counted_twice() {
    let dataset = Dataset { rows: rows(A100, None, Target::EnergyJ, 1.0, 40), ..Dataset::default() };
    let options = FitOptions { targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let prior = Some(Arc::new(fit_model(&dataset, &options).expect("enough rows").model));
    let again = fit_model(&dataset, &FitOptions { prior, ..options });
    assert!(matches!(again, Err(Error::PriorOfTheseRows { .. })), "{again:?}");
}

#[test]
fn an_unmeasured_gpu_gets_the_law_at_its_prices_and_a_wide_interval() {
    let fitted = model(rows(A100, None, Target::EnergyJ, 1.0, 60), Target::EnergyJ);
    let ask = |gpu: &str| {
        let row = Row { gpu_model: gpu.to_owned(), kv_capacity_tokens: Some(1e9), ..row(2, 1, 8.0, 512.0, 128.0) };
        let estimate = unmeasured::predict(&fitted, Target::EnergyJ, &row).expect("a law of the model");
        let (low, high) = estimate.interval.expect("an interval");
        assert!((low * high / estimate.value.powi(2) - 1.0).abs() < 1e-9);
        (estimate.value, (high / estimate.value).ln(), row)
    };
    let (at_home, narrow, row) = ask(A100);
    assert!((at_home / fitted.predict(Target::EnergyJ, &row).expect("a law").value - 1.0).abs() < 1e-9);
    let (away, wide, _) = ask(H100);
    // Prices of an H100 are 0.55 (arithmetic) to 1.75 (waiting) of an A100's; memory traffic, most of this row, is at 1.07.
    assert!((0.55..1.75).contains(&(away / at_home)), "{at_home} became {away}");
    // At least the factor that all energies share, at most that and each term's own: 1.64 deviations of 0.25 to 0.4.
    assert!(narrow < 0.1 && (0.41..0.75).contains(&wide), "{narrow} {wide}");
    let (unpriced, widest, _) = ask("nobody's");
    assert!((unpriced / at_home - 1.0).abs() < 1e-9 && widest > 1.15, "{unpriced} {widest}");
    // Two measured GPUs tell more of a third than one does.
    let two = [rows(A100, None, Target::EnergyJ, 1.0, 60), rows("MI300X", None, Target::EnergyJ, 1.0, 60)].concat();
    let two = model(two, Target::EnergyJ);
    let row = Row { gpu_model: H100.to_owned(), ..row };
    let estimate = unmeasured::predict(&two, Target::EnergyJ, &row).expect("two laws");
    let reach = (estimate.interval.expect("an interval").1 / estimate.value).ln();
    assert!((0.8..0.95).contains(&(reach / wide)), "{reach} of {wide}");
}
