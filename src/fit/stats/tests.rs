use super::*;

fn outcome(group: usize, t: u32, measured: f64, predicted: f64) -> Outcome {
    Outcome { group, configuration: (t, 1, 1), measured, predicted: Some(predicted), interval: None }
}

fn near(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|f| (f - expected).abs() < 1e-12), "{found:?} is not {expected}");
}

#[test]
fn choices_of_two_groups_worked_by_hand() {
    let outcomes = [
        // Chooses TP 1 (predicted 90): right. Pairs 100<110 right, 100<130 right, 110<130 wrong.
        outcome(0, 1, 100.0, 90.0),
        outcome(0, 2, 110.0, 120.0),
        outcome(0, 4, 130.0, 115.0),
        // Chooses TP 2, 2 % above the best; the one pair is wrong.
        outcome(1, 1, 50.0, 60.0),
        outcome(1, 2, 51.0, 40.0),
        // No choice at all.
        outcome(2, 1, 10.0, 10.0),
    ];
    let f = figures(&outcomes, Scale::Value, 0.03);
    assert_eq!((f.rows, f.groups), (6, 2));
    near(f.top1, 0.5);
    near(f.top1_tolerant, 1.0);
    near(f.regret, 0.01);
    near(f.pairwise, 0.5);
    // Errors: 10/100, 10/110, 15/130, 10/50, 11/51, 0.
    let errors = [0.1, 10.0 / 110.0, 15.0 / 130.0, 0.2, 11.0 / 51.0, 0.0];
    near(f.mape, errors.iter().sum::<f64>() / 6.0);
    near(f.median_ape, 0.5 * (0.1 + 15.0 / 130.0));
    assert_eq!(f.coverage, None);
    near(figures(&outcomes, Scale::Value, 0.01).top1_tolerant, 0.5);
}

#[test]
fn a_predictor_that_knows_nothing_scores_chance() {
    let outcomes = [outcome(0, 1, 100.0, 7.0), outcome(0, 2, 200.0, 7.0), outcome(0, 4, 150.0, 7.0)];
    let f = figures(&outcomes, Scale::Score, 0.0);
    near(f.top1, 1.0 / 3.0);
    near(f.regret, 0.5);
    near(f.pairwise, 0.5);
    assert_eq!((f.mape, f.coverage), (None, None));
}

#[test]
fn repeats_are_averaged_before_anything_is_chosen() {
    // One lucky repeat of TP 2 (90) does not make it better than TP 1: its mean is 105.
    let outcomes = [outcome(0, 1, 100.0, 1.0), outcome(0, 2, 90.0, 2.0), outcome(0, 2, 120.0, 2.0)];
    let f = figures(&outcomes, Scale::Score, 0.0);
    near(f.top1, 1.0);
    near(f.pairwise, 1.0);
}

#[test]
fn a_group_with_a_row_left_unpredicted_is_not_judged() {
    let mut outcomes = [outcome(0, 1, 100.0, 1.0), outcome(0, 2, 90.0, 2.0)];
    outcomes[1].predicted = None;
    let f = figures(&outcomes, Scale::Value, 0.0);
    assert_eq!((f.rows, f.groups, f.top1), (1, 0, None));
}

#[test]
fn coverage_counts_the_rows_inside_their_interval() {
    let with = |measured, low, high| Outcome { interval: Some((low, high)), ..outcome(0, 1, measured, 1.0) };
    let outcomes = [with(5.0, 4.0, 6.0), with(5.0, 5.5, 6.0), with(5.0, 5.0, 5.0), with(5.0, 1.0, 4.9)];
    near(figures(&outcomes, Scale::Value, 0.0).coverage, 0.5);
}

#[test]
fn figures_of_nothing_are_absent_not_zero() {
    assert_eq!(figures(&[], Scale::Value, 0.03), Figures::default());
}

fn measured(t: u32, batch: f64, energy_j: f64, duration_s: f64) -> Row {
    let mut row = crate::fit::synthetic::row(t, 1, batch, 512.0, 128.0);
    (row.energy_j, row.duration_s) = (Some(energy_j), Some(duration_s));
    row
}

#[test]
fn noise_comes_from_exact_repeats_only() {
    // Two configurations, each measured at e^-0.02, 1 and e^0.02 times its energy: variance (2 * 0.02^2) / 2 each.
    let shifted = |t: u32, e: f64| [-0.02f64, 0.0, 0.02].map(|s| measured(t, 1.0, e * s.exp(), 1.0));
    let mut rows: Vec<Row> = shifted(1, 100.0).into_iter().chain(shifted(2, 300.0)).collect();
    assert_eq!(repeat_noise(&rows, &|r| r.energy_j), None, "four degrees of freedom are too few");
    rows.extend(shifted(4, 500.0));
    near(repeat_noise(&rows, &|r| r.energy_j), 0.02);
    rows.push(measured(8, 1.0, 9e9, 1.0));
    near(repeat_noise(&rows, &|r| r.energy_j), 0.02);
}

#[test]
fn optima_differ_where_the_fastest_is_not_the_leanest() {
    let rows = [
        measured(1, 1.0, 100.0, 9.0),
        measured(2, 1.0, 120.0, 5.0),
        measured(1, 2.0, 220.0, 9.0),
        measured(2, 2.0, 180.0, 5.0),
        measured(1, 4.0, 1.0, 1.0),
    ];
    let grouped: Vec<(usize, &Row)> = [0, 0, 1, 1, 2].into_iter().zip(&rows).collect();
    near(optima_differ(&grouped), 0.5);
}

#[test]
fn durations_and_times_per_token_are_never_compared() {
    let mut rows = [measured(1, 1.0, 100.0, 9.0), measured(2, 1.0, 90.0, 5.0)];
    rows[0].duration_s = None;
    rows[0].mean_tpot_s = Some(0.01);
    let grouped: Vec<(usize, &Row)> = rows.iter().map(|r| (0, r)).collect();
    assert_eq!(optima_differ(&grouped), None);
    let times = rows.map(|r| Row { duration_s: None, mean_tpot_s: Some(f64::from(r.tensor_parallel)), ..r });
    near(optima_differ(&times.iter().map(|r| (0, r)).collect::<Vec<_>>()), 1.0);
}
