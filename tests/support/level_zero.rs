//! The stub of the Level Zero loader, `tests/stubs/level_zero.c`.

use std::path::PathBuf;

use energylens::source::level_zero::{self, Error, Found, LevelZeroSource};

use super::stub::StubLibrary;

/// One stub library with its control file.
pub(crate) struct LevelZero(StubLibrary);

impl LevelZero {
    /// A loader whose driver answers what `control` says, its lines separated by commas.
    pub(crate) fn new(control: &str) -> Self {
        Self::built_with(&[], control)
    }

    /// The same, compiled with more flags.
    pub(crate) fn built_with(flags: &[&str], control: &str) -> Self {
        Self(StubLibrary::build("level_zero.c", "libze_loader.so.1", flags, control))
    }

    /// The library, for `--level-zero-library`.
    pub(crate) fn library(&self) -> PathBuf {
        self.0.library()
    }

    /// From now on the driver answers this.
    pub(crate) fn says(&self, control: &str) {
        self.0.says(control);
    }

    /// Opens it as the program would.
    pub(crate) fn open(&self) -> Result<Found, Error> {
        level_zero::open(Some(&self.library()))
    }

    /// Its cards, one source each.
    pub(crate) fn cards(&self) -> Vec<LevelZeroSource> {
        self.open().expect("a working stub").sources
    }

    /// Driver calls since the last time this was asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.calls()
    }
}
