//! `energylens sql`: the tables as views of DuckDB, and queries on them where there is a DuckDB.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use energylens::store::{Campaign, duckdb_views, has_spools};

use super::{Outcome, output};

/// Query the tables of a campaign with DuckDB, or print the statements that make views of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:  energylens sql energylens-demo/demo \"SELECT phase, sum(energy_j) FROM phases GROUP BY ALL\"
           energylens sql energylens-demo/demo > views.sql; duckdb -init views.sql
Views:     samples, telemetry, marks, runs, phases (energylens tables says what is in them), and power"
)]
pub(crate) struct Arguments {
    /// A campaign directory, or one of tables that `compact --partition` wrote.
    campaign: PathBuf,
    /// One SELECT; without it the views' statements are printed.
    query: Option<String>,
    /// Print the result as CSV.
    #[arg(long, requires = "query", conflicts_with = "json")]
    csv: bool,
    /// Print the result as JSON.
    #[arg(long, requires = "query")]
    json: bool,
}

/// What Python does: views, query and format are its arguments. A failure is one line.
const PYTHON: &str = r#"
import csv
import json
import sys
import duckdb

views, query, form = sys.argv[1:]
try:
    connection = duckdb.connect()
    connection.execute(views)
    if form == "table":
        result = connection.sql(query)
        if result is not None:
            result.show(max_rows=1000, max_width=160)
    else:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description or []]
        rows = cursor.fetchall()
        if form == "csv":
            csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
        else:
            print(json.dumps([dict(zip(names, row)) for row in rows], default=str, indent=1))
except duckdb.Error as error:
    sys.exit(str(error))
"#;

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let is_partitioned = a.campaign.join("samples").is_dir() || a.campaign.join("telemetry").is_dir();
    let dir = if is_partitioned { a.campaign.clone() } else { Campaign::open(&a.campaign)?.dir().to_owned() };
    let views = duckdb_views(&dir)?;
    if has_spools(&dir)? {
        eprintln!("note: a recording is in progress or was broken off; its latest rows are not in these views yet");
    }
    let Some(query) = &a.query else {
        output::print(&views)?;
        return Ok(Outcome::Done);
    };
    let query = query.trim().trim_end_matches(';');
    // Not by COPY: it would empty the file that the output is appended to.
    let form = match (a.csv, a.json) {
        (true, _) => "csv",
        (_, true) => "json",
        _ => "table",
    };
    let mut own: Vec<&str> = vec!["-bail"];
    own.extend(match form {
        "csv" => Some("-csv"),
        "json" => Some("-json"),
        _ => None,
    });
    own.extend(["-c", &views, "-c", query]);
    let engines = [("duckdb", own), ("python3", vec!["-c", PYTHON, &views, query, form])];
    for (program, arguments) in engines {
        if !has_duckdb(program) {
            continue;
        }
        let status =
            Command::new(program).args(&arguments).status().with_context(|| format!("cannot run {program}"))?;
        anyhow::ensure!(status.success(), "{program} could not carry out the query");
        return Ok(Outcome::Done);
    }
    anyhow::bail!(
        "there is no duckdb on the PATH, and no python3 that has it; install one (pip install duckdb), or take the \
         views to where one is: energylens sql {} > views.sql; duckdb -init views.sql",
        a.campaign.display()
    )
}

/// Whether `program` is there and is, or has, DuckDB.
fn has_duckdb(program: &str) -> bool {
    let question: &[&str] = if program == "duckdb" { &["-version"] } else { &["-c", "import duckdb"] };
    let asked = Command::new(program).args(question).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}
