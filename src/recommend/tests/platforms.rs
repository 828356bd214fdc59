//! Several platforms in one answer, and what their laws do not know.

use super::super::fixture::{self, MODEL};
use super::super::*;
use super::request;
use crate::law::{Domain, Model, Target, Verdict};

/// The fixture on further platforms: engine, precision, and what their energies and times are times those of the first.
fn model_on(others: &[(&str, &str, f64)]) -> Model {
    let mut model = fixture::model();
    for (engine, precision, factor) in others {
        for target in [Target::EnergyJ, Target::MeanTpotS] {
            let mut law = fixture::law(target);
            law.coefficients.iter_mut().for_each(|c| c.value *= factor);
            (law.engine, law.precision) = (Some((*engine).to_owned()), Some((*precision).to_owned()));
            model.laws.push(law);
        }
        let mut scenario = model.scenarios[0].clone();
        (scenario.engine, scenario.precision) = (Some((*engine).to_owned()), Some((*precision).to_owned()));
        model.scenarios.push(scenario);
    }
    model
}

/// One line, however it was broken.
fn unbroken(text: &str) -> String {
    text.replace("\n  ", " ")
}

#[test]
fn precisions_that_compete_are_named_everywhere() {
    let model = model_on(&[("vllm", "fp8", 0.97)]);
    let answer = recommend(&model, &Request { top: 6, ..request(None) }).unwrap();
    assert_eq!(answer.varies, Varies { gpu_model: false, engine: false, precision: true });
    let table = unbroken(&answer.table());
    let best = &answer.ranked[0];
    assert!(table.contains(&format!("on {} x {} (fp8) needs", best.num_gpus, fixture::GPU)), "{table}");
    let broken = answer.table();
    let rows: Vec<&str> = broken.lines().filter(|l| l.ends_with("fp8") || l.ends_with("bf16")).collect();
    assert!(rows.len() >= 6 && rows.iter().any(|r| r.ends_with("  bf16")), "{table}");
    assert!(broken.lines().any(|l| l.ends_with("  precision")), "{table}");
    let notes = || table.lines().filter(|l| l.contains(": as good with"));
    assert!(notes().count() > 0 && notes().all(|l| l.contains("(fp8): as") || l.contains("(bf16): as")), "{table}");
    let rule = answer.alternatives.iter().find(|a| !a.same_as_best).unwrap().to_string();
    assert!(rule.contains("(fp8)") || rule.contains("(bf16)"), "{rule}");
    let labels: std::collections::BTreeSet<_> = answer.ranked.iter().map(Candidate::label).collect();
    assert_eq!(labels.len(), answer.ranked.len());
    // Short names find room in the lines of a terminal.
    let prices = Prices { price_per_kwh: Some(Rate::constant(0.2)), pue: 1.25, ..Prices::default() };
    for others in [[("vllm", "fp8", 0.97)], [("llama.cpp", "bf16", 0.97)]] {
        let ask = Request { prices, objective: Objective::Cost, ..request(None) };
        let text = recommend(&model_on(&others), &ask).unwrap().table();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}\n{text}");
        }
    }
    // Where there is one platform only, nobody is told what it is.
    let alone = recommend(&fixture::model(), &request(None)).unwrap();
    assert!(alone.varies.is_nothing() && !alone.table().contains("bf16"), "{alone}");
}

#[test]
fn a_limit_that_leaves_out_one_precision_names_it() {
    let model = model_on(&[("vllm", "fp8", 0.5)]);
    let limits = vec!["mean_tpot_s=0.0001".parse().unwrap()];
    let error = recommend(&model, &Request { limits, ..request(Some(32.0)) }).unwrap_err().to_string();
    assert!(error.contains("batch 32 (fp8)"), "{error}");
}

#[test]
fn a_sweep_tells_precisions_apart() {
    let next = measure_next(&model_on(&[("vllm", "fp8", 1.0)]), &request(Some(32.0)), 6).unwrap();
    let named: Vec<_> = next.points.iter().filter_map(|p| p.precision.as_deref()).collect();
    assert!(named.contains(&"fp8") && named.contains(&"bf16"), "{named:?}");
    assert!(next.sweep.contains("precision = el.choice { \"bf16\", \"fp8\" }"), "{}", next.sweep);
    let keys: std::collections::BTreeSet<_> = next.sweep.lines().filter(|l| l.contains("] = true")).collect();
    assert_eq!(keys.len(), 6, "{}", next.sweep);
    assert!(next.points.iter().all(|p| p.in_sweep) && next.notes.is_empty());
    assert!(next.sweep.contains("\"%s %s %d %d %d %d\", p.gpu_model, p.precision,"), "{}", next.sweep);
}

