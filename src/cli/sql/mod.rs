//! `energylens sql`: the tables as views of DuckDB, and queries on them where there is a DuckDB.

mod engine;

use std::path::PathBuf;

use clap::Args;
use energylens::store::{Campaign, duckdb_views, has_spools, is_lake};

use self::engine::{Engine, Form};
use super::{Outcome, Usage, output};

/// Query the tables of a campaign with DuckDB, or print the statements that make views of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:  energylens sql energylens-demo/demo \"SELECT phase, sum(energy_j) FROM phases GROUP BY ALL\"
           energylens sql energylens-demo/demo > views.sql; duckdb -init views.sql
Views:     samples, telemetry, marks, runs, phases (energylens tables says what is in them), and power;
           of a lake, each with date and node besides"
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

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let dir = if is_lake(&a.campaign) { a.campaign.clone() } else { Campaign::open(&a.campaign)?.dir().to_owned() };
    let views = duckdb_views(&dir)?;
    if has_spools(&dir)? {
        eprintln!("note: a recording is in progress or was broken off; its latest rows are not in these views yet");
    }
    let Some(query) = &a.query else {
        output::print(&views)?;
        return Ok(Outcome::Done);
    };
    let query = query.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    if query.is_empty() {
        return Err(refused("nothing", a));
    }
    let Some(engine) = Engine::find() else {
        anyhow::bail!(
            "there is no duckdb on the PATH, and no python3 that has it; install one (pip install duckdb), or take the \
             views to where one is: energylens sql {} > views.sql; duckdb -init views.sql",
            a.campaign.display()
        );
    };
    if let Some(found) = engine.other_than_one_select(query)? {
        return Err(refused(&found, a));
    }
    // Not by COPY: it would empty the file that the output is appended to.
    let form = match (a.csv, a.json) {
        (true, _) => Form::Csv,
        (_, true) => Form::Json,
        _ => Form::Table,
    };
    engine.carry_out(&views, query, form)?;
    Ok(Outcome::Done)
}

fn refused(found: &str, a: &Arguments) -> anyhow::Error {
    let campaign = a.campaign.display();
    let elsewhere = "for anything else, take the views to DuckDB itself";
    Usage(format!(
        "expected one SELECT, found {found}; {elsewhere}: energylens sql {campaign} > views.sql; duckdb -init views.sql"
    ))
    .into()
}
