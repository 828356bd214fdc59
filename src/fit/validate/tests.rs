use super::*;
use crate::card::ModelCard;
use crate::fit::synthetic::{COEFFICIENTS, EXPONENTS, row};
use crate::fit::{FitOptions, fit_model};
use crate::law::{Scenario, Target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MODELS: [&str; 4] =
    ["meta-llama/Llama-2-70b-hf", "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-32B-Instruct"];

/// Rows that follow the law with 3 % noise: TP 1, 2, 4, 8 and PP 1, 2 for random workloads.
fn rows(models: &[&str], workloads: usize, seed: u64) -> Dataset {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for model in models {
        assert!(ModelCard::builtin(model).is_some(), "{model}");
        for _ in 0..workloads {
            let batch = [1.0, 4.0, 16.0, 64.0][rng.random_range(0..4)];
            let input = f64::round(128.0 * 2f64.powf(rng.random_range(0.0..4.0)));
            let output = f64::round(32.0 * 2f64.powf(rng.random_range(0.0..4.0)));
            for (t, p) in [(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 2)] {
                let mut row = row(t, p, batch, input, output);
                row.model = (*model).to_owned();
                row.kv_capacity_tokens = Some(60_000.0 * f64::from(t * p));
                let case = Scenario::of_stranger(&row).and_then(|s| s.case(&row)).expect("a card");
                let truth: f64 = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case).iter().sum();
                let normal: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
                row.energy_j = Some(truth * (0.03 * normal).exp());
                row.duration_s = Some(truth / (300.0 * f64::from(t * p).powf(1.3)));
                row.line = rows.len() + 1;
                rows.push(row);
            }
        }
    }
    Dataset { rows, ..Dataset::default() }
}

fn options() -> ValidateOptions<'static> {
    ValidateOptions { predictors: Predictor::QUICK.to_vec(), threads: Some(2), ..ValidateOptions::default() }
}

#[test]
fn a_true_law_is_seen_to_be_true_and_rules_to_be_rules() {
    let validation = validate(&rows(&MODELS[..1], 30, 1), &options()).unwrap();
    assert_eq!((validation.rows, validation.groups, validation.splits), (180, 30, 5));
    let law = validation.figures(Predictor::Law).unwrap();
    assert!(law.mape.unwrap() < 0.04, "{law:?}");
    // Even the true law cannot know which of two equals was measured lucky: it regrets less than the noise.
    assert!(law.regret.unwrap() < 0.02, "{law:?}");
    assert!((0.8..=0.97).contains(&law.coverage.unwrap()), "{law:?}");
    let forest = validation.figures(Predictor::RandomForest).unwrap();
    assert!(forest.mape > law.mape, "{forest:?}");
    let rule = validation.figures(Predictor::LatencyOptimal).unwrap();
    assert!(rule.mape.is_none() && rule.regret > law.regret, "{rule:?}");
    assert_eq!(validation.predictions.len(), 180);
    assert_eq!(validation.noise_source, NoiseSource::Default);
}

#[test]
fn outcomes_of_held_out_rows_cannot_reach_a_predictor() {
    // One split: learn from small batches. Whatever was measured on the large ones may be anything, and every answer but
    // the latency rule's stays the same to the last bit.
    let honest = rows(&MODELS[..1], 24, 2);
    let mut tampered = honest.clone();
    for row in tampered.rows.iter_mut().filter(|r| r.batch_size > 4.0) {
        row.energy_j = row.energy_j.map(|e| e * f64::from(7 * row.tensor_parallel));
        row.energy_j_std = Some(1.0);
        row.duration_s = row.duration_s.map(|d| d * f64::from(row.tensor_parallel).powi(3));
        row.mean_ttft_s = Some(0.5);
        row.mean_tpot_s = Some(0.1);
    }
    let context = Context {
        pool: Pool::None,
        across_hardware: false,
        seed: 0,
        skeleton: None,
        prior: None,
        target: Target::EnergyJ,
    };
    let ask = |dataset: &Dataset| {
        let units = split::units(&dataset.rows);
        let scheme = Scheme::Batches { up_to: Some(4.0) };
        let splits = split::splits(&dataset.rows, &units, scheme, Pool::None, 0).unwrap();
        let scopes: Vec<String> = dataset.rows.iter().map(|r| context.scope(r)).collect();
        work::answers(&dataset.rows, &scopes, &splits, Predictor::ALL, &context, &options()).answers
    };
    for ((predictor, honest), tampered) in Predictor::ALL.iter().zip(ask(&honest)).zip(ask(&tampered)) {
        assert!(honest.estimates.iter().any(Option::is_some), "{predictor}: {:?}", honest.trouble);
        let same = honest.estimates == tampered.estimates;
        assert_eq!(same, !predictor.sees_held_out_latency(), "{predictor}");
    }
}

