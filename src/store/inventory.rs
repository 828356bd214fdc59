//! Which sealed segments of a directory one recorder may remove again: its own, by name and by what the file says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::{Error, Result};
use super::metadata::{FileMetadata, read_pairs, value_of};
use super::segment::{file_name_part, segment_number};
use super::span;
use crate::schema::Table;

/// A sealed segment that this recorder wrote, in this life or an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSegment {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The latest instant of its rows, nanoseconds since the Unix epoch.
    pub t_end_unix_ns: i64,
}

/// The sealed segments of some tables in one directory that name this host and this recorder. Files are opened once;
/// what is not ours, or cannot be read, is never listed and never touched.
#[derive(Debug)]
pub struct Inventory {
    dir: PathBuf,
    tables: &'static [&'static Table],
    host: String,
    recorder: String,
    /// By name; `None` for names that look like ours and are not.
    known: BTreeMap<String, Option<OwnSegment>>,
}

impl Inventory {
    /// An inventory of `dir`. `recorder` is what the metadata of our files holds under the key `recorder`: a sweep's
    /// recording in the same directory, by the same host and under the same names, holds something else.
    pub fn new(dir: &Path, tables: &'static [&'static Table], host: &str, recorder: &str) -> Self {
        let (dir, host, recorder) = (dir.to_owned(), host.to_owned(), recorder.to_owned());
        Self { dir, tables, host, recorder, known: BTreeMap::new() }
    }

    /// Looks what is there now. The oldest comes first.
    pub fn look(&mut self) -> Result<Vec<OwnSegment>> {
        let mut found = BTreeMap::new();
        let host = file_name_part(&self.host);
        for entry in fs::read_dir(&self.dir).map_err(Error::io("list", &self.dir))? {
            let entry = entry.map_err(Error::io("list", &self.dir))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(table) = self.tables.iter().find(|t| segment_number(&name, t, &host).is_some()) else { continue };
            if !name.ends_with(".parquet") {
                continue;
            }
            let segment = match self.known.remove(&name) {
                Some(segment) => segment,
                None => own_segment(&entry.path(), table, &self.host, &self.recorder),
            };
            found.insert(name, segment);
        }
        self.known = found;
        let mut segments: Vec<OwnSegment> = self.known.values().flatten().cloned().collect();
        // Stable: of one instant, in the order of their names.
        segments.sort_by_key(|s| s.t_end_unix_ns);
        Ok(segments)
    }

    /// Removes a segment that [`look`](Self::look) listed. One that cannot be removed is not listed again.
    pub fn remove(&mut self, segment: &OwnSegment) -> Result<()> {
        let name = segment.path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        match fs::remove_file(&segment.path) {
            Ok(()) => {
                self.known.remove(&name);
                Ok(())
            }
            // Somebody else was faster, to the same end.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => {
                self.known.insert(name, None);
                Err(Error::io("remove", &segment.path)(e))
            }
        }
    }
}

/// The segment at `path`, if everything in it says that it is ours.
fn own_segment(path: &Path, table: &Table, host: &str, recorder: &str) -> Option<OwnSegment> {
    // Not through a link: what it leads to is not in our directory.
    let file = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let pairs = read_pairs(path).ok()?;
    let metadata = FileMetadata::from_pairs(&pairs, path).ok()?;
    let is_ours = metadata.host == host
        && value_of(&pairs, "table") == Some(table.name)
        && metadata.extra.get("recorder").is_some_and(|r| r == recorder);
    let t_end_mono_ns = metadata.extra.get(span::END).and_then(|t| t.parse().ok());
    let t_end_unix_ns = match t_end_mono_ns {
        Some(t_mono_ns) => metadata.anchor.unix_ns(t_mono_ns),
        None => i64::try_from(file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?,
    };
    is_ours.then(|| OwnSegment { path: path.to_owned(), bytes: file.len(), t_end_unix_ns })
}
