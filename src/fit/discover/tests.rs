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

fn hidden(changes: &[(usize, &str)]) -> Skeleton {
    let mut skeleton = Skeleton::default_for(Target::EnergyJ);
    for (term, product) in changes {
        skeleton.terms[*term].product = parse_product(product).unwrap();
    }
    skeleton
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let laws = [
        ("energylens", hidden(&[])),
        ("other static, KV by input", hidden(&[(0, "m*t*p*w"), (5, "K*B*S*m")])),
        ("reduce by ring, host per sequence", hidden(&[(6, "L*h*B*seq*t1*t^-1"), (7, "B*m")])),
    ];
    for (name, law) in &laws {
        for seed in 0..3 {
            let mut k = synthetic::COEFFICIENTS;
            let scale = |k: &mut f64, from: &str, to: &crate::law::Term, case: &crate::law::Case| {
                let _ = (from, to, case, k);
            };
            let _ = scale;
            // Coefficients such that each changed term costs what the one it replaces did.
            let base = Skeleton::default_for(Target::EnergyJ);
            let sample = synthetic::observations(&base, 200, 0.0, 99);
            let sums = |s: &Skeleton| -> Vec<f64> {
                (0..8).map(|j| sample.iter().map(|o| s.products(&o.case)[j] / o.value).sum::<f64>()).collect()
            };
            for ((k, new), old) in k.iter_mut().zip(sums(law)).zip(sums(&base)) {
                *k *= old / new;
            }
            let train = dataset(&rows(law, &k, &synthetic::EXPONENTS, 50, 0.02, seed));
            let test = rows(law, &k, &synthetic::EXPONENTS, 400, 0.0, 1000 + seed);
            let begin = std::time::Instant::now();
            let generations = std::env::var("GENERATIONS").ok().and_then(|g| g.parse().ok()).unwrap_or(60);
            let found = discover(&train, &DiscoverOptions { seed, generations, ..Default::default() }).unwrap();
            let took = begin.elapsed().as_secs_f64();
            let truth = error(law, &train, &test);
            let chosen = error(&found.best().unwrap().skeleton, &train, &test);
            println!(
                "{name} seed {seed}: true {:.2} % chosen {:.2} % ratio {:.2} ({} evaluations, {took:.1} s)",
                100.0 * truth,
                100.0 * chosen,
                chosen / truth,
                found.evaluations
            );
            for (i, e) in found.front.iter().enumerate() {
                let own = error(&e.skeleton, &train, &test);
                println!(
                    "  {} {:2} {:2} cv {:.2} % test {:.2} % {}",
                    if i == found.chosen { '*' } else { ' ' },
                    e.terms,
                    e.parameters,
                    100.0 * e.held_out_mape,
                    100.0 * own,
                    if i == found.chosen { crate::law::formula_text(&e.skeleton) } else { String::new() }
                );
            }
        }
    }
}
