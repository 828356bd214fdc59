//! One growing file of one table on one host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

use super::complete::Completion;
use super::error::{Error, Result};
use super::lock::{self, Attempt};
use super::metadata::FileMetadata;
use super::sealed::{SealedWriter, sync_directory};
use super::span::Span;
use super::spool::{self, SPOOL_SUFFIX, sealed_path};
use crate::file::directory_of;
use crate::schema::Table;

/// Appends rows to a spool, and seals it into Parquet. Dropped without [`seal`](Self::seal), the spool stays for
/// [`Campaign::recover`](super::Campaign::recover).
pub struct SegmentWriter {
    table: &'static Table,
    spool: PathBuf,
    stream: StreamWriter<BufWriter<SpoolFile>>,
    extra: Vec<(String, String)>,
    rows: u64,
    flushed_rows: u64,
    flushed_bytes: u64,
}

impl SegmentWriter {
    /// Starts the next free segment `<table>-<host>-<n>` in `dir`. Characters of `host` that are awkward in file names
    /// become `_`.
    pub fn create(dir: &Path, table: &'static Table, host: &str, meta: &FileMetadata) -> Result<Self> {
        let host = file_name_part(host);
        let (file, spool) = create_next(dir, table, &host)?;
        let schema = table.recorded_schema();
        let schema = Schema::new_with_metadata(schema.fields().clone(), meta.to_pairs(table));
        let buffered = BufWriter::with_capacity(64 * 1024, SpoolFile { file, bytes: 0, closed: false, room: u64::MAX });
        let stream = StreamWriter::try_new(buffered, &schema).map_err(|e| {
            let _ = std::fs::remove_file(&spool);
            Error::arrow("write", &spool, e)
        })?;
        let mut writer = Self { table, spool, stream, extra: Vec::new(), rows: 0, flushed_rows: 0, flushed_bytes: 0 };
        if let Err(e) = writer.flush() {
            // A full disk takes names but no bytes.
            let _ = std::fs::remove_file(&writer.spool);
            return Err(e);
        }
        sync_directory(dir)?;
        Ok(writer)
    }

    /// Appends rows; they are safe from a killed process after the next [`flush`](Self::flush).
    ///
    /// After an error the segment holds exactly the rows of the last successful flush and takes no more; the rows
    /// since then belong into a new segment.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let expected = self.table.recorded_schema();
        if batch.schema().fields() != expected.fields() {
            let source = ArrowError::SchemaError("columns differ from the table's".to_owned());
            return Err(Error::Batch { table: self.table.name, source });
        }
        match self.stream.write(batch) {
            Ok(()) => {
                self.rows += batch.num_rows() as u64;
                Ok(())
            }
            Err(e) => Err(self.cut(e)),
        }
    }

    /// Hands everything appended so far to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        if let Err(e) = self.stream.flush() {
            return Err(self.cut(e));
        }
        self.flushed_bytes = self.stream.get_ref().get_ref().bytes;
        self.flushed_rows = self.rows;
        Ok(())
    }

    /// Takes back what was written since the last flush: half a batch on disk would make everything after it
    /// unreadable, and whole ones would be there twice once their rows are written again elsewhere.
    fn cut(&mut self, cause: ArrowError) -> Error {
        let spool = self.stream.get_mut().get_mut();
        spool.closed = true;
        self.rows = self.flushed_rows;
        // Shrinking needs no space. Should it fail all the same, the torn tail is dropped by whoever reads it.
        let _ = spool.file.set_len(self.flushed_bytes);
        Error::arrow("write", &self.spool, cause)
    }

    /// Rows appended.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the spool that were flushed.
    pub fn bytes(&self) -> u64 {
        self.flushed_bytes
    }

    /// The spool.
    pub fn path(&self) -> &Path {
        &self.spool
    }

    /// From now on the disk takes `bytes` and is full then.
    #[cfg(test)]
    pub(crate) fn limit_room(&mut self, bytes: u64) {
        self.stream.get_mut().get_mut().room = bytes;
    }

    /// Adds a key to the metadata of the sealed file: what is known only at the end, such as counts of losses.
    pub fn set_extra(&mut self, key: &str, value: String) {
        self.extra.retain(|(known, _)| known != key);
        self.extra.push((key.to_owned(), value));
    }

    /// As [`seal`](Self::seal), but leaves no file if there are no rows.
    pub fn seal_unless_empty(mut self) -> Result<Option<PathBuf>> {
        self.try_seal()
    }

    /// Ends the stream and turns it into Parquet. On an error the spool is still there, and recoverable.
    pub fn seal(mut self) -> Result<PathBuf> {
        self.seal_rows()
    }

    /// As [`seal_unless_empty`](Self::seal_unless_empty), to be tried again after an error, such as that of a full
    /// disk. Nothing can be appended any more; after success there is nothing left to do with it.
    pub fn try_seal(&mut self) -> Result<Option<PathBuf>> {
        if self.rows > 0 {
            return self.seal_rows().map(Some);
        }
        remove_spool(&self.spool)?;
        Ok(None)
    }

    fn seal_rows(&mut self) -> Result<PathBuf> {
        // A segment that was cut after an error is sealed as far as it goes, without the mark of its end.
        if !self.stream.get_ref().get_ref().closed {
            self.flush()?;
            self.stream.finish().and_then(|()| self.stream.flush()).map_err(|e| self.cut(e))?;
            self.stream.get_mut().get_mut().closed = true;
        }
        let (sealed, rows, torn) = seal_spool(&self.spool, self.table, &self.extra)?;
        if rows != self.rows || torn {
            return Err(Error::Foreign {
                path: sealed,
                expected: format!("{} rows, as were appended", self.rows),
                found: format!("{rows}; the spool was changed by somebody else, or the disk returned other bytes"),
            });
        }
        remove_spool(&self.spool)?;
        Ok(sealed)
    }
}

