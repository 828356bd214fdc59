//! The stub of NVIDIA's management library, `tests/stubs/nvml.c`, built with the system's C compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use energylens::source::nvml::{Error, NvmlSource};
use tempfile::TempDir;

/// One stub library with its control file.
pub(crate) struct Stub {
    directory: TempDir,
}

impl Stub {
    /// A library that answers what `control` says, its lines separated by commas.
    pub(crate) fn new(control: &str) -> Self {
        Self::built_with(&[], control)
    }

    /// The same, compiled with more flags.
    pub(crate) fn built_with(flags: &[&str], control: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let stub = Self { directory };
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(stub.library())
            .args(flags)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stubs/nvml.c"))
            .arg("-ldl")
            .status()
            .expect("a C compiler called cc");
        assert!(status.success(), "tests/stubs/nvml.c does not compile");
        stub.says(control);
        stub
    }

    /// The directory that holds library and control file.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The library, for `--nvml-library`.
    pub(crate) fn library(&self) -> PathBuf {
        self.directory.path().join("libnvidia-ml.so.1")
    }

    /// From now on the driver answers this.
    pub(crate) fn says(&self, control: &str) {
        let lines = control.split(',').map(str::trim).collect::<Vec<_>>().join("\n");
        fs::write(self.directory.path().join("control"), lines + "\n").expect("a writable control file");
    }

    /// Opens it as the program would.
    pub(crate) fn open(&self) -> Result<NvmlSource, Error> {
        NvmlSource::open(Some(&self.library()))
    }

    /// Driver calls since the last time this was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.directory.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        calls.lines().map(str::to_owned).collect()
    }
}
