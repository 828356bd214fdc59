//! Every table and column that energylens writes, with type, unit and one sentence, and the values that label rows.
//!
//! This is the contract with analysts: the same names are the Lua axes, the CSV headers and the report's headings.
//! Files carry [`FORMAT_VERSION`]; a column may be added, never renamed or given another meaning within a version.

mod labels;
mod nearest;
mod tables;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use labels::{EnergySource, MarkEvent, Method, Origin, Phase, RunStatus, UnknownLabel};
pub use nearest::nearest;
pub use tables::{MARKS, PHASES, RUNS, SAMPLES, TELEMETRY};

/// Version of the on-disk tables; stands in every file's metadata as `energylens.format_version`.
pub const FORMAT_VERSION: &str = "1";

/// Physical type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 64-bit float.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// UTF-8 text, few distinct values: dictionary-encoded.
    Label,
    /// UTF-8 text, mostly distinct values.
    Text,
    /// A list of labels.
    Labels,
    /// A wall-clock instant in UTC, in milliseconds.
    Timestamp,
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::Label => "label",
            Self::Text => "text",
            Self::Labels => "labels",
            Self::Timestamp => "timestamp",
        })
    }
}

/// What a sealed file says of each row though nobody recorded it: it follows from the file's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    /// The host that the file names.
    Host,
    /// The recording that the file is a part of.
    Recording,
    /// The wall-clock instant of the named column, which holds a monotonic one, by the file's clock anchor.
    WallClock(&'static str),
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Column name; the unit is its last part.
    pub name: &'static str,
    /// Physical type.
    pub column_type: ColumnType,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// Unit (`J`, `s`, `ns`, ...), or empty for counts, ratios and labels.
    pub unit: &'static str,
    /// One sentence on what the value says.
    pub doc: &'static str,
    /// Where its values come from if they are not recorded; such columns are in sealed files only, not in spools.
    pub derived: Option<Derived>,
}

/// One table of a campaign directory.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name; the first part of its files' names.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// Columns, in file order.
    pub columns: &'static [Column],
}

impl Column {
    /// The Arrow field, with unit and documentation in its metadata.
    pub fn field(&self) -> Field {
        let data_type = match self.column_type {
            ColumnType::F64 => DataType::Float64,
            ColumnType::I64 => DataType::Int64,
            ColumnType::U64 => DataType::UInt64,
            ColumnType::U32 => DataType::UInt32,
            ColumnType::Label => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            ColumnType::Text => DataType::Utf8,
            ColumnType::Labels => DataType::List(Arc::new(Field::new("item", DataType::Utf8, false))),
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        };
        let mut metadata = HashMap::from([("doc".to_owned(), self.doc.to_owned())]);
        if !self.unit.is_empty() {
            metadata.insert("unit".to_owned(), self.unit.to_owned());
        }
        Field::new(self.name, data_type, self.nullable).with_metadata(metadata)
    }
}

impl Table {
    /// The Arrow schema of the table as it is sealed.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()))
    }

    /// The Arrow schema of what is recorded: without the columns that are derived when the table is sealed.
    pub fn recorded_schema(&self) -> SchemaRef {
        let recorded = self.columns.iter().filter(|c| c.derived.is_none());
        Arc::new(Schema::new(recorded.map(Column::field).collect::<Vec<_>>()))
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// All tables, in the order in which they are written.
pub const TABLES: [&Table; 5] = [&SAMPLES, &TELEMETRY, &MARKS, &RUNS, &PHASES];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_documented_and_named_with_its_unit_last() {
        for table in TABLES {
            for (i, column) in table.columns.iter().enumerate() {
                assert!(column.doc.ends_with('.'), "{}.{}", table.name, column.name);
                assert!(table.columns[..i].iter().all(|c| c.name != column.name), "{} twice", column.name);
                let suffix = match column.unit {
                    "J" => "_j",
                    "s" => "_s",
                    "ns" => "_ns",
                    "W" => "_w",
                    "uJ" => "_uj",
                    "Hz" => "_hz",
                    "°C" => "_c",
                    _ => "",
                };
                let stem = column.name.trim_end_matches("_std");
                assert!(stem.ends_with(suffix), "{}.{} lacks {suffix}", table.name, column.name);
            }
        }
    }
}
