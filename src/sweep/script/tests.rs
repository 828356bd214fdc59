mod sandbox;
mod strict;

use std::path::Path;

use proptest::prelude::*;

use crate::sweep::{Design, Plan};

const HEAD: &str = r#"local el = require "energylens"
"#;

/// A sweep of one line per field; `changes` replace or add fields.
fn sweep(changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("name", "\"test\""),
        (
            "axes",
            "{ model = \"llama-2-7b\", gpu_model = \"a100-80gb\", tensor_parallel = el.choice { 1, 2 },\n\
                   batch_size = el.geometric { 1, 64 }, input_tokens = 512, output_tokens = 128 }",
        ),
        ("design", "el.factorial {}"),
        ("workload", "el.simulated { gpus = 8 }"),
    ];
    for (name, value) in changes {
        match fields.iter_mut().find(|f| f.0 == *name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    let lines: Vec<String> =
        fields.iter().filter(|f| f.1 != "nil").map(|(name, value)| format!("  {name} = {value},\n")).collect();
    format!("{HEAD}return el.sweep {{\n{}}}\n", lines.concat())
}

fn plan(source: &str) -> Result<Plan, String> {
    Plan::from_source("t.lua", source, Path::new("."), &mut |_| ()).map_err(|e| e.to_string())
}

#[test]
fn a_small_grid_is_laid_out_in_full() {
    let plan = plan(&sweep(&[])).unwrap();
    assert_eq!(plan.points.len(), 2 * 7);
    assert_eq!(plan.runs.len(), 14);
    let batches: Vec<u32> = plan.points.iter().take(7).map(|p| p.batch_size).collect();
    assert_eq!(batches, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(plan.points[0].model.model, "meta-llama/Llama-2-7b-hf");
    assert_eq!(plan.points[0].precision, "bf16");
}

#[test]
fn mistakes_are_errors_that_name_the_place_and_the_cure() {
    let axes = |more: &str| {
        format!(
            "{{ model = \"llama-2-7b\", gpu_model = \"a100\",\n batch_size = 1, input_tokens = 1, output_tokens = 1,\n {more} }}"
        )
    };
    let cases: Vec<(String, &str)> = vec![
        (sweep(&[("sed", "1")]), "t.lua:8: el.sweep has no field `sed`; did you mean `seed`?"),
        (
            sweep(&[("axes", &axes("tensor_paralel = 2"))]),
            "t.lua:6: axes has no axis `tensor_paralel`; did you mean `tensor_parallel`?",
        ),
        (
            sweep(&[("measure", "{ min_window = 2 }")]),
            "t.lua:8: measure has no option `min_window`; did you mean `min_window_s`?",
        ),
        (
            sweep(&[("design", "el.latin_hypercub { points = 5 }")]),
            "t.lua:6: energylens has no function `latin_hypercub`; did you mean `latin_hypercube`?",
        ),
        (
            sweep(&[("design", "el.latin_hypercube { point = 5 }")]),
            "t.lua:6: el.latin_hypercube has no option `point`; did you mean `points`?",
        ),
        (
            sweep(&[("design", "el.latin_hypercube {}")]),
            "t.lua:6: el.latin_hypercube needs `points`: a whole number from 1 to 1000000",
        ),
        (
            sweep(&[("axes", &axes("data_parallel = {1, 2}"))]),
            "t.lua:6: axis `data_parallel` has a table; expected a whole number from 1 to 100000000; for several values write el.choice { ... }",
        ),
        (
            sweep(&[("axes", "{ model = \"lama-2-7b\" }")]),
            "t.lua:4: model `lama-2-7b` is not built in; did you mean `meta-llama/Llama-2-7b-hf`?",
        ),
        (
            sweep(&[("name", "\"../x\"")]),
            "t.lua:3: `name` is `../x`; expected 1 to 64 letters, digits, `-`, `_` or `.`, since a directory is named after it",
        ),
        (sweep(&[("name", "nil")]), "t.lua:2: el.sweep needs `name`: a text"),
        (sweep(&[("repeats", "0")]), "t.lua:8: `repeats` is 0; expected a whole number from 1 to 1000"),
        (sweep(&[("where", "true")]), "t.lua:8: `where` is true; expected a function"),
        (sweep(&[("where", "function(p) return p.tp > 1 end")]), "t.lua:8: a point has no field `tp`"),
        (
            sweep(&[("where", "function(p) local x = p.num_gpus > 1 end")]),
            "t.lua:8: `where` returns nil; it must return true or false",
        ),
        (format!("{HEAD}x = 1"), "t.lua:2: `x` is assigned as a global; write `local` before it"),
        (format!("{HEAD}return els.sweep {{}}"), "t.lua:2: no global is called `els`"),
        (
            "os.execute('true')".into(),
            "t.lua:1: `os` does not exist here: evaluating a sweep has no side effects; its `workload` says what is run",
        ),
        ("require 'socket'".into(), "t.lua:1: require `socket`: a sweep may only require \"energylens\""),
        (format!("{HEAD}el.sweep = nil"), "t.lua:2: `sweep` is assigned, but energylens cannot be changed"),
        (format!("{HEAD}\n"), "t.lua:2: the script returns nil; end it with `return el.sweep { ... }`"),
        (format!("{HEAD}return nil + 1"), "t.lua:2: attempt to perform arithmetic on a nil value"),
        ("return (".into(), "t.lua:1: unexpected symbol near <eof>"),
        (
            format!("{HEAD}return el.geometric {{ 64, 1 }}"),
            "t.lua:2: el.geometric goes from 64 to 1; expected the smaller end first",
        ),
        (format!("{HEAD}return el.geometric {{ 1, 2, 3 }}"), "t.lua:2: el.geometric takes 2 values; found one at 3"),
    ];
    for (source, expected) in cases {
        assert_eq!(plan(&source).unwrap_err(), expected, "\n{source}");
    }
}

#[test]
fn a_design_is_read_with_its_share() {
    let source = sweep(&[("design", "el.latin_hypercube { points = 5, prefill_share = 0.2 }")]);
    let script = super::Script::evaluate("t.lua", &source, Path::new("."), &mut |_| ()).unwrap();
    assert_eq!(script.sweep().design, Design::LatinHypercube { points: 5, prefill_share: 0.2 });
}

#[test]
fn what_a_script_prints_is_heard_even_if_it_fails() {
    let mut lines = Vec::new();
    let source = "print('a', 1, nil, true, {}) error('no')";
    let result = Plan::from_source("t.lua", source, Path::new("."), &mut |line| lines.push(line.to_owned()));
    assert!(result.is_err());
    assert_eq!(lines, ["a\t1\tnil\ttrue\ttable"]);
}

#[test]
fn cards_come_from_tables_and_from_files_beside_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "intermediate_size": 128, "vocab_size": 100}"#;
    std::fs::create_dir(dir.path().join("tiny")).unwrap();
    std::fs::write(dir.path().join("tiny/config.json"), config).unwrap();
    let axes = "{ model = el.choice { el.card_from 'tiny', el.card_from { 'tiny/config.json', name = 'me/tiny' },\n\
                { model = 'mine', params = 1e9, n_layers = 8, hidden_size = 512, kv_bytes_per_token = 4096 } },\n\
                gpu_model = { gpu_model = 'toy', vendor = 'amd', memory_bytes = 16e9, peak_flops = 1e14,\n\
                memory_bandwidth_bytes_per_s = 1e12, link_bandwidth_bytes_per_s = 1e11, power_limit_w = 300, idle_power_w = 30 },\n\
                batch_size = 1, input_tokens = 8, output_tokens = 8 }";
    let read = |axes: &str| {
        Plan::from_source("t.lua", &sweep(&[("axes", axes)]), dir.path(), &mut |_| ()).map_err(|e| e.to_string())
    };
    let plan = read(axes).unwrap();
    let names: Vec<_> = plan.points.iter().map(|p| p.model.model.as_str()).collect();
    assert_eq!(names, ["me/tiny", "mine", "tiny"]);
    assert_eq!(plan.points[0].gpu.gpu_model, "toy");
    let wrong = read(&axes.replace("n_layers", "layers")).unwrap_err();
    assert!(wrong.contains("model card has no field `layers`; did you mean `n_layers`?"), "{wrong}");
    let lacking = read(&axes.replace("n_layers = 8,", "")).unwrap_err();
    assert!(lacking.contains("model card needs `n_layers`"), "{lacking}");
    let missing = read(&axes.replace("'tiny'", "'none'")).unwrap_err();
    assert!(missing.starts_with("t.lua:4: model configuration") && missing.contains("cannot be read"), "{missing}");
}

