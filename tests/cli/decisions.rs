//! From a model file to a decision: exports, traces, bills, and a sweep of what to measure next.

use crate::support::desk::Desk;
use crate::support::known_law::{CARDS, csv, measured_grid, unseen_grid};

const WORKLOAD: &str = "--workload input_tokens=512,output_tokens=128";

fn fitted() -> Desk {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    desk.type_in("fit rows.csv -o model.json --no-held-out").done();
    desk
}

#[test]
fn what_to_measure_next_is_a_sweep_that_can_be_planned() {
    let desk = fitted();
    let ran = desk.type_in(&format!("recommend model.json {WORKLOAD} --next 3 -o next.lua --json")).done();
    let next = ran.json()["next"].clone();
    let points = next["points"].as_array().cloned().unwrap_or_default();
    assert_eq!(points.len(), 3, "{next}");
    let plan = desk.type_in("plan next.lua --json").done().json();
    let planned = plan["points"].as_array().cloned().unwrap_or_default();
    assert_eq!(planned.len(), 3, "{plan}");
    for point in points {
        let same = |planned: &&serde_json::Value| {
            ["tensor_parallel", "pipeline_parallel", "data_parallel", "batch_size"]
                .iter()
                .all(|k| planned[k] == point[k])
        };
        assert!(planned.iter().any(|p| same(&p)), "{point} is not in {planned:?}");
    }
    assert!(desk.text("next.lua").contains("workload = el.vllm {"), "the rows were measured with vLLM");
    desk.type_in(&format!("recommend model.json {WORKLOAD} --next 2")).done().prints("-o FILE writes them as a sweep");
    desk.type_in(&format!("recommend model.json {WORKLOAD} -o next.lua")).ends_with(2);
}

#[test]
fn a_sweep_of_an_engine_that_nobody_described_is_planned_and_not_run() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1).replace(",vllm,", ",house,"));
    desk.type_in("fit rows.csv -o model.json --no-held-out").done();
    desk.type_in(&format!("recommend model.json {WORKLOAD} --next 2 -o next.lua")).done();
    assert!(desk.text("next.lua").contains("-- FILL IN: the rows were measured with house"));
    desk.type_in("plan next.lua").done().prints("workload house");
    for line in ["run next.lua -o measured", "submit next.lua -o measured --dry-run"] {
        desk.type_in(line).ends_with(1).remarks("put the workload of house in the place of `el.fill_in`");
    }
    assert!(!desk.path("measured").exists(), "nothing is begun");
}

#[test]
fn a_sweep_of_what_to_measure_next_holds_every_precision() {
    let desk = Desk::new();
    let rows = csv(&measured_grid(&CARDS[1..2]), 0.02, 1);
    let (head, body) = rows.split_once('\n').unwrap_or_default();
    desk.put("rows.csv", format!("{head}\n{body}{}", body.replace(",bf16,", ",fp8,").replace("\nr", "\nq")));
    desk.type_in("fit rows.csv -o model.json --no-held-out").done();
    // Alike in all but the name: each configuration is as doubtful in both.
    let asked = format!("recommend model.json {WORKLOAD} --next 4 -o next.lua");
    let next = desk.type_in(&format!("{asked} --json")).done().json()["next"].clone();
    let precision = |point: &serde_json::Value| point["precision"].as_str().unwrap_or("none").to_owned();
    let mut named: Vec<String> = next["points"].as_array().unwrap_or(&Vec::new()).iter().map(precision).collect();
    let plan = desk.type_in("plan next.lua --json").done().json();
    let mut planned: Vec<String> = plan["points"].as_array().unwrap_or(&Vec::new()).iter().map(precision).collect();
    (named.sort(), planned.sort());
    assert_eq!(named.len(), 4);
    assert!(named.contains(&"fp8".to_owned()) && named.contains(&"bf16".to_owned()), "{next}");
    assert_eq!(named, planned, "{plan}");
    desk.type_in("plan next.lua").done().prints("  fp8").prints("  bf16");
    desk.type_in(&asked).done().prints("(fp8)").prints("(bf16)").prints("GPU             precision");
}

#[test]
fn a_memory_that_holds_nothing_is_not_recommended() {
    let desk = Desk::new();
    let rows = csv(&measured_grid(&CARDS[1..2]), 0.02, 1);
    // As an engine reports it: every row says how many tokens its cache held.
    let with_capacity = |(i, line): (usize, &str)| match i {
        0 => format!("{line},kv_capacity_tokens\n"),
        _ => format!("{line},150000\n"),
    };
    desk.put("rows.csv", rows.lines().enumerate().map(with_capacity).collect::<String>());
    desk.type_in("fit rows.csv -o model.json --no-held-out").done();
    desk.type_in(&format!("recommend model.json {WORKLOAD}")).done();
    let small = desk.type_in(&format!("recommend model.json {WORKLOAD},gpu_memory_bytes=1e8"));
    small.ends_with(1).remarks("by memory (weights and one sequence of KV cache)");
    let head = "model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,output_tokens,engine,precision,gpu_memory_bytes";
    let row = format!("{},A100-SXM4-80GB,1,1,1,8,512,128,vllm,bf16", CARDS[1].model);
    desk.put("c.csv", format!("{head}\n{row},80e9\n{row},1e8\n"));
    let predicted = desk.type_in("predict model.json c.csv --json").done().json();
    let outside = |i: usize| predicted[i]["outside"].to_string();
    assert!(!outside(0).contains("its GPUs offer"), "{predicted}");
    assert!(outside(1).contains("weights and one sequence need"), "{predicted}");
}

