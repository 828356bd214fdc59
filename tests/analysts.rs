//! Analysts at home: other people's readers on the tables of a demo campaign, and the pages that are written for them.
//!
//! The readers come from `scripts/python_env.sh`; where that could not make its environment, these tests skip, and say so.

// A part of it is for other tests.
#[allow(dead_code)]
#[path = "support/desk.rs"]
mod desk;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use desk::Desk;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has the readers.
fn python() -> Option<PathBuf> {
    let python = root().join("target/python-env/bin/python");
    // Written last: without it the environment is half made.
    let is_whole = root().join("target/python-env/requirements.txt").exists() && python.exists();
    if !is_whole {
        eprintln!("SKIPPED: there is no target/python-env; scripts/python_env.sh makes it");
    }
    is_whole.then_some(python)
}

/// A desk with the demo, some telemetry beside its samples, and the schema; made once.
fn desk() -> &'static Desk {
    static DESK: OnceLock<Desk> = OnceLock::new();
    DESK.get_or_init(|| {
        let desk = Desk::new();
        for line in [
            "run scripts/sweeps/demo.lua -o energylens-demo/demo",
            "agent --sources sim --output telemetry --duration 3s",
        ] {
            let line = line.replace("scripts", &root().join("scripts").display().to_string());
            let ran = desk.type_in(&line);
            assert_eq!(ran.code, Some(0), "{}\n{}{}", ran.line, ran.stdout, ran.stderr);
        }
        let telemetry = std::fs::read_dir(desk.path("telemetry")).expect("a recording").flatten();
        let telemetry = telemetry.map(|e| e.path()).find(|p| p.display().to_string().contains("/telemetry-"));
        let telemetry = telemetry.filter(|p| p.extension().is_some_and(|e| e == "parquet")).expect("sealed telemetry");
        std::fs::copy(telemetry, desk.path("energylens-demo/demo/telemetry-n-000000.parquet")).expect("a copy");
        let schema = desk.type_in("tables --json").stdout;
        desk.put("schema.json", schema);
        desk
    })
}

fn succeeded(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a script of tests/analysts/ on the demo campaign.
fn script(python: &Path, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python);
    command.arg(root().join("tests/analysts").join(name)).arg(desk().path("energylens-demo/demo"));
    let output = command.args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output().expect("python runs");
    succeeded(name, &output)
}

#[test]
fn every_reader_sees_every_table_with_the_same_types_and_values() {
    let Some(python) = python() else { return };
    let schema = desk().path("schema.json");
    let read = |reader: &str| -> Value {
        let told = script(&python, &format!("read_with_{reader}.py"), &[schema.to_str().expect("a readable path")]);
        serde_json::from_str(&told).unwrap_or_else(|e| panic!("{reader}: {e}\n{told}"))
    };
    let duckdb = read("duckdb");
    assert_eq!(duckdb["runs"]["rows"], 50);
    assert!(duckdb["samples"]["rows"].as_u64() > Some(10_000), "{duckdb}");
    for reader in ["polars", "pandas", "datafusion"] {
        let found = read(reader);
        for (table, expected) in duckdb.as_object().expect("tables") {
            let found = &found[table];
            assert_eq!(
                (&found["rows"], &found["first_ms"]),
                (&expected["rows"], &expected["first_ms"]),
                "{reader}: {table}"
            );
            let (a, b) = (found["sum"].as_f64().expect("a sum"), expected["sum"].as_f64().expect("a sum"));
            // Readers add in different orders.
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{reader}: {table}: {a}, {b}");
        }
    }
}

