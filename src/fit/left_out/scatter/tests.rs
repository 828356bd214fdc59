use super::*;

const EXPECTED: f64 = 0.03;

fn row(kind: RowKind, residual: f64, leverage: f64) -> Missed {
    Missed { kind, residual, leverage, independence: 1.0 }
}

/// `sizes` with alternating signs.
fn batches(sizes: &[f64]) -> Vec<Missed> {
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    sizes.iter().enumerate().map(|(i, size)| row(RowKind::Batch, sign(i) * size, 0.0)).collect()
}

#[test]
fn what_a_refit_did_not_know_stands_in_the_scatter_of_all_rows() {
    let mut missed = vec![row(RowKind::Prefill, 0.12, 1.0); 8];
    missed.extend(vec![row(RowKind::Batch, -0.03, 1.0); 8]);
    let found = scatters(&missed, 1.0, EXPECTED);
    // Each row counts as half a row, and half of its square is the row's: (4 0.0072 + 4 0.00045 + 2 0.0009) / (4 + 4 + 2).
    let all = 0.00324;
    assert!((found.all.powi(2) - all).abs() < 1e-12, "{}", found.all);
    // 0.12^2 = own + 1 all. Of the batches' 0.03^2 nothing is left.
    for (kind, own) in [(RowKind::Prefill, 0.0144 - all), (RowKind::Batch, LEAST_OWN * all)] {
        let scatter = found.by_kind[&kind];
        assert!((scatter.sigma_log.powi(2) - (4.0 * own + all) / 5.0).abs() < 1e-12, "{kind}: {scatter:?}");
        assert!((scatter.degrees_of_freedom - 5.0).abs() < 1e-12);
    }
}

#[test]
fn rows_of_which_the_refits_knew_nothing_say_nothing() {
    let mut missed = vec![row(RowKind::Batch, 0.05, 0.1); 40];
    let without = scatters(&missed, 1.0, EXPECTED).by_kind[&RowKind::Batch];
    missed.extend(vec![row(RowKind::Batch, 0.3, 25.0); 4]);
    let with = scatters(&missed, 1.0, EXPECTED).by_kind[&RowKind::Batch];
    // Counted like the others, the four would make it 0.105.
    assert!((with.sigma_log / without.sigma_log - 1.0).abs() < 0.05, "{without:?} became {with:?}");
    assert!(with.degrees_of_freedom - without.degrees_of_freedom < 0.2);
}

#[test]
fn rows_with_long_tails_count_for_fewer() {
    let even = scatters(&batches(&[0.01; 20]), 0.0, EXPECTED).by_kind[&RowKind::Batch];
    assert!((even.degrees_of_freedom - 21.0).abs() < 1e-12);
    // One in twenty is off five times as far: squares of mean 2.2 (in 1e-4) and mean square 32.2.
    let mut sizes = [0.01; 20];
    sizes[7] = 0.05;
    let tailed = scatters(&batches(&sizes), 0.0, EXPECTED).by_kind[&RowKind::Batch];
    let kurtosis = 32.2 / (2.2 * 2.2);
    let degrees = 20.0 / ((kurtosis - 1.0) / 2.0) + 1.0;
    assert!((tailed.degrees_of_freedom - degrees).abs() < 1e-9, "{} is not {degrees}", tailed.degrees_of_freedom);
}

#[test]
fn a_wild_row_takes_little_more_than_a_row_at_the_knee() {
    let mut sizes = [0.01; 20];
    let degrees = |sizes: &[f64]| {
        let found = scatters(&batches(sizes), 0.0, EXPECTED).by_kind[&RowKind::Batch];
        (found.degrees_of_freedom, found.sigma_log)
    };
    sizes[7] = 0.01 * KNEE * MAD_TO_SIGMA;
    let (at_knee, sigma_at_knee) = degrees(&sizes);
    sizes[7] = 1.0;
    let (wild, sigma_wild) = degrees(&sizes);
    assert!((at_knee - wild).abs() < 1e-9, "{at_knee} became {wild}");
    // A hundred times the others: its square alone would make 0.22 of it.
    assert!(sigma_wild < 4.0 * sigma_at_knee && sigma_wild < 0.06, "{sigma_at_knee} became {sigma_wild}");
}

#[test]
fn rows_that_the_law_meets_exactly_are_no_trouble() {
    let found = scatters(&batches(&[0.0; 6]), 0.0, EXPECTED);
    let batch = found.by_kind[&RowKind::Batch];
    assert!(found.all > 0.0 && batch.sigma_log > 0.0 && batch.sigma_log.is_finite(), "{batch:?}");
    assert!((batch.degrees_of_freedom - 7.0).abs() < 1e-12);
    assert!(scatters(&[], 0.0, EXPECTED).by_kind.is_empty());
}
