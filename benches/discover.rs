//! Promise: from 50 rows with 2 % noise of a hidden 12-parameter law, discovery reaches a held-out error within 1.5 times
//! that of the true structure fitted to the same rows, and five times below a free-form search, in 60 s on two cores.
//!
//! The hidden laws are the energylens law and six of other structure: terms replaced, powers on other symbols, and one
//! with powers that the grammar does not have. The search was developed on the first four, with seeds from 100 on; the
//! seeds below, and the last three laws, it met only to be judged. Energies of the held-out rows carry no noise. Run
//! with `cargo bench --bench discover`, or from another first seed on with `cargo bench --bench discover -- 200`; `quick`
//! leaves the free-form search out. Other tools on rows like these: `scripts/compare_discovery.py`.

use std::time::Instant;

use energylens::dataset::{Dataset, Row};
use energylens::fit::discover::{DiscoverOptions, FREE_FORM_CYCLES, discover, free_form_against};
use energylens::fit::{FitOptions, fit_model};
use energylens::law::{Case, Scenario, Skeleton, Target, formula_line};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROWS: usize = 50;
const HELD_OUT_ROWS: usize = 400;
const NOISE: f64 = 0.02;
const SEEDS: u64 = 3;
/// Coefficients of the magnitude seen on A100s; those of replaced terms are scaled so that the term costs as much.
const COEFFICIENTS: [f64; 8] = [0.037, 3e-12, 4e-13, 2.5e-10, 3e-12, 3e-10, 2e-10, 0.03];

/// What to replace in the built-in skeleton's file, and by what.
type Changes = &'static [(&'static str, &'static str)];

/// Hidden laws: name, changes, exponents. Complete laws were developed without the last three.
const LAWS: [(&str, Changes, [f64; 4]); 10] = [
    ("energylens", &[], [0.25, 0.15, -0.2, 0.4]),
    ("kv-by-input", &[("\"L^0.7*t*p*m*w\"", "\"t*p*m\""), ("\"K*B*ctx*m\"", "\"K*B*S*m\"")], [0.25, 0.15, -0.2, 0.4]),
    ("ring-and-host", &[("\"L*h*B*seq*t1\"", "\"L*h*B*seq*t1*t^-1\""), ("\"L*m*w\"", "\"B*m\"")], [0.1, 0.3, 0.2, 0.5]),
    ("other-powers", &[("b = \"a2\"", "p = \"a2\""), ("i = \"a4\"", "u = \"a4\"")], [-0.1, 0.35, 0.3, -0.25]),
    (
        "pipe-and-host",
        &[("\"L*h*B*seq*t1\"", "\"h*B*seq*p1\""), ("\"L*m*w\"", "\"B*seq\""), ("\"L^0.7*t*p*m*w\"", "\"t*m*w\"")],
        [0.4, 0.1, -0.35, 0.2],
    ),
    ("sublinear", &[("\"N*B*S\"", "\"N*B^0.75*S\""), ("\"L*m*w\"", "\"t*p*w\"")], [0.3, -0.2, -0.3, 0.6]),
    (
        "outside",
        &[("\"K*B*ctx*m\"", "\"K*B*ctx^0.85*m\""), ("\"L^0.7*t*p*m*w\"", "\"L^0.7*t^0.8*p*m*w\"")],
        [0.2, 0.3, -0.1, 0.3],
    ),
    (
        "stage-power",
        &[
            ("\"L^0.7*t*p*m*w\"", "\"L*m*p*w\""),
            ("\"W*r*w*u\"", "\"W*r*w\""),
            ("\"K*B*ctx*m\"", "\"K*B*seq*m\""),
            ("\"L*h*B*seq*t1\"", "\"L*h*B*m*t1*t^-1\""),
            ("\"L*m*w\"", "\"w*t\""),
        ],
        [0.3, 0.25, 0.15, -0.3],
    ),
    (
        "latency-bound",
        &[
            ("\"L^0.7*t*p*m*w\"", "\"L^0.7*m*t\""),
            ("\"L*h*B*seq*t1\"", "\"L*m*w*t1\""),
            ("\"L*m*w\"", "\"B*seq\""),
            ("b = \"a2\"", "i = \"a2\""),
            ("i = \"a4\"", "p = \"a4\""),
        ],
        [0.1, -0.2, -0.25, 0.35],
    ),
    (
        "short-prompts",
        &[("\"N*B*S\"", "\"N*B*S^0.75\""), ("\"L*h*B*seq*t1\"", "\"m*w*p1*u\""), ("\"L*m*w\"", "\"m*w*i\"")],
        [-0.15, 0.4, 0.25, 0.1],
    ),
];