#[test]
fn a_sweep_has_one_engine_and_says_what_that_leaves_out() {
    // One choice of degrees for each engine, so that two of three points are vLLM's.
    let model = model_on(&[("vllm", "fp8", 1.0), ("sglang", "bf16\nreturn 1", 1.0)]);
    let mut model = model;
    model.laws.iter_mut().for_each(|law| law.simulated = false);
    let limits = vec!["tensor_parallel=4".parse().unwrap(), "pipeline_parallel=1".parse().unwrap()];
    let ask = Request { limits, max_gpus: 4, ..request(Some(32.0)) };
    let next = measure_next(&model, &ask, 3).unwrap();
    let engines: Vec<_> = next.points.iter().map(|p| (p.engine.as_deref().unwrap_or(""), p.in_sweep)).collect();
    assert!(engines.contains(&("sglang", false)), "{engines:?}");
    assert_eq!(engines.iter().filter(|(engine, kept)| *engine == "vllm" && *kept).count(), 2, "{engines:?}");
    let [note] = next.notes.as_slice() else { panic!("{:?}", next.notes) };
    let said =
        "TP 4 x PP 1 x DP 1, batch 32 on A100-SXM4-80GB with sglang; a sweep has one engine, and this one has vllm";
    assert!(note.contains(said), "{note}");
    assert!(next.sweep.contains(&format!("-- {note}")) && next.sweep.contains("el.vllm"), "{}", next.sweep);
    assert!(!next.sweep.contains("\nreturn 1"), "{}", next.sweep);
    // A precision without a name is measured by itself, and that is said.
    let mut awq = fixture::model();
    awq.laws.iter_mut().for_each(|law| law.precision = Some("AWQ".to_owned()));
    awq.scenarios[0].precision = Some("AWQ".to_owned());
    let next = measure_next(&awq, &request(Some(32.0)), 2).unwrap();
    assert!(!next.sweep.contains("precision ="), "{}", next.sweep);
    assert!(next.notes[0].contains("measured in awq, which no sweep can name"), "{:?}", next.notes);
}

#[test]
fn a_platform_without_the_limited_law_is_named() {
    let mut model = model_on(&[("sglang", "bf16", 0.5)]);
    let sglang = |law: &crate::law::Law| law.engine.as_deref() == Some("sglang");
    model.laws.retain(|law| !(sglang(law) && law.skeleton.target == Target::MeanTpotS));
    let limits = vec!["mean_tpot_s=1".parse().unwrap()];
    let answer = recommend(&model, &Request { limits, ..request(None) }).unwrap();
    assert!(answer.ranked.iter().all(|c| c.engine.as_deref() == Some("vllm")));
    let expected =
        "left out: sglang: the model has no law of mean_tpot_s for it, so that limit mean_tpot_s <= 1 cannot";
    assert!(unbroken(&answer.table()).contains(expected), "{answer}");
    // Without the limit it is the better one.
    let free = recommend(&model, &request(None)).unwrap();
    assert_eq!(free.ranked[0].engine.as_deref(), Some("sglang"));
    assert!(free.not_judged.is_empty());
}

#[test]
fn a_law_of_times_is_not_asked_outside_of_its_range_without_a_word() {
    let mut model = fixture::model();
    let tpot = model.laws.iter_mut().find(|law| law.skeleton.target == Target::MeanTpotS).unwrap();
    tpot.domain.insert("m".to_owned(), Domain { low: 17.0, high: 500.0 });
    tpot.domain.insert("t".to_owned(), Domain { low: 1.0, high: 4.0 });
    tpot.verdicts = vec![
        Verdict::TooFewRows { rows: 5, parameters: 12 },
        Verdict::Unidentified { parameters: vec!["k1".to_owned(), "k3".to_owned()], why: "so it is".to_owned() },
    ];
    let held = tpot.coefficients.iter_mut().find(|c| c.name == "k1").unwrap();
    held.value = 1e-30;
    let limits = vec!["mean_tpot_s=1".parse().unwrap()];
    let ask = Request { output_tokens: 4.0, limits, top: 500, ..request(None) };
    let answer = recommend(&model, &ask).unwrap();
    assert!(answer.ranked.iter().all(|c| c.tensor_parallel <= 4), "TP 8 cannot be judged");
    assert!(answer.outside.iter().any(|c| c.tensor_parallel == 8));
    let text = unbroken(&answer.table());
    let warning = "warning: the first lies outside the range of the law of mean_tpot_s: m = 4 is below 17; that figure";
    assert!(text.find(warning).unwrap() < text.find("P(best)").unwrap(), "{text}");
    assert!(text.contains("m = 4 is below 17 in the law of mean_tpot_s"), "{text}");
    assert_eq!(text.matches("TOO FEW ROWS").count(), 1, "{text}");
    assert!(text.contains("the law of mean_tpot_s: TOO FEW ROWS: 5 rows for 12 parameters"), "{text}");
    // Only what moves the first is said to be unknown: k1 is nothing here.
    assert!(text.contains("the law of mean_tpot_s: UNIDENTIFIED: k3: so it is"), "{text}");
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["ranked"][0]["outside_by_law"][0]["law"], "mean_tpot_s");
    // Nobody asks the law for a limit: the degrees that it was not fitted on are ranked again.
    let free = recommend(&model, &Request { limits: Vec::new(), ..ask }).unwrap();
    assert!(free.ranked.iter().any(|c| c.tensor_parallel == 8));
}

