//! Removes sealed segments that are too old or too many, and watches over the free space.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keeping::Keeping;
use super::notices::Notices;
use super::recording::Removed;
use crate::schema::{SAMPLES, TELEMETRY, Table};
use crate::store::{self, Inventory, OwnSegment};

/// Tables whose segments may be removed. Marks, runs and phases never are: they are small, and they are the result.
const REMOVABLE: &[&Table] = &[&SAMPLES, &TELEMETRY];
/// How often the directory is looked through.
const LOOK_EVERY_NS: i64 = 60_000_000_000;
/// How often the free space is asked for: a system call, but one that a busy cluster file system may answer slowly.
const FREE_EVERY_NS: i64 = 10_000_000_000;

/// Bytes that the file system of a directory has free for us, if it tells.
pub(super) type FreeBytes = Box<dyn FnMut(&Path) -> Option<u64> + Send>;

/// What the file system says.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(dir).ok()?;
    told.f_bavail.checked_mul(told.f_frsize)
}

/// Retention of one recorder in one directory.
pub(super) struct Retention {
    dir: PathBuf,
    keeping: Keeping,
    inventory: Inventory,
    free: FreeBytes,
    next_look_ns: i64,
    next_free_ns: i64,
    lacks_space: Option<String>,
    /// The latest look failed; that was told.
    cannot_look: bool,
    removed: Removed,
}

impl Retention {
    /// Retention for what `recorder` on `host` keeps in `dir`.
    pub(super) fn new(dir: &Path, keeping: Keeping, host: &str, recorder: &str, free: FreeBytes) -> Self {
        Self {
            dir: dir.to_owned(),
            keeping,
            inventory: Inventory::new(dir, REMOVABLE, host, recorder),
            free,
            next_look_ns: i64::MIN,
            next_free_ns: i64::MIN,
            lacks_space: None,
            cannot_look: false,
            removed: Removed::default(),
        }
    }

    /// To be called before writing: why nothing should be written for now, if so.
    pub(super) fn lacks_space(&self) -> Option<&str> {
        self.lacks_space.as_deref()
    }

    /// What was removed so far.
    pub(super) fn removed(&self) -> Removed {
        self.removed
    }

    /// Something was sealed, or the disk is full: the next [`look`](Self::look) does not wait for its time.
    pub(super) fn hurry(&mut self) {
        self.next_look_ns = i64::MIN;
        self.next_free_ns = i64::MIN;
    }

    /// Removes what has to go, if it is time to look. `unsealed_bytes` are on disk too and count, but stay.
    pub(super) fn look(&mut self, now_ns: i64, now_unix_ns: i64, unsealed_bytes: u64, notices: &Notices) {
        if !self.keeping.removes() {
            return;
        }
        let mut is_time = now_ns >= self.next_look_ns;
        let mut free = None;
        if let Some(least) = self.keeping.min_free_bytes
            && (is_time || now_ns >= self.next_free_ns)
        {
            self.next_free_ns = now_ns + FREE_EVERY_NS;
            free = (self.free)(&self.dir);
            is_time |= free.is_some_and(|free| free < least);
            if free.is_none_or(|free| free >= least) {
                self.lacks_space = None;
            }
        }
        if !is_time {
            return;
        }
        self.next_look_ns = now_ns + LOOK_EVERY_NS;
        match self.inventory.look() {
            Ok(segments) => {
                self.cannot_look = false;
                self.remove(&segments, now_unix_ns, unsealed_bytes, free, notices);
            }
            Err(e) => {
                if !std::mem::replace(&mut self.cannot_look, true) {
                    notices.say(format!("nothing can be removed for now: {e}"));
                }
            }
        }
    }

    fn remove(
        &mut self,
        segments: &[OwnSegment],
        now_unix_ns: i64,
        unsealed_bytes: u64,
        mut free: Option<u64>,
        notices: &Notices,
    ) {
        let oldest_unix_ns = self.keeping.keep_for.map_or(i64::MIN, |age| before(now_unix_ns, age));
        let most_bytes = self.keeping.keep_bytes.unwrap_or(u64::MAX);
        let least_free = self.keeping.min_free_bytes.unwrap_or(0);
        let mut kept_bytes = segments.iter().map(|s| s.bytes).sum::<u64>().saturating_add(unsealed_bytes);
        let (mut gone, mut why) = (Removed::default(), "");
        for segment in segments {
            why = if segment.t_end_unix_ns < oldest_unix_ns {
                "older than is kept"
            } else if kept_bytes > most_bytes {
                "more than is kept"
            } else if free.is_some_and(|free| free < least_free) {
                "the disk is nearly full"
            } else {
                break;
            };
            match self.inventory.remove(segment) {
                Ok(()) => {
                    gone.files += 1;
                    gone.bytes += segment.bytes;
                    kept_bytes = kept_bytes.saturating_sub(segment.bytes);
                    // Asked again only at the next look: file systems free space late.
                    free = free.map(|free| free.saturating_add(segment.bytes));
                }
                Err(e) => notices.say(format!("a sealed segment stays although it should go: {e}")),
            }
        }
        if gone.files > 0 {
            self.removed.files += gone.files;
            self.removed.bytes += gone.bytes;
            let mib = gone.bytes as f64 / f64::from(1 << 20);
            notices.say(format!("removed {} sealed segments, {mib:.1} MiB: {why}", gone.files));
        }
        self.lacks_space = free.filter(|free| *free < least_free).map(|free| {
            format!(
                "{free} bytes are free in {}, fewer than the {least_free} that shall stay so, and no sealed segment of \
                 this recorder is left to remove",
                self.dir.display()
            )
        });
    }
}

fn before(now_unix_ns: i64, age: Duration) -> i64 {
    now_unix_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// The error that stands for a pause by choice.
pub(super) fn refusal(dir: &Path, reason: &str) -> store::Error {
    store::Error::NoSpace { path: dir.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
