//! `energylens tables`: every table and column, with type, unit and meaning.

use clap::Args;
use energylens::schema::{TABLES, Table};
use serde_json::{Value, json};

use super::{Outcome, output};

/// Print the schema of every table that energylens writes.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens tables --json")]
pub(crate) struct Arguments {
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    if a.json {
        output::print_json(&TABLES.iter().map(|t| as_json(t)).collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    for t in TABLES {
        let mut table = output::table(&["column", "type", "unit", ""], &[]);
        for c in t.columns {
            let optional = if c.nullable { "?" } else { "" };
            table.add_row([c.name, &format!("{}{optional}", c.column_type), c.unit, c.doc]);
        }
        output::print(&format!("{}: {}\n{table}\n", t.name, t.doc))?;
    }
    Ok(Outcome::Done)
}

fn as_json(t: &Table) -> Value {
    let columns: Vec<Value> = t
        .columns
        .iter()
        .map(|c| json!({ "name": c.name, "type": c.column_type.to_string(), "nullable": c.nullable, "unit": c.unit, "doc": c.doc }))
        .collect();
    json!({ "table": t.name, "doc": t.doc, "columns": columns })
}
