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
use energylens::clock::ClockAnchor;
use energylens::schema::{EnergySource, SAMPLES};
use energylens::store::{FileMetadata, SampleRow, SegmentWriter};
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
fn instants_that_other_writers_wrote_cost_no_table() {
    let Some(python) = python() else { return };
    let desk = desk();
    let program = "import sys, datetime, duckdb, pandas as pd, polars as pl, pyarrow as pa, pyarrow.parquet as pq\n\
                   at = sys.argv[1]\n\
                   rows = at + '/energylens-demo/demo/phases.parquet'\n\
                   table = pd.read_parquet(rows)\n\
                   table['created'] = pd.to_datetime(range(len(table)), unit='s', utc=True)\n\
                   table['local'] = table['created'].dt.tz_convert('Europe/Berlin')\n\
                   table['deep'] = [{'at': t} for t in table['created']]\n\
                   table.to_parquet(at + '/zoned-rows.parquet')\n\
                   when = pd.to_datetime(['2026-03-01 00:00:00', '2026-03-01 00:00:02', '2026-03-01 00:00:06'], utc=True)\n\
                   trace = pd.DataFrame({'arrival_s': when, 'input_tokens': [512, 512, 1024], 'output_tokens': [64, 64, 128]})\n\
                   trace.to_parquet(at + '/pandas-trace.parquet')\n\
                   pl.from_pandas(trace).write_parquet(at + '/polars-trace.parquet')\n\
                   pq.write_table(pa.Table.from_pandas(trace), at + '/pyarrow-trace.parquet')\n\
                   duckdb.sql(f\"COPY (FROM trace) TO '{at}/duckdb-trace.parquet'\")\n\
                   prices = pd.DataFrame({'time': when, 'value': [0.30, -0.10, 0.20]})\n\
                   prices.to_parquet(at + '/prices.parquet')\n";
    let output = Command::new(&python).args(["-c", program]).arg(desk.path("")).output().expect("python runs");
    succeeded("writers", &output);
    let told = |line: &str| {
        let ran = desk.type_in(line);
        assert_eq!(ran.code, Some(0), "{line}\n{}{}", ran.stdout, ran.stderr);
        ran
    };
    let fitted = told("fit zoned-rows.parquet --no-held-out -o zoned.json");
    assert!(fitted.stderr.contains("column deep is of type"), "{}", fitted.stderr);
    // Every run has instants of its own, in UTC by name. It lacks the columns of a phase, and only that is said.
    let runs = desk.type_in("fit energylens-demo/demo/runs.parquet -o w.json");
    assert!(runs.stderr.contains("energy_j") && !runs.stderr.contains("zone"), "{}", runs.stderr);
    let predicted = told("predict zoned.json zoned-rows.parquet --csv").stdout;
    assert!(
        predicted.contains(",1970-01-01T00:00:01Z,"),
        "{}",
        predicted.lines().take(3).collect::<Vec<_>>().join("\n")
    );
    for writer in ["pandas", "polars", "pyarrow", "duckdb"] {
        let line = format!("recommend zoned.json --trace {writer}-trace.parquet --price-per-kwh prices.parquet --json");
        let answer: Value = serde_json::from_str(&told(&line).stdout).expect("JSON");
        // Two gaps in six seconds.
        let rate = answer["arrival_rate"].as_f64().expect("a rate");
        assert!((rate - 2.0 / 6.0).abs() < 1e-9, "{writer}: {rate}");
    }
}