#[test]
fn a_question_holds_nothing_that_was_measured() {
    let mut answered = rows(&MODELS[..1], 1, 3).rows.remove(0);
    answered.energy_j_std = Some(1.0);
    (answered.mean_ttft_s, answered.mean_tpot_s) = (Some(1.0), Some(1.0));
    answered.run_id = "r".to_owned();
    let asked = serde_json::to_value(question(&answered)).unwrap();
    let known = serde_json::to_value(&answered).unwrap();
    let changed: Vec<&str> = known
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, value)| asked.get(key) != Some(value))
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(changed, ["duration_s", "energy_j", "energy_j_std", "mean_tpot_s", "mean_ttft_s", "run_id"]);
}

#[test]
fn threads_do_not_change_results() {
    let dataset = rows(&MODELS[..2], 12, 4);
    let with = |threads| validate(&dataset, &ValidateOptions { threads: Some(threads), ..options() }).unwrap();
    assert_eq!(with(1), with(3));
}

#[test]
fn progress_counts_every_piece_once() {
    let seen = std::cell::RefCell::new(Vec::new());
    let progress = |done, total| seen.borrow_mut().push((done, total));
    let dataset = rows(&MODELS[..1], 10, 5);
    let options = ValidateOptions { predictors: vec![Predictor::LogLinear], progress: &progress, ..options() };
    validate(&dataset, &options).unwrap();
    assert_eq!(*seen.borrow(), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
}

#[test]
fn told_to_stop_it_has_judged_whole_laws_and_says_so() {
    let dataset = rows(&MODELS, 10, 5);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    // One thread: five pieces of the first law unasked, five of the second asked for, the sixth question says stop.
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 5;
    let predictors = vec![Predictor::LogLinear];
    let whole = ValidateOptions { predictors: predictors.clone(), threads: Some(1), ..options() };
    let cut = validate(&dataset, &ValidateOptions { stop: &stop, ..whole.clone() }).unwrap();
    let all = validate(&dataset, &whole).unwrap();
    assert_eq!((all.rows, all.scopes, all.notes.len()), (240, 4, 0));
    // Two of four models: half of the rows, every one of them answered.
    assert_eq!((cut.rows, cut.figures(Predictor::LogLinear).unwrap().rows), (120, 120));
    assert!(cut.notes[0].contains("2 of 4 laws"), "{:?}", cut.notes);
    // However short the time, one law is judged.
    let none = validate(&dataset, &ValidateOptions { stop: &|| true, ..whole.clone() }).unwrap();
    assert_eq!(none.rows, 60);
    let curve = learning_curve(&dataset, &[6, 12], &ValidateOptions { stop: &|| true, ..whole }).unwrap();
    assert_eq!((curve.points.len(), curve.notes.len()), (1, 1));
}

#[test]
fn times_are_judged_in_seconds_beside_what_knows_no_joules() {
    let dataset = rows(&MODELS[..1], 24, 8);
    let options = ValidateOptions { target: Target::DurationS, predictors: Vec::new(), ..options() };
    let found = validate(&dataset, &options).unwrap();
    assert_eq!((found.target, found.rows, found.optima_differ), (Target::DurationS, 144, None));
    let law = found.figures(Predictor::Law).unwrap();
    // Durations are the law's energies over a power of t and p: no law of latency, yet near one.
    assert!(law.mape.unwrap() < 0.15, "{law:?}");
    let line = dataset.rows.iter().find(|r| r.line == found.predictions[0].line).unwrap();
    assert_eq!(Some(found.predictions[0].measured), line.duration_s);
    // Models of energy are not asked, and say why when they are.
    assert!(found.figures(Predictor::LogLinear).is_some() && found.figures(Predictor::Roofline).is_none());
    let asked = ValidateOptions { predictors: vec![Predictor::Roofline], ..options };
    let note = validate(&dataset, &asked).unwrap().scores.remove(0).note.unwrap();
    assert!(note.contains("says nothing of duration_s"), "{note}");
}

#[test]
fn first_tokens_of_the_same_prompts_are_never_dealt_apart() {
    // Four prompts, each asked for answers of 40 and of 350 tokens, on one, two and four GPUs.
    let mut rows = Vec::new();
    for (input, output) in [128.0, 256.0, 512.0, 1024.0].into_iter().flat_map(|s| [(s, 40.0), (s, 350.0)]) {
        for tensor_parallel in [1, 2, 4] {
            let line = rows.len() + 1;
            let asked = row(tensor_parallel, 1, 4.0, input, output);
            rows.push(Row { line, mean_ttft_s: Some(0.1), energy_j: Some(100.0), ..asked });
        }
    }
    let dataset = Dataset { rows, ..Dataset::default() };
    let units = |target| Usable::of(&dataset, &ValidateOptions { target, ..options() }).unwrap().units;
    let distinct = |units: Vec<usize>| units.into_iter().collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(units(Target::MeanTtftS)), distinct(units(Target::EnergyJ))), (4, 8));
    assert!(units(Target::MeanTtftS).chunks(6).all(|prompt| prompt.iter().all(|unit| *unit == prompt[0])));
}

