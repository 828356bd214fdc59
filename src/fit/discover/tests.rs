//! Hidden laws, found again.

use super::*;
use crate::dataset::Row;
use crate::fit::problem::Observation;
use crate::fit::synthetic;
use crate::fit::{FitOptions, fit_model};
use crate::law::{Target, parse_product};

/// Rows of a hidden law.
fn rows(skeleton: &Skeleton, k: &[f64], a: &[f64], n: usize, noise: f64, seed: u64) -> Vec<Observation> {
    let mut observations = synthetic::observations(&Skeleton::default_for(Target::EnergyJ), n, noise, seed);
    // The noise of the template is kept, its law is replaced.
    let template = Skeleton::default_for(Target::EnergyJ);
    for o in &mut observations {
        let old: f64 = template.contributions(&synthetic::COEFFICIENTS, &synthetic::EXPONENTS, &o.case).iter().sum();
        let new: f64 = skeleton.contributions(k, a, &o.case).iter().sum();
        o.value *= new / old;
    }
    observations
}

fn dataset(observations: &[Observation]) -> Dataset {
    let rows: Vec<Row> = synthetic::group(observations).rows;
    let named =
        |row: Row| Row { model: "meta-llama/Llama-2-70b-hf".to_owned(), gpu_model: "A100-SXM4-80GB".to_owned(), ..row };
    Dataset { rows: rows.into_iter().map(named).collect(), ..Dataset::default() }
}

