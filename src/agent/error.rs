//! What can go wrong with a recording as a whole. What goes wrong with single reads is counted, not raised.

use crate::store;

/// Result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a recording could not start, or could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files could not be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Rows are left that no attempt could write.
    #[error("{rows} rows of the recording could not be written; what is on disk before them is whole")]
    Unwritten {
        /// Rows left.
        rows: usize,
        /// The last attempt's failure.
        source: store::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the {thread} thread")]
    Thread {
        /// Which.
        thread: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A thread ended by a bug in this program or in a driver wrapper. What was flushed before is sealed or recoverable.
    #[error("the {thread} thread of the recording has crashed; rows up to the last flush are kept")]
    Crashed {
        /// Which.
        thread: &'static str,
    },
}
