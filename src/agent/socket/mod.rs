//! The marks socket: any process on the node says when a phase of its work begins and ends.
//!
//! A Unix datagram socket. The kernel says who sent a datagram; everything else in it is checked by
//! [`message`]. A sender that has bound an abstract address gets an answer, all others fire and forget:
//! nothing that a sender does makes the agent wait.
//!
//! Trust: whoever may write to the socket may mark, in anybody's name. Marks carry their sender's uid, and readers
//! choose whom they believe.

mod client;
mod keeper;
mod message;
mod rate;
mod serve;

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use nix::sys::socket::{setsockopt, sockopt};

pub use client::{Answer, send_mark};
pub use message::{MAX_MARK_BYTES, MarkMessage, Refusal};

use self::keeper::Keeper;
use self::serve::Server;
use super::error::{Error, Result};
use super::job::JobPlaces;
use crate::clock::{Clock, ClockAnchor};
use crate::store::{FileMetadata, MarkRow};

/// Bytes of the longest path of a socket: `sockaddr_un` holds 108, with a zero at the end.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Where marks are taken and where they go.
#[derive(Debug, Clone)]
pub struct MarkSocketOptions {
    /// The socket's path.
    pub path: PathBuf,
    /// Its permissions. 0o666 lets everybody mark: senders are known by their credentials.
    pub mode: u32,
    /// The campaign directory.
    pub dir: PathBuf,
    /// Node name.
    pub host: String,
    /// The wall clock's anchor; taken at the start if `None`.
    pub anchor: Option<ClockAnchor>,
    /// Where senders' cgroups are looked up.
    pub places: JobPlaces,
    /// Who else is told of every mark that is taken.
    pub tap: Option<Sender<MarkRow>>,
}

/// What has come by the socket so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct MarkCounts {
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl MarkCounts {
    /// Marks taken.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Marks refused, reason by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn count(&self, outcome: std::result::Result<(), Refusal>) {
        let counter = match outcome {
            Ok(()) => Some(&self.accepted),
            Err(refusal) => Refusal::ALL.iter().position(|r| *r == refusal).and_then(|place| self.refused.get(place)),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What came of a socket's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarksReceived {
    /// Marks written.
    pub rows: u64,
    /// Sealed files.
    pub files: Vec<PathBuf>,
}

/// A socket that takes marks on a thread of its own. Dropped without [`finish`](Self::finish) it stops and seals too.
pub struct MarkSocket {
    path: PathBuf,
    bound: (u64, u64),
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    counts: Arc<MarkCounts>,
    thread: Option<JoinHandle<Result<MarksReceived>>>,
}

impl MarkSocket {
    /// Binds the socket and starts to take marks. A file that a dead agent left in its place is replaced; a living
    /// agent's is not.
    pub fn bind(options: MarkSocketOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let path = options.path.clone();
        let socket = bind(&path)?;
        let fail = |action| socket_error(&path, action);
        let prepared = std::fs::set_permissions(&path, Permissions::from_mode(options.mode))
            .map_err(fail("set the permissions of"))
            .and_then(|()| socket.set_nonblocking(true).map_err(fail("prepare")))
            .and_then(|()| {
                setsockopt(&socket, sockopt::PassCred, &true).map_err(|e| fail("ask for credentials on")(e.into()))
            })
            .and_then(|()| std::fs::metadata(&path).map_err(fail("inspect")));
        let start = || -> Result<Self> {
            let metadata = prepared?;
            let anchor = options.anchor.unwrap_or_else(|| ClockAnchor::now(clock.as_ref()));
            let meta = FileMetadata::of_host(&options.host, anchor);
            let keeper = Keeper::create(options.dir, meta, clock.now())?;
            let counts = Arc::new(MarkCounts::default());
            let (stop, reopen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let server = Server::new(socket, keeper, clock, options.places, counts.clone(), options.tap);
            let flags = (stop.clone(), reopen.clone());
            let thread = std::thread::Builder::new()
                .name("el-marks".to_owned())
                .spawn(move || server.run(&flags.0, &flags.1))
                .map_err(|source| Error::Thread { thread: "marks", source })?;
            let bound = (metadata.dev(), metadata.ino());
            Ok(Self { path: path.clone(), bound, stop, reopen, counts, thread: Some(thread) })
        };
        start().inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
        })
    }

    /// The socket's path, for `$ENERGYLENS_MARKS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has come so far.
    pub fn counts(&self) -> &Arc<MarkCounts> {
        &self.counts
    }

    /// Seals the marks so far; those that follow go to a new file.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    /// Takes what has been sent already, seals, and removes the socket.
    pub fn finish(mut self) -> Result<MarksReceived> {
        self.end().unwrap_or(Err(Error::Crashed { thread: "marks" }))
    }

    fn end(&mut self) -> Option<Result<MarksReceived>> {
        let thread = self.thread.take()?;
        // First the name, so that nobody writes to a socket that nobody reads; unless it is another's by now.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.bound) {
            let _ = std::fs::remove_file(&self.path);
        }
        self.stop.store(true, Ordering::Release);
        Some(thread.join().unwrap_or(Err(Error::Crashed { thread: "marks" })))
    }
}

impl Drop for MarkSocket {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn socket_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Socket { path, action, source }
}

fn check_length(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        return Err(Error::SocketPath { path: path.to_owned(), bytes });
    }
    Ok(())
}

fn bind(path: &Path) -> Result<UnixDatagram> {
    check_length(path)?;
    match UnixDatagram::bind(path) {
        Ok(socket) => return Ok(socket),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {}
        Err(e) => return Err(socket_error(path, "bind")(e)),
    }
    let file_type = std::fs::symlink_metadata(path).map_err(socket_error(path, "inspect"))?.file_type();
    if !file_type.is_socket() {
        return Err(Error::NotASocket { path: path.to_owned() });
    }
    let probe = UnixDatagram::unbound().map_err(socket_error(path, "probe"))?;
    match probe.connect(path) {
        // Nobody listens: a killed agent left it.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
        // Gone in the meantime.
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        _ => return Err(Error::SocketInUse { path: path.to_owned() }),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(socket_error(path, "remove the stale")(e)),
        _ => {}
    }
    UnixDatagram::bind(path).map_err(socket_error(path, "bind"))
}

#[cfg(test)]
mod tests;
