//! What can go wrong with a recording as a whole. What goes wrong with single reads is counted, not raised.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// Somebody waited for what was recorded to be on disk.
    #[error("what was recorded is not on disk after {waited_s:.0} s: {reason}")]
    NotFlushed {
        /// How long.
        waited_s: f64,
        /// What the writer says.
        reason: String,
    },
    /// The recording is over although nobody ended it.
    #[error("the recording has ended by itself: no device can be read any more; see `energylens doctor`")]
    Ended,
    /// The marks socket, or one that speaks to it, could not be used.
    #[error("cannot {action} the marks socket {path}{advice}", path = .path.display(), advice = socket_advice(source))]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What was tried, a verb.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A path that the kernel cannot take for a socket.
    #[error("the marks socket {path} has {bytes} bytes in its path, and a socket may have 107; choose a shorter path", path = .path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another agent takes marks there.
    #[error("the marks socket {path} is in use by another agent; stop that one, or choose another path", path = .path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies where the socket should be.
    #[error("{path} is in the way of the marks socket: expected nothing or a stale socket, found another kind of file; remove it, or choose another path", path = .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// A mark was to be sent, and nobody takes it.
    #[error("no agent takes marks at {path}; start `energylens agent --marks {path}`, or name its socket with --socket or $ENERGYLENS_MARKS", path = .path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A mark was sent, and nothing came back.
    #[error("the agent at {path} did not confirm the mark in time; it hangs, or it runs in another network namespace (then --no-confirm sends without asking)", path = .path.display())]
    Unanswered {
        /// The socket.
        path: PathBuf,
    },
    /// The agent did not take the mark.
    #[error("the agent refused the mark: {message}")]
    MarkRefused {
        /// The reason in a word.
        reason: String,
        /// The reason in words.
        message: String,
    },
    /// Metrics for everybody were asked for.
    #[error(
        "metrics cannot be served on {address}: expected an address of this node only, such as 127.0.0.1:9400; let a scraper on the node, or a proxy that checks who asks, read it there"
    )]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The metrics endpoint could not be opened.
    #[error("cannot listen on {address} for metrics; choose another port, or stop who uses it")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
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

fn socket_advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            ": permission denied; choose a directory that you may write, or ask for access"
        }
        std::io::ErrorKind::NotFound => ": its directory does not exist",
        _ => "",
    }
}
