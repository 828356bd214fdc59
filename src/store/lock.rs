//! Who may write: `flock`, which the kernel releases however its holder dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{Error, Result};

/// Exclusive right to run a campaign; released when dropped, and by the kernel when its holder dies.
///
/// On a file system without locks it is granted to everybody: refusing to work there would lose more than it saves.
#[derive(Debug)]
pub struct CampaignLock {
    // Held for its lock, never read.
    _file: File,
}

/// Name of this node, as the kernel knows it.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// What an attempt to lock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Held,
    HeldByOther,
    /// The file system has no locks (Lustre mounted without `flock`, some NFS).
    Unsupported,
}

pub(super) fn try_lock(file: &File, path: &Path) -> Result<Attempt> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Attempt::Held),
        Err(Errno::WOULDBLOCK) => Ok(Attempt::HeldByOther),
        Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK) => Ok(Attempt::Unsupported),
        Err(e) => Err(Error::io("lock", path)(e.into())),
    }
}

/// A process that is being started has our files open for an instant, and with them a lock that we have just let go.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(10);

impl CampaignLock {
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false) // The holder's pid must survive our failing to get the lock.
            .custom_flags(libc::O_NOFOLLOW) // In a directory of others, a link would have us empty a file of ours.
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let mut attempt = try_lock(&file, &path)?;
        for _ in 0..TRIES {
            if attempt != Attempt::HeldByOther {
                break;
            }
            std::thread::sleep(TRY_AGAIN);
            attempt = try_lock(&file, &path)?;
        }
        if attempt == Attempt::HeldByOther {
            let mut holder = String::new();
            // The file is ours to write but anybody's to garble; a short prefix is all that a message needs.
            let _ = (&mut file).take(80).read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
            return Err(Error::Locked { path: dir.to_owned(), holder });
        }
        let host = host_name();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{} on {host}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { _file: file })
    }
}
