//! Writes phase marks into a campaign.

use std::path::{Path, PathBuf};

use crate::schema::MARKS;
use crate::store::{self, FileMetadata, MarkRow, SegmentWriter};

/// Appends marks, each flushed at once: there are few of them, and a lost one costs a phase.
pub struct MarkWriter {
    segment: SegmentWriter,
}

impl MarkWriter {
    /// Starts a segment of marks in `dir`.
    pub fn create(dir: &Path, host: &str, meta: &FileMetadata) -> store::Result<Self> {
        Ok(Self { segment: SegmentWriter::create(dir, &MARKS, host, meta)? })
    }

    /// Writes one mark.
    pub fn write(&mut self, mark: &MarkRow) -> store::Result<()> {
        self.write_all(std::slice::from_ref(mark))
    }

    /// Writes marks that came together. After an error the segment holds none of them and takes no more.
    pub fn write_all(&mut self, marks: &[MarkRow]) -> store::Result<()> {
        self.segment.append(&MarkRow::batch(marks)?)?;
        self.segment.flush()
    }

    /// Marks written.
    pub fn rows(&self) -> u64 {
        self.segment.rows()
    }

    /// Bytes on disk so far.
    pub fn bytes(&self) -> u64 {
        self.segment.bytes()
    }

    #[cfg(test)]
    pub(super) fn limit_room(&mut self, bytes: u64) {
        self.segment.limit_room(bytes);
    }

    /// Ends the segment. Without marks there is no file, and `None`.
    pub fn seal(self) -> store::Result<Option<PathBuf>> {
        self.segment.seal_unless_empty()
    }
}