#[test]
fn rows_that_other_writers_wrote_are_fitted() {
    let Some(python) = python() else { return };
    let desk = desk();
    let program = "import sys, duckdb, pandas as pd, polars as pl\n\
                   at = sys.argv[1]\n\
                   rows = at + '/energylens-demo/demo/phases.parquet'\n\
                   table = pd.read_parquet(rows)\n\
                   table.to_parquet(at + '/pandas.parquet')\n\
                   table.to_parquet(at + '/gzip.parquet', compression='gzip')\n\
                   table.to_parquet(at + '/brotli.parquet', compression='brotli')\n\
                   pl.read_parquet(rows).write_parquet(at + '/polars.parquet', compression='lz4')\n\
                   duckdb.sql(f\"COPY (FROM '{rows}') TO '{at}/duckdb.parquet'\")\n";
    let output = Command::new(&python).args(["-c", program]).arg(desk.path("")).output().expect("python runs");
    succeeded("writers", &output);
    let fit = |writer: &str| desk.type_in(&format!("fit {writer}.parquet --target energy_j --no-held-out -o w.json"));
    for writer in ["pandas", "gzip", "polars", "duckdb"] {
        let fitted = fit(writer);
        assert_eq!(fitted.code, Some(0), "{writer}: {}{}", fitted.stdout, fitted.stderr);
    }
    let refused = fit("brotli");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("compressed with BROTLI") && refused.stderr.contains("zstd"), "{}", refused.stderr);
}

#[test]
fn every_question_of_the_analysis_page_has_its_answer() {
    let Some(python) = python() else { return };
    let views = desk().type_in("sql energylens-demo/demo");
    assert_eq!(views.code, Some(0), "{}", views.stderr);
    desk().put("views.sql", &views.stdout);
    let (views, page) = (desk().path("views.sql"), root().join("docs/analysis.md"));
    let told = script(&python, "check_analysis.py", &[views.to_str().expect("a path"), page.to_str().expect("a path")]);
    assert!(told.contains("10 questions"), "{told}");
}

#[test]
fn the_notebook_runs_from_top_to_bottom() {
    let Some(python) = python() else { return };
    let notebook = root().join("docs/analysis.ipynb");
    let told =
        script(&python, "run_notebook.py", &[notebook.to_str().expect("a path"), env!("CARGO_BIN_EXE_energylens")]);
    assert!(told.contains("cells ran"), "{told}");
}

/// A PATH on which `python3` has DuckDB.
fn path_with(directories: &[PathBuf]) -> String {
    let old = std::env::var("PATH").unwrap_or_default();
    let mut path: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
    path.push(old);
    path.join(":")
}

fn sql(path: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(desk::program());
    command.arg("sql").arg(desk().path("energylens-demo/demo")).args(arguments).env("PATH", path);
    command.output().expect("the built binary runs")
}

#[test]
fn a_query_is_carried_out_by_the_duckdb_that_there_is() {
    let Some(python) = python() else { return };
    let path = path_with(&[python.parent().expect("a directory").to_owned()]);
    let output = sql(&path, &["--json", "SELECT phase, count(*) AS n FROM phases GROUP BY ALL ORDER BY ALL;"]);
    let rows: Value = serde_json::from_str(&succeeded("sql --json", &output)).expect("JSON");
    assert_eq!(rows[0]["phase"], "decode");
    assert_eq!(rows.as_array().map(Vec::len), Some(3));
    let output = sql(&path, &["--csv", "SELECT count(*) AS n FROM runs"]);
    assert_eq!(succeeded("sql --csv", &output), "n\n50\n");
    let output = sql(&path, &["SELECT count(*) AS n FROM nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"), "{output:?}");
}

