//! The stub of NVIDIA's management library, `tests/stubs/nvml.c`.

use std::path::{Path, PathBuf};

use energylens::source::nvml::{self, Error, Opened};

use super::stub::StubLibrary;

/// One stub library with its control file.
pub(crate) struct Stub(StubLibrary);

impl Stub {
    /// A library that answers what `control` says, its lines separated by commas.
    pub(crate) fn new(control: &str) -> Self {
        Self::built_with(&[], control)
    }

    /// The same, compiled with more flags.
    pub(crate) fn built_with(flags: &[&str], control: &str) -> Self {
        Self(StubLibrary::build("nvml.c", "libnvidia-ml.so.1", flags, control))
    }

    /// The directory that holds library and control file.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The library, for `--nvml-library`.
    pub(crate) fn library(&self) -> PathBuf {
        self.0.library()
    }

    /// From now on the driver answers this.
    pub(crate) fn says(&self, control: &str) {
        self.0.says(control);
    }

    /// Opens it as the program would.
    pub(crate) fn open(&self) -> Result<Opened, Error> {
        nvml::open(Some(&self.library()))
    }

    /// Driver calls since the last time this was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.calls()
    }
}