fn main() {
    // Cargo itself adds a flag.
    let first = std::env::args().skip(1).find_map(|a| a.parse::<u64>().ok()).unwrap_or(0);
    let is_quick = std::env::args().any(|a| a == "quick");
    println!("law            seed   true  found  ratio  parameters  free form  seconds (found, free form)");
    for (name, changes, exponents) in LAWS {
        for seed in first..first + SEEDS {
            let hidden = Hidden::new(changes, exponents);
            let (train, test) = (hidden.rows(ROWS, NOISE, seed), hidden.rows(HELD_OUT_ROWS, 0.0, 1000 + seed));
            let begin = Instant::now();
            let options = DiscoverOptions { seed, ..DiscoverOptions::default() };
            let found = discover(&train, &options).expect("fifty rows are enough");
            let found_s = begin.elapsed().as_secs_f64();
            let best = found.best().expect("a front").clone();
            let begin = Instant::now();
            let opinion = || free_form_against(&train, &test, FREE_FORM_CYCLES, &options).expect("rows");
            let free = if is_quick { None } else { opinion() };
            let free_s = begin.elapsed().as_secs_f64();
            let (truth, ours) = (error(&hidden.skeleton, &train, &test), error(&best.skeleton, &train, &test));
            let free_mape = free.as_ref().map_or(f64::NAN, |f| f.held_out_mape);
            println!(
                "{name:<14} {seed:>4} {:>5.2}% {:>5.2}% {:>6.2} {:>11} {:>9.1}% {found_s:>8.1} {free_s:>8.1}   {}",
                100.0 * truth,
                100.0 * ours,
                ours / truth,
                best.parameters,
                100.0 * free_mape,
                formula_line(&best.skeleton)
            );
        }
    }
}

struct Hidden {
    skeleton: Skeleton,
    coefficients: Vec<f64>,
    exponents: [f64; 4],
}

impl Hidden {
    fn new(changes: Changes, exponents: [f64; 4]) -> Self {
        let base = Skeleton::default_for(Target::EnergyJ);
        let mut text = base.to_toml().expect("a skeleton is a file");
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in the skeleton");
            text = text.replace(from, to);
        }
        let mut skeleton = Skeleton::from_toml(&text).expect("the changed skeleton is one");
        // A prior is of the term that stood there: it would only hold the true structure down.
        for (own, _) in skeleton.terms.iter_mut().zip(&base.terms).filter(|(own, old)| own.product != old.product) {
            own.prior = None;
        }
        // What each term is on average, in the old structure over the new one.
        let mut draw = Draw::new(99);
        let cases: Vec<Case> = (0..200).map(|_| case(&draw.row())).collect();
        let scale = |j: usize| {
            let pairs = cases.iter().map(|c| (base.products(c)[j], skeleton.products(c)[j]));
            let logs: Vec<f64> = pairs.filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (a / b).ln()).collect();
            (logs.iter().sum::<f64>() / logs.len() as f64).exp()
        };
        let coefficients = COEFFICIENTS.iter().enumerate().map(|(j, k)| k * scale(j)).collect();
        Self { skeleton, coefficients, exponents }
    }

    fn rows(&self, count: usize, noise: f64, seed: u64) -> Dataset {
        let mut draw = Draw::new(seed);
        let rows = (1..=count).map(|line| {
            let mut row = draw.row();
            let truth: f64 = self.skeleton.contributions(&self.coefficients, &self.exponents, &case(&row)).iter().sum();
            row.line = line;
            row.energy_j = Some(truth * (noise * draw.normal()).exp());
            row
        });
        Dataset { rows: rows.collect(), ..Dataset::default() }
    }
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn row(&mut self) -> Row {
        let mut pick = |values: &[u32]| values[self.0.random_range(0..values.len())];
        let (t, p, batch) = (pick(&[1, 2, 4, 8]), pick(&[1, 2, 4]), pick(&[1, 2, 4, 8, 16, 32, 64]));
        Row {
            num_gpus: t * p,
            tensor_parallel: t,
            pipeline_parallel: p,
            batch_size: f64::from(batch),
            input_tokens: Some((64.0 * 2f64.powf(self.0.random_range(0.0..7.0))).round()),
            output_tokens: 2f64.powf(self.0.random_range(0.0..9.0)).round(),
            kv_capacity_tokens: Some(100_000.0 * f64::from(t * p)),
            ..Row::new("meta-llama/Llama-2-70b-hf", "A100-SXM4-80GB")
        }
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.0.random_range(0.0..1.0)).sum::<f64>() - 6.0
    }
}

fn case(row: &Row) -> Case {
    Scenario::of_stranger(row).and_then(|s| s.case(row)).expect("the model has a card")
}

/// Mean absolute percentage error on `test` of a structure fitted to `train`.
fn error(skeleton: &Skeleton, train: &Dataset, test: &Dataset) -> f64 {
    let options =
        FitOptions { skeleton: Some(skeleton.clone()), targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let law = fit_model(train, &options).expect("fifty rows are enough").model.laws.remove(0);
    let off =
        |row: &Row| (law.contributions(&case(row)).iter().sum::<f64>() / row.energy_j.expect("energy") - 1.0).abs();
    test.rows.iter().map(off).sum::<f64>() / test.rows.len() as f64
}