/// Words from which random scripts are made: enough to reach every function with wrong arguments.
const TOKENS: [&str; 56] = [
    "local",
    "x",
    "=",
    "el",
    ".",
    "sweep",
    "{",
    "}",
    "(",
    ")",
    "choice",
    "geometric",
    "linear",
    "1",
    "64",
    ",",
    "name",
    "'a'",
    "axes",
    "model",
    "'llama-2-7b'",
    "gpu_model",
    "'a100'",
    "design",
    "el.factorial {}",
    "workload",
    "el.simulated {}",
    "return",
    "function(p)",
    "end",
    "nil",
    "true",
    "0/0",
    "-1",
    "1e400",
    "..",
    "#",
    "for i = 1, 3 do",
    "if x then",
    "el.latin_hypercube",
    "points",
    "prefill_share",
    "0.5",
    "el.card_from",
    "string",
    "rep",
    "table",
    "where",
    "p.batch_size",
    "<",
    "2^53",
    "tensor_parallel",
    "batch_size = 1, input_tokens = 2, output_tokens = 3",
    "measure",
    "error",
    "\n",
];

proptest! {
    #[test]
    fn any_soup_of_words_is_a_plan_or_an_error(words in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..40)) {
        let source = format!("{HEAD}{}", words.join(" "));
        if let Err(message) = plan(&source) {
            prop_assert!(!message.is_empty() && !message.contains("panic"), "{source}: {message}");
        }
    }

    #[test]
    fn any_value_in_any_field_is_a_plan_or_an_error(
        field in prop::sample::select(vec!["name", "seed", "repeats", "axes", "where", "design", "measure", "workload"]),
        value in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 1..5),
    ) {
        if let Err(message) = plan(&sweep(&[(field, &value.join(" "))])) {
            prop_assert!(message.starts_with("t.lua:") || !message.is_empty());
        }
    }
}

