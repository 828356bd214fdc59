//! What a runner that was killed has left: servers that keep the GPUs' memory, commands that compute into the next run.
//!
//! A runner notes each process that it starts, in a file of its own, before and after. Who finds such a note, and a process
//! group to which it still applies, ends the group. A group often outlives its leader by some workers. Then its number says
//! little, since others may have it by now: so every process gets a word of its own into its environment, which its
//! children inherit, and a group without its leader is ended only where somebody in it has that word.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between asking a group to end and killing it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a group is looked at that was asked to end.
const LOOK: Duration = Duration::from_millis(50);
/// A number, an instant, a boot's identifier and a tag.
const LONGEST_NOTE_BYTES: u64 = 256;
/// What notes are called behind a name of their own.
const SUFFIX: &str = ".running";
/// The variable that holds a tag.
const VARIABLE: &str = "ENERGYLENS_PROCESS";

/// A word that no other process has in its environment but those that come of one start.
#[derive(Debug)]
pub(in crate::sweep) struct Tag(String);

impl Tag {
    /// One that was never used.
    pub(in crate::sweep) fn new() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        Self(format!("{}-{since}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed)))
    }

    /// Variables for the process.
    pub(in crate::sweep) fn environment(&self) -> [(String, String); 2] {
        // vLLM names its workers with Python's `setproctitle`, which writes over their environment unless it is told not
        // to: then the tag could not be read.
        [(VARIABLE.to_owned(), self.0.clone()), ("SPT_NOENV".to_owned(), "1".to_owned())]
    }
}

/// A note of a running process, taken away when it is dropped.
#[derive(Debug)]
pub(in crate::sweep) struct Note {
    path: PathBuf,
    tag: String,
}

/// What stands in the place of the number of a process that has none yet.
const STARTING: &str = "starting 0";

impl Note {
    /// Notes that a process with this tag is about to be started; `name` is that of the note. One that cannot be written
    /// is no reason not to measure.
    pub(in crate::sweep) fn begin(dir: &Path, name: &str, tag: &Tag) -> Self {
        let note = Self { path: dir.join(format!("{name}{SUFFIX}")), tag: tag.0.clone() };
        note.put(STARTING);
        note
    }

    /// Notes its number: it leads a group of its own.
    pub(in crate::sweep) fn started(&self, id: u32) {
        if let Some(leader) = Member::of(id) {
            self.put(&format!("{id} {}", leader.start));
        }
    }

    /// Puts a note there that is whole or not there at all.
    fn put(&self, who: &str) {
        let Some(boot) = boot() else { return };
        // Not through what lies there, which could be a link that somebody else has put there.
        let new = self.path.with_extension("new");
        let _ = fs::remove_file(&new);
        let written = OpenOptions::new().write(true).create_new(true).open(&new);
        let written = written.and_then(|mut file| file.write_all(format!("{who} {boot} {}", self.tag).as_bytes()));
        let _ = written.and_then(|()| fs::rename(&new, &self.path));
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Which boot of which node this is.
fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|boot| boot.trim().to_owned())
}

/// A process, as the kernel lists it. Number and start together mean one process for the whole of a boot.
struct Member {
    id: u32,
    group: u32,
    /// In ticks since the boot.
    start: u64,
    /// Over, and kept only for a parent that has not asked yet.
    is_dead: bool,
}

impl Member {
    fn of(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name in brackets may hold anything; behind it come the state, the parent, the group, and 17 words later
        // the start.
        let mut words = stat.rsplit_once(')')?.1.split_whitespace();
        let is_dead = matches!(words.next()?, "Z" | "X" | "x");
        let group = words.nth(1)?.parse().ok()?;
        Some(Self { id, group, start: words.nth(16)?.parse().ok()?, is_dead })
    }

