use std::path::Path;

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
        ("os.execute('true')".into(), "t.lua:1: `os` does not exist here: evaluating a sweep has no side effects"),
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
