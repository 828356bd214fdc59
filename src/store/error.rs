//! What can go wrong with files, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// Result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a campaign, a file or a batch of rows could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory does not hold a campaign.
    #[error("{path} is no campaign: expected campaign.json or energylens tables, found {found}", path = .path.display())]
    NotACampaign {
        /// The directory.
        path: PathBuf,
        /// What is there instead.
        found: String,
        /// A directory in it that is one.
        near: Option<PathBuf>,
    },
    /// The directory holds something else, among which no campaign is begun.
    #[error("{path} is no campaign: expected one, or a new or empty directory to begin one in, found {found}", path = .path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// Another process works on the campaign.
    #[error("campaign {path} is in use by process {holder}; wait for it to end, or choose another directory", path = .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Pid and host of the holder, as far as known.
        holder: String,
    },
    /// The file system refused.
    #[error("cannot {action} {path}{advice}", path = .path.display(), advice = advice(source))]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody merged segments under a reader's hands.
    #[error("{path} was merged with its neighbours while it was read; read again", path = .path.display())]
    Merged {
        /// The segment that is gone.
        path: PathBuf,
    },
    /// Nothing shall be written for now, by the user's own limit.
    #[error("nothing is written to {path}: {reason}", path = .path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Which limit, and how far from it.
        reason: String,
    },
    /// The file is not readable as what its name promises.
    #[error("{path} is not a readable {expected} file (damaged, or of another kind)", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// `Parquet` or `Arrow stream`.
        expected: &'static str,
        /// The decoder's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A Parquet file that is not ours, or of a version that this program does not know.
    #[error("{path}: expected {expected}, found {found}", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was wanted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A column is missing, has an unusable type, or holds an unusable value.
    #[error("column `{column}`: expected {expected}, found {found}")]
    Column {
        /// Its name.
        column: String,
        /// What was wanted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Rows that do not fit the table they were given for.
    #[error("rows do not fit table `{table}`")]
    Batch {
        /// The table.
        table: &'static str,
        /// The mismatch.
        source: ArrowError,
    },
    /// Any of the above, inside a file.
    #[error("in {path}", path = .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What went wrong there.
        source: Box<Error>,
    },
}

fn advice(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(libc::ELOOP) {
        return ": it is a symbolic link, which is not followed here: somebody else may have put it there; remove it";
    }
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": the disk or the quota is full; free some space",
        io::ErrorKind::PermissionDenied => ": permission denied; choose a directory that you may write, or its owner",
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only; choose another directory",
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            ": a file of that name is in the way; expected a directory, name another"
        }
        io::ErrorKind::NotFound => ": no such file or directory",
        _ => "",
    }
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn unreadable(
        path: &Path,
        expected: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let path = path.to_owned();
        move |source| Self::Unreadable { path, expected, source }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }

    /// An error while writing: a full disk, seen through the encoder's own error type, is still a full disk.
    pub(super) fn parquet(action: &'static str, path: &Path, source: ParquetError) -> Self {
        match source {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => Self::Io { action, path: path.to_owned(), source: *source },
                Err(source) => Self::Unreadable { path: path.to_owned(), expected: "Parquet", source },
            },
            source => Self::Unreadable { path: path.to_owned(), expected: "Parquet", source: Box::new(source) },
        }
    }

    pub(super) fn arrow(action: &'static str, path: &Path, source: ArrowError) -> Self {
        match source {
            ArrowError::IoError(_, source) => Self::Io { action, path: path.to_owned(), source },
            source => Self::Unreadable { path: path.to_owned(), expected: "Arrow stream", source: Box::new(source) },
        }
    }

    pub(super) fn column(column: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Column { column: column.to_owned(), expected: expected.into(), found: found.into() }
    }
}