#[test]
fn a_pooled_law_carries_to_a_model_it_never_saw() {
    let options = ValidateOptions { scheme: Scheme::Models, pool: Pool::Models, ..options() };
    let validation = validate(&rows(&MODELS, 10, 6), &options).unwrap();
    assert_eq!(validation.splits, 4);
    let law = validation.figures(Predictor::Law).unwrap();
    let forest = validation.figures(Predictor::RandomForest).unwrap();
    assert!(law.mape.unwrap() < 0.1 && forest.mape.unwrap() > 0.2, "{law:?} {forest:?}");
    assert!(law.coverage.unwrap() > 0.85, "{law:?}");
}

#[test]
fn hardware_that_was_never_measured_gets_an_answer() {
    // The same work on another GPU, each term at that GPU's price, and the whole 20 % dearer than its data sheet says.
    let mut dataset = rows(&MODELS[..1], 12, 7);
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let card = |name| crate::card::GpuCard::builtin(name).expect("a built-in GPU");
    let (old, new) = (card("A100-SXM4-80GB"), card("H100-SXM5-80GB"));
    let elsewhere = |r: Row| {
        let case = Scenario::of_stranger(&r).and_then(|s| s.case(&r)).expect("a card");
        let parts = skeleton.contributions(&COEFFICIENTS, &EXPONENTS, &case);
        let price = |term: &crate::law::Term| term.prior.map_or(1.0, |p| p.of.price_j(&new) / p.of.price_j(&old));
        let there: f64 = parts.iter().zip(&skeleton.terms).map(|(part, term)| part * price(term)).sum();
        let energy_j = r.energy_j.map(|e| 1.2 * e * there / parts.iter().sum::<f64>());
        Row { gpu_model: new.gpu_model.clone(), line: r.line + 1000, energy_j, ..r }
    };
    dataset.rows.extend(dataset.rows.clone().into_iter().map(elsewhere).collect::<Vec<_>>());
    let validation = validate(&dataset, &ValidateOptions { scheme: Scheme::Hardware, ..options() }).unwrap();
    let law = validation.figures(Predictor::Law).unwrap();
    assert_eq!((validation.splits, law.rows), (2, 144));
    // Prices that differ threefold move the optimum, and what the rows left open of single terms moves it a little more.
    assert!(law.regret.unwrap() < 0.05, "{law:?}");
    // 20 % is what platforms differ by, and the intervals know it.
    assert!(law.mape.unwrap() < 0.25 && law.coverage.unwrap() > 0.9, "{law:?}");
}

#[test]
fn a_curve_stops_where_the_rows_end_and_judges_the_same_rows_everywhere() {
    // 72 rows in five folds of 12 workloads: two or three of these are held out, six rows each.
    let dataset = rows(&MODELS[..1], 12, 8);
    let curve = learning_curve(&dataset, &[50, 12, 25, 200, 500], &options()).unwrap();
    let sizes: Vec<(usize, usize)> = curve.points.iter().map(|p| (p.training_rows_min, p.training_rows)).collect();
    assert_eq!(sizes, [(12, 12), (25, 25), (50, 50), (54, 60)]);
    assert!(curve.points.iter().all(|p| p.figures["energylens"].rows == 72));
    let mape = |i: usize| curve.points[i].figures["energylens"].mape.unwrap();
    assert!(mape(3) < mape(0), "{} {}", mape(3), mape(0));
    let text = curve.to_string();
    assert!(text.contains("regret from") && text.contains("54 to 60"), "{text}");
    let note = "200, 500 rows are more than any law has to learn from: the last point is of all there are, 54 to 60";
    assert_eq!(curve.notes, [note]);
}

#[test]
fn a_size_that_was_never_reached_is_no_point_of_a_curve() {
    let dataset = rows(&MODELS[..1], 12, 8);
    let options = ValidateOptions { predictors: vec![Predictor::LogLinear], ..options() };
    let learnt = |sizes: &[usize]| {
        let points = learning_curve(&dataset, sizes, &options).unwrap().points;
        points.iter().map(|p| (p.training_rows_min, p.training_rows)).collect::<Vec<_>>()
    };
    assert_eq!(learnt(&[5, 1000]), [(5, 5), (54, 60)]);
    assert_eq!(learnt(&[1000]), [(54, 60)]);
    // All there are was asked for by its number: once is enough.
    assert_eq!(learnt(&[60, 1000]), [(54, 60)]);
    assert_eq!(learning_curve(&dataset, &[5, 10], &options).unwrap().notes, Vec::<String>::new());
    // Judged on rows of their own, all 72 are learnt from.
    let unseen = rows(&MODELS[..1], 4, 9);
    let points = learning_curve_against(&dataset, &unseen, &[10, 100], &options).unwrap().points;
    assert_eq!(points.iter().map(|p| (p.training_rows_min, p.training_rows)).collect::<Vec<_>>(), [(10, 10), (72, 72)]);
}