/// Rewrites a spool as Parquet; the spool stays. One of an earlier version may lack columns that were added since: they
/// are missing in its rows. Returns the new file, its rows, and whether the spool was torn.
pub(super) fn seal_spool(
    spool: &Path,
    table: &'static Table,
    extra: &[(String, String)],
) -> Result<(PathBuf, u64, bool)> {
    let file = File::open(spool).map_err(Error::io("open", spool))?;
    let mut batches = spool::open(file, spool)?;
    let schema = batches.schema();
    let path = sealed_path(spool);
    let pairs = schema.metadata().clone().into_iter().collect();
    let completion = Completion::of(table, &pairs);
    completion.check(&schema).map_err(|found| Error::Foreign {
        path: spool.to_owned(),
        expected: format!("the columns of table `{}`", table.name),
        found: format!("{found}; it was written by another version, which can still seal it"),
    })?;
    let mut writer = SealedWriter::create(&path, table, &pairs)?;
    let mut span = Span::default();
    for batch in &mut batches {
        span.extend(&batch);
        writer.write(&batch)?;
    }
    for (key, value) in span.pairs() {
        writer.append_metadata(key, &value);
    }
    for (key, value) in extra {
        writer.append_metadata(key, value);
    }
    let torn = batches.is_torn();
    Ok((path, writer.finish()?, torn))
}

pub(super) fn remove_spool(spool: &Path) -> Result<()> {
    std::fs::remove_file(spool).map_err(Error::io("remove", spool))?;
    sync_directory(directory_of(spool))
}

/// Numbers count on from the highest there is, not from the first that is free: what retention removed must not make
/// later rows look older. Six digits, so that names sort as numbers do for the first million segments.
fn create_next(dir: &Path, table: &Table, host: &str) -> Result<(File, PathBuf)> {
    let mut number = next_number(dir, table, host)?;
    loop {
        let spool = dir.join(format!("{}-{host}-{number:06}{SPOOL_SUFFIX}", table.name));
        number += 1;
        if sealed_path(&spool).exists() {
            continue;
        }
        // `create_new`: two agents that start together do not share a file.
        match OpenOptions::new().append(true).create_new(true).open(&spool) {
            // Told apart from an orphan by this lock, which the kernel drops with the process. A recovery that saw the
            // file in the instant before it was locked takes it for an orphan and removes it: then, the next number.
            Ok(file) => {
                if lock::try_lock(&file, &spool)? != Attempt::HeldByOther && is_at(&file, &spool) {
                    return Ok((file, spool));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &spool)(e)),
        }
    }
}

fn next_number(dir: &Path, table: &Table, host: &str) -> Result<u64> {
    let mut next = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        if let Some(number) = name.to_str().and_then(|name| segment_number(name, table, host)) {
            next = next.max(number.saturating_add(1));
        }
    }
    Ok(next)
}