/// A second of a recording in segments of two, with a reading each tenth; `counter_j` at the instant in seconds.
fn put_samples(dir: &Path, name: &str, source: EnergySource, from_ms: i64, counter_j: impl Fn(f64) -> f64) {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut meta = FileMetadata::of_host("n1", ClockAnchor { t_mono_ns: 0, t_unix_ns: 1_767_225_600_000_000_000 });
    meta.extra.insert("recording_id".to_owned(), name.to_owned());
    for segment in 0..2 {
        let mut writer = SegmentWriter::create(dir, &SAMPLES, "n1", &meta).expect("a segment");
        let row = |i: i64| {
            let t_ms = from_ms + (10 * segment + i) * 100;
            SampleRow {
                device: "nvml:0".into(),
                t_mono_ns: t_ms * 1_000_000,
                t_prev_poll_ns: (t_ms - 1) * 1_000_000,
                energy_counter_uj: Some((counter_j(t_ms as f64 / 1e3) * 1e6).round() as u64),
                power_w: None,
                t_device_ns: None,
                source,
                job_id: None,
            }
        };
        let rows: Vec<SampleRow> = (0..10).map(row).collect();
        writer.append(&SampleRow::batch(&rows).expect("a batch")).expect("a segment");
        writer.seal().expect("a sealed segment");
    }
}

#[test]
fn power_of_overlapping_recordings_is_that_of_their_counters() {
    let Some(python) = python() else { return };
    let path = path_with(&[python.parent().expect("a directory").to_owned()]);
    let desk = Desk::new();
    let energy_j = |of: &str| -> f64 {
        let mut command = Command::new(desk::program());
        command.arg("sql").arg(desk.path(of)).args(["--csv", "SELECT sum(energy_j) FROM power"]).env("PATH", &path);
        let text = succeeded(of, &command.output().expect("the built binary runs"));
        text.lines().nth(1).and_then(|sum| sum.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    for (kind, source) in [("real", EnergySource::Counter), ("simulated", EnergySource::Simulated)] {
        let (a, b) = (format!("{kind}-a"), format!("{kind}-b"));
        put_samples(&desk.path(&a), "1-1", source, 0, |s| 100.0 * s);
        // A real counter is one, however many watch it; a simulated one is the recording's own.
        let begin_j = if kind == "real" { 0.0 } else { 5e6 };
        put_samples(&desk.path(&b), "1-2", source, 50, |s| begin_j + 100.0 * s);
        let merged = desk.type_in(&format!("compact {a} {b} --partition {kind}-lake"));
        assert_eq!(merged.code, Some(0), "{}", merged.stderr);
    }
    // 100 W over 1.9 s each; together from 0 to 1.95 s.
    for (of, expected) in
        [("real-a", 190.0), ("simulated-b", 190.0), ("real-lake", 195.0), ("simulated-lake", 2.0 * 190.0)]
    {
        let found = energy_j(of);
        assert!((found - expected).abs() < 1e-6, "{of}: {found} is not {expected}");
    }
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
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(python) = python() else { return };
    let path = path_with(&[python.parent().expect("a directory").to_owned()]);
    for form in ["--csv", "--json"] {
        let mut command = Command::new(desk::program());
        command.arg("sql").arg(desk().path("energylens-demo/demo")).args([form, "SELECT * FROM range(200000) t(i)"]);
        command.env("PATH", &path).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("the built binary runs");
        // One byte is read of far more than a pipe holds.
        let mut stdout = child.stdout.take().expect("a pipe");
        std::io::Read::read_exact(&mut stdout, &mut [0]).expect("a byte");
        drop(stdout);
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success() && output.stderr.is_empty(), "{form}: {output:?}");
    }
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
    // Two columns of one name are two, in every form; a list is a text as DuckDB writes it.
    let twice = ["SELECT 1 AS a, 2 AS a, ['x', 'y'] AS b, 3 AS a", "--json"];
    let rows: Value = serde_json::from_str(&succeeded("twice", &sql(&path, &twice))).expect("JSON");
    assert_eq!(rows, serde_json::json!([{"a": 1, "a_1": 2, "b": ["x", "y"], "a_2": 3}]));
    let rows = succeeded("twice", &sql(&path, &[twice[0], "--csv"]));
    assert_eq!(rows, "a,a,b,a\n1,2,\"[x, y]\",3\n");
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