#[test]
fn a_trace_at_a_rate_has_a_bill() {
    let desk = fitted();
    desk.put("trace.csv", "arrival_s,input_tokens,output_tokens\n0,512,128\n2,1000,64\n4,512,200\n");
    desk.put("grid.csv", "time,value\n2026-03-01T00:00:00Z,300\n2026-03-01T12:00:00Z,100\n");
    let line = "recommend model.json --trace trace.csv --price-per-kwh 0.3 --carbon-g-per-kwh grid.csv --pue 1.5";
    let json = desk.type_in(&format!("{line} --json")).done().json();
    assert_eq!(json["arrival_rate"], 0.5);
    assert_eq!(json["requests_per_day"], 43_200.0);
    assert_eq!(json["prices"]["carbon_g_per_kwh"]["mean"], 200.0);
    let day = &json["ranked"][0]["per_day"];
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    let kwh = number(&day["energy_kwh"]["value"]);
    let by_hand = number(&json["ranked"][0]["energy_per_request_j"]["value"]) * 43_200.0 * 1.5 / 3.6e6;
    assert!((kwh / by_hand - 1.0).abs() < 1e-9);
    assert!((number(&day["cost"]["value"]) / (0.3 * kwh) - 1.0).abs() < 1e-9);
    assert!((number(&day["carbon_kg"]["value"]) / (0.2 * kwh) - 1.0).abs() < 1e-9);
    let said = desk.type_in(line).done();
    said.prints("43200 requests come in").prints("PUE 1.5").prints("least latency: ").prints("more");
}

#[test]
fn a_report_says_what_recommend_says() {
    let desk = fitted();
    desk.put("trace.csv", "arrival_s,input_tokens,output_tokens\n0,512,128\n2,1000,64\n4,512,200\n");
    desk.put("grid.csv", "time,value\n2026-03-01T00:00:00Z,300\n2026-03-01T12:00:00Z,100\n");
    let asked = "--trace trace.csv --price-per-kwh 0.3 --carbon-g-per-kwh grid.csv --price-per-gpu-hour 2 --pue 1.5 \
                 --max-gpus 4 --objective cost_per_request --next 2";
    desk.type_in(&format!("report rows.csv --model model.json -o r.html {asked}")).done();
    let page = desk.text("r.html");
    for expected in [
        "requests coming in</dt><dd>0.5 per second",
        "price of a kWh</dt><dd>0.3",
        "200 (mean of 100 to 300) g CO2",
        "(PUE)</dt><dd>1.5",
        "requests a day</dt><dd>43200",
        "energy a day, at the meter",
        "money a day",
        "carbon a day",
        "money</th>",
        "what they waste in a day",
        "fewest GPUs</td>",
        "kg CO2 a day</th>",
        "To measure: ",
        "expected saving</th>",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    desk.type_in("report rows.csv -o r.html --pue 1.2").ends_with(1).remarks("--pue is about a recommendation");
    // The chance stands beside what is made small, not behind a table's edge.
    assert!(page.contains("<th scope=\"col\" class=\"n\">money</th><th scope=\"col\" class=\"n\">P(best)</th>"));
    let mut lawless: serde_json::Value = serde_json::from_str(&desk.text("model.json")).expect("JSON");
    lawless["laws"] = serde_json::json!([]);
    desk.put("lawless.json", lawless.to_string());
    desk.type_in("report rows.csv --model lawless.json -o none.html").ends_with(1).remarks("lawless.json has no law");
    assert!(!desk.path("none.html").exists());
    desk.put("unseen.csv", csv(&unseen_grid(&CARDS[1..2]), 0.02, 2));
    desk.type_in("report rows.csv --unseen unseen.csv --learning-curve 10 -o r.html").done();
    assert!(desk.text("r.html").contains("workloads of a campaign of their own"));
}

#[test]
fn wrong_traces_and_prices_are_named() {
    let desk = fitted();
    desk.put("bad.csv", "input_tokens,output_tokens\n512,128\n512,none at all\n");
    desk.put("odd.csv", "prompt,answer\n512,128\n");
    for (line, code, said) in [
        ("recommend model.json --trace bad.csv", 1, "row 2, column output_tokens: expected tokens"),
        ("recommend model.json --trace odd.csv", 1, "it lacks the column input_tokens"),
        ("recommend model.json --trace no-such.csv", 1, "trace no-such.csv"),
        ("recommend model.json", 2, "--workload"),
        ("recommend model.json --trace bad.csv --arrival-rate 0", 2, "expected a number above 0, found `0`"),
        ("recommend model.json --trace bad.csv --pue 0.5", 2, "expected a number from 1"),
        ("recommend model.json --trace bad.csv --price-per-kwh cheap", 2, "`cheap` is no rate"),
        ("export model.json --to pyton", 2, "did you mean `python`?"),
        ("export model.json --to fortran", 2, "expected one of python, rust, c, lua, sql, latex, json"),
        ("export model.json --to c --scenario H100", 1, "no scenario is called `H100`"),
        ("export rows.csv --to c", 1, "rows.csv is no energylens model"),
        ("export model.json --to c -o model.json", 1, "it is what is read"),
    ] {
        desk.type_in(line).ends_with(code).remarks(said);
    }
    desk.type_in(&format!("recommend model.json {WORKLOAD} --objective cost_per_request"))
        .ends_with(1)
        .remarks("cost_per_request needs a price");
}

#[test]
fn a_law_is_written_as_code() {
    let desk = fitted();
    desk.type_in("export model.json --to python -o law.py").done();
    assert!(desk.text("law.py").contains("def energy_j(") && desk.text("law.py").contains("lab/dense-8b"));
    desk.type_in("export model.json --to sql --target energy_j").done().prints(") AS energy_j");
    desk.type_in("laws energylens --as rust").done().prints("pub fn energy_j(");
    desk.type_in("laws --as rust").ends_with(2);
}