/// Held-out error of a skeleton fitted to `train`, on noiseless `test`.
fn error(skeleton: &Skeleton, train: &Dataset, test: &[Observation]) -> f64 {
    let options =
        FitOptions { skeleton: Some(skeleton.clone()), targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let law = fit_model(train, &options).unwrap().model.laws.remove(0);
    let off = |o: &Observation| (law.contributions(&o.case).iter().sum::<f64>() / o.value - 1.0).abs();
    test.iter().map(off).sum::<f64>() / test.len() as f64
}

/// The energylens law with a static term without layers and a KV cache of which only the prompt is read.
fn hidden() -> (Skeleton, [f64; 8]) {
    let mut skeleton = Skeleton::default_for(Target::EnergyJ);
    skeleton.terms[0].product = parse_product("t*p*m*w").unwrap();
    skeleton.terms[5].product = parse_product("K*B*S*m").unwrap();
    let mut k = synthetic::COEFFICIENTS;
    // The priors are of the terms that stood there: they would only hold the true structure down.
    (skeleton.terms[0].prior, skeleton.terms[5].prior) = (None, None);
    // What the 80 layers of the template were worth: 80^0.7.
    k[0] *= 21.5;
    (skeleton, k)
}

pub(super) fn fifty_rows(seed: u64) -> Dataset {
    let (skeleton, k) = hidden();
    dataset(&rows(&skeleton, &k, &synthetic::EXPONENTS, 50, 0.02, seed))
}

#[test]
fn a_hidden_law_is_found_without_being_told() {
    let (skeleton, k) = hidden();
    let train = fifty_rows(1);
    let test = rows(&skeleton, &k, &synthetic::EXPONENTS, 300, 0.0, 1001);
    let options = DiscoverOptions { seed: 1, generations: 20, ..Default::default() };
    let found = discover(&train, &options).unwrap();
    let best = found.best().unwrap();
    let (truth, ours) = (error(&skeleton, &train, &test), error(&best.skeleton, &train, &test));
    // The promise of the whole search, kept by twenty generations of the usual 150.
    assert!(ours < 1.5 * truth, "{ours} where the true structure gives {truth}");
    // A law that has a term for every mechanism, and no more numbers than the hidden one.
    assert!(found.is_complete && (7..=8).contains(&best.terms) && best.parameters <= 12, "{}", best.terms);
    // The large terms are there: prefill arithmetic and weights read make most of the energy of these rows.
    for role in ["prefill arithmetic", "weights read"] {
        assert!(best.skeleton.terms.iter().any(|t| t.title == role), "{role} is missing");
    }
    assert!(found.front.windows(2).all(|pair| pair[1].complexity >= pair[0].complexity));
    let others = found.front.iter().enumerate().filter(|(place, _)| *place != found.chosen);
    let errors: Vec<f64> = others.map(|(_, e)| e.held_out_rms_log).collect();
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
    // A skeleton like any other: it survives its file.
    let text = best.skeleton.to_toml().unwrap();
    assert_eq!(Skeleton::from_toml(&text).unwrap(), best.skeleton);
}

#[test]
fn threads_and_the_clock_do_not_change_what_is_found() {
    let rows = fifty_rows(3);
    let json = |threads, generations, stop_after: u64| {
        let done = std::sync::atomic::AtomicU64::new(0);
        let stop = || done.load(std::sync::atomic::Ordering::SeqCst) >= stop_after;
        let progress = |generation, _| done.store(generation, std::sync::atomic::Ordering::SeqCst);
        let options = DiscoverOptions {
            seed: 5,
            generations,
            threads: Some(threads),
            stop: &stop,
            progress: &progress,
            ..Default::default()
        };
        serde_json::to_string(&discover(&rows, &options).unwrap()).unwrap()
    };
    // Eleven generations take in one migration. Cut after eleven of many: the same as asking for eleven.
    assert_eq!(json(1, 11, u64::MAX), json(4, 1000, 11));
}

#[test]
fn a_given_structure_is_said_in_the_grammar_and_judged_as_the_full_fit_judges_it() {
    let train = fifty_rows(2);
    let ground = ground(&train, &DiscoverOptions::default()).unwrap();
    let (skeleton, _) = hidden();
    let genome = ground.genome(&skeleton).unwrap();
    assert_eq!((genome.genes.len(), genome.parameters()), (8, 12));
    let again = write::skeleton(&ground, &genome, "again");
    assert_eq!(ground.genome(&again), Some(genome.clone()));
    // The quick fit of the search and the full fit end at the same residuals, priors of powers apart.
    let dealing = Dealing::new(&ground, 0);
    let quick = score::train(&ground, &genome, &dealing).error.sqrt();
    let options = FitOptions { skeleton: Some(again), targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let law = fit_model(&train, &options).unwrap().model.laws.remove(0);
    let scope = &ground.scopes[0];
    let log = |o: &Observation| (law.contributions(&o.case).iter().sum::<f64>() / o.value).ln();
    let full = (scope.observations.iter().map(|o| log(o).powi(2)).sum::<f64>() / scope.rows() as f64).sqrt();
    assert!((quick / full - 1.0).abs() < 0.02, "{quick} {full}");
}

#[test]
fn rows_of_one_workload_are_never_torn_apart() {
    let train = fifty_rows(4);
    let ground = ground(&train, &DiscoverOptions::default()).unwrap();
    let scope = &ground.scopes[0];
    let folds = scope.folds(9);
    for (i, unit) in scope.units.iter().enumerate() {
        for (j, other) in scope.units.iter().enumerate() {
            assert!(unit != other || folds[i] == folds[j]);
        }
    }
    assert_eq!(folds.iter().collect::<std::collections::BTreeSet<_>>().len(), ground::FOLDS);
}

#[test]
fn free_form_search_repeats_itself_and_answers_with_numbers() {
    let train = fifty_rows(1);
    let options = DiscoverOptions { seed: 2, ..Default::default() };
    let found = |threads| {
        free_form(&train, 8, &DiscoverOptions { threads: Some(threads), ..options.clone() }).unwrap().unwrap()
    };
    let one = found(1);
    assert_eq!(one, found(3));
    assert!(one.training_mape.is_finite() && one.held_out_mape.is_finite());
    assert_eq!((one.rows, one.cycles), (50, 8));
    assert!(one.nodes <= 40 && one.evaluations > 0);
}

#[test]
fn too_few_rows_are_refused() {
    let mut few = fifty_rows(1);
    few.rows.truncate(3);
    let error = discover(&few, &DiscoverOptions::default()).unwrap_err().to_string();
    assert!(error.contains("found 3 rows"), "{error}");
}
