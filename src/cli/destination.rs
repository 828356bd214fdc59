//! Where a result goes: into a file that appears whole or not at all, or into a FIFO or device that was named.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use energylens::file::{self, directory_of};

use super::output;

/// Links that are followed in search of one of our own descriptors; the kernel's own limit.
const MOST_LINKS: usize = 40;
const STDOUT: u32 = 1;

/// A place that can be written to, as far as can be known before long work.
#[derive(Debug)]
pub(crate) struct Destination {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Written beside itself and renamed: a link there is replaced, and what it leads to stays as it is.
    File,
    /// A FIFO, a device or a descriptor: renaming over it would destroy it.
    Stream(File),
    /// Our own, by whatever name.
    Stdout,
}

impl Destination {
    /// Fails now, not after hours of work, if `path` cannot be written, or if writing it would destroy what is to be
    /// read: `inputs`, or the tables of a campaign among them. A FIFO waits here for its reader, as in a shell.
    pub(crate) fn of(path: &Path, inputs: &[&Path]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            path != Path::new("-"),
            "cannot write -: for the standard output name /dev/stdout, for a file of that name ./-"
        );
        anyhow::ensure!(!path.is_dir(), "cannot write {}: it is a directory; name a file", path.display());
        output::keep_inputs(path, inputs)?;
        let kind = match own_descriptor(path) {
            Some(STDOUT) => Kind::Stdout,
            Some(number) => Kind::Stream(opened(path, OpenOptions::new().append(true), &descriptor_path(number))?),
            None if leads_to_no_file(path)? => {
                // Not through a link that was put there since we looked, and no terminal becomes ours.
                let flags = libc::O_NOFOLLOW | libc::O_NOCTTY;
                Kind::Stream(opened(path, OpenOptions::new().write(true).custom_flags(flags), path)?)
            }
            None => {
                output::writable(path)?;
                Kind::File
            }
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    /// Writes `text`, whole or, into a file, not at all.
    pub(crate) fn write(&self, text: &str) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", self.path.display());
        match &self.kind {
            Kind::Stdout => output::print_exactly(text),
            Kind::Stream(file) => {
                let mut file = file;
                file.write_all(text.as_bytes()).with_context(cannot)
            }
            Kind::File => file::replace(&self.path, |new| new.write_all(text.as_bytes())).with_context(cannot),
        }
    }

    /// The same for what writes a file of a given name: it gets this one's, or that of one whose bytes go on from there.
    pub(crate) fn fill<E>(&self, write: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
    where
        anyhow::Error: From<E>,
    {
        let mut out: &mut dyn Write = match &self.kind {
            Kind::File => return Ok(write(&self.path)?),
            Kind::Stream(file) => &mut &*file,
            Kind::Stdout => &mut io::stdout(),
        };
        let cannot = || format!("cannot write {}", self.path.display());
        let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
        let made = dir.path().join("result");
        write(&made)?;
        let mut made = File::open(&made).with_context(cannot)?;
        io::copy(&mut made, &mut out).and_then(|_| out.flush()).with_context(cannot)
    }

    /// Whether it is where results for people go too.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.kind, Kind::Stdout)
    }

    /// Says what was done, beside the result: on stderr where stdout is the result.
    pub(crate) fn tell(&self, text: &str) -> anyhow::Result<()> {
        if self.is_stdout() {
            output::say(text.trim_end());
            return Ok(());
        }
        output::print(text)
    }
}

/// `tell` of a destination that may not have been given.
pub(crate) fn tell(destination: Option<&Destination>, text: &str) -> anyhow::Result<()> {
    destination.map_or_else(|| output::print(text), |d| d.tell(text))
}

/// The descriptor of ours that `path` names: `/dev/stdout`, `/dev/fd/63`, `/proc/self/fd/1`, or a link to one.
fn own_descriptor(path: &Path) -> Option<u32> {
    let ours = Path::new("/proc/self/fd").canonicalize().ok()?;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let dir = directory_of(&path);
        if dir.canonicalize().is_ok_and(|dir| dir == ours) {
            return path.file_name()?.to_str()?.parse().ok();
        }
        // Relative to where the link lies.
        path = dir.join(fs::read_link(&path).ok()?);
    }
    None
}

