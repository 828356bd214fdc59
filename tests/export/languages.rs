//! Each language runs an exported law over lines of numbers and prints lines of figures.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mlua::{Function, Lua, Table, Value};

use crate::Ran;
use crate::models::{Asked, World};

/// `index tensor pipeline replicas batch input output phase capacity`, a line each; a capacity of 0 is not known.
fn lines(world: &World, asked: &[Asked]) -> String {
    let index = |one: &Asked| world.model.scenarios.iter().position(|s| s.model == one.model).expect("a known model");
    asked.iter().fold(String::new(), |mut text, one| {
        let (i, phase) = (index(one), one.phase);
        let degrees = format!("{} {} {}", one.tensor, one.pipeline, one.replicas);
        let capacity = one.capacity.unwrap_or(0.0);
        writeln!(text, "{i} {degrees} {:?} {:?} {:?} {phase} {capacity:?}", one.batch, one.input, one.output)
            .expect("a string");
        text
    })
}

/// Runs a program and reads its figures.
fn figures_of(program: &Path, arguments: &[&str], input: &str, dir: &Path) -> Ran {
    let output = run_with(program, arguments, input, dir)?;
    assert!(output.status.success(), "{}\n{}", program.display(), String::from_utf8_lossy(&output.stderr));
    Ok(figures(&String::from_utf8(output.stdout).expect("text")))
}

fn run_with(program: &Path, arguments: &[&str], input: &str, dir: &Path) -> Result<Output, String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the program ends");
    feeder.join().expect("a thread").expect("the program reads all");
    Ok(output)
}

