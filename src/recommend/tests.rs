mod decisions;
mod platforms;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fixture::{self, GPU, MODEL};
use super::fold::Folded;
use super::powers::Mean;
use super::*;
use crate::law::{Case, Domain, Law};
use crate::schema::Phase;

fn request(batch_size: Option<f64>) -> Request {
    Request { batch_size, ..Request::new(1024.0, 256.0) }
}

fn case(t: f64, p: f64, d: f64, batch: f64) -> Case {
    Case {
        phase: Phase::Total,
        tensor_parallel: t,
        pipeline_parallel: p,
        data_parallel: d,
        batch_size: batch,
        input_tokens: 1024.0,
        output_tokens: 256.0,
        n_layers: 80.0,
        active_params: 69e9,
        weight_bytes: 138e9,
        hidden_size: 8192.0,
        kv_bytes_per_token: 327_680.0,
        num_experts: 0.0,
        experts_per_token: 0.0,
        routed_share: 0.9,
        kv_capacity_tokens: Some(457_763.67),
    }
}

#[test]
fn a_folded_law_predicts_what_the_law_predicts() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for target in Target::ALL {
        let law = fixture::law(*target);
        for _ in 0..300 {
            let mut case = case(2_f64.powi(rng.random_range(0..4)), rng.random_range(1..4) as f64, 1.0, 1.0);
            case.input_tokens = rng.random_range(1..5000) as f64;
            case.output_tokens = rng.random_range(1..2000) as f64;
            case.kv_capacity_tokens = rng.random::<bool>().then(|| rng.random_range(1e3..1e6));
            (case.num_experts, case.experts_per_token) = if rng.random() { (8.0, 2.0) } else { (0.0, 0.0) };
            let folded = Folded::new(&law, &case);
            let (batch, replicas) = (rng.random_range(1.0..300.0), rng.random_range(1..9) as f64);
            let want: f64 =
                law.contributions(&Case { batch_size: batch, data_parallel: replicas, ..case }).iter().sum();
            let got = folded.value(batch, replicas);
            assert!((got - want).abs() <= 1e-12 * want.abs(), "{target} of {case:?}: {got} is not {want}");
        }
    }
}

/// A skeleton with powers that no built-in one has, on everything that moves with the batch.
fn odd_law(target: Target) -> Law {
    let mut law = fixture::law(target);
    for (i, factors) in ["B^0.5*m*r", "w^1.5*u*c", "B^1.3*w*b", "r^2*w*m", "i^0.5*B*seq"].into_iter().enumerate() {
        law.skeleton.terms[i].product = crate::law::parse_product(factors).unwrap();
    }
    law
}

#[test]
fn what_is_tabulated_is_what_the_law_says_of_any_batch() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut tabulated = 0;
    for (i, target) in Target::ALL.iter().cycle().take(400).enumerate() {
        let law = if i % 8 < 4 { fixture::law(*target) } else { odd_law(*target) };
        let mut base = case(2_f64.powi(rng.random_range(0..4)), rng.random_range(1..5) as f64, 1.0, 1.0);
        base.kv_capacity_tokens = rng.random::<bool>().then(|| 10_f64.powf(rng.random_range(3.0..6.5)));
        (base.num_experts, base.experts_per_token) = if i % 3 == 0 { (8.0, 2.0) } else { (0.0, 0.0) };
        let classes = rng.random_range(1..6);
        let cases: Vec<(f64, Case)> = (0..classes)
            .map(|_| {
                let (input_tokens, output_tokens) = (rng.random_range(1..5000), rng.random_range(2..2000));
                let case = Case { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), ..base };
                (1.0 / f64::from(classes), case)
            })
            .collect();
        let mean = Mean::new(cases.iter().map(|(share, case)| (*share, Folded::new(&law, case))).collect());
        for _ in 0..40 {
            let (batch, replicas) = (10_f64.powf(rng.random_range(0.0..4.0)), rng.random_range(1..9) as f64);
            let at = |case: &Case| Case { batch_size: batch, data_parallel: replicas, ..*case };
            let want: f64 = cases.iter().map(|(s, c)| s * law.contributions(&at(c)).iter().sum::<f64>()).sum();
            let got = mean.value(batch, replicas);
            assert!((got - want).abs() <= 1e-12 * want.abs(), "{target}, batch {batch}: {got} is not {want}");
            tabulated += usize::from(mean.is_tabulated(batch));
        }
    }
    // Otherwise the test says nothing of the table.
    assert!(tabulated > 4_000, "{tabulated}");
}

