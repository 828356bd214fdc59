//! What computes nothing is checked for its structure: JSON is read back and evaluated here, LaTeX must be balanced.

use std::collections::HashMap;

use energylens::law::export::{ExportError, Language, Selection, export, export_skeleton};
use energylens::law::{Skeleton, Symbol, Target};
use energylens::schema::Phase;
use mlua::{Function, Lua, Table};
use serde_json::Value;

use crate::models::{Asked, World, worlds};
use crate::{Ran, TOLERANCE};

/// Evaluates the file as its own description says: products, parts, powers.
pub(crate) fn json(world: &World, text: &str, asked: &[Asked]) -> Ran {
    let file: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(file["format"], "energylens-law/1");
    assert_eq!(file["open_card"], world.is_open());
    let one = |asked: &Asked| -> Vec<f64> {
        let laws = file["laws"].as_array().expect("laws");
        laws.iter().map(|law| evaluate(law, world, asked)).collect()
    };
    Ok(asked.iter().map(one).collect())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn evaluate(law: &Value, world: &World, asked: &Asked) -> f64 {
    let case = world.case(asked);
    let value = |symbol: &str, m: f64| {
        let symbol = Symbol::ALL.iter().find(|s| s.as_str() == symbol).expect("a known symbol");
        case.with_output(m).value(*symbol)
    };
    let m = asked.output;
    let phase = law["phase"].as_str().map_or(asked.phase.to_string(), str::to_owned);
    let exponents: HashMap<&str, f64> = law["exponents"]
        .as_array()
        .expect("exponents")
        .iter()
        .map(|e| (e["name"].as_str().expect("a name"), number(&e["value"])))
        .collect();
    let mut sum = 0.0;
    for term in law["terms"].as_array().expect("terms") {
        let product = |m: f64| -> f64 {
            let factors = term["product"].as_array().expect("factors").iter();
            factors.map(|f| value(f["symbol"].as_str().expect("a symbol"), m).powf(number(&f["power"]))).product()
        };
        let mut part = match phase.as_str() {
            "total" => product(m),
            "prefill" => product(1.0),
            _ => (product(m) - product(1.0)).max(0.0),
        };
        match law["target"].as_str() {
            Some("energy_j") => part *= case.data_parallel,
            Some("mean_tpot_s") => part /= (m - 1.0).max(1.0),
            _ => {}
        }
        let scaling = term["scaling"].as_object().expect("a scaling").iter();
        let scale: f64 = scaling.map(|(s, name)| value(s, m).powf(exponents[name.as_str().expect("a name")])).product();
        sum += number(&term["coefficient"]) * part * scale;
    }
    sum
}

#[test]
fn latex_is_balanced_and_has_every_parameter() {
    for world in worlds() {
        let text = export(&world.model, &Selection::default(), Language::Latex).expect("an export");
        let code: String = text.lines().filter(|l| !l.starts_with('%')).map(|l| format!("{l}\n")).collect();
        let plain = code.replace("\\{", "").replace("\\}", "");
        let depth = plain.chars().try_fold(0_i32, |depth, c| match c {
            '{' => Some(depth + 1),
            '}' if depth == 0 => None,
            '}' => Some(depth - 1),
            _ => Some(depth),
        });
        assert_eq!(depth, Some(0), "{code}");
        let mut open = Vec::new();
        for part in code.split('\\').filter(|p| p.starts_with("begin{") || p.starts_with("end{")) {
            let name = part.split(['{', '}']).nth(1).expect("a name").to_owned();
            if part.starts_with("begin") {
                open.push(name);
            } else {
                assert_eq!(open.pop(), Some(name), "{code}");
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(code.replace("\\$", "").matches('$').count() % 2, 0);
        assert_eq!(code.matches("\\left").count(), code.matches("\\right").count());
        for row in ["$k_{0}$ & $0.1100 \\pm 0.005500$", "$a_{4}$ & $0.3000$", "\\mathrm{TPOT} ={}"] {
            assert!(code.contains(row), "{row} is not in\n{code}");
        }
    }
}

#[test]
fn a_skeleton_is_a_function_of_its_numbers() {
    let skeleton = Skeleton::default_for(Target::EnergyJ);
    let text = export_skeleton(&skeleton, Language::Lua).expect("an export");
    let lua = Lua::new();
    let law: Table = lua.load(&text).eval().expect("a module");
    let world = worlds().into_iter().find(|w| w.name == "dense").expect("a world");
    let numbers = &world.model.laws[0];
    let call = || -> mlua::Result<f64> {
        let c = lua.create_table_from([("tensor_parallel", 4.0), ("pipeline_parallel", 2.0), ("batch_size", 24.0)])?;
        c.set("input_tokens", 700)?;
        c.set("output_tokens", 90)?;
        let card = lua.create_table_from([("n_layers", 80.0), ("active_params", 69e9), ("weight_bytes", 138e9)])?;
        for (name, value) in [("hidden_size", 8192.0), ("kv_bytes_per_token", 327_680.0), ("num_experts", 0.0)] {
            card.set(name, value)?;
        }
        for (name, value) in [("experts_per_token", 0.0), ("routed_share", 1.0), ("gpu_memory_bytes", 80e9)] {
            card.set(name, value)?;
        }
        card.set("memory_utilisation", 0.87)?;
        card.set("kv_capacity_tokens", lua.create_table()?)?;
        law.get::<Function>("energy_j")?.call((c, card, numbers.coefficient_values(), numbers.exponent_values()))
    };
    let asked = Asked {
        capacity: None,
        model: world.model.scenarios[0].model.clone(),
        tensor: 4,
        pipeline: 2,
        replicas: 1,
        batch: 24.0,
        input: 700.0,
        output: 90.0,
        phase: Phase::Total,
    };
    let (got, want) = (call().expect("a figure"), world.figures(&asked)[0]);
    assert!((got - want).abs() <= TOLERANCE * want, "{got} is not {want}");
    for language in Language::ALL {
        let text = export_skeleton(&skeleton, *language).expect("an export");
        let last = if *language == Language::Latex { r"k_{7}\,L\,m\,w" } else { "launch and host overhead" };
        assert!(text.contains(last), "{language}");
    }
}

#[test]
fn the_first_lines_say_where_it_came_from() {
    let mut world = worlds().remove(0);
    for law in &mut world.model.laws {
        law.simulated = true;
    }
    for language in Language::ALL {
        let text = export(&world.model, &Selection::default(), *language).expect("an export");
        for said in [
            "meta-llama/Llama-2-70b-hf / A100-SXM4-80GB / vllm / bf16",
            "SIMULATED",
            "50 rows (2 more refused), seed 1",
            &"ab".repeat(32),
            "fitted on B 1 to 128",
            "weakly determined: k6",
            "mean_tpot_s: mean time per output token after the first, s",
        ] {
            assert!(text.contains(said), "{language}: {said} is not in\n{text}");
        }
    }
}

#[test]
fn a_selection_is_one_scenario_or_an_error_that_lists_them() {
    let mut world = worlds().remove(0);
    let one = |selection: &Selection, world: &World| export(&world.model, selection, Language::Python);
    let energy = Selection { targets: vec![Target::EnergyJ], ..Selection::default() };
    let text = one(&energy, &world).expect("an export");
    assert!(text.contains("def energy_j") && !text.contains("def duration_s"));
    let mut other = world.model.laws[0].clone();
    other.gpu_model = "H100-SXM5-80GB".to_owned();
    world.model.laws.push(other);
    let mut scenario = world.model.scenarios[0].clone();
    scenario.gpu_model = "H100-SXM5-80GB".to_owned();
    world.model.scenarios.push(scenario);
    let named = |text: &str| Selection { scenario: Some(text.to_owned()), ..Selection::default() };
    let said = |selection: &Selection| one(selection, &world).expect_err("an error").to_string();
    assert!(said(&Selection::default()).contains("has 2 scenarios") && said(&Selection::default()).contains("H100"));
    assert!(said(&named("MI300X")).contains("no scenario is called `MI300X`; the model file has meta-llama"));
    assert!(one(&named("h100"), &world).is_ok());
    let missing = Selection { targets: vec![Target::MeanTpotS], ..named("h100") };
    assert!(said(&missing).contains("has no law of mean_tpot_s; it has energy_j"), "{}", said(&missing));
    let stranger = Selection { model: Some("gpt-5".to_owned()), ..named("h100") };
    assert!(said(&stranger).contains("no card of `gpt-5`"));
    assert!(said(&Selection { scenario: None, ..stranger }).contains("--scenario"));
}

#[test]
fn a_pooled_law_takes_a_card_or_has_one_put_in() {
    let world = worlds().into_iter().find(|w| w.is_open()).expect("a pooled world");
    let put_in = |name: &str| {
        let selection = Selection { model: Some(name.to_owned()), ..Selection::default() };
        export(&world.model, &selection, Language::Python).expect("an export")
    };
    let last = &world.model.scenarios.last().expect("scenarios").model;
    assert!(put_in(last).contains("\nCARD = {"));
    // Never fitted, but in the built-in table: 8.03 billion parameters of two bytes.
    assert!(put_in("meta-llama/Llama-3.1-8B").contains("\"n_layers\": 32.0"));
    let open = export(&world.model, &Selection::default(), Language::Python).expect("an export");
    assert_eq!(open.matches("\nCARDS[").count(), 3);
}

#[test]
fn what_is_no_number_is_refused() {
    let mut world = worlds().remove(0);
    world.model.laws[0].coefficients[3].value = f64::NAN;
    let error = export(&world.model, &Selection::default(), Language::C).expect_err("an error");
    assert!(matches!(error, ExportError::NotFinite { .. }) && error.to_string().contains("k3 is NaN"), "{error}");
}