#[test]
fn without_duckdb_a_query_says_what_to_do() {
    let output = sql("/nowhere", &["SELECT 1"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("pip install duckdb") && told.contains("views.sql"), "{told}");
}

#[test]
fn a_lake_of_two_recordings_is_queried_as_one() {
    let Some(python) = python() else { return };
    for (line, written) in [
        ("compact energylens-demo/demo telemetry --partition lake --json", true),
        ("compact energylens-demo/demo --partition lake --json", false),
    ] {
        let ran = desk().type_in(line);
        let told: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr));
        assert_eq!(told[0]["done"]["files_written"].as_u64() > Some(0), written, "{told}");
    }
    let path = path_with(&[python.parent().expect("a directory").to_owned()]);
    let asked = |of: &str, query: &str| -> String {
        let mut command = Command::new(desk::program());
        command.arg("sql").arg(desk().path(of)).args(["--csv", query]).env("PATH", &path);
        let text = succeeded(of, &command.output().expect("the built binary runs"));
        text.split_once('\n').expect("a header").1.trim_end().to_owned()
    };
    let count = |of: &str| asked(of, "SELECT count(*) AS n FROM samples").parse::<u64>().expect("a number");
    assert_eq!(count("lake"), count("energylens-demo/demo") + count("telemetry"));

    // The directories are columns, of the views that are made of others too.
    let (day, node) = (asked("lake", "SELECT min(date) FROM samples"), asked("lake", "SELECT min(node) FROM samples"));
    assert!(desk().path(&format!("lake/samples/date={day}/node={node}")).is_dir(), "{day}, {node}");
    for view in ["samples", "power", "phases"] {
        let all = asked("lake", &format!("SELECT count(*) FROM {view}"));
        let of_all_days = format!("SELECT count(*) FROM {view} WHERE date >= DATE '2020-01-01' AND node = '{node}'");
        assert_eq!(asked("lake", &of_all_days), all, "{view}");
        assert_eq!(asked("lake", &format!("SELECT count(*) FROM {view} WHERE date < DATE '2020-01-01'")), "0");
    }
    // Raw rows are kept for a while, results for ever.
    let results = ["phases", "runs"].map(|table| (table, asked("lake", &format!("SELECT count(*) FROM {table}"))));
    for gone in ["samples", "telemetry", "marks"] {
        if desk().path(&format!("lake/{gone}")).is_dir() {
            for day in std::fs::read_dir(desk().path(&format!("lake/{gone}"))).expect("a table").flatten() {
                std::fs::remove_dir_all(day.path()).expect("a directory of ours");
            }
        }
    }
    for (table, rows) in results {
        assert_ne!(rows, "0");
        assert_eq!(asked("lake", &format!("SELECT count(*) FROM {table}")), rows);
    }
    assert_eq!(count("lake"), 0);
}

#[test]
fn a_query_is_one_select_and_its_json_is_json() {
    let Some(python) = python() else { return };
    let path = path_with(&[python.parent().expect("a directory").to_owned()]);
    let output =
        sql(&path, &["--json", "SELECT 'nan'::DOUBLE AS a, ['-inf'::DOUBLE, 1] AS b, {'c': 'nan'::DOUBLE} AS d"]);
    let rows: Value = serde_json::from_str(&succeeded("sql --json", &output)).expect("JSON");
    assert_eq!(rows, serde_json::json!([{"a": null, "b": [null, 1.0], "d": {"c": null}}]));
    let output = sql(&path, &["--json", "SELECT 1 AS n WHERE false"]);
    assert_eq!(serde_json::from_str::<Value>(&succeeded("no rows", &output)).expect("JSON"), serde_json::json!([]));
    let taken = desk().path("taken.csv");
    let copy = format!("COPY phases TO '{}'", taken.display());
    for (query, found) in [
        ("", "nothing"),
        (" ;; ", "nothing"),
        ("/* all of it */", "nothing"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("DROP VIEW phases", "a statement of another kind"),
        (&copy, "a statement of another kind"),
    ] {
        let output = sql(&path, &[query]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{query}: {told}");
        assert!(told.contains(&format!("expected one SELECT, found {found}")), "{query}: {told}");
        assert!(output.stdout.is_empty() && !taken.exists(), "{query}");
    }
    for query in ["FROM phases", "WITH a AS (SELECT 1 AS n) SELECT n FROM a;", "DESCRIBE phases", "SELECT ';'"] {
        succeeded(query, &sql(&path, &[query]));
    }
}