/// Figures, one line a configuration.
pub(crate) fn figures(text: &str) -> Vec<Vec<f64>> {
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"));
    text.lines().map(|line| line.split([' ', '|']).map(number).collect()).collect()
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn compiled(program: &str, arguments: &[&str], dir: &Path) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).current_dir(dir).output().map_err(|e| format!("{program}: {e}"))?;
    assert!(output.status.success(), "{program}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The four targets, in the order of the model's laws.
const TARGETS: [&str; 4] = ["energy_j", "duration_s", "mean_ttft_s", "mean_tpot_s"];

pub(crate) fn python(world: &World, text: &str, asked: &[Asked]) -> Ran {
    let dir = scratch();
    put_python(world, text, dir.path());
    figures_of(Path::new("python3"), &["run.py"], &lines(world, asked), dir.path())
}

/// What the exported module raises.
pub(crate) fn python_error(world: &World, text: &str, asked: &Asked) -> Result<String, String> {
    let dir = scratch();
    put_python(world, text, dir.path());
    let output = run_with(Path::new("python3"), &["run.py"], &lines(world, std::slice::from_ref(asked)), dir.path())?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn put_python(world: &World, text: &str, dir: &Path) {
    fs::write(dir.join("law.py"), text).expect("a file");
    let card = if world.is_open() { "list(law.CARDS.values())[int(i)], " } else { "" };
    let calls = TARGETS.map(|target| {
        let phase = if target.starts_with("mean") { "" } else { ", phase=phase" };
        format!("law.{target}({card}**c{phase})")
    });
    let script = format!(
        "import sys, law
for line in sys.stdin:
    i, t, p, d, B, S, m, phase, capacity = line.split()
    c = dict(tensor_parallel=int(t), pipeline_parallel=int(p), data_parallel=int(d), batch_size=float(B),
             input_tokens=float(S), output_tokens=float(m), kv_capacity_tokens=float(capacity) or None)
    print(*[repr(v) for v in ({})])
",
        calls.join(", ")
    );
    fs::write(dir.join("run.py"), script).expect("a file");
}

pub(crate) fn rust(world: &World, text: &str, asked: &[Asked]) -> Ran {
    let dir = scratch();
    fs::write(dir.path().join("law.rs"), text).expect("a file");
    let card = if world.is_open() { "&law::CARDS[w[0].parse::<usize>().unwrap()].1, " } else { "" };
    let calls = TARGETS.map(|target| format!("law::{target}({card}&c)"));
    let program = format!(
        "mod law;
fn main() {{
    for line in std::io::stdin().lines() {{
        let line = line.unwrap();
        let w: Vec<&str> = line.split(' ').collect();
        let phase = match w[7] {{ \"total\" => law::Phase::Total, \"prefill\" => law::Phase::Prefill, _ => law::Phase::Decode }};
        let c = law::Configuration {{
            tensor_parallel: w[1].parse().unwrap(), pipeline_parallel: w[2].parse().unwrap(),
            data_parallel: w[3].parse().unwrap(), batch_size: w[4].parse().unwrap(), input_tokens: w[5].parse().unwrap(),
            output_tokens: w[6].parse().unwrap(), phase,
            kv_capacity_tokens: Some(w[8].parse().unwrap()).filter(|c| *c != 0.0),
        }};
        let figures = [{}];
        println!(\"{{:?}} {{:?}} {{:?}} {{:?}}\", figures[0], figures[1], figures[2], figures[3]);
    }}
}}
",
        calls.join(", ")
    );
    fs::write(dir.path().join("main.rs"), program).expect("a file");
    compiled("rustc", &["--edition=2021", "-D", "warnings", "-O", "main.rs", "-o", "run"], dir.path())?;
    figures_of(&dir.path().join("run"), &[], &lines(world, asked), dir.path())
}

pub(crate) fn c(world: &World, text: &str, asked: &[Asked]) -> Ran {
    let dir = scratch();
    fs::write(dir.path().join("law.h"), text).expect("a file");
    let (card, by_name) = if world.is_open() {
        // Once by position, once by name: the names have to survive their quoting.
        (
            "&energylens_cards[i], ",
            "if (energylens_card_of(energylens_cards[i].model) != &energylens_cards[i]) return 1;",
        )
    } else {
        ("", "")
    };
    let calls = TARGETS.map(|target| format!("energylens_{target}({card}&c)"));
    let program = format!(
        r#"#include "law.h"
#include <stdio.h>
int main(void) {{
    energylens_configuration c;
    char phase[16];
    int i;
    while (scanf("%d %u %u %u %lf %lf %lf %15s %lf", &i, &c.tensor_parallel, &c.pipeline_parallel, &c.data_parallel,
                 &c.batch_size, &c.input_tokens, &c.output_tokens, phase, &c.kv_capacity_tokens) == 9) {{
        c.phase = phase[0] == 't' ? ENERGYLENS_TOTAL : phase[0] == 'p' ? ENERGYLENS_PREFILL : ENERGYLENS_DECODE;
        {by_name}
        printf("%.17g %.17g %.17g %.17g\n", {});
    }}
    return 0;
}}
"#,
        calls.join(", ")
    );
    fs::write(dir.path().join("main.c"), program).expect("a file");
    let warnings = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"];
    let arguments: Vec<&str> = warnings.into_iter().chain(["main.c", "-o", "run", "-lm"]).collect();
    compiled("cc", &arguments, dir.path())?;
    figures_of(&dir.path().join("run"), &[], &lines(world, asked), dir.path())
}

pub(crate) fn lua(world: &World, text: &str, asked: &[Asked]) -> Ran {
    let call = calling_lua(world, text);
    Ok(asked.iter().map(|one| TARGETS.iter().map(|t| call(t, one).expect("a figure")).collect()).collect())
}

/// What the exported module says of an error.
pub(crate) fn lua_error(world: &World, text: &str, asked: &Asked) -> String {
    calling_lua(world, text)(TARGETS[0], asked).map_or_else(|e| e.to_string(), |figure| figure.to_string())
}

fn calling_lua<'a>(world: &'a World, text: &str) -> impl Fn(&str, &Asked) -> mlua::Result<f64> + 'a {
    let lua = Lua::new();
    let law: Table = lua.load(text).eval().expect("a module");
    move |target: &str, one: &Asked| {
        let c = lua.create_table()?;
        c.set("tensor_parallel", one.tensor)?;
        c.set("pipeline_parallel", one.pipeline)?;
        c.set("data_parallel", one.replicas)?;
        c.set("batch_size", one.batch)?;
        c.set("input_tokens", one.input)?;
        c.set("output_tokens", one.output)?;
        c.set("phase", one.phase.to_string())?;
        c.set("kv_capacity_tokens", one.capacity)?;
        let card = if world.is_open() {
            Value::Table(law.get::<Table>("cards")?.get(one.model.as_str())?)
        } else {
            Value::Nil
        };
        law.get::<Function>(target)?.call((c, card))
    }
}

/// The configurations as a table, and the query that appends the law to it.
pub(crate) fn query(world: &World, text: &str, asked: &[Asked]) -> String {
    let mut names = vec!["id", "tensor_parallel", "pipeline_parallel", "data_parallel", "batch_size", "input_tokens"];
    names.extend(["output_tokens", "phase"]);
    if world.is_open() {
        names.extend(["kv_capacity_tokens", "n_layers", "active_params", "weight_bytes", "hidden_size"]);
        names.extend(["kv_bytes_per_token", "num_experts", "experts_per_token", "routed_share"]);
        names.extend(["gpu_memory_bytes", "memory_utilisation"]);
    }
    let rows = asked.iter().enumerate().map(|(i, one)| {
        let degrees = format!("{i}, {}, {}, {}", one.tensor, one.pipeline, one.replicas);
        let mut row = format!("({degrees}, {:?}, {:?}, {:?}, '{}'", one.batch, one.input, one.output, one.phase);
        if world.is_open() {
            let (scenario, d) = (world.scenario(one), &world.scenario(one).descriptors);
            let degrees = (one.tensor, one.pipeline);
            let measured = scenario.kv_capacity_tokens.iter().find(|(t, p, _)| (*t, *p) == degrees);
            let measured = one.capacity.or(measured.map(|(_, _, tokens)| *tokens));
            let measured = measured.map_or("NULL".to_owned(), |tokens| format!("{tokens:?}"));
            let card = [d.n_layers, d.active_params, d.weight_bytes, d.hidden_size, d.kv_bytes_per_token]
                .into_iter()
                .chain([d.num_experts, d.experts_per_token, d.routed_share, 80e9, 0.87]);
            let card: Vec<_> = card.map(|v| format!("{v:?}")).collect();
            write!(row, ", {measured}, {}", card.join(", ")).expect("a string");
        }
        row + ")"
    });
    format!(
        "SELECT {} FROM (SELECT *,\n{text}\nFROM (VALUES {}) AS configurations({})) AS answered ORDER BY id",
        TARGETS.join(", "),
        rows.collect::<Vec<_>>().join(",\n"),
        names.join(", ")
    )
}

pub(crate) fn duckdb(world: &World, text: &str, asked: &[Asked]) -> Ran {
    Ok(figures(&duckdb_text(world, text, asked)?))
}

/// The figures as DuckDB's Python writes them, those that are missing as `None`.
pub(crate) fn duckdb_text(world: &World, text: &str, asked: &[Asked]) -> Result<String, String> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python-env/bin/python");
    let has_duckdb = Command::new(&python).args(["-c", "import duckdb"]).output().is_ok_and(|o| o.status.success());
    if !has_duckdb {
        return Err(format!("no DuckDB in {}; scripts/check.sh makes that environment", python.display()));
    }
    let dir = scratch();
    fs::write(dir.path().join("query.sql"), query(world, text, asked)).expect("a file");
    let script =
        "import duckdb\nfor row in duckdb.sql(open('query.sql').read()).fetchall(): print(*[repr(v) for v in row])";
    let output = run_with(&python, &["-c", script], "", dir.path())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).expect("text"))
}
