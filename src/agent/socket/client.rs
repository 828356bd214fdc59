//! The sender's side.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{UnixAddr, bind};
use serde::Deserialize;

use super::message::MarkMessage;
use super::{check_length, socket_error};
use crate::agent::error::{Error, Result};

/// What the agent said to a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is on the disk.
    Recorded,
    /// It is in the agent's memory: the disk refuses.
    Waiting,
    /// Nobody asked.
    Sent,
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Sends one mark to the socket at `path` and waits for the agent's answer, at most `patience`; without it, does not
/// ask for one.
pub fn send_mark(path: &Path, message: &MarkMessage, patience: Option<Duration>) -> Result<Answer> {
    check_length(path)?;
    let bytes = serde_json::to_vec(message).map_err(|e| socket_error(path, "encode a mark for")(e.into()))?;
    let socket = match patience {
        Some(_) => bound_to_any().map_err(socket_error(path, "open a socket beside")),
        None => UnixDatagram::unbound().map_err(socket_error(path, "open a socket beside")),
    }?;
    // An agent that does not read is no reason to hang: its queue is full then.
    let wait = Some(patience.unwrap_or(Duration::from_secs(1)));
    socket.set_write_timeout(wait).map_err(socket_error(path, "prepare a socket beside"))?;
    if let Err(e) = socket.connect(path).and_then(|()| socket.send(&bytes)) {
        return Err(match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NoAgent { path: path.to_owned(), source: e },
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Unanswered { path: path.to_owned() },
            _ => socket_error(path, "send a mark to")(e),
        });
    }
    match patience {
        Some(patience) => answer(&socket, path, patience),
        None => Ok(Answer::Sent),
    }
}

/// A socket under an abstract name that the kernel chooses. Once connected, it hears nobody but the agent.
fn bound_to_any() -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    Ok(socket)
}

fn answer(socket: &UnixDatagram, path: &Path, patience: Duration) -> Result<Answer> {
    let unanswered = || Error::Unanswered { path: path.to_owned() };
    let end = Instant::now() + patience;
    let mut buffer = [0; 2_048];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unanswered());
        }
        socket.set_read_timeout(Some(left)).map_err(socket_error(path, "prepare a socket beside"))?;
        match socket.recv(&mut buffer) {
            Ok(bytes) => {
                let reply = buffer.get(..bytes).and_then(|b| serde_json::from_slice::<Reply>(b).ok());
                return match reply {
                    Some(reply) if reply.status == "recorded" => Ok(Answer::Recorded),
                    Some(reply) if reply.status == "waiting" => Ok(Answer::Waiting),
                    Some(Reply { reason, message, .. }) => Err(Error::MarkRefused { reason, message }),
                    None => Err(unanswered()),
                };
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(unanswered()),
            Err(e) => return Err(socket_error(path, "hear the answer of")(e)),
        }
    }
}
