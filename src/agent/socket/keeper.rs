//! Keeps marks: flushed at once, sealed now and then, held back while the disk refuses.

use std::path::PathBuf;

use crate::agent::marks::MarkWriter;
use crate::store::{self, FileMetadata, MarkRow};
use crate::units::NS_PER_S;

/// Marks that may wait for the disk. 20 MB of memory at worst.
const MAX_WAITING: usize = 65_536;
/// A segment is sealed at this size on disk: each flush costs about 2 kB in the spool, 30 bytes a mark once sealed.
const SEGMENT_BYTES: u64 = 64 << 20;
/// ... or at this age, so that readers of Parquet see marks without asking the agent.
const SEGMENT_NS: i64 = 3_600 * NS_PER_S as i64;
/// While the disk refuses it is asked again this often.
const RETRY_NS: i64 = NS_PER_S as i64;
/// Sealed files that are listed at the end; beyond, they are only on disk.
const MOST_FILES: usize = 1_000;

/// What became of marks that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// On disk.
    Written,
    /// In memory: the disk refuses.
    Waiting,
}

pub(super) struct Keeper {
    dir: PathBuf,
    meta: FileMetadata,
    writer: Option<MarkWriter>,
    begun_ns: i64,
    retry_ns: i64,
    /// Segments that an error cut short, sealed when there is room again.
    cut: Vec<MarkWriter>,
    waiting: Vec<MarkRow>,
    files: Vec<PathBuf>,
    written: u64,
    errors: u64,
}

impl Keeper {
    /// Creates the first segment, so that a directory that cannot be written is known at the start.
    pub(super) fn create(dir: PathBuf, meta: FileMetadata, now_ns: i64) -> store::Result<Self> {
        let writer = Some(MarkWriter::create(&dir, &meta.host, &meta)?);
        Ok(Self {
            dir,
            meta,
            writer,
            begun_ns: now_ns,
            retry_ns: now_ns,
            cut: Vec::new(),
            waiting: Vec::new(),
            files: Vec::new(),
            written: 0,
            errors: 0,
        })
    }

    /// Whether no more marks can be taken.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    pub(super) fn push(&mut self, row: MarkRow) {
        self.waiting.push(row);
    }

    #[cfg(test)]
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, now_ns: i64) -> Kept {
        if self.waiting.is_empty() {
            self.rotate(now_ns);
            return Kept::Written;
        }
        if self.writer.is_none() && now_ns < self.retry_ns {
            return Kept::Waiting;
        }
        match self.write() {
            Ok(()) => {
                self.written += self.waiting.len() as u64;
                // Not `clear`: what a burst or a full disk had needed is given back.
                self.waiting = Vec::new();
                self.rotate(now_ns);
                Kept::Written
            }
            Err(e) => {
                if self.retry_ns <= now_ns && self.errors == 0 {
                    eprintln!("warning: marks cannot be written and wait in memory: {e}");
                }
                self.errors += 1;
                self.retry_ns = now_ns.saturating_add(RETRY_NS);
                if let Some(writer) = self.writer.take() {
                    if writer.rows() > 0 {
                        self.cut.push(writer);
                    } else {
                        // Nothing of it is worth keeping; should its removal fail too, recovery sees to it.
                        let _ = writer.seal();
                    }
                }
                Kept::Waiting
            }
        }
    }

    fn write(&mut self) -> store::Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => MarkWriter::create(&self.dir, &self.meta.host, &self.meta)?,
        };
        let written = writer.write_all(&self.waiting);
        self.writer = Some(writer);
        written
    }

    fn rotate(&mut self, now_ns: i64) {
        let is_due = |w: &MarkWriter| {
            w.bytes() >= SEGMENT_BYTES || (w.rows() > 0 && now_ns.saturating_sub(self.begun_ns) >= SEGMENT_NS)
        };
        if self.writer.as_ref().is_some_and(is_due) {
            self.reopen(now_ns);
        }
    }

    /// Seals what there is; the next marks go to a new file.
    pub(super) fn reopen(&mut self, now_ns: i64) {
        self.begun_ns = now_ns;
        if self.writer.as_ref().is_none_or(|w| w.rows() == 0) {
            return;
        }
        for writer in self.cut.drain(..).chain(self.writer.take()).collect::<Vec<_>>() {
            // A spool that cannot be sealed now is whole, and is recovered at the next start.
            match writer.seal() {
                Ok(file) => self.note(file),
                Err(e) => eprintln!("warning: a segment of marks stays a spool for now: {e}"),
            }
        }
    }

    fn note(&mut self, file: Option<PathBuf>) {
        if self.files.len() < MOST_FILES {
            self.files.extend(file);
        }
    }

    /// Writes the last marks and seals.
    pub(super) fn finish(mut self) -> store::Result<(u64, Vec<PathBuf>)> {
        if !self.waiting.is_empty() {
            if self.write().is_err() {
                // Once more, in a new segment: the space may be back, or the old segment was the trouble.
                self.cut.extend(self.writer.take());
                self.write()?;
            }
            self.written += self.waiting.len() as u64;
        }
        for writer in self.cut.drain(..).chain(self.writer.take()).collect::<Vec<_>>() {
            let file = writer.seal()?;
            self.note(file);
        }
        Ok((self.written, self.files))
    }

    #[cfg(test)]
    pub(super) fn limit_room(&mut self, bytes: u64) {
        self.writer.as_mut().expect("a segment").limit_room(bytes);
    }
}