fn descriptor_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

/// Whether `path` is a FIFO or a character device. What else is no file, and links to such, are refused: through a link
/// of somebody else's in a shared directory, any device could be written.
fn leads_to_no_file(path: &Path) -> anyhow::Result<bool> {
    // A link that leads nowhere is replaced.
    let (Ok(named), Ok(found)) = (fs::symlink_metadata(path), fs::metadata(path)) else { return Ok(false) };
    if found.is_file() {
        return Ok(false);
    }
    let what = kind_of(&found);
    anyhow::ensure!(
        !named.is_symlink(),
        "cannot write {}: it is a link to {what}; name that itself: {}",
        path.display(),
        path.canonicalize().unwrap_or_default().display()
    );
    anyhow::ensure!(
        is_stream(&found),
        "cannot write {}: expected a file, a FIFO or a character device, found {what}; name another",
        path.display()
    );
    Ok(true)
}

fn is_stream(found: &Metadata) -> bool {
    found.file_type().is_fifo() || found.file_type().is_char_device()
}

fn kind_of(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_dir() {
        "a directory"
    } else {
        "a file"
    }
}

/// Opens `place`, which is called `path`. What it is was looked at before, and is looked at again: it may have changed.
fn opened(path: &Path, options: &OpenOptions, place: &Path) -> anyhow::Result<File> {
    let file = options.open(place).with_context(|| format!("cannot write {}", path.display()))?;
    let found = file.metadata().with_context(|| format!("cannot write {}", path.display()))?;
    // A descriptor may be a file that a shell opened for us.
    let is_expected = is_stream(&found) || (place != path && found.is_file());
    anyhow::ensure!(
        is_expected,
        "cannot write {}: expected a FIFO or a character device, found {}; name another",
        path.display(),
        kind_of(&found)
    );
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn descriptors_are_known_by_every_name_and_files_are_none() {
        let dir = tempfile::TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("/proc/self/fd/1", at("first")).unwrap();
        symlink("first", at("second")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("nowhere/1", at("dangling")).unwrap();
        fs::write(at("1"), "").unwrap();
        for (path, expected) in [
            (at("first"), Some(1)),
            (at("second"), Some(1)),
            (PathBuf::from("/proc/self/fd/63"), Some(63)),
            (PathBuf::from(format!("/proc/{}/fd/2", std::process::id())), Some(2)),
            (at("loop"), None),
            (at("dangling"), None),
            (at("1"), None),
            (PathBuf::from("1"), None),
        ] {
            assert_eq!(own_descriptor(&path), expected, "{}", path.display());
        }
    }

    #[test]
    fn a_file_is_replaced_with_the_permissions_of_a_new_one_and_links_to_devices_are_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("old"), "old").unwrap();
        symlink(at("old"), at("link")).unwrap();
        Destination::of(&at("link"), &[]).unwrap().write("new").unwrap();
        assert_eq!(
            (fs::read_to_string(at("old")).unwrap(), fs::read_to_string(at("link")).unwrap()),
            ("old".into(), "new".into())
        );
        assert!(fs::symlink_metadata(at("link")).unwrap().is_file());
        // As readable as any file that is made here.
        let fresh = fs::metadata(at("old")).unwrap().permissions().mode();
        assert_eq!(fs::metadata(at("link")).unwrap().permissions().mode(), fresh);
        // Only looked at: nothing is written to it.
        symlink("/dev/null", at("null")).unwrap();
        let refused = Destination::of(&at("null"), &[]).unwrap_err().to_string();
        assert!(refused.contains("it is a link to a character device; name that itself: /dev/null"), "{refused}");
        assert!(fs::symlink_metadata(at("null")).unwrap().is_symlink());
        let refused = Destination::of(Path::new("-"), &[]).unwrap_err().to_string();
        assert!(refused.contains("name /dev/stdout") && refused.contains("./-"), "{refused}");
    }
}
