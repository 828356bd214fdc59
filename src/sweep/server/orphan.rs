//! The server of a runner that was killed: it keeps the GPUs' memory, and the next one would not start.
//!
//! A runner notes which server it has started. Who finds such a note, and a process to which it still applies, ends it.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between asking a group to end and killing it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A number, an instant and a boot's identifier.
const LONGEST_NOTE_BYTES: u64 = 256;

/// A note of the running server, taken away when it is dropped.
#[derive(Debug)]
pub(in crate::sweep) struct Note {
    path: PathBuf,
}

impl Note {
    /// Notes that process `id` was started; a note that cannot be written is no reason not to measure.
    pub(in crate::sweep) fn write(dir: &Path, id: u32) -> Self {
        let path = place(dir);
        if let Some(identity) = identity(id) {
            // Made anew: what lies there could be a link, put there by somebody else.
            let _ = fs::remove_file(&path);
            let note = OpenOptions::new().write(true).create_new(true).open(&path);
            let _ = note.and_then(|mut note| note.write_all(identity.as_bytes()));
        }
        Self { path }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn place(dir: &Path) -> PathBuf {
    dir.join("server.running")
}

/// Number, start and boot of a process: together they mean one process for all time and on every node.
fn identity(id: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything; the start is the 20th word behind it.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{id} {start} {}", boot.trim()))
}

/// A note that this user wrote. In a directory of others, somebody else's could name any process of ours to be ended.
fn own_note(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    if file.metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut note = String::new();
    file.take(LONGEST_NOTE_BYTES).read_to_string(&mut note).ok()?;
    Some(note)
}

/// Ends what a killed runner left behind; its number, if there was something.
pub(in crate::sweep) fn end(dir: &Path) -> Option<u32> {
    let path = place(dir);
    let note = own_note(&path)?;
    let _ = fs::remove_file(&path);
    let id: u32 = note.split(' ').next()?.parse().ok()?;
    let still_there = || identity(id).as_deref() == Some(note.trim());
    let group = Pid::from_raw(i32::try_from(id).ok()?).filter(|_| still_there())?;
    let _ = kill_process_group(group, Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while still_there() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    // The group may outlive its leader by some workers.
    let _ = kill_process_group(group, Signal::KILL);
    Some(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_note_is_not_written_through_a_link_nor_read_through_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, place(dir.path())).expect("a link");
        assert_eq!(own_note(&place(dir.path())), None);
        let note = Note::write(dir.path(), std::process::id());
        assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");
        assert_eq!(own_note(&place(dir.path())), identity(std::process::id()));
        drop(note);
        assert!(!place(dir.path()).exists());
    }

    #[test]
    fn what_a_killed_runner_left_is_ended_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut left = Command::new("sleep").arg("1000").process_group(0).stdin(Stdio::null()).spawn().expect("sleep");
        // A runner that is killed drops nothing.
        std::mem::forget(Note::write(dir.path(), left.id()));
        let note = fs::read_to_string(place(dir.path())).expect("a note");
        // The same number, started at another time: somebody else.
        let words: Vec<&str> = note.split(' ').collect();
        fs::write(place(dir.path()), format!("{} 1 {}", words[0], words[2])).expect("a note");
        assert_eq!(end(dir.path()), None);
        assert!(left.try_wait().expect("a child").is_none(), "a stranger was ended");
        fs::write(place(dir.path()), note).expect("a note");
        let waiting = std::thread::spawn(move || left.wait());
        assert!(end(dir.path()).is_some());
        assert!(!waiting.join().expect("a thread").expect("an end").success());
        assert_eq!(end(dir.path()), None, "the note is gone");
    }

    #[test]
    fn a_note_goes_with_its_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let note = Note::write(dir.path(), std::process::id());
        assert!(place(dir.path()).exists());
        drop(note);
        assert!(!place(dir.path()).exists());
        fs::write(place(dir.path()), "not a note at all").expect("a file");
        assert_eq!(end(dir.path()), None);
    }
}