#[test]
fn the_first_is_the_least_of_all_that_fit() {
    let answer = recommend(&fixture::model(), &request(Some(32.0))).unwrap();
    let law = fixture::law(Target::EnergyJ);
    // Memory worked by hand: 138e9 + 327680 * 1280 = 138.4e9 bytes; 72e9 per GPU, so two GPUs at least.
    let mut by_hand = Vec::new();
    for (t, p) in [(2, 1), (4, 1), (8, 1), (1, 2), (2, 2), (4, 2)] {
        for d in [1, 2, 4].into_iter().filter(|d| d * t * p <= 8) {
            let capacity = (f64::from(t * p) * 72e9 - 138e9) / 327_680.0;
            let mut case = case(f64::from(t), f64::from(p), f64::from(d), 32.0 / f64::from(d));
            case.kv_capacity_tokens = Some(capacity);
            by_hand.push((law.contributions(&case).iter().sum::<f64>(), (t, p, d)));
        }
    }
    by_hand.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(answer.feasible, by_hand.len());
    for (candidate, (energy_j, degrees)) in answer.ranked.iter().zip(&by_hand) {
        let found = (candidate.tensor_parallel, candidate.pipeline_parallel, candidate.data_parallel);
        assert_eq!(found, *degrees);
        assert!((candidate.energy_j.value - energy_j).abs() < 1e-9 * energy_j);
        assert_eq!(candidate.energy_per_token_j.value, candidate.energy_j.value / (32.0 * 256.0));
    }
    let memory = answer.excluded.iter().find(|e| e.reason.starts_with("memory")).unwrap();
    // TP 1 x PP 1 with 1, 2, 4 and 8 replicas; 138.42e9 / 72e9.
    assert_eq!(memory.count, 4);
    assert_eq!(memory.closest.as_deref(), Some("TP 1 x PP 1 needs 1.922 times what there is"));
}

#[test]
fn no_limit_is_broken_and_the_interval_is_told_apart_from_the_point() {
    let free = recommend(&fixture::model(), &request(Some(32.0))).unwrap();
    let tpots: Vec<f64> = free.ranked.iter().filter_map(|c| c.mean_tpot_s.map(|e| e.value)).collect();
    let fastest = tpots.iter().copied().fold(f64::INFINITY, f64::min);
    // Just above the fastest: it passes by its point, and its interval of some 7 % cannot.
    let limits = vec![Limit { quantity: Quantity::MeanTpotS, bound: 1.001 * fastest }];
    let tight = recommend(&fixture::model(), &Request { limits, ..request(Some(32.0)) }).unwrap();
    assert!(tight.feasible < free.feasible && tight.feasible >= 1);
    for candidate in &tight.ranked {
        assert!(candidate.limits.iter().all(|l| l.holds && !l.holds_with_margin), "{}", candidate.label());
    }
    assert!(tight.warnings.iter().any(|w| w.contains("90 % interval reaches")), "{:?}", tight.warnings);
    assert!(tight.ranked[0].energy_j.value >= free.ranked[0].energy_j.value);
    let fastest_pick = free.alternatives.iter().find(|a| a.rule == "least latency").unwrap();
    assert_eq!(fastest_pick.pick.mean_tpot_s.unwrap().value, fastest);
    let fewest = free.alternatives.iter().find(|a| a.rule == "fewest GPUs").unwrap();
    assert_eq!(fewest.pick.num_gpus, 2);
    assert!(fewest.pick.extra_energy_percent >= 0.0);
}

