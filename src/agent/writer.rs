//! Writes the rows of one table to segments, and survives a disk that is full for a while.

use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;

use crate::schema::{SAMPLES, TELEMETRY, Table};
use crate::store::{self, FileMetadata, SampleRow, SegmentWriter, TelemetryRow};

/// Rows that are written together at most, normally.
pub(super) const BATCH_ROWS: usize = 8_192;
/// Rows that are kept while the disk refuses; beyond, they stay in the ring, which counts what it then refuses.
pub(super) const MAX_WAITING_ROWS: usize = 65_536;
/// Ended segments that are held for another attempt to seal them. The spools of more stay on disk, whole, for the
/// recovery at the next start.
const MAX_ENDED: usize = 8;

/// A kind of rows, and how they become a table.
pub(super) struct RowKind<R> {
    table: &'static Table,
    batch: fn(&[R]) -> store::Result<RecordBatch>,
}

impl RowKind<SampleRow> {
    pub(super) const SAMPLES: Self = Self { table: &SAMPLES, batch: SampleRow::batch };
}

impl RowKind<TelemetryRow> {
    pub(super) const TELEMETRY: Self = Self { table: &TELEMETRY, batch: TelemetryRow::batch };
}

/// Writes one kind of rows.
pub(super) struct TableWriter<R> {
    kind: RowKind<R>,
    dir: PathBuf,
    segment: Option<SegmentWriter>,
    /// Segments that take no more rows: full ones, and ones that an error cut short.
    ended: Vec<SegmentWriter>,
    /// Rows that no successful flush has covered yet.
    waiting: Vec<R>,
    rows: u64,
    lost: u64,
}

impl<R> TableWriter<R> {
    pub(super) fn new(dir: &Path, kind: RowKind<R>) -> Self {
        Self { kind, dir: dir.to_owned(), segment: None, ended: Vec::new(), waiting: Vec::new(), rows: 0, lost: 0 }
    }

    /// Creates a segment before there is a row, so that a directory that cannot be written is known in time.
    pub(super) fn open(&mut self, meta: &FileMetadata) -> store::Result<()> {
        self.segment = Some(SegmentWriter::create(&self.dir, self.kind.table, &meta.host, meta)?);
        Ok(())
    }

    /// Takes a row, or counts it as lost: whoever can leave it elsewhere asks [`is_stuck`](Self::is_stuck) before.
    pub(super) fn push(&mut self, row: R) {
        if self.is_stuck() {
            self.lost += 1;
        } else {
            self.waiting.push(row);
        }
    }

    pub(super) fn is_batch_full(&self) -> bool {
        self.waiting.len() >= BATCH_ROWS
    }

    /// Whether no more rows are taken for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_ROWS
    }

    /// Rows written.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that found no room to wait.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Rows that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is a segment that has rows.
    pub(super) fn has_rows(&self) -> bool {
        self.segment.as_ref().is_some_and(|s| s.rows() > 0)
    }

    /// Rows and bytes of the present segment.
    pub(super) fn size(&self) -> (u64, u64) {
        self.segment.as_ref().map_or((0, 0), |s| (s.rows(), s.bytes()))
    }

    /// Bytes of everything that is not sealed yet.
    pub(super) fn unsealed_bytes(&self) -> u64 {
        self.segment.iter().chain(&self.ended).map(SegmentWriter::bytes).sum()
    }

    /// Writes what waits and hands it to the operating system. After an error the rows go on waiting, for a new
    /// segment; `meta` is what that one would say of itself.
    pub(super) fn flush(&mut self, meta: &dyn Fn() -> FileMetadata) -> store::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if let Err(e) = self.write_waiting(meta) {
            self.end_segment();
            return Err(e);
        }
        self.rows += self.waiting.len() as u64;
        self.waiting.clear();
        // What a long pause needed is given back.
        self.waiting.shrink_to(BATCH_ROWS);
        Ok(())
    }

    fn write_waiting(&mut self, meta: &dyn Fn() -> FileMetadata) -> store::Result<()> {
        if self.segment.is_none() {
            self.open(&meta())?;
        }
        let Some(segment) = self.segment.as_mut() else { return Ok(()) };
        for rows in self.waiting.chunks(BATCH_ROWS) {
            segment.append(&(self.kind.batch)(rows)?)?;
        }
        segment.flush()
    }

    /// The next rows go into a new segment; this one waits to be sealed.
    pub(super) fn end_segment(&mut self) {
        let Some(mut segment) = self.segment.take() else { return };
        if segment.rows() == 0 {
            // Nothing of it is worth keeping; should its removal fail too, recovery sees to it.
            let _ = segment.try_seal();
            return;
        }
        if self.ended.len() >= MAX_ENDED {
            self.ended.remove(0);
        }
        self.ended.push(segment);
    }

    /// Whether segments wait to be sealed.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Seals what has ended, each with `summary` in its metadata. Stops at the first that cannot be sealed.
    pub(super) fn seal_ended(&mut self, summary: &str, sealed: &mut dyn FnMut(PathBuf)) -> store::Result<()> {
        while let Some(segment) = self.ended.first_mut() {
            segment.set_extra("recording", summary.to_owned());
            if let Some(path) = segment.try_seal()? {
                sealed(path);
            }
            self.ended.remove(0);
        }
        Ok(())
    }

    /// From now on the disk takes `bytes` more and is full then.
    #[cfg(test)]
    pub(super) fn limit_room(&mut self, bytes: u64) {
        self.segment.as_mut().expect("a segment").limit_room(bytes);
    }
}
