//! Measured rows of others, one file per format: names are mapped and units converted here, at the door, nowhere else.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::check::{self, Refusal};
use super::frame::{self, Frame};
use super::load::{self, into_dataset};
use super::parse::Cells;
use super::row::{Dataset, RejectedRow, Row};
use super::{Error, headers};

mod anl_bench;
mod mlenergy_v2;
mod splitwise;

/// A format that [`import`] knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Our own columns.
    Energylens,
    /// Mutinifni/splitwise-sim `perf_model` rows.
    Splitwise,
    /// ML.ENERGY leaderboard, version 2.
    MlenergyV2,
    /// argonne-lcf/LLM-Inference-Bench power results.
    AnlBench,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Energylens, Self::Splitwise, Self::MlenergyV2, Self::AnlBench];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Energylens => "energylens",
            Self::Splitwise => "splitwise",
            Self::MlenergyV2 => "mlenergy-v2",
            Self::AnlBench => "anl-bench",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|f| f.as_str() == s)
            .ok_or_else(|| format!("format {s} is unknown; expected one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// Reads rows of a named format. What the source could not say is in [`Dataset::notes`].
pub fn import(path: &Path, format: Format) -> Result<Dataset, Error> {
    match format {
        Format::Energylens => load::load(path),
        Format::Splitwise => splitwise::FOREIGN.read(path),
        Format::MlenergyV2 => mlenergy_v2::FOREIGN.read(path),
        Format::AnlBench => anl_bench::FOREIGN.read(path),
    }
}

/// The foreign format whose columns are all there.
pub(super) fn recognised(headers: &[String]) -> Option<Format> {
    let foreign = [&splitwise::FOREIGN, &mlenergy_v2::FOREIGN, &anl_bench::FOREIGN];
    foreign.into_iter().find(|f| f.columns.iter().all(|c| headers.iter().any(|h| h == c))).map(|f| f.format)
}

/// How rows of one foreign format become ours.
struct Foreign {
    format: Format,
    /// Columns it must have.
    columns: &'static [&'static str],
    /// One record to one row; `None` for records that carry no energy.
    row: fn(&Cells<'_>) -> Result<Option<Row>, RejectedRow>,
    /// What the source does not say, or says doubtfully.
    notes: &'static [&'static str],
}

impl Foreign {
    fn read(&self, path: &Path) -> Result<Dataset, Error> {
        let Frame { headers, records, mut notes } = frame::read(path)?;
        let mut places = HashMap::new();
        for column in self.columns {
            let place = headers.iter().position(|h| h == column).ok_or_else(|| Error::MissingColumn {
                path: path.to_owned(),
                column: (*column).to_owned(),
                hint: self.missing_hint(&headers, column),
            })?;
            places.insert(*column, place);
        }
        let mut without_energy = 0;
        let mut rows: Vec<Result<Row, Refusal>> = Vec::new();
        for record in &records {
            if let Some(defect) = &record.defect {
                rows.push(Err(RejectedRow { line: record.line, column: None, reason: defect.clone() }.into()));
                continue;
            }
            match (self.row)(&Cells { record, places: &places }) {
                Ok(Some(row)) => rows.push(check::row(&row).map(|()| row)),
                Ok(None) => without_energy += 1,
                Err(refused) => rows.push(Err(refused.into())),
            }
        }
        if without_energy > 0 {
            notes.push(format!("{without_energy} of {} rows carry no energy and were left out", records.len()));
        }
        notes.extend(self.notes.iter().map(|n| (*n).to_owned()));
        into_dataset(path, rows, notes)
    }

    fn missing_hint(&self, found: &[String], column: &str) -> String {
        if headers::REQUIRED.iter().all(|r| found.iter().any(|f| f == r)) {
            return format!("the columns are energylens's own: import it with --from {}", Format::Energylens);
        }
        if let Some(format) = recognised(found) {
            return format!("these are columns of the format {format}: import it with --from {format}");
        }
        match crate::schema::nearest(column, found.iter().map(String::as_str)) {
            Some(near) => format!("the nearest is {near}; is this a file of the format {}?", self.format),
            None => format!("is this a file of the format {}?", self.format),
        }
    }
}

/// A row of one GPU, one sequence and nothing known: importers fill in what their source says.
fn blank(cells: &Cells<'_>) -> Row {
    Row {
        line: cells.record.line,
        run_id: cells.name("run_id").ok().flatten().unwrap_or_else(|| format!("row-{}", cells.record.line)),
        ..Row::new("", "")
    }
}

/// The spelling that the built-in cards use, for the names a format has of its own.
fn renamed(found: String, names: &[(&str, &str)]) -> String {
    names.iter().find(|(from, _)| *from == found).map_or(found, |(_, to)| (*to).to_owned())
}

#[cfg(test)]
mod tests;
