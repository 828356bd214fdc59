//! The tables as views of DuckDB: names as in [`schema`](crate::schema), whatever the files are called.

use std::path::Path;

use super::error::{Error, Result};
use super::merge::is_merging;
use super::read::table_files;
use super::spool::is_spool;
use crate::schema::{Column, ColumnType, TABLES, Table};

/// Statements that define one view per table over the sealed files below `dir`, and `power` on top of `samples`. Columns
/// that the files of an earlier version lack are there and missing in every row; so is a table without files.
///
/// A lake (`samples/date=.../node=.../*.parquet`) will do as well; its views have `date` and `node` besides.
pub fn duckdb_views(dir: &Path) -> Result<String> {
    let dir = std::path::absolute(dir).map_err(Error::io("open", dir))?;
    let is_lake = is_lake(&dir);
    let directories = if is_lake { ", NULL::DATE AS date, NULL::VARCHAR AS node" } else { "" };
    let mut text = String::new();
    for table in TABLES {
        let patterns = patterns(&dir, table)?;
        let columns = prototype(table) + directories;
        text.push_str(&format!("CREATE OR REPLACE VIEW {} AS\n  SELECT {columns} WHERE false", table.name));
        for (pattern, options) in patterns {
            text.push_str(&format!("\n  UNION ALL BY NAME SELECT * FROM read_parquet({pattern}, {options})"));
        }
        text.push_str(";\n");
    }
    // With the node among what divides the rows, a filter on it keeps the files of other nodes closed.
    let (shown, dividing) = if is_lake { (", date, node", "node, ") } else { ("", "") };
    text.push_str(&POWER.replace("{shown}", shown).replace("{dividing}", dividing));
    Ok(text)
}

/// Whether `dir` is a lake that [`compact`](super::compact()) wrote: tables in directories by date and node. Some may be
/// gone; raw rows are kept for a while, results for ever.
pub fn is_lake(dir: &Path) -> bool {
    TABLES.iter().any(|table| is_partitioned(dir, table))
}

/// Whether the lake has a file of `table`: a pattern without a match is an error of the reader.
fn is_partitioned(lake: &Path, table: &Table) -> bool {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_named =
        |path: &Path, key: &str| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(key.as_bytes()));
    let days = entries(&lake.join(table.name)).filter(|path| is_named(path, "date="));
    let nodes = days.flat_map(|day| entries(&day).collect::<Vec<_>>()).filter(|path| is_named(path, "node="));
    nodes
        .flat_map(|node| entries(&node).collect::<Vec<_>>())
        .any(|file| file.extension().is_some_and(|e| e == "parquet"))
}

/// Between one stored reading and the next, which comes within a second while a recorder runs. A counter that fell says
/// nothing here: resets and wraps are for the `phases` table, which knows the register's size. Nor does one that was not
/// watched for seconds: between two recordings it may have been another. Two recordings of one real device saw the
/// same counter; simulated ones each had their own, on virtual clocks that overlap.
const POWER: &str = "\
CREATE OR REPLACE VIEW power AS
  SELECT host, device, t, t_mono_ns, job_id, source, energy_j, duration_s, energy_j / duration_s AS mean_power_w{shown}
  FROM (
    SELECT *,
      (energy_counter_uj::HUGEINT - lag(energy_counter_uj::HUGEINT) OVER edge)::DOUBLE / 1e6 AS energy_j,
      (t_mono_ns - lag(t_mono_ns) OVER edge) / 1e9 AS duration_s
    FROM samples
    WINDOW edge AS (PARTITION BY {dividing}host, device, if(source = 'simulated', recording_id, NULL) ORDER BY t, t_mono_ns)
  )
  WHERE duration_s > 0 AND duration_s <= 5 AND energy_j >= 0;
";

/// How a lake's directories become columns; a node that is called by a number is a name all the same.
const BY_DIRECTORY: &str =
    "union_by_name = true, hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR}";

/// Whether some rows are still in spools, which other readers cannot read as Parquet.
pub fn has_spools(dir: &Path) -> Result<bool> {
    for table in TABLES {
        if table_files(dir, table)?.iter().any(|path| is_spool(path)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Patterns or lists of the files of `table` as they are now, each with the options to read it with: a pattern without a match is
/// an error of the reader.
fn patterns(dir: &Path, table: &Table) -> Result<Vec<(String, &'static str)>> {
    let base = escaped(&dir.display().to_string());
    let sealed: Vec<_> = table_files(dir, table)?.into_iter().filter(|path| !is_spool(path)).collect();
    let single = format!("{}.parquet", table.name);
    let is_single = |path: &&std::path::PathBuf| path.file_name().is_some_and(|name| name == single.as_str());
    let mut found = Vec::new();
    if sealed.iter().any(|path| is_single(&path)) {
        found.push((quoted(&format!("{base}/{single}")), "union_by_name = true"));
    }
    let segments: Vec<&std::path::PathBuf> = sealed.iter().filter(|path| !is_single(path)).collect();
    if !segments.is_empty() {
        let pattern = quoted(&format!("{base}/{}-*.parquet", table.name));
        // What a killed merging left would be there twice, or not at all.
        let list = || {
            let names: Vec<String> = segments.iter().map(|p| quoted(&escaped(&p.display().to_string()))).collect();
            format!("[{}]", names.join(", "))
        };
        let files = if is_merging(dir)? { list() } else { pattern };
        found.push((files, "union_by_name = true"));
    }
    if is_partitioned(dir, table) {
        let pattern = format!("{base}/{}/date=*/node=*/*.parquet", table.name);
        found.push((quoted(&pattern), BY_DIRECTORY));
    }
    Ok(found)
}

fn prototype(table: &Table) -> String {
    let column = |column: &Column| {
        let sql_type = match column.column_type {
            ColumnType::F64 => "DOUBLE",
            ColumnType::I64 => "BIGINT",
            ColumnType::U64 => "UBIGINT",
            ColumnType::U32 => "UINTEGER",
            ColumnType::Label | ColumnType::Text => "VARCHAR",
            ColumnType::Labels => "VARCHAR[]",
            ColumnType::Timestamp => "TIMESTAMPTZ",
        };
        format!("NULL::{sql_type} AS {}", column.name)
    };
    table.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// A directory's name in which nothing is a pattern.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => text.extend(['[', c, ']']),
            _ => text.push(c),
        }
    }
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockAnchor;
    use crate::schema::PHASES;
    use crate::store::{FileMetadata, write_table};

    #[test]
    fn names_that_mean_something_to_sql_or_to_a_pattern_mean_nothing() {
        assert_eq!(quoted(&escaped("/a'b/[x]*?")), "'/a''b/[[]x][*][?]'");
    }

    #[test]
    fn a_table_without_files_is_a_view_without_rows_and_one_with_files_reads_them() {
        let dir = tempfile::TempDir::new().unwrap();
        let meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
        write_table(&dir.path().join("phases.parquet"), &PHASES, &[], &meta).unwrap();
        let text = duckdb_views(dir.path()).unwrap();
        let of = |name: &str| text.split(';').find(|s| s.contains(&format!("VIEW {name} AS"))).unwrap();
        assert!(of("phases").contains("phases.parquet', union_by_name = true)"), "{text}");
        assert!(
            !of("samples").contains("read_parquet") && of("samples").contains("NULL::TIMESTAMPTZ AS t, "),
            "{text}"
        );
        assert!(of("power").contains("FROM samples"), "{text}");
    }
}
