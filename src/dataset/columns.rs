//! Some columns of a table that is not one of rows: a trace of requests, a series of prices.

use std::fmt;
use std::path::Path;

use super::Error;
use super::frame::{self, Cell};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// Empty, `nan`, `null` and the like.
    Missing,
    /// A number.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl Field {
    /// The number, where it is a finite one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number).filter(|n| n.is_finite()),
            Self::Text(text) => text.parse().ok().filter(|n: &f64| n.is_finite()),
            Self::Missing => None,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number(), self) {
            (Some(number), _) => write!(f, "{number}"),
            (_, Self::Number(number)) => write!(f, "{number}"),
            (_, Self::Text(text)) => write!(f, "`{text}`"),
            (_, Self::Missing) => f.write_str("nothing"),
        }
    }
}

/// One row of [`Columns`].
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnsRow {
    /// Position in the file, from 1, the header not counted.
    pub line: usize,
    /// A field for each wanted column, missing where the column is.
    pub fields: Vec<Field>,
}

/// Some columns of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// All headers of the file.
    pub headers: Vec<String>,
    /// The header found for each wanted column.
    pub names: Vec<Option<String>>,
    /// Rows.
    pub rows: Vec<ColumnsRow>,
}

/// Reads the wanted columns of a CSV or Parquet file; each may have several names, of which the first found counts.
pub fn load_columns(path: &Path, wanted: &[&[&str]]) -> Result<Columns, Error> {
    let frame = frame::read(path)?;
    let is_called = |header: &str, name: &str| header.trim().eq_ignore_ascii_case(name);
    let place = |names: &&[&str]| {
        let Some(name) = names.iter().find(|name| frame.headers.iter().any(|h| is_called(h, name))) else {
            return Ok(None);
        };
        let count = frame.headers.iter().filter(|h| is_called(h, name)).count();
        if count > 1 {
            return Err(Error::DuplicateColumn { path: path.to_owned(), column: (*name).to_owned(), count });
        }
        Ok(frame.headers.iter().position(|h| is_called(h, name)))
    };
    let places = wanted.iter().map(place).collect::<Result<Vec<Option<usize>>, Error>>()?;
    let field = |cells: &[Cell], place: &Option<usize>| match place.and_then(|i| cells.get(i)) {
        None | Some(Cell::Missing) => Field::Missing,
        Some(Cell::Number(number)) => Field::Number(*number),
        Some(Cell::Text(text)) => Field::Text(text.clone()),
    };
    let rows = frame
        .records
        .iter()
        .map(|r| ColumnsRow { line: r.line, fields: places.iter().map(|p| field(&r.cells, p)).collect() })
        .collect();
    let names = places.iter().map(|p| p.and_then(|i| frame.headers.get(i).cloned())).collect();
    Ok(Columns { names, rows, headers: frame.headers })
}