#[test]
fn an_impossible_limit_says_what_came_closest() {
    let limits = vec!["mean_tpot_s=0.001".parse().unwrap(), "num_gpus<=4".parse().unwrap()];
    let error = recommend(&fixture::model(), &Request { limits, ..request(Some(32.0)) }).unwrap_err().to_string();
    // Feasible by memory and range: (2,1) and (1,2) with 1, 2 or 4 replicas, (4,1) and (2,2) with 1 or 2, (8,1) and (4,2)
    // with 1; TP 1 x PP 1 is not, nor are 5 pairs with PP 4 or 8. Each pair's largest is on 8 GPUs, above the limit of 4.
    assert!(error.contains("12 by limit mean_tpot_s <= 0.001; closest: mean_tpot_s 0.01"), "{error}");
    assert!(error.contains("6 by limit num_gpus <= 4; closest: num_gpus 8"), "{error}");
    assert!(error.contains("4 by memory"), "{error}");
    assert!(!error.contains("Point"), "{error}");
}

#[test]
fn a_limit_that_no_law_knows_is_refused() {
    for (text, column) in [("mean_ttft_s=1", "mean_ttft_s"), ("mean_power_w=700", "duration_s")] {
        let limits = vec![text.parse().unwrap()];
        let error = recommend(&fixture::model(), &Request { limits, ..request(None) }).unwrap_err().to_string();
        assert!(error.contains(&format!("no law of {column}")) && error.contains("fit rows that carry"), "{error}");
    }
    let limits = vec!["mean_tpot_s=1".parse().unwrap()];
    let one_token = Request { limits, output_tokens: 1.0, ..request(None) };
    let error = recommend(&fixture::model(), &one_token).unwrap_err().to_string();
    assert!(error.contains("at least 2 output_tokens"), "{error}");
}

#[test]
fn what_was_never_measured_stands_apart() {
    let wide = Request { max_gpus: 64, ..request(None) };
    let answer = recommend(&fixture::model(), &wide).unwrap();
    let measured = |c: &Candidate| {
        c.tensor_parallel <= 8 && c.pipeline_parallel <= 2 && c.batch_size / f64::from(c.data_parallel) <= 128.0
    };
    assert!(answer.ranked.iter().all(measured));
    assert!(!answer.outside.is_empty() && answer.outside.iter().all(|c| !measured(c) && !c.outside.is_empty()));
    let bold = recommend(&fixture::model(), &Request { allow_outside: true, ..wide }).unwrap();
    assert!(bold.outside.is_empty());
    assert!(bold.feasible > answer.feasible);
    assert!(bold.ranked[0].energy_per_token_j.value <= answer.ranked[0].energy_per_token_j.value);
}

#[test]
fn a_given_batch_beyond_the_measured_ones_is_answered_with_a_warning() {
    let answer = recommend(&fixture::model(), &Request { max_gpus: 2, ..request(Some(200.0)) }).unwrap();
    assert!(answer.warnings.iter().any(|w| w.contains("B = 200 is above 128")), "{:?}", answer.warnings);
}

#[test]
fn a_guess_is_called_one_right_under_the_answer_and_only_there() {
    let asked = [request(Some(500.0)), Request { input_tokens: 1e6, ..request(Some(1.0)) }];
    for (ask, expected) in asked.iter().zip(["B = 500 is above 128", "S = 1.000e6 is above 4096"]) {
        let text = recommend(&fixture::model(), ask).unwrap().table().replace("\n  ", " ");
        let warning = text.find("warning: the first lies outside the measured range: ").unwrap();
        assert!(warning < text.find("P(best)").unwrap() && text.contains(expected), "{text}");
        assert!(text.contains("the interval and P(best) are not to be trusted there"), "{text}");
        assert_eq!(text.matches("outside the measured range: ").count(), 1, "{text}");
    }
    let inside = recommend(&fixture::model(), &request(Some(32.0))).unwrap().table();
    assert!(!inside.contains("outside the measured range:"), "{inside}");
}

