//! A directory to work in, and the program run in it as a user would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A working directory of its own.
pub(crate) struct Desk {
    directory: TempDir,
}

/// What one call of the program left behind.
pub(crate) struct Ran {
    /// What was typed.
    pub(crate) line: String,
    /// Exit status; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Everything on stdout.
    pub(crate) stdout: String,
    /// Everything on stderr.
    pub(crate) stderr: String,
}

impl Desk {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().expect("a temporary directory") }
    }

    /// Where `name` lies on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a file there.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a name has a directory")).expect("a writable directory");
        fs::write(path, content).expect("a writable directory");
        self
    }

    /// The text of a file there.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Runs `energylens` with these arguments, in this directory, without a terminal.
    pub(crate) fn run<A: AsRef<str>>(&self, arguments: &[A]) -> Ran {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let output = assert_cmd::Command::new(program())
            .args(&arguments)
            .current_dir(self.directory.path())
            .timeout(Duration::from_secs(120))
            .output()
            .expect("the program");
        let ran = Ran {
            line: format!("energylens {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        };
        assert!(!ran.stderr.contains("panicked"), "{}\n{}", ran.line, ran.stderr);
        ran
    }

    /// The same for a line without quotes in it.
    pub(crate) fn type_in(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }
}

/// The binary under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_energylens"))
}

impl Ran {
    /// Fails unless the program ended with `code`.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self
    }

    /// Fails unless everything was done.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        self.ends_with(0)
    }

    /// Fails unless stderr holds `text`.
    #[track_caller]
    pub(crate) fn remarks(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{}\nexpected {text:?} in\n{}", self.line, self.stderr);
        self
    }

    /// Fails unless stdout holds `text`.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{}\nexpected {text:?} in\n{}", self.line, self.stdout);
        self
    }

    /// Stdout as the one JSON document that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.line, self.stdout))
    }
}