#[test]
fn what_laws_of_several_platforms_share_is_said_once_with_their_names() {
    let mut model = model_on(&[("vllm", "fp8", 1.1), ("sglang", "bf16", 1.2)]);
    for law in &mut model.laws {
        law.verdicts = vec![Verdict::TooFewRows { rows: 6, parameters: 12 }];
    }
    let warnings = recommend(&model, &request(None)).unwrap().warnings;
    let few: Vec<_> = warnings.iter().filter(|w| w.contains("TOO FEW ROWS")).collect();
    let expected = "the laws of energy_j and mean_tpot_s (vllm, bf16; vllm, fp8; sglang, bf16): TOO FEW ROWS: 6 rows";
    assert!(few.len() == 1 && few[0].starts_with(expected), "{few:?}");
}

#[test]
fn a_smaller_memory_than_the_measured_one_counts() {
    let mut model = fixture::model();
    model.scenarios[0].memory_utilisation = Some(0.9);
    // 2 x 80e9 x 0.9 - 138e9 = 6e9 bytes, and so on.
    let tokens = |gpus: f64| (gpus * 72e9 - 138e9) / 327_680.0;
    model.scenarios[0].kv_capacity_tokens =
        vec![(2, 1, tokens(2.0)), (4, 1, tokens(4.0)), (8, 1, tokens(8.0)), (1, 2, tokens(2.0))];
    let ask = |gpu_memory_bytes: Option<f64>| Request {
        card: CardColumns { gpu_memory_bytes, ..CardColumns::default() },
        top: 500,
        ..request(Some(32.0))
    };
    let tiny = recommend(&model, &ask(Some(1e9))).unwrap_err().to_string();
    assert!(tiny.contains("by memory") && tiny.contains("none of"), "{tiny}");
    // Four GPUs of 40 GB have 144e9 for 138.4e9, two have not.
    let small = recommend(&model, &ask(Some(40e9))).unwrap();
    assert!(small.ranked.iter().all(|c| c.tensor_parallel * c.pipeline_parallel >= 4));
    let own = recommend(&model, &ask(None)).unwrap();
    assert!(own.ranked.iter().any(|c| c.tensor_parallel * c.pipeline_parallel == 2));
    assert_eq!(recommend(&model, &ask(Some(80e9))).unwrap().ranked, own.ranked);
    // What queues for the cache costs more: 18,311 tokens for 32 x 1280.
    let at = |answer: &Recommendation| {
        let four = answer.ranked.iter().find(|c| (c.tensor_parallel, c.data_parallel) == (4, 1)).unwrap();
        four.mean_tpot_s.unwrap().value
    };
    assert_ne!(at(&small), at(&own));
}

#[test]
fn columns_that_contradict_the_fitted_model_are_said_to_be_unused() {
    let card = CardColumns { n_layers: Some(80.0), kv_bytes_per_token: Some(1.0), ..CardColumns::default() };
    let warned = |card| recommend(&fixture::model(), &Request { card, ..request(None) }).unwrap().warnings.join("\n");
    let said = warned(card.clone());
    assert!(
        said.contains(&format!("kv_bytes_per_token of the workload contradict what was fitted of {MODEL}")),
        "{said}"
    );
    assert!(!said.contains("n_layers"), "{said}");
    let agreeing = CardColumns { kv_bytes_per_token: Some(327_680.0), ..card };
    assert!(!warned(agreeing).contains("contradict"));
    let other_weights = CardColumns { params: Some(7e9), ..CardColumns::default() };
    assert!(warned(other_weights).contains("params of the workload"));
}