#[test]
fn counts_that_overlap_are_said_to() {
    let limits = |all: &[&str]| all.iter().map(|l| l.parse().unwrap()).collect::<Vec<_>>();
    let ask = |all: &[&str]| recommend(&fixture::model(), &Request { limits: limits(all), ..request(Some(32.0)) });
    let left_out = |answer: &Recommendation| answer.excluded.iter().map(|e| e.count).sum::<usize>();
    // Whatever has few GPUs is slow.
    let several = ask(&["num_gpus<=4", "tensor_parallel<=2"]).unwrap();
    assert!(left_out(&several) > several.candidates - several.feasible);
    assert!(several.table().contains("for several reasons"), "{}", several.table());
    let one = ask(&["num_gpus<=4"]).unwrap();
    assert_eq!(left_out(&one), one.candidates - one.feasible);
    assert!(!one.table().contains("for several reasons"), "{}", one.table());
    let none = ask(&["num_gpus<=1", "tensor_parallel<=1"]).unwrap_err().to_string();
    assert!(none.contains("for several reasons"), "{none}");
}

#[test]
fn shared_doubt_does_not_blur_the_order_and_own_doubt_does() {
    let probabilities = |change: &dyn Fn(&mut Law)| {
        let mut model = fixture::model();
        change(&mut model.laws[0]);
        let answer = recommend(&model, &request(Some(32.0))).unwrap();
        answer.ranked.iter().map(|c| c.probability_best.unwrap_or(0.0)).collect::<Vec<_>>()
    };
    // One scale for all energies, 50 % uncertain: nothing of it moves the order.
    let sure = probabilities(&|law| {
        law.sigma_log = 0.0;
        let values: Vec<f64> = law.coefficient_values();
        for (i, row) in law.covariance.iter_mut().enumerate() {
            for (j, entry) in row.iter_mut().enumerate() {
                *entry = values.get(i).zip(values.get(j)).map_or(0.0, |(a, b)| 0.25 * a * b);
            }
        }
    });
    assert_eq!(sure[0], 1.0);
    let unsure = probabilities(&|law| law.sigma_log = 10.0);
    assert!(unsure.iter().all(|p| *p < 0.3), "{unsure:?}");
    let usual = probabilities(&|_| ());
    assert!(usual[0] > 0.3 && usual[0] < 1.0 && usual[0] >= usual[1], "{usual:?}");
    assert!(usual.iter().sum::<f64>() <= 1.0 + 1e-12);
    assert_eq!(usual, probabilities(&|_| ()));
}

#[test]
fn two_configurations_are_told_apart_as_their_normal_difference_says() {
    // TP 2 alone, one and two replicas: two contenders whose doubt is their own residual only.
    let mut model = fixture::model();
    let law = &mut model.laws[0];
    law.covariance.iter_mut().flatten().for_each(|c| *c = 0.0);
    law.degrees_of_freedom = 1e6;
    law.sigma_log = 0.2;
    let limits = vec!["tensor_parallel=2".parse().unwrap(), "pipeline_parallel=1".parse().unwrap()];
    let answer = recommend(&model, &Request { limits, max_gpus: 5, ..request(Some(4.0)) }).unwrap();
    assert_eq!(answer.feasible, 2);
    let difference = (1.0 + answer.margin_percent.unwrap() / 100.0).ln();
    // P(first is less) = Phi(difference / (0.2 sqrt 2)).
    use statrs::distribution::{ContinuousCDF, Normal};
    let want = Normal::new(0.0, 0.2 * 2_f64.sqrt()).unwrap().cdf(difference);
    assert!((answer.ranked[0].probability_best.unwrap() - want).abs() < 0.045, "{want}");
}

