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
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let core = core(&observations(&skeleton, 120, 0.0, 1), 0);
    for (found, truth) in core.coefficients.iter().zip(COEFFICIENTS) {
        assert!((found / truth - 1.0).abs() < 0.03, "{found} is not {truth}");
    }
    for (found, truth) in core.exponents.iter().zip(EXPONENTS) {
        assert!((found - truth).abs() < 0.02, "{found} is not {truth}");
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
