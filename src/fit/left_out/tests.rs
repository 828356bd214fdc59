use super::*;
use crate::fit::synthetic::{COEFFICIENTS, EXPONENTS, observations};
use crate::fit::{How, fit_core_with};
use crate::law::{Intervals, Scatter, Skeleton, Target};
use crate::schema::Phase;

fn scatter(rows: &[Observation]) -> (f64, BTreeMap<RowKind, Scatter>) {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let lines: Vec<usize> = (1..=rows.len()).collect();
    let how = How { seed: 0, hint: None, belief: None, intervals: Intervals::FirstOrder, leaves_out: true };
    let found = fit_core_with(&skeleton, rows, &lines, &how).inference;
    (found.sigma_log, found.scatter)
}

/// `rows` with every third stopped at its first token, and the prefills' noise apart from that of the batches.
fn two_kinds(n: usize, prefill_noise: f64, batch_noise: f64, seed: u64) -> Vec<Observation> {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let clean = observations(&skeleton, n, 0.0, seed);
    let noisy = observations(&skeleton, n, 1.0, seed);
    let row = |(i, (clean, noisy)): (usize, (&Observation, &Observation))| {
        let normal = (noisy.value / clean.value).ln();
        let (case, noise) = match i % 3 {
            0 => (crate::law::Case { phase: Phase::Prefill, ..clean.case.with_output(1.0) }, prefill_noise),
            _ => (clean.case.with_output(clean.case.output_tokens.max(2.0)), batch_noise),
        };
        let truth: f64 = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case).iter().sum();
        Observation { case, value: truth * (noise * normal).exp(), relative_std: None }
    };
    clean.iter().zip(&noisy).enumerate().map(row).collect()
}

#[test]
fn folds_hold_whole_workloads_and_are_of_a_size() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rows = observations(&skeleton, 20, 0.0, 3);
    rows.extend(rows.clone().into_iter().map(|mut o| {
        o.case.tensor_parallel = 16.0;
        o
    }));
    let fold = folds(&rows, Target::EnergyJ).expect("twenty workloads");
    assert_eq!(fold[..20], fold[20..], "one workload, one fold");
    let sizes: Vec<usize> = (0..FOLDS).map(|f| fold.iter().filter(|g| **g == f).count()).collect();
    assert_eq!(sizes, [8; 5]);
    assert_eq!(folds(&[rows[0]; 30], Target::EnergyJ), None, "nothing can be left out of one workload");
}

#[test]
fn a_prefill_stays_with_its_batch_and_a_first_token_with_its_like() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let whole = observations(&skeleton, 20, 0.0, 3);
    let prefill = |o: &Observation| Observation {
        case: crate::law::Case { phase: Phase::Prefill, ..o.case.with_output(1.0) },
        ..*o
    };
    let rows: Vec<Observation> = whole.iter().flat_map(|o| [*o, prefill(o)]).collect();
    let fold = folds(&rows, Target::EnergyJ).expect("twenty workloads");
    assert!(fold.chunks(2).all(|run| run[0] == run[1]), "{fold:?}");
    // Answers of another length to the same prompts: other energies, the same time to the first token.
    let longer = |o: &Observation| Observation { case: o.case.with_output(o.case.output_tokens + 7.0), ..*o };
    let rows: Vec<Observation> = whole.iter().flat_map(|o| [*o, longer(o)]).collect();
    let torn = |target| folds(&rows, target).expect("workloads").chunks(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(torn(Target::EnergyJ) > 0);
    assert_eq!(torn(Target::MeanTtftS), 0);
}

#[test]
fn leverage_of_a_mean_worked_by_hand() {
    // Ten rows that one number explains: a mean of the eight that are left knows a ninth row to 1/8 of its variance.
    let jacobian = DMatrix::from_element(10, 1, 1.0);
    let information = DMatrix::from_element(1, 1, 10.0);
    let (weights, independence) = ([1.0; 10], [1.0; 10]);
    let full = Full {
        jacobian: &jacobian,
        weights: &weights,
        information: &information,
        independence: &independence,
        expected: 0.03,
    };
    let fold: Vec<usize> = (0..10).map(|i| i % FOLDS).collect();
    let left_out = LeftOut { fold, residuals: vec![Some(0.09); 10], kinds: vec![RowKind::Batch; 10] };
    assert!(left_out.leverage(&full).iter().all(|l| (l - 0.125).abs() < 1e-12));
    // Each row counts as 8/9 of one, and so does its square; 0.09^2 is the row's own scatter and 1/8 of that of all.
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let rows = observations(&skeleton, 10, 0.0, 0);
    let found = left_out.scatters(&Problem::new(&skeleton, &rows), &full);
    let count = 80.0 / 9.0;
    let all = (count * 0.0081 * 8.0 / 9.0 + 2.0 * 0.0009) / (count + 2.0);
    assert!((found.all.powi(2) - all).abs() < 1e-12, "{} is not {}", found.all, all.sqrt());
    let batch = found.by_kind[&RowKind::Batch];
    let own = 0.0081 - 0.125 * all;
    assert!((batch.sigma_log.powi(2) - (count * own + all) / (count + 1.0)).abs() < 1e-12);
    assert!((batch.degrees_of_freedom - (count + 1.0)).abs() < 1e-12);
    assert!(!found.by_kind.contains_key(&RowKind::Prefill), "no such row was seen");
}

#[test]
fn the_scatter_of_rows_that_follow_the_law_is_their_noise() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let found: Vec<f64> = (0..8).map(|seed| scatter(&observations(&skeleton, 50, 0.06, seed)).0).collect();
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    assert!((0.05..0.075).contains(&mean), "{found:?}");
}

#[test]
fn each_kind_of_row_has_the_scatter_that_it_has() {
    let ratios: Vec<f64> = (0..6)
        .map(|seed| {
            let (all, kinds) = scatter(&two_kinds(60, 0.12, 0.03, seed));
            let (prefill, batch) = (kinds[&RowKind::Prefill].sigma_log, kinds[&RowKind::Batch].sigma_log);
            assert!(batch < all && all < prefill, "{batch} {all} {prefill}");
            prefill / batch
        })
        .collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!((2.0..6.0).contains(&mean), "four times the noise gives {ratios:?}");
}

#[test]
fn one_wild_row_does_not_make_all_intervals_wide() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rows = observations(&skeleton, 60, 0.04, 5);
    let (clean, _) = scatter(&rows);
    rows[7].value *= 20.0;
    let (wild, _) = scatter(&rows);
    // One of sixty rows, off by ln 20: its square alone would make 0.39 of it.
    assert!(clean < 0.05 && wild < 0.13, "{clean} became {wild}");
}