/// The promise is two seconds in release; the time is printed, not asserted.
#[test]
fn a_hundred_thousand_points_are_planned_through_a_where() {
    let axes = "{ model = el.choice { 'llama-2-7b', 'mixtral-8x7b' }, gpu_model = el.choice { 'a100', 'h100' },\n\
                tensor_parallel = el.choice { 1, 2, 4, 8 }, pipeline_parallel = el.choice { 1, 2 },\n\
                batch_size = el.geometric { 1, 256 }, input_tokens = el.geometric { 32, 8192 },\n\
                output_tokens = el.geometric { 8, 2048 } }";
    let source = sweep(&[
        ("axes", axes),
        ("design", "el.latin_hypercube { points = 100000, prefill_share = 0.1 }"),
        ("where", "function(p) return p.num_gpus > 1 or p.batch_size * p.input_tokens < 1e6 end"),
    ]);
    let begin = std::time::Instant::now();
    let plan = plan(&source).unwrap();
    println!("100,000 points planned in {:?}", begin.elapsed());
    assert_eq!((plan.points.len(), plan.runs.len()), (100_000, 100_000));
}

#[test]
fn the_example_of_the_reference_is_a_plan() {
    let reference = include_str!("../../../docs/lua.md");
    let example: String = reference
        .lines()
        .skip_while(|line| !line.starts_with("    local el"))
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim_start_matches("    ")))
        .collect();
    assert_eq!(plan(&example).unwrap().points.len(), 50, "{example}");
    assert!(reference.contains("`kv_capacity_tokens`"));
}