#[test]
fn replicas_of_one_configuration_do_not_compete_with_it() {
    let answer = recommend(&fixture::model(), &Request { max_gpus: 16, ..request(None) }).unwrap();
    let find = |d: u32, batch: f64| {
        let same = |c: &&Candidate| (c.tensor_parallel, c.data_parallel, c.batch_size) == (4, d, batch);
        answer.ranked.iter().find(same)
    };
    // Batch 256 over two replicas is batch 128 twice; over four it is batch 64 four times.
    assert_eq!(find(1, 128.0).unwrap().other_data_parallel, [2]);
    assert_eq!(find(1, 64.0).unwrap().other_data_parallel, [2, 4]);
    assert!(find(2, 256.0).is_none());
    assert!(find(1, 128.0).unwrap().probability_best.unwrap() > 0.8);
}

#[test]
fn the_front_is_what_no_other_beats_in_both() {
    let answer = recommend(&fixture::model(), &Request { top: 10_000, ..request(None) }).unwrap();
    assert_eq!(answer.latency, Some(Quantity::MeanTpotS));
    let figures = |c: &Candidate| (c.energy_per_token_j.value, c.mean_tpot_s.unwrap().value);
    for a in &answer.ranked {
        let (energy, latency) = figures(a);
        let beaten = answer.ranked.iter().any(|b| {
            let (e, l) = figures(b);
            let slack = 1.0 + 1e-9;
            e <= energy * slack && l <= latency * slack && (e * slack < energy || l * slack < latency)
        });
        assert_eq!(a.pareto, Some(!beaten), "{}", a.label());
    }
    assert_eq!(answer.pareto.len(), answer.ranked.iter().filter(|c| c.pareto == Some(true)).count());
}

#[test]
fn what_is_not_listed_of_the_front_is_counted() {
    let whole = recommend(&fixture::model(), &Request { top: 10_000, ..request(None) }).unwrap();
    assert!(!whole.table().contains("not listed"), "{whole}");
    let short = recommend(&fixture::model(), &Request { top: 1, ..request(None) }).unwrap();
    assert!(whole.pareto.len() > 2, "{} on the front", whole.pareto.len());
    let more = format!("{} further configurations of the front are not listed here", whole.pareto.len() - 1);
    assert!(short.table().replace("\n  ", " ").contains(&more), "{short}");
}

#[test]
fn lengths_are_told_as_they_are_and_names_stay_on_their_line() {
    let mut answer = recommend(&fixture::model(), &request(None)).unwrap();
    (answer.input_tokens, answer.output_tokens) = (1024.5, 500.0 / 3.0);
    answer.model = "x needs 0.001 J\nwarning: forged".to_owned();
    answer.ranked[0].gpu_model = "gpu\nwarning: forged".to_owned();
    let table = answer.table();
    assert!(table.replace("\n  ", " ").contains("1024.5 input and 166.67 output tokens"), "{table}");
    assert!(!table.lines().any(|l| l.starts_with("warning: forged")), "{table}");
    answer.input_tokens = 2e7;
    assert!(answer.sentence(&answer.ranked[0]).contains("20000000 input"));
}

#[test]
fn names_are_matched_and_slips_are_told() {
    let model = fixture::model();
    let ask =
        |name: &str| recommend(&model, &Request { model: Some(name.to_owned()), ..request(None) }).map(|a| a.model);
    assert_eq!(ask(&MODEL.to_uppercase()).unwrap(), MODEL);
    for slip in ["meta-llama/Lama-2-70b-hf", "lama-2-70b"] {
        let error = ask(slip).unwrap_err().to_string();
        assert!(error.contains(&format!("did you mean `{MODEL}`?")), "{error}");
    }
    let gpu_model = Some("H100".to_owned());
    let error = recommend(&model, &Request { gpu_model, ..request(None) }).unwrap_err().to_string();
    assert!(error.contains("H100") && error.contains(GPU), "{error}");
    let mut two = model.clone();
    two.laws.push(Law { model: Some("other".to_owned()), ..fixture::law(Target::EnergyJ) });
    let error = recommend(&two, &request(None)).unwrap_err().to_string();
    assert!(error.contains("other") && error.contains(MODEL), "{error}");
}

