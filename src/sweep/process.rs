//! A process with everything it starts: a group of its own that is ended as one.
//!
//! Servers fork workers, and a worker that outlives its server keeps the GPU's memory and draws its power into the next
//! run. So a process is started as the leader of a new group, and signals go to the group. The leader is not reaped
//! before the group has been ended: until then its number cannot pass to a stranger.
//!
//! Limit: a process that leaves the group (a daemon) is not followed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long a group may take to end by itself once it was asked to.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often a process is looked at while somebody waits for it.
const LOOK: Duration = Duration::from_millis(20);
/// Of a log, so much is looked through for its last lines.
const TAIL_BYTES: u64 = 64 << 10;

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program: nor will there be one for the next run.
    #[error("`{program}` is not found; expected a program on the PATH")]
    NotFound {
        /// The program, as it was given.
        program: String,
    },
    /// The program is there and does not start.
    #[error("`{program}` cannot be started: {source}")]
    NotStarted {
        /// The program, as it was given.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no program among the words.
    #[error("the command is empty; expected a program")]
    Empty,
    /// There is no place for what it prints.
    #[error("its log {path} cannot be written: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A process and its group; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
    log: PathBuf,
}

impl Process {
    /// Starts `argv` with `environment` beside the present one; what it prints is appended to `log`.
    ///
    /// No shell sees the arguments.
    pub fn start(argv: &[String], environment: &[(String, String)], log: &Path) -> Result<Self, StartError> {
        let (program, arguments) = argv.split_first().ok_or(StartError::Empty)?;
        // Not through a link, which in a directory of others could lead to any file of ours.
        let mut options = File::options();
        options.create(true).append(true).custom_flags(libc::O_NOFOLLOW);
        let opened = options.open(log).and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = opened.map_err(|source| StartError::Log { path: log.to_owned(), source })?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StartError::NotFound { program: program.clone() },
                _ => StartError::NotStarted { program: program.clone(), source },
            })?;
        Ok(Self { child, program: program.clone(), log: log.to_owned() })
    }

    /// The program's name, as it was given.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has; its children may still run.
    pub fn ended(&self) -> Option<Ended> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).ok()??;
        Some(Ended { code: status.exit_status(), signal: status.terminating_signal() })
    }

    /// Waits for it to end by itself, for so long, unless `stop` says otherwise.
    pub fn wait(&self, limit: Duration, stop: &mut dyn FnMut() -> bool) -> Option<Ended> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ended() {
                Some(ended) => return Some(ended),
                None if stop() || Instant::now() >= deadline => return None,
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Ends it with everything it started: asked first, killed after `patience`.
    pub fn stop(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.end_group(patience)
    }

    /// The last `lines` lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    fn end_group(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let group = Pid::from_child(&self.child);
        // ESRCH: nobody is left to be told.
        let _ = kill_process_group(group, Signal::TERM);
        self.wait(patience, &mut || false);
        let _ = kill_process_group(group, Signal::KILL);
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` the group is gone and the leader's number free: `try_wait` then answers without a system call.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.end_group(Duration::from_secs(1));
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, where it exited.
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
}

impl Ended {
    /// Whether it exited with 0.
    pub fn is_success(self) -> bool {
        self.code == Some(0)
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "ended with status {code}"),
            (None, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// The last `lines` lines of a log; empty where it cannot be read.
pub fn log_tail(log: &Path, lines: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn the_children_of_a_stopped_process_are_gone_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let script = "sleep 1000 & echo child $!; wait";
        let process = Process::start(&argv(&["sh", "-c", script]), &[], &log).expect("sh");
        let mut child = None;
        for _ in 0..500 {
            child = process.log_tail(1).strip_prefix("child ").and_then(|n| n.trim().parse::<i32>().ok());
            if child.is_some() {
                break;
            }
            std::thread::sleep(LOOK);
        }
        let child = Pid::from_raw(child.expect("the child's number")).expect("a number");
        process.stop(PATIENCE).expect("an end");
        // A killed orphan lingers until init reaps it.
        let gone = (0..500).any(|_| {
            std::thread::sleep(LOOK);
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            stat.is_err() || stat.is_ok_and(|s| s.contains(") Z "))
        });
        assert!(gone, "the child still runs");
    }

    #[test]
    fn an_end_is_told_as_it_was_and_a_missing_program_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let process = Process::start(
            &argv(&["sh", "-c", "echo $GREETING; exit 3"]),
            &[("GREETING".into(), "hello".into())],
            &log,
        )
        .expect("sh");
        let ended = process.wait(Duration::from_secs(60), &mut || false).expect("an end");
        assert_eq!((ended.code, ended.to_string().as_str()), (Some(3), "ended with status 3"));
        assert_eq!(process.log_tail(5), "hello");
        let missing = Process::start(&argv(&["no-such-program-at-all"]), &[], &log).expect_err("nothing to start");
        assert!(matches!(missing, StartError::NotFound { .. }));
        let missing = missing.to_string();
        assert!(missing.contains("no-such-program-at-all") && missing.contains("PATH"), "{missing}");
    }
}