    /// Whether its environment has the tag.
    fn carries(&self, tag: &str) -> bool {
        let variable = format!("{VARIABLE}={tag}");
        let environment = fs::read(format!("/proc/{}/environ", self.id)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    }
}

/// What a note says.
struct Left {
    path: PathBuf,
    /// Number and start of the group's leader; none, where the runner did not live to learn them.
    leader: Option<(u32, u64)>,
    boot: String,
    tag: String,
}

impl Left {
    /// A note that this user wrote. In a directory of others, somebody else's could name any process of ours to be ended.
    fn read(path: PathBuf) -> Option<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).ok()?;
        if file.metadata().ok()?.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let mut note = String::new();
        file.take(LONGEST_NOTE_BYTES).read_to_string(&mut note).ok()?;
        let mut words = note.split_whitespace();
        let (id, start) = (words.next()?, words.next()?);
        let leader = id.parse().ok().zip(start.parse().ok());
        Some(Self { path, leader, boot: words.next()?.to_owned(), tag: words.next()?.to_owned() })
    }

    /// The groups that are the noted one and still run.
    fn groups(&self) -> Vec<u32> {
        if boot().as_ref() != Some(&self.boot) {
            return Vec::new();
        }
        let running = running();
        let Some((group, start)) = self.leader else {
            // Killed between starting the process and noting its number.
            let mut groups: Vec<u32> = running.iter().filter(|m| m.carries(&self.tag)).map(|m| m.group).collect();
            groups.sort_unstable();
            groups.dedup();
            return groups;
        };
        let mut members = running.iter().filter(|m| m.group == group).peekable();
        let is_ours = members.peek().is_some()
            && match Member::of(group) {
                Some(leader) => leader.start == start,
                // Others may have had the number since, and may be a group without a leader too: they have another tag.
                None => members.any(|m| m.start >= start && m.carries(&self.tag)),
            };
        if is_ours { vec![group] } else { Vec::new() }
    }
}

/// All processes that are not dead.
fn running() -> Vec<Member> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(Member::of).filter(|m| !m.is_dead).collect()
}

/// Those of `groups` that have a member.
fn alive(groups: &[u32]) -> Vec<u32> {
    let running = running();
    groups.iter().copied().filter(|group| running.iter().any(|m| m.group == *group)).collect()
}

fn signal(groups: &[u32], signal: Signal) {
    for group in groups.iter().filter_map(|group| Pid::from_raw(i32::try_from(*group).ok()?)) {
        let _ = kill_process_group(group, signal);
    }
}