#[test]
fn several_gpus_are_searched_where_none_is_named() {
    let mut model = fixture::model();
    for mut law in [fixture::law(Target::EnergyJ), fixture::law(Target::MeanTpotS)] {
        law.gpu_model = "H100-SXM5-80GB".to_owned();
        law.coefficients.iter_mut().for_each(|c| c.value *= 0.6);
        model.laws.push(law);
    }
    let mut scenario = model.scenarios[0].clone();
    scenario.gpu_model = "H100-SXM5-80GB".to_owned();
    model.scenarios.push(scenario);
    let answer = recommend(&model, &Request { top: 100, ..request(Some(32.0)) }).unwrap();
    assert_eq!(answer.ranked[0].gpu_model, "H100-SXM5-80GB");
    assert!(answer.ranked.iter().any(|c| c.gpu_model == GPU));
    let gpu_model = Some(GPU.to_lowercase());
    let narrowed = recommend(&model, &Request { gpu_model, ..request(Some(32.0)) }).unwrap();
    assert!(narrowed.ranked.iter().all(|c| c.gpu_model == GPU));
    assert_eq!(2 * narrowed.feasible, answer.feasible);
}

#[test]
fn an_endless_search_is_refused_and_a_large_one_is_not() {
    let mut model = fixture::model();
    model.laws[0].domain.insert("B".to_owned(), Domain { low: 1.0, high: 1e9 });
    let endless = Request { max_gpus: u32::MAX, ..request(Some(1e9)) };
    let error = recommend(&model, &endless).unwrap_err().to_string();
    assert!(error.contains("at most 5000000"), "{error}");
    // A mean batch, so that any number of replicas may share it.
    let large = Request { max_gpus: 100_000, ..request(Some(100_000.5)) };
    let answer = recommend(&model, &large).unwrap();
    // 100,000 / (t p) replicas of the seven pairs on 2, 4, 8, 2, 4, 8 and 16 GPUs.
    assert_eq!(answer.feasible, 2 * (50_000 + 25_000 + 12_500) + 6_250);
}

#[test]
fn replicas_get_the_same_number_of_sequences() {
    let replicas = |batch: f64| {
        let ask = Request { max_gpus: 16, top: 10_000, ..request(Some(batch)) };
        let answer = recommend(&fixture::model(), &ask).unwrap();
        answer.ranked.iter().map(|c| c.data_parallel).collect::<std::collections::BTreeSet<_>>()
    };
    // Two GPUs at least for each of up to eight.
    for (batch, expected) in [(7.0, vec![1, 7]), (8.0, vec![1, 2, 4, 8]), (4.5, vec![1, 2, 3, 4])] {
        assert_eq!(replicas(batch).into_iter().collect::<Vec<_>>(), expected, "{batch}");
    }
}

#[test]
fn the_table_says_the_answer_first_and_the_data_behind_it_is_json() {
    let limits = vec!["mean_tpot_s=0.05".parse().unwrap()];
    let answer = recommend(&fixture::model(), &Request { limits, ..request(Some(32.0)) }).unwrap();
    let table = answer.to_string();
    let first = table.lines().next().unwrap();
    assert!(first.starts_with("SIMULATED"), "{table}");
    assert!(table.contains("under mean_tpot_s <= 0.05: TP "), "{table}");
    assert!(
        table.contains("fewest GPUs: TP 2 x PP 2 x DP 1, batch 32 on 4 GPUs")
            || table.contains("fewest GPUs: the same choice"),
        "{table}"
    );
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["ranked"][0]["tensor_parallel"], answer.ranked[0].tensor_parallel);
    assert_eq!(json["limits"][0]["quantity"], "mean_tpot_s");
    assert_eq!(json["objective"], "energy_per_token_j");
}

#[test]
fn figures_have_four_digits() {
    for (value, want) in [(0.0, "0"), (32.0, "32"), (0.123_456, "0.1235"), (1234.56, "1235"), (123_456.0, "123456")] {
        assert_eq!(figure(value), want);
    }
    assert_eq!(figure(1.234e9), "1.23e9");
    assert_eq!(figure(1.5e-10), "1.50e-10");
}