/// Words of a page's code: what stands between backticks, and lines that are indented.
fn words_of_code(page: &str) -> std::collections::BTreeSet<&str> {
    let code = page.lines().flat_map(|line| match line.strip_prefix("    ") {
        Some(code) => vec![code],
        None => line.split('`').skip(1).step_by(2).collect(),
    });
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect()
}

/// Evaluates a script whose `run` is `body` and calls it; what comes of it is of no interest.
fn call_run(body: &str) {
    let design =
        [("workload", "nil"), ("run", &*format!("function(run) {body} end")), ("engine", "'e'"), ("gpus", "8")];
    let source = sweep(&design);
    let plan = plan(&source).unwrap();
    let script = super::Script::evaluate("t.lua", &source, Path::new("."), &mut |_| ()).unwrap();
    let logs = tempfile::tempdir().unwrap();
    let job = super::Job {
        run: plan.runs[0].clone(),
        point: plan.points[plan.runs[0].point].clone(),
        environment: Vec::new(),
        logs: logs.path().to_owned(),
        stop: std::sync::Arc::default(),
    };
    let _ = script.carry_out(job);
}

#[test]
fn the_page_of_the_api_names_every_function_and_every_key() {
    use mlua::{Function, Lua, Value};

    let page = words_of_code(include_str!("../../../docs/lua.md"));
    let lua = Lua::new();
    let place = super::Place::new("t.lua", HEAD);
    let el = super::api::module(&lua, &place, Path::new(".")).unwrap();
    let mut wanted: Vec<(String, String)> = Vec::new();
    // Each function looks at the keys of its table first of all: what it knows is then noted, whatever it says to none.
    for pair in el.pairs::<String, Function>() {
        let (name, function) = pair.unwrap();
        let _ = function.call::<Value>(lua.create_table().unwrap());
        wanted.push(("el".to_owned(), name));
    }
    let axes = |model: &str, gpu: &str| format!("{{ model = {model}, gpu_model = {gpu}, batch_size = 1 }}");
    for axes in [axes("{}", "'h100'"), axes("'llama-2-7b'", "{}")] {
        let _ = plan(&sweep(&[("axes", &axes)]));
    }
    plan(&sweep(&[("measure", "{}")])).unwrap();
    for body in ["run:spawn {}", "run:exec {}", "run:record {}", "run:spawn { argv = { 'true' } }:wait_ready {}"] {
        call_run(body);
    }
    let seen = super::fields::tests::SEEN.with_borrow(Clone::clone);
    for table in
        ["el.adaptive", "el.sweep", "axes", "measure", "model card", "GPU card", "el.vllm", "server:wait_ready"]
    {
        assert!(seen.iter().any(|(what, _)| *what == table), "the keys of {table} were not looked at");
    }
    wanted.extend(seen.into_iter().map(|(what, key)| (what.to_owned(), key)));
    // What `run` and the tables that it gives are made of.
    let made = include_str!("run.rs").split("raw_set(\"").skip(1).filter_map(|rest| rest.split('"').next());
    wanted.extend(made.map(|name| ("run".to_owned(), name.to_owned())));
    let lists: [(&str, &[&str]); 7] = [
        ("a point", &crate::sweep::template::POINT_NAMES),
        ("where", &crate::sweep::template::CANDIDATE_NAMES),
        ("run:phase", &super::run::PHASES),
        ("a command", &crate::sweep::workload::COMMAND_NAMES),
        ("a server", &crate::sweep::server::SERVER_NAMES),
        ("precision", &crate::sweep::design::PRECISIONS),
        ("slurm", &crate::sweep::SlurmSpec::OWN),
    ];
    let listed =
        lists.iter().flat_map(|(what, names)| names.iter().map(|name| ((*what).to_owned(), (*name).to_owned())));
    wanted.extend(listed);
    assert!(wanted.len() > 120, "{} names", wanted.len());
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(_, key)| !page.contains(key.as_str()))
        .map(|(what, key)| format!("{what}: {key}"))
        .collect();
    assert!(missing.is_empty(), "docs/lua.md does not name\n{}", missing.join("\n"));
}
