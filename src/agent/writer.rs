//! Writes sample rows to segments, and survives a disk that is full for a while.

use std::path::PathBuf;

use super::error::{Error, Result};
use super::recording::Recording;
use crate::schema::SAMPLES;
use crate::store::{self, FileMetadata, SampleRow, SegmentWriter};

/// Rows that are written together at most.
pub(super) const BATCH_ROWS: usize = 8_192;
/// Rows that are kept while the disk refuses; beyond, they stay in the ring, which counts what it then refuses.
const MAX_WAITING_ROWS: usize = 65_536;

pub(super) struct SampleWriter {
    dir: PathBuf,
    meta: FileMetadata,
    segment_rows: u64,
    segment: Option<SegmentWriter>,
    /// Segments that were cut short by an error; sealed at the end, when there may be space again.
    cut: Vec<SegmentWriter>,
    /// Rows that no successful flush has covered yet.
    waiting: Vec<SampleRow>,
    rows: u64,
    errors: u64,
    last_error: Option<String>,
    files: Vec<PathBuf>,
}

impl SampleWriter {
    /// Creates the first segment, so that a directory that cannot be written is known before the work starts.
    pub(super) fn create(dir: PathBuf, meta: FileMetadata, segment_rows: u64) -> Result<Self> {
        let segment = SegmentWriter::create(&dir, &SAMPLES, &meta.host, &meta)?;
        Ok(Self {
            dir,
            meta,
            segment_rows: segment_rows.max(1),
            segment: Some(segment),
            cut: Vec::new(),
            waiting: Vec::new(),
            rows: 0,
            errors: 0,
            last_error: None,
            files: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, row: SampleRow) {
        self.waiting.push(row);
    }

    pub(super) fn is_batch_full(&self) -> bool {
        self.waiting.len() >= BATCH_ROWS
    }

    /// Whether no more rows should be taken from the ring for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_ROWS
    }

    /// Tries to write what waits. On an error the rows go on waiting, for a new segment.
    pub(super) fn flush(&mut self, summary: &dyn Fn() -> Recording) -> store::Result<()> {
        if !self.waiting.is_empty() {
            if let Err(e) = self.write_waiting() {
                self.errors += 1;
                self.last_error = Some(e.to_string());
                if let Some(segment) = self.segment.take() {
                    if segment.rows() > 0 {
                        self.cut.push(segment);
                    } else {
                        // Nothing of it is worth keeping; should its removal fail too, recovery sees to it.
                        let _ = segment.seal_unless_empty();
                    }
                }
                return Err(e);
            }
            self.rows += self.waiting.len() as u64;
            self.waiting.clear();
        }
        if self.segment.as_ref().is_some_and(|s| s.rows() >= self.segment_rows) {
            self.seal_segment(summary)?;
        }
        Ok(())
    }

    fn write_waiting(&mut self) -> store::Result<()> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => SegmentWriter::create(&self.dir, &SAMPLES, &self.meta.host, &self.meta)?,
        };
        let batch = SampleRow::batch(&self.waiting)?;
        let written = segment.append(&batch).and_then(|()| segment.flush());
        self.segment = Some(segment);
        written
    }

    fn seal_segment(&mut self, summary: &dyn Fn() -> Recording) -> store::Result<()> {
        if let Some(mut segment) = self.segment.take() {
            let recording = self.complete(summary());
            segment.set_extra("recording", serde_json::to_string(&recording).unwrap_or_default());
            self.files.extend(segment.seal_unless_empty()?);
        }
        Ok(())
    }

    /// Writes the last rows, seals, and returns the summary with what only the writer knows.
    pub(super) fn finish(mut self, summary: &dyn Fn() -> Recording) -> Result<Recording> {
        if self.flush(summary).is_err() {
            // Once more, in a new segment: the space may be back, or the old segment was the trouble.
            self.flush(summary).map_err(|source| Error::Unwritten { rows: self.waiting.len(), source })?;
        }
        for segment in std::mem::take(&mut self.cut) {
            self.files.extend(segment.seal_unless_empty()?);
        }
        self.seal_segment(summary)?;
        Ok(self.complete(summary()))
    }

    fn complete(&self, mut recording: Recording) -> Recording {
        recording.rows = self.rows;
        recording.write_errors = self.errors;
        recording.last_write_error.clone_from(&self.last_error);
        recording.files.clone_from(&self.files);
        recording
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::ClockAnchor;
    use crate::schema::EnergySource;

    fn row(t_mono_ns: i64) -> SampleRow {
        SampleRow {
            device: Arc::from("a"),
            t_mono_ns,
            t_prev_poll_ns: t_mono_ns - 1,
            energy_counter_uj: Some(t_mono_ns.unsigned_abs()),
            power_w: None,
            t_device_ns: None,
            source: EnergySource::Counter,
        }
    }

    fn summary() -> Recording {
        Recording { host: "n".to_owned(), t_end_mono_ns: 1, ..Recording::default() }
    }

    #[test]
    fn a_disk_that_is_full_for_a_while_costs_no_row_and_doubles_none() {
        let dir = TempDir::new().unwrap();
        let meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
        let mut writer = SampleWriter::create(dir.path().to_owned(), meta, 1_000_000).unwrap();
        (0..10).for_each(|t| writer.push(row(t)));
        writer.flush(&summary).unwrap();
        writer.segment.as_mut().unwrap().limit_room(500);
        (10..400).for_each(|t| writer.push(row(t)));
        assert!(writer.flush(&summary).is_err());
        (400..410).for_each(|t| writer.push(row(t)));
        writer.flush(&summary).unwrap();
        let recording = writer.finish(&summary).unwrap();
        assert_eq!((recording.rows, recording.write_errors, recording.files.len()), (410, 1, 2));
        let batches = store::read_table(dir.path(), &SAMPLES).unwrap();
        let rows: Vec<_> = batches.flat_map(|b| SampleRow::from_batch(&b.unwrap()).unwrap()).collect();
        assert_eq!(rows, (0..410).map(row).collect::<Vec<_>>());
    }
}