#[test]
fn fitted_laws_are_given_their_held_out_figures() {
    let dataset = rows(&MODELS[..3], 8, 9);
    let targets = vec![Target::EnergyJ, Target::DurationS];
    let fit = FitOptions { pool: Pool::Models, targets, ..FitOptions::default() };
    let mut model = fit_model(&dataset, &fit).unwrap().model;
    let found = attach_held_out(&mut model, &dataset, &fit, 11, &|_, _| {}).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rows.len(), found[0].unseen_models.len()), (144, 144));
    let energy = model.laws.iter().find(|l| l.skeleton.target == Target::EnergyJ).unwrap();
    let held_out = energy.held_out.as_ref().unwrap();
    for name in ["energylens", "random-forest", "fewest-gpus", "energylens, unseen models"] {
        assert!(held_out.figures[name].contains_key("top1"), "{name}");
    }
    assert_eq!((held_out.seed, held_out.groups), (11, 24));
    assert!(model.laws.iter().all(|l| l.held_out.is_none() == (l.skeleton.target != Target::EnergyJ)));
}

#[test]
fn a_single_workload_cannot_be_held_out_and_that_is_no_error() {
    let dataset = rows(&MODELS[..1], 1, 10);
    let fit = FitOptions { targets: vec![Target::EnergyJ], ..FitOptions::default() };
    let mut model = fit_model(&dataset, &fit).unwrap().model;
    assert_eq!(attach_held_out(&mut model, &dataset, &fit, 0, &|_, _| {}).unwrap(), []);
    assert!(validate(&dataset, &options()).unwrap_err().to_string().contains("1 workloads for 5 folds"));
}

#[test]
fn what_is_absent_or_looks_at_latencies_is_said_under_the_table() {
    let mut dataset = rows(&MODELS[..1], 10, 12);
    let predictors = vec![Predictor::LogLinear, Predictor::LatencyProxy, Predictor::LatencyOptimal];
    let options = ValidateOptions { predictors, ..options() };
    let text = validate(&dataset, &options).unwrap().to_string();
    assert!(text.contains("latency-optimal *") && text.contains("* chooses by latencies measured"), "{text}");
    dataset.rows.iter_mut().for_each(|r| r.duration_s = None);
    let validation = validate(&dataset, &options).unwrap();
    let text = validation.to_string();
    assert!(text.contains("absent: latency-proxy: no training row has duration_s"), "{text}");
    assert_eq!(validation.optima_differ, None);
}

#[test]
fn a_copy_of_every_row_under_another_name_teaches_nothing() {
    // Each workload a second time, under the model's short name, in reverse order. Were the copies on the other side of a
    // split, a nearest neighbour would find each answer among what it learnt.
    let honest = rows(&MODELS[..1], 15, 13);
    let mut doubled = honest.clone();
    let copies = honest.rows.iter().rev().cloned().enumerate();
    doubled.rows.extend(copies.map(|(i, r)| Row { model: "llama-2-70b ".to_owned(), line: 10_000 + i, ..r }));
    let options = ValidateOptions { predictors: vec![Predictor::NearestNeighbours], pool: Pool::Models, ..options() };
    let mape = |dataset: &Dataset| {
        validate(dataset, &options).unwrap().figures(Predictor::NearestNeighbours).unwrap().mape.unwrap()
    };
    let (once, twice) = (mape(&honest), mape(&doubled));
    assert!(twice > 0.5 * once, "{once} became {twice}");
}

#[test]
fn more_rows_than_anyone_needs_are_drawn_from_and_it_is_said() {
    let mut dataset = rows(&MODELS[..1], 10, 14);
    let copies: Vec<Row> = (0..30).flat_map(|_| dataset.rows.clone()).collect();
    dataset.rows = copies.into_iter().enumerate().map(|(i, r)| Row { line: i + 1, ..r }).collect();
    let options = ValidateOptions { predictors: vec![Predictor::LogLinear], ..options() };
    let validation = validate(&dataset, &options).unwrap();
    assert_eq!(validation.training_rows_max, 1000);
    assert!(validation.to_string().contains("at most 1000 rows"), "{validation}");
}
