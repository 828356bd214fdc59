//! Rows in our own columns, from a campaign directory, a Parquet file or a CSV file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::check::{self, Refusal, UnitSlip};
use super::frame::{self, Frame};
use super::parse::{self, Cells};
use super::row::{Dataset, RejectedRow, Row};
use super::{Error, headers, import};

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
    into_dataset(path, rows, frame.notes)
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
    let mut slips: HashMap<UnitSlip, (usize, String)> = HashMap::new();
    for row in rows {
        match row {
            Ok(row) => dataset.rows.push(row),
            Err(refusal) => {
                if let Some(slip) = refusal.slip {
                    slips.entry(slip).or_insert_with(|| (0, refusal.row.to_string())).0 += 1;
                }
                dataset.rejected.push(refusal.row);
            }
        }
    }
    // A file is in one unit: where most rows are off, the few that still look right are wrong too.
    if let Some((slip, (count, example))) = slips.into_iter().max_by_key(|(_, (count, _))| *count)
        && 2 * count > of
    {
        return Err(Error::WrongUnit { path, rows: count, of, hint: slip.hint().to_owned(), example });
    }
    if dataset.rows.is_empty() {
        let reasons: Vec<String> = dataset.rejected.iter().take(3).map(ToString::to_string).collect();
        return Err(Error::NoGoodRow { path, count: of, reasons: reasons.join("; ") });
    }
    Ok(dataset)
}

#[cfg(test)]
mod tests;
