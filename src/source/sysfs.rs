//! Values that the kernel shows as small text files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ReadError;

/// Longer than any value that sysfs shows: three numbers with units.
const VALUE_BYTES: usize = 128;
/// A page: what sysfs shows at most.
pub(super) const LONGEST_TEXT_BYTES: u64 = 4096;

/// Why a file gave no value.
#[derive(Debug)]
pub(super) enum Problem {
    /// The system refused or failed.
    Io(io::Error),
    /// It holds something else; what was found.
    Unexpected(String),
}

impl Problem {
    /// Whether the user may not read the file.
    pub(super) fn is_permission(&self) -> bool {
        matches!(self, Self::Io(e) if e.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What a poll makes of it.
    pub(super) fn into_read_error(self, path: &Path, expected: &str) -> ReadError {
        let path = path.display();
        match self {
            // ENODEV, ENXIO: the device went and its open file stayed.
            Self::Io(e)
                if e.kind() == io::ErrorKind::NotFound
                    || matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) =>
            {
                ReadError::Gone(format!("{path}: {e}"))
            }
            Self::Io(e) => ReadError::Transient(format!("{path} cannot be read: {e}")),
            Self::Unexpected(found) => ReadError::Transient(format!("{path} holds `{found}`: expected {expected}")),
        }
    }

    /// What is said of it when a source is opened.
    pub(super) fn describe(&self, path: &Path, expected: &str) -> String {
        let path = path.display();
        match self {
            Self::Io(e) => format!("{path} cannot be read: {e}"),
            Self::Unexpected(found) => format!("{path} holds `{found}`: expected {expected}"),
        }
    }
}

/// One file of sysfs, kept open because opening costs more than reading.
#[derive(Debug)]
pub(super) struct Attribute {
    file: File,
    path: PathBuf,
}

impl Attribute {
    pub(super) fn open(path: PathBuf) -> Result<Self, (PathBuf, Problem)> {
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(e) => Err((path, Problem::Io(e))),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The present text, trimmed. One read from the start makes the kernel show a fresh value.
    pub(super) fn text(&self) -> Result<String, Problem> {
        let mut buffer = [0_u8; VALUE_BYTES];
        let length = self.file.read_at(&mut buffer, 0).map_err(Problem::Io)?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        Ok(text.trim().to_owned())
    }

    /// The present value, a whole number that is not negative.
    pub(super) fn number(&self) -> Result<u64, Problem> {
        let text = self.text()?;
        text.parse().map_err(|_| Problem::Unexpected(text.escape_default().to_string()))
    }
}

/// The trimmed text of a file that is read once; `None` where there is none. Lossy: such text is compared and shown.
pub(super) fn text_of(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST_TEXT_BYTES).read_to_end(&mut bytes).ok()?;
    let text: String = String::from_utf8_lossy(&bytes).into_owned();
    Some(text.trim().to_owned())
}

/// The whole number in a file that is read once.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    text_of(path)?.parse().ok()
}

/// Names in a directory, sorted so that `hwmon2` comes before `hwmon10`; names that are not UTF-8 are left out.
pub(super) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in directory.read_dir()? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_by_key(|name| {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (stem, number) = name.split_at(name.len() - digits);
        (stem.to_owned(), number.parse::<u64>().unwrap_or(0), name.clone())
    });
    Ok(names)
}

/// Whether a text is a PCI address such as `0000:29:00.0`.
pub(super) fn is_pci_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let is_hex = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    text.matches(':').count() == 2 && text.matches('.').count() == 1 && parts.len() == 4 && parts.iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_other_directories() {
        for text in ["0000:29:00.0", "10000:e1:1f.7"] {
            assert!(is_pci_address(text), "{text}");
        }
        for text in ["", "card0", "29:00.0", "0000:29:00", "0000:29.00:0.", "gggg:29:00.0", "pci0000:00"] {
            assert!(!is_pci_address(text), "{text}");
        }
    }

    #[test]
    fn names_sort_by_their_number() {
        let directory = tempfile::TempDir::new().unwrap();
        for name in ["hwmon10", "hwmon2", "card"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(names_in(directory.path()).unwrap(), ["card", "hwmon2", "hwmon10"]);
    }

    #[test]
    fn only_the_loss_of_a_device_is_for_good() {
        let gone = |code: i32| {
            let problem = Problem::Io(io::Error::from_raw_os_error(code));
            matches!(problem.into_read_error(Path::new("x"), "a number"), ReadError::Gone(_))
        };
        assert!(gone(libc::ENODEV) && gone(libc::ENOENT) && gone(libc::ENXIO));
        assert!(!gone(libc::EIO) && !gone(libc::EAGAIN) && !gone(libc::EACCES) && !gone(libc::ETIMEDOUT));
    }
}
