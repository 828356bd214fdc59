//! Stand-ins for driver libraries, `tests/stubs/*.c`, built with the system's C compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// One stub library in a directory of its own, with the control file that says what it answers.
pub(crate) struct StubLibrary {
    directory: TempDir,
    file: &'static str,
}

impl StubLibrary {
    /// Compiles `tests/stubs/SOURCE` with more `flags` to a library called `file` that answers what `control` says, its
    /// lines separated by commas.
    pub(crate) fn build(source: &str, file: &'static str, flags: &[&str], control: &str) -> Self {
        let stub = Self { directory: TempDir::new().expect("a temporary directory"), file };
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(stub.library())
            .args(flags)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stubs").join(source))
            .arg("-ldl")
            .status()
            .expect("a C compiler called cc");
        assert!(status.success(), "tests/stubs/{source} does not compile");
        stub.says(control);
        stub
    }

    /// The directory that holds library and control file.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The library.
    pub(crate) fn library(&self) -> PathBuf {
        self.directory.path().join(self.file)
    }

    /// From now on the driver answers this.
    pub(crate) fn says(&self, control: &str) {
        let lines = control.split(',').map(str::trim).collect::<Vec<_>>().join("\n");
        // Renamed into place: a reader in another thread sees the old file or the new one.
        let (fresh, place) = (self.path().join("control.new"), self.path().join("control"));
        fs::write(&fresh, lines + "\n").expect("a writable control file");
        fs::rename(fresh, place).expect("a writable control file");
    }

    /// Driver calls since the last time this was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        calls.lines().map(str::to_owned).collect()
    }
}
