//! Files that are there as a whole or not at all: a reader, a crash and a full disk never see half of one.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes beside `path` and renames: after a crash or a power failure there is the old file or the new one. What cannot
/// be written leaves nothing behind. A link is replaced, not followed.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = directory_of(path);
    // As any new file, minus the umask: temporary files are private by default, a result is for whoever may read the rest.
    let permissions = Permissions::from_mode(0o666);
    let mut beside = tempfile::Builder::new().permissions(permissions).tempfile_in(directory)?;
    write(beside.as_file_mut())?;
    beside.as_file_mut().flush()?;
    beside.as_file().sync_all()?;
    beside.persist(path).map_err(|e| e.error)?;
    match sync_directory(directory) {
        // One that may be written to and not read cannot be opened to be synced, and some file systems cannot sync one;
        // the file is there all the same.
        Err(e)
            if [ErrorKind::PermissionDenied, ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&e.kind()) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// The directory that `path` lies in.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename or an unlink in `directory` last: the name too must survive a power failure.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_as_readable_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result");
        replace(&path, |file| file.write_all(b"old")).unwrap();
        fs::write(dir.path().join("any"), "").unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("result"), mode("any"));
        replace(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result");
        fs::write(&path, "old").unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("nowhere/result"), |_| Ok(())).is_err());
    }

    #[test]
    fn a_bare_name_lies_here() {
        assert_eq!(directory_of(Path::new("result")), Path::new("."));
        assert_eq!(directory_of(Path::new("/a/result")), Path::new("/a"));
    }
}
