//! A law fitted through the command line finds the numbers behind the rows: on workloads and on models never measured.

use std::collections::BTreeMap;

use crate::support::desk::Desk;
use crate::support::known_law::{CARDS, Work, configurations, csv, measured_grid, unseen_grid};

/// Predicted energy of each work with its interval, J.
fn predictions(desk: &Desk, model: &str, works: &[Work]) -> Vec<[f64; 3]> {
    desk.put("asked.csv", configurations(works));
    let answered = desk.run(&["predict", model, "asked.csv", "--csv"]).done().stdout;
    let figures = |line: &str| {
        let fields: Vec<&str> = line.rsplit(',').take(3).collect();
        let [high, low, value] = [0, 1, 2].map(|i| fields[i].parse().expect("a number"));
        [value, low, high]
    };
    answered.lines().skip(1).map(figures).collect()
}

/// Mean relative error, and the share of intervals that hold the truth.
fn errors(works: &[Work], predicted: &[[f64; 3]]) -> (f64, f64) {
    assert_eq!(works.len(), predicted.len());
    let n = works.len() as f64;
    let pairs = || works.iter().map(Work::energy_j).zip(predicted);
    let mape = pairs().map(|(truth, [value, ..])| (value / truth - 1.0).abs()).sum::<f64>() / n;
    let inside = pairs().filter(|(truth, [_, low, high])| (low..=high).contains(&truth)).count() as f64 / n;
    (mape, inside)
}

/// How much more than the least energy the predicted best degree costs, in the worst of all workloads.
fn worst_regret(works: &[Work], predicted: &[[f64; 3]]) -> f64 {
    let mut workloads: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (work, [value, ..]) in works.iter().zip(predicted) {
        let key = format!("{} {} {} {}", work.card.model, work.batch, work.input, work.output);
        workloads.entry(key).or_default().push((*value, work.energy_j()));
    }
    let regret = |choices: &Vec<(f64, f64)>| {
        let chosen = choices.iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a choice").1;
        chosen / choices.iter().map(|c| c.1).fold(f64::INFINITY, f64::min) - 1.0
    };
    workloads.values().map(regret).fold(0.0, f64::max)
}

#[test]
fn workloads_that_were_never_measured_are_predicted_per_scenario() {
    let desk = Desk::new();
    let cards = &CARDS[1..4];
    desk.put("rows.csv", csv(&measured_grid(cards), 0.02, 11));
    desk.type_in("fit rows.csv -o model.json").done();
    let works = unseen_grid(cards);
    let predicted = predictions(&desk, "model.json", &works);
    let (mape, inside) = errors(&works, &predicted);
    // The rows err by 2 %; some seventy of them err less together.
    assert!(mape < 0.015, "mean error {mape}");
    assert!(inside > 0.85, "90 % intervals hold {inside}");
    let regret = worst_regret(&works, &predicted);
    assert!(regret < 0.03, "regret {regret}");
}

#[test]
fn a_model_that_was_never_measured_is_predicted_by_its_card() {
    let desk = Desk::new();
    let (known, stranger) = CARDS.split_at(4);
    desk.put("rows.csv", csv(&measured_grid(known), 0.02, 12));
    desk.type_in("fit rows.csv -o pooled.json --pool models").done().prints("a model that was never fitted differs by");
    let works = unseen_grid(stranger);
    let predicted = predictions(&desk, "pooled.json", &works);
    let (mape, inside) = errors(&works, &predicted);
    assert!(mape < 0.03, "mean error {mape}");
    assert!(inside > 0.85, "90 % intervals hold {inside}");
    assert!(worst_regret(&works, &predicted) < 0.03);
    // Its card is given on the command line where there is no table.
    let card =
        "model=lab/dense-14b,params=14e9,n_layers=40,hidden_size=5120,kv_bytes_per_token=163840,bytes_per_weight=2";
    let workload = format!("input_tokens=512,output_tokens=128,{card}");
    let ran = desk.run(&["recommend", "pooled.json", "--workload", &workload, "--max-gpus", "8"]).done();
    ran.prints("lab/dense-14b was not among the fitted models");
    // A law per scenario says nothing of it, and says so.
    desk.type_in("fit rows.csv -o apart.json").done();
    desk.type_in("predict apart.json asked.csv --csv").ends_with(1).remarks("has no law of energy_j for lab/dense-14b");
}

#[test]
fn a_law_without_errors_in_its_rows_is_found_again() {
    let desk = Desk::new();
    let works = measured_grid(&CARDS[1..4]);
    desk.put("rows.csv", csv(&works, 0.0, 0));
    let json = desk.type_in("fit rows.csv --pool models -o pooled.json --json").done().json();
    let value = |name: &str| {
        let parts =
            ["coefficients", "exponents"].iter().flat_map(|p| json["model"]["laws"][0][p].as_array().expect("a list"));
        let found = parts.clone().find(|c| c["name"] == name).and_then(|c| c["value"].as_f64());
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    // The numbers of support/known_law.rs; those that these rows pin down.
    for (name, truth, relative) in
        [("k0", 0.030, 0.05), ("k1", 3e-12, 0.05), ("k3", 2.5e-10, 0.05), ("k4", 3e-12, 0.1), ("k6", 2e-10, 0.5)]
    {
        let found = value(name);
        assert!((found / truth - 1.0).abs() < relative, "{name}: {found}, not {truth}");
    }
    for (name, truth) in [("a1", 0.25), ("a3", -0.2)] {
        assert!((value(name) - truth).abs() < 0.05, "{name}: {}, not {truth}", value(name));
    }
    let (mape, _) = errors(&works, &predictions(&desk, "pooled.json", &works));
    assert!(mape < 0.005, "mean error {mape}");
}
