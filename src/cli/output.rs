//! How results are written: JSON or tables on stdout, remarks on stderr, files that exist before long work starts.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use comfy_table::presets;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use energylens::dataset::{Dataset, RejectedRow, Row};
use energylens::file::directory_of;
use energylens::schema::EnergySource;
use energylens::source::Device;
use serde::Serialize;

/// Rejected rows that are listed one by one; the rest is counted.
const LISTED: usize = 10;

/// Writes a line or more for people to stdout. What files, drivers and scripts had in it cannot move the cursor, change
/// the terminal's title or hide a line: control characters are shown as escapes.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_exactly(&plain(text))
}

/// `text` without control characters other than line ends and tabs: they are written out, as `\u{1b}`. So are those that
/// turn the direction of writing, which make a line look like another.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if acts(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// The same for a name inside of a line: its line ends would forge lines of ours.
pub(crate) fn one_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// Says something on stderr.
pub(crate) fn say(text: &str) {
    eprintln!("{}", plain(text));
}

/// Writes to stdout what programs read, unchanged; a reader that went away (`| head`) is no failure.
pub(crate) fn print_exactly(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    read_to_the_end(out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())))
}

fn read_to_the_end(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("cannot write to stdout"),
    }
}

/// One JSON document on stdout.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    // The text of a plan can be several times as large as the plan.
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from);
    read_to_the_end(written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

/// A borderless table; the columns in `numeric` are right-aligned.
pub(crate) fn table(headers: &[&str], numeric: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headers);
    for column in numeric {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Says on stderr what a file as a whole had to remark and which rows were refused.
pub(crate) fn remark(dataset: &Dataset, refused: &[RejectedRow]) {
    for note in &dataset.notes {
        say(&format!("note: {}", one_line(note)));
    }
    let all: Vec<&RejectedRow> = dataset.rejected.iter().chain(refused).collect();
    for row in all.iter().take(LISTED) {
        let reason = one_line(&row.reason);
        match &row.column {
            Some(column) => say(&format!("rejected: row {}, {}: {reason}", row.line, one_line(column))),
            None => say(&format!("rejected: row {}: {reason}", row.line)),
        }
    }
    if all.len() > LISTED {
        eprintln!("rejected: {} more rows", all.len() - LISTED);
    }
}

/// Says once on stderr that experts were spread over the ranks, where they were: the law has no such symbol.
pub(crate) fn note_expert_parallel<'a>(rows: impl Iterator<Item = &'a Row>) {
    let count = rows.filter(|row| row.expert_parallel > 1).count();
    if count > 0 {
        eprintln!("note: {count} rows have expert_parallel above 1: the law does not look at it");
    }
}

/// Fails if writing `path` would destroy what is to be read: `inputs`, or the tables of a campaign among them.
pub(super) fn keep_inputs(path: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    // What cannot be resolved is not there, and so nobody's input.
    let target = path.canonicalize().ok();
    let is_input = |input: &&Path| {
        let input = input.canonicalize().ok();
        let is_table = |dir: &Path| Some(dir) == target.as_deref().and_then(Path::parent) && is_campaign_file(path);
        input == target || input.as_deref().is_some_and(is_table)
    };
    if let Some(input) = target.is_some().then(|| inputs.iter().copied().find(|i| is_input(i))).flatten() {
        anyhow::bail!(
            "cannot write {}: it is what is read ({}); name another file, measured rows are not to be overwritten",
            path.display(),
            input.display()
        );
    }
    Ok(())
}

/// Fails if no file can be made in the directory of `path`.
pub(super) fn writable(path: &Path) -> anyhow::Result<()> {
    let dir = directory_of(path);
    let Err(e) = tempfile::NamedTempFile::new_in(dir) else { return Ok(()) };
    let found = match e.kind() {
        io::ErrorKind::NotFound => "no such directory".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission".to_owned(),
        // The path in the error is that of the temporary file.
        _ => e.raw_os_error().map_or_else(|| e.to_string(), |code| io::Error::from_raw_os_error(code).to_string()),
    };
    anyhow::bail!(
        "cannot write {}: expected {} to be a directory that you may write to, found: {found}",
        path.display(),
        dir.display()
    )
}

/// Whether a campaign keeps a file of this kind.
fn is_campaign_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    matches!(extension, Some("parquet" | "jsonl" | "spool"))
        || matches!(path.file_name().and_then(|n| n.to_str()), Some("campaign.json" | "plan.json" | "lock"))
}

/// What stands beside figures of which any came from the simulated node.
pub(crate) fn simulated<'a>(devices: impl IntoIterator<Item = &'a Device>) -> &'static str {
    if devices.into_iter().any(|d| d.energy_source == EnergySource::Simulated) { "  [simulated]" } else { "" }
}

/// A remark for each of many rows on stderr, as far as anybody would read them.
pub(crate) fn remarks(lines: &[String]) {
    for line in lines.iter().take(LISTED) {
        say(&one_line(line));
    }
    if lines.len() > LISTED {
        let kind = lines.first().and_then(|l| l.split(':').next()).unwrap_or_default();
        say(&format!("{kind}: {} more rows", lines.len() - LISTED));
    }
}

/// Four significant digits, in the notation that is shorter to read.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.3e}")
    } else {
        let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{value:.decimals$}")
    }
}

/// `short(value) ± short(std)`, or what stands in its place.
pub(crate) fn plus_minus(value: f64, std: Option<f64>) -> String {
    std.map_or_else(|| format!("{} (held)", short(value)), |s| format!("{} ± {}", short(value), short(s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (12.3456, "12.35"),
            (0.012345, "0.01235"),
            (1234567.0, "1.235e6"),
            (3.2e-12, "3.200e-12"),
            (99999.0, "99999"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
