//! Rows in our own columns, from a campaign directory, a Parquet file or a CSV file.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use super::check::{self, Refusal, UnitSlip};
use super::frame::{self, Frame};
use super::parse::{self, Cells};
use super::row::{Dataset, RejectedRow, Row};
use super::{Error, headers, import};
use crate::schema::Phase;

/// Configurations whose energy is asked for, with the text they came as, so that columns can be appended to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configurations {
    /// Column names, all of them, in file order.
    pub headers: Vec<String>,
    /// The fields of every row as they stood in the file; as many rows as in `rows`.
    pub records: Vec<Vec<String>>,
    /// What was understood of each row, in file order.
    pub rows: Vec<Result<Row, RejectedRow>>,
    /// What a reader should know of the file as a whole.
    pub notes: Vec<String>,
}

/// Loads measured rows from a campaign directory, a Parquet file or a CSV file with the columns of
/// [`schema::PHASES`](crate::schema::PHASES).
///
/// Bad rows are refused one by one. It fails when the file cannot be read, lacks a column, is in another unit as a
/// whole, or holds no good row.
pub fn load(path: &Path) -> Result<Dataset, Error> {
    let path = &table_of(path)?;
    let mut frame = frame::read(path)?;
    let places = headers::locate(path, &frame.headers, true, &mut frame.notes).map_err(|error| {
        // The columns of a format that has an importer need that, not new names.
        match (error, import::recognised(&frame.headers)) {
            (Error::MissingColumn { path, column, .. }, Some(format)) => {
                let hint = format!("these are columns of the format {format}: `energylens import --from {format}`");
                Error::MissingColumn { path, column, hint }
            }
            (error, _) => error,
        }
    })?;
    let rows = checked_rows(&frame, &places, false);
    let mut dataset = into_dataset(path, rows, frame.notes)?;
    if !places.contains_key("run_id") {
        join_phases(&mut dataset.rows);
    }
    Ok(dataset)
}

/// Where a table names no runs, a decode row belongs to the total row of the same configuration and lengths, the second
/// of them to the second: otherwise one batch would count twice, once whole and once without its prefill.
fn join_phases(rows: &mut [Row]) {
    let key = |row: &Row| {
        let degrees = (row.tensor_parallel, row.pipeline_parallel, row.data_parallel, row.expert_parallel);
        (row.workload_key(), degrees)
    };
    let mut runs: HashMap<_, VecDeque<String>> = HashMap::new();
    for total in rows.iter().filter(|row| row.phase == Phase::Total) {
        runs.entry(key(total)).or_default().push_back(total.run_id.clone());
    }
    for decode in rows.iter_mut().filter(|row| row.phase == Phase::Decode) {
        if let Some(run_id) = runs.get_mut(&key(decode)).and_then(VecDeque::pop_front) {
            decode.run_id = run_id;
        }
    }
}

/// Loads configurations: the columns of [`load`] save `energy_j`, which is neither needed nor checked.
pub fn load_configurations(path: &Path) -> Result<Configurations, Error> {
    let path = &table_of(path)?;
    let mut frame = frame::read(path)?;
    let places = headers::locate(path, &frame.headers, false, &mut frame.notes)?;
    if frame.records.is_empty() {
        return Err(Error::NoRows { path: path.clone() });
    }
    let rows = checked_rows(&frame, &places, true).into_iter().map(|r| r.map_err(|refusal| refusal.row)).collect();
    let Frame { headers, records, notes } = frame;
    Ok(Configurations { headers, records: records.into_iter().map(|r| r.text).collect(), rows, notes })
}

fn table_of(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let table = path.join("phases.parquet");
    if table.is_file() { Ok(table) } else { Err(Error::NoPhases { path: path.to_owned() }) }
}

fn checked_rows(
    frame: &Frame,
    places: &HashMap<&'static str, usize>,
    is_configuration: bool,
) -> Vec<Result<Row, Refusal>> {
    frame
        .records
        .iter()
        .map(|record| {
            let mut row = parse::row(&Cells { record, places }, is_configuration)?;
            if is_configuration {
                // A configuration's energy is the question; what an old column holds must not refuse the row.
                let energy_j = row.energy_j.take();
                check::row(&row)?;
                row.energy_j = energy_j;
            } else {
                check::row(&row)?;
            }
            Ok(row)
        })
        .collect()
}

/// Good rows and refused ones apart; fails when none is good, or when one wrong unit explains most refusals.
pub(super) fn into_dataset(path: &Path, rows: Vec<Result<Row, Refusal>>, notes: Vec<String>) -> Result<Dataset, Error> {
    let path = path.to_owned();
    if rows.is_empty() {
        return Err(Error::NoRows { path });
    }
    let of = rows.len();
    let mut dataset = Dataset { notes, ..Dataset::default() };
    let mut refusals = Vec::new();
    for row in rows {
        match row {
            Ok(row) => dataset.rows.push(row),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if let Some(error) = wrong_unit(&path, &refusals, of) {
        return Err(error);
    }
    // A few slipped rows are named by their neighbours: kJ and Wh are nearer to each other than two models may be.
    let usual_log = median(dataset.rows.iter().filter_map(check::off_log)).unwrap_or_default();
    dataset.rejected = refusals
        .into_iter()
        .map(|refusal| {
            let slip = refusal.slip(usual_log);
            refusal.explained(slip).row
        })
        .collect();
    if dataset.rows.is_empty() {
        let reasons: Vec<String> = dataset.rejected.iter().take(3).map(ToString::to_string).collect();
        return Err(Error::NoGoodRow { path, count: of, reasons: reasons.join("; ") });
    }
    Ok(dataset)
}

/// One wrong unit that explains most rows: a file is in one unit, and where most rows are off, the few that still look
/// right are wrong too. Rows too large and rows too small are no common slip, and the unit is that of the median row.
fn wrong_unit(path: &Path, refusals: &[Refusal], of: usize) -> Option<Error> {
    let slipped: Vec<(f64, UnitSlip, &Refusal)> =
        refusals.iter().filter_map(|r| Some((r.off_log()?, r.slip(0.0)?, r))).collect();
    let (large, small): (Vec<_>, Vec<_>) = slipped.into_iter().partition(|(_, slip, _)| slip.is_too_large());
    let mut side = if large.len() > small.len() { large } else { small };
    if 2 * side.len() <= of {
        return None;
    }
    side.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, slip, median) = *side.get(side.len() / 2)?;
    Some(Error::WrongUnit {
        path: path.to_owned(),
        rows: side.len(),
        of,
        hint: slip.hint().to_owned(),
        example: median.row.to_string(),
    })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests;