/// Ends what a killed runner left behind; the numbers of its groups.
pub(in crate::sweep) fn end(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let notes: Vec<Left> = entries.filter(|p| p.to_string_lossy().ends_with(SUFFIX)).filter_map(Left::read).collect();
    let groups: Vec<u32> = notes.iter().flat_map(Left::groups).collect();
    signal(&groups, Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while !alive(&groups).is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    // Only who is still there: the number of a group that has ended may soon be a stranger's.
    signal(&alive(&groups), Signal::KILL);
    // Now, not before: a runner that is killed here finds them again.
    for note in &notes {
        let _ = fs::remove_file(&note.path);
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that leads a group of its own, with the tag; it ends when its input does.
    fn shell(script: &str, tag: &Tag) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).envs(tag.environment()).process_group(0).stdin(Stdio::piped());
        command.spawn().expect("sh")
    }

    fn note_of(dir: &Path) -> PathBuf {
        dir.join("p.running")
    }

    fn noted(dir: &Path, name: &str, id: u32, tag: &Tag) -> Note {
        let note = Note::begin(dir, name, tag);
        note.started(id);
        note
    }

    #[test]
    fn a_note_is_not_written_through_a_link_nor_read_through_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").expect("a file");
        std::os::unix::fs::symlink(&victim, note_of(dir.path())).expect("a link");
        assert!(Left::read(note_of(dir.path())).is_none());
        let note = noted(dir.path(), "p", std::process::id(), &Tag::new());
        assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");
        assert_eq!(Left::read(note_of(dir.path())).and_then(|l| Some(l.leader?.0)), Some(std::process::id()));
        drop(note);
        assert!(!note_of(dir.path()).exists());
    }

    #[test]
    fn what_a_killed_runner_left_is_ended_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let tag = Tag::new();
        let mut left = shell("sleep 1000", &tag);
        // A runner that is killed drops nothing.
        std::mem::forget(noted(dir.path(), "p", left.id(), &tag));
        let note = fs::read_to_string(note_of(dir.path())).expect("a note");
        // The same number, started at another time or at another boot: somebody else.
        let words: Vec<&str> = note.split(' ').collect();
        for foreign in [[words[0], "1", words[2], words[3]], [words[0], words[1], "another-boot", words[3]]] {
            fs::write(note_of(dir.path()), foreign.join(" ")).expect("a note");
            assert_eq!(end(dir.path()), [0_u32; 0]);
            assert!(left.try_wait().expect("a child").is_none(), "a stranger was ended");
        }
        fs::write(note_of(dir.path()), note).expect("a note");
        // A second one, under a name of its own.
        let other = shell("sleep 1000", &tag);
        std::mem::forget(noted(dir.path(), "q", other.id(), &tag));
        let mut expected = [left.id(), other.id()];
        expected.sort_unstable();
        let waiting = [left, other].map(|mut child| std::thread::spawn(move || child.wait()));
        let mut ended = end(dir.path());
        ended.sort_unstable();
        assert_eq!(ended, expected);
        for one in waiting {
            assert!(!one.join().expect("a thread").expect("an end").success());
        }
        assert_eq!(end(dir.path()), [0_u32; 0], "the notes are gone");
    }

    #[test]
    fn workers_without_their_leader_are_ended_if_they_are_ours() {
        for is_ours in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let tag = Tag::new();
            let others = Tag(String::new());
            let mut leader = shell("sleep 1000 & read x", if is_ours { &tag } else { &others });
            let group = leader.id();
            std::mem::forget(noted(dir.path(), "p", group, &tag));
            let members = || running().iter().filter(|m| m.group == group).count();
            let give_up = Instant::now() + Duration::from_secs(60);
            // The shell and the `sleep` that it has started.
            while members() < 2 {
                assert!(Instant::now() < give_up, "no worker");
                std::thread::sleep(LOOK);
            }
            drop(leader.stdin.take());
            leader.wait().expect("an end");
            assert_eq!(members(), 1, "the worker outlives its leader");
            if is_ours {
                assert_eq!(end(dir.path()), [group]);
            } else {
                assert_eq!(end(dir.path()), [0_u32; 0]);
                assert_eq!(members(), 1, "a stranger was ended");
                signal(&[group], Signal::KILL);
            }
            while members() > 0 {
                assert!(Instant::now() < give_up, "the worker still runs");
                std::thread::sleep(LOOK);
            }
        }
    }

    #[test]
    fn a_process_whose_number_was_not_noted_any_more_is_ended_by_its_tag() {
        let dir = tempfile::tempdir().expect("a directory");
        let tag = Tag::new();
        std::mem::forget(Note::begin(dir.path(), "p", &tag));
        let mut left = shell("sleep 1000", &tag);
        let id = left.id();
        let waiting = std::thread::spawn(move || left.wait());
        assert_eq!(end(dir.path()), [id]);
        assert!(!waiting.join().expect("a thread").expect("an end").success());
    }

    #[test]
    fn a_note_goes_with_its_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let note = noted(dir.path(), "p", std::process::id(), &Tag::new());
        assert!(note_of(dir.path()).exists());
        drop(note);
        assert!(!note_of(dir.path()).exists());
        fs::write(note_of(dir.path()), "not a note at all").expect("a file");
        assert_eq!(end(dir.path()), [0_u32; 0]);
    }
}