/// The number in `<table>-<host>-<n>.parquet` or `.arrows.spool`, if the name is one of this table and host; of merged
/// segments the last.
pub(super) fn segment_number(name: &str, table: &Table, host: &str) -> Option<u64> {
    let name = name.strip_suffix(READY_SUFFIX).and_then(|n| n.strip_prefix('.')).unwrap_or(name);
    let stem = name.strip_suffix(".parquet").or_else(|| name.strip_suffix(SPOOL_SUFFIX))?;
    let own = stem.strip_prefix(table.name)?.strip_prefix('-')?.strip_prefix(host)?.strip_prefix('-')?;
    numbers(own).map(|(_, last)| last)
}

/// What stands behind the name of a file that holds merged segments while some of them are still there.
pub(super) const READY_SUFFIX: &str = ".ready";

/// The first and last segment of `000003`, which is one, or of `000003+000009`, which are merged.
fn numbers(text: &str) -> Option<(u64, u64)> {
    // `parse` alone would take a sign.
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    match text.split_once('+') {
        None => number(text).map(|n| (n, n)),
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
    }
}

/// The name of a sealed file without its suffix, hidden or not.
fn sealed_stem(name: &str) -> Option<&str> {
    let visible = name.strip_suffix(READY_SUFFIX).and_then(|n| n.strip_prefix('.')).unwrap_or(name);
    visible.strip_suffix(".parquet")
}

/// `samples-node-a-10` is `samples-node-a`, segment 10, after segment 9; what has no number is its own.
pub(super) fn segment_order(stem: &str) -> (String, (u64, u64)) {
    match stem.rsplit_once('-').map(|(prefix, number)| (prefix, numbers(number))) {
        Some((prefix, Some(numbers))) => (prefix.to_owned(), numbers),
        _ => (stem.to_owned(), (0, 0)),
    }
}

/// Whether the sealed file called `merged` holds the rows of the one called `other` too.
pub(super) fn stands_for(merged: &str, other: &str) -> bool {
    let (Some(merged), Some(other)) = (sealed_stem(merged), sealed_stem(other)) else { return false };
    let ((prefix, (first, last)), (other_prefix, own)) = (segment_order(merged), segment_order(other));
    first < last && prefix == other_prefix && (first..=last).contains(&own.0) && own.1 <= last && own != (first, last)
}

/// The segments of one table and host.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// First and last number of each sealed one, in order.
    pub(super) sealed: BTreeSet<(u64, u64)>,
    /// Numbers of those that are written, or wait for recovery.
    pub(super) spools: BTreeSet<u64>,
}

/// The segments of `table` in `dir` by the part of their names before the number. Parts of other recordings are not
/// among them.
pub(super) fn segments(dir: &Path, table: &Table) -> Result<BTreeMap<String, Segments>> {
    let mut found: BTreeMap<String, Segments> = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let Ok(name) = entry.map_err(Error::io("list", dir))?.file_name().into_string() else { continue };
        let spool = name.strip_suffix(SPOOL_SUFFIX);
        let Some(stem) = spool.or_else(|| name.strip_suffix(".parquet")) else { continue };
        if name.contains('@') || !is_segment(stem, table) {
            continue;
        }
        let (prefix, numbers) = segment_order(stem);
        let own = found.entry(prefix).or_default();
        match spool {
            Some(_) => drop(own.spools.insert(numbers.1)),
            None => drop(own.sealed.insert(numbers)),
        }
    }
    Ok(found)
}

/// Whether a name without its suffix is that of a segment of `table`, of whichever host.
pub(super) fn is_segment(stem: &str, table: &Table) -> bool {
    let rest = stem.strip_prefix(table.name).and_then(|rest| rest.strip_prefix('-'));
    rest.and_then(|rest| rest.rsplit_once('-'))
        .is_some_and(|(host, number)| !host.is_empty() && numbers(number).is_some())
}

/// Whether `path` still names the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => open.ino() == named.ino() && open.dev() == named.dev(),
        _ => false,
    }
}

/// How a host stands in file names.
pub(super) fn file_name_part(host: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = host.chars().take(100).map(safe).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

struct SpoolFile {
    file: File,
    bytes: u64,
    /// Set after an error: a buffer above flushes when it is dropped, and must not.
    closed: bool,
    /// Bytes that the disk still takes; bounded only by tests.
    room: u64,
}

impl Write for SpoolFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::Error::other("the segment was closed after an earlier error"));
        }
        if self.room < buf.len() as u64 {
            // As a full disk does: part of it is taken.
            let part = buf.get(..usize::try_from(self.room).unwrap_or(0)).unwrap_or_default();
            self.file.write_all(part)?;
            self.room = 0;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(buf)?;
        self.room -= written as u64;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
