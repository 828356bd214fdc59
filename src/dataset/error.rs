//! Why no dataset came of a file or a campaign.

use std::io;
use std::path::PathBuf;

/// A failure of a whole file; single bad rows are [`RejectedRow`](super::RejectedRow)s instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be created or written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory that holds no phases table.
    #[error("{} is a directory without phases.parquet; expected a campaign whose runs have been reduced, a Parquet file or a CSV file", path.display())]
    NoPhases {
        /// The directory.
        path: PathBuf,
    },
    /// Bytes that call themselves Parquet and are not.
    #[error("{} is not a readable Parquet file: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        reason: String,
    },
    /// Text that is no table.
    #[error("{} is not a readable CSV file: {reason}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// A column that must be there is not.
    #[error("{}: column {column} is missing; {hint}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column that was expected.
        column: String,
        /// The nearest thing found, and what to do about it.
        hint: String,
    },
    /// A column that is nearly one of ours, and would be ignored although it was meant.
    #[error("{}: column {found} is not known; {hint}", path.display())]
    MisspeltColumn {
        /// The file.
        path: PathBuf,
        /// The column as it stands in the file.
        found: String,
        /// What it was probably meant to be.
        hint: String,
    },
    /// One name twice: which of the two columns was meant cannot be told.
    #[error("{}: column {column} stands there {count} times; expected once", path.display())]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// How often it stands there.
        count: usize,
    },
    /// Most rows are off by the factor of one unit: the file is, not the rows.
    #[error("{}: {rows} of {of} rows are off by one factor: {hint}; {example}", path.display())]
    WrongUnit {
        /// The file.
        path: PathBuf,
        /// Rows that are off.
        rows: usize,
        /// Rows in all.
        of: usize,
        /// Which unit the column seems to be in, and what to do.
        hint: String,
        /// One of the rows.
        example: String,
    },
    /// A table without rows.
    #[error("{} has a header and no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Every row was refused.
    #[error("{}: none of {count} rows can be used; {reasons}", path.display())]
    NoGoodRow {
        /// The file.
        path: PathBuf,
        /// Rows refused.
        count: usize,
        /// The first few reasons.
        reasons: String,
    },
    /// The recordings of a campaign cannot be read.
    #[error("cannot read the recordings of {}", path.display())]
    Recording {
        /// The campaign directory.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
