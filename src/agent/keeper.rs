//! What is kept of a recording: rows into segments, segments sealed and removed, pauses told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Error, Result};
use super::keeping::Keeping;
use super::notices::Notices;
use super::pausing::PauseLog;
use super::recording::Recording;
use super::retention::{FreeBytes, Retention, free_bytes, refusal};
use super::writer::{RowKind, TableWriter};
use crate::clock::{Clock, ClockAnchor};
use crate::store::{self, FileMetadata, SampleRow, TelemetryRow};

/// Sealed files that a summary lists; all of them are counted.
const MAX_LISTED_FILES: usize = 32;
/// A sealing that failed is tried again after this long: it rewrites a whole segment.
const SEAL_AGAIN_NS: i64 = 30_000_000_000;

/// How a recording is kept.
pub(super) struct KeeperOptions {
    pub(super) keeping: Keeping,
    pub(super) segment_rows: u64,
    pub(super) notices: Notices,
    /// The anchor of the metadata is the time line's own, as under virtual time, and not to be taken anew.
    pub(super) keeps_anchor: bool,
}

/// Keeps the rows of one recording.
pub(super) struct Keeper {
    dir: PathBuf,
    meta: FileMetadata,
    clock: Arc<dyn Clock>,
    options: KeeperOptions,
    samples: TableWriter<SampleRow>,
    telemetry: TableWriter<TelemetryRow>,
    retention: Option<Retention>,
    pauses: PauseLog,
    next_rotation_ns: i64,
    next_sealing_ns: i64,
    errors: u64,
    last_error: Option<String>,
    files: Vec<PathBuf>,
    sealed_files: u64,
    /// Held while a test lets the disk stall.
    #[cfg(test)]
    pub(super) stall: Option<crossbeam_channel::Receiver<()>>,
}

impl Keeper {
    /// Creates the first segment, so that a directory that cannot be written is known before the work starts.
    pub(super) fn create(
        dir: &Path,
        meta: FileMetadata,
        clock: Arc<dyn Clock>,
        options: KeeperOptions,
    ) -> Result<Self> {
        Self::create_with(dir, meta, clock, options, Box::new(free_bytes))
    }

    pub(super) fn create_with(
        dir: &Path,
        meta: FileMetadata,
        clock: Arc<dyn Clock>,
        options: KeeperOptions,
        free: FreeBytes,
    ) -> Result<Self> {
        let mut samples = TableWriter::new(dir, RowKind::SAMPLES);
        samples.open(&meta)?;
        // Whoever does not say who they are owns nothing that could be removed.
        let recorder = meta.extra.get("recorder").filter(|_| options.keeping.removes());
        let retention = recorder.map(|r| Retention::new(dir, options.keeping, &meta.host, r, free));
        let mut keeper = Self {
            dir: dir.to_owned(),
            meta,
            clock,
            options,
            samples,
            telemetry: TableWriter::new(dir, RowKind::TELEMETRY),
            retention,
            pauses: PauseLog::default(),
            next_rotation_ns: i64::MAX,
            next_sealing_ns: i64::MIN,
            errors: 0,
            last_error: None,
            files: Vec::new(),
            sealed_files: 0,
            #[cfg(test)]
            stall: None,
        };
        keeper.plan_rotation();
        Ok(keeper)
    }

    pub(super) fn push(&mut self, row: SampleRow) {
        self.samples.push(row);
    }

    pub(super) fn push_telemetry(&mut self, row: TelemetryRow) {
        self.telemetry.push(row);
    }

    pub(super) fn is_batch_full(&self) -> bool {
        self.samples.is_batch_full() || self.telemetry.is_batch_full()
    }

    /// Whether no more samples should be taken from their ring for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.samples.is_stuck()
    }

    /// The same for telemetry.
    pub(super) fn is_telemetry_stuck(&self) -> bool {
        self.telemetry.is_stuck()
    }

    /// Whether the latest attempt to write failed.
    pub(super) fn is_paused(&self) -> bool {
        self.pauses.is_paused()
    }

    /// Tries to write what waits; on an error the rows go on waiting. Then whatever else is due: segments are ended
    /// and sealed, old ones removed.
    pub(super) fn flush(&mut self, summary: &dyn Fn() -> Recording) -> store::Result<()> {
        #[cfg(test)]
        if let Some(stall) = &self.stall {
            let _ = stall.recv();
        }
        let now_ns = self.clock.now();
        self.retain(now_ns);
        if let Err(e) = self.write() {
            self.errors += 1;
            let reason = in_one_line(&e);
            self.pauses.failed(now_ns, self.lost_rows(summary), &reason, &self.options.notices);
            self.last_error = Some(reason);
            if let Some(retention) = &mut self.retention {
                retention.hurry();
            }
            return Err(e);
        }
        self.pauses.succeeded(now_ns, self.lost_rows(summary), &self.options.notices);
        self.rotate(now_ns);
        // A segment that could not be sealed is not lost: it is tried again, and its spool can be read meanwhile.
        let _ = self.seal(now_ns, summary);
        Ok(())
    }

    fn write(&mut self) -> store::Result<()> {
        if let Some(reason) = self.retention.as_ref().and_then(Retention::lacks_space)
            && (self.samples.waiting() > 0 || self.telemetry.waiting() > 0)
        {
            return Err(refusal(&self.dir, reason));
        }
        let (meta, clock, keeps_anchor) = (&self.meta, &self.clock, self.options.keeps_anchor);
        let new_meta = || {
            // The wall clock may have been set, or corrected, since the segment before.
            let anchor = if keeps_anchor { meta.anchor } else { ClockAnchor::now(clock.as_ref()) };
            FileMetadata { anchor, ..meta.clone() }
        };
        self.samples.flush(&new_meta)?;
        self.telemetry.flush(&new_meta)
    }

    fn rotate(&mut self, now_ns: i64) {
        let is_time = now_ns >= self.next_rotation_ns;
        if is_time {
            self.plan_rotation();
        }
        let (rows, bytes) = self.samples.size();
        let is_full = rows >= self.options.segment_rows.max(1) || bytes >= self.options.keeping.rotate_bytes;
        if (is_time || is_full) && self.samples.has_rows() {
            self.samples.end_segment();
        }
        let (_, bytes) = self.telemetry.size();
        if (is_time || bytes >= self.options.keeping.rotate_bytes) && self.telemetry.has_rows() {
            self.telemetry.end_segment();
        }
    }

    fn plan_rotation(&mut self) {
        let (now_ns, now_unix_ns) = (self.clock.now(), self.unix_now_ns());
        let ahead_ns = self.options.keeping.next_rotation_unix_ns(now_unix_ns).saturating_sub(now_unix_ns);
        self.next_rotation_ns = now_ns.saturating_add(ahead_ns);
    }

    /// Seals what has grown so far and goes on in new segments.
    pub(super) fn reopen(&mut self, summary: &dyn Fn() -> Recording) -> store::Result<()> {
        let written = self.flush(summary);
        self.next_sealing_ns = i64::MIN;
        if self.samples.has_rows() {
            self.samples.end_segment();
        }
        if self.telemetry.has_rows() {
            self.telemetry.end_segment();
        }
        let sealed = self.seal(self.clock.now(), summary);
        if let (Ok(()), Some(latest)) = (&sealed, self.files.last()) {
            self.options.notices.say(format!("sealed {} as asked; going on in a new segment", latest.display()));
        }
        written.and(sealed)
    }

    fn seal(&mut self, now_ns: i64, summary: &dyn Fn() -> Recording) -> store::Result<()> {
        if now_ns < self.next_sealing_ns || !(self.samples.has_ended() || self.telemetry.has_ended()) {
            return Ok(());
        }
        let recording = self.complete(summary());
        // Plain data always serialises; without a summary the rows are no worse.
        let text = serde_json::to_string(&recording).unwrap_or_default();
        let (files, count) = (&mut self.files, &mut self.sealed_files);
        let mut list = |path: PathBuf| {
            *count += 1;
            if files.len() >= MAX_LISTED_FILES {
                files.remove(0);
            }
            files.push(path);
        };
        let samples = self.samples.seal_ended(&text, &mut list);
        let sealed = samples.and(self.telemetry.seal_ended(&text, &mut list));
        if let Err(e) = &sealed {
            self.next_sealing_ns = now_ns + SEAL_AGAIN_NS;
            self.errors += 1;
            let reason = format!("a segment cannot be sealed yet, its spool is whole: {}", in_one_line(e));
            // Tried again and again; told once.
            if self.last_error.as_ref() != Some(&reason) {
                self.options.notices.say(reason.clone());
            }
            self.last_error = Some(reason);
        } else {
            self.next_sealing_ns = i64::MIN;
        }
        if let Some(retention) = &mut self.retention {
            retention.hurry();
        }
        sealed
    }

    fn retain(&mut self, now_ns: i64) {
        let unix_now_ns = self.unix_now_ns();
        let unsealed = self.samples.unsealed_bytes() + self.telemetry.unsealed_bytes();
        if let Some(retention) = &mut self.retention {
            retention.look(now_ns, unix_now_ns, unsealed, &self.options.notices);
        }
    }

    fn unix_now_ns(&self) -> i64 {
        if self.options.keeps_anchor {
            self.meta.anchor.unix_ns(self.clock.now())
        } else {
            ClockAnchor::now(self.clock.as_ref()).t_unix_ns
        }
    }

    fn lost_rows(&self, summary: &dyn Fn() -> Recording) -> u64 {
        summary().lost_rows + self.samples.lost()
    }

    /// Writes the last rows, seals, and returns the summary with what only the writer knows. `left_rows` are rows that
    /// nobody will take from the ring any more.
    pub(super) fn finish(mut self, left_rows: usize, summary: &dyn Fn() -> Recording) -> Result<Recording> {
        if self.flush(summary).is_err() {
            // Once more, in a new segment: the space may be back, or the old segment was the trouble.
            let rows = self.samples.waiting() + left_rows;
            self.flush(summary).map_err(|source| Error::Unwritten { rows, source })?;
        }
        self.pauses.end(self.clock.now(), self.lost_rows(summary), &self.options.notices);
        self.samples.end_segment();
        self.telemetry.end_segment();
        self.next_sealing_ns = i64::MIN;
        self.seal(self.clock.now(), summary)?;
        self.retain(self.clock.now());
        Ok(self.complete(summary()))
    }

    /// What only the writer knows.
    pub(super) fn complete(&self, mut recording: Recording) -> Recording {
        recording.lost_rows += self.samples.lost();
        recording.telemetry.lost_rows += self.telemetry.lost();
        recording.pauses = self.pauses.summary(self.clock.now(), recording.lost_rows);
        recording.rows = self.samples.rows();
        recording.write_errors = self.errors;
        recording.last_write_error.clone_from(&self.last_error);
        recording.files.clone_from(&self.files);
        recording.sealed_files = self.sealed_files;
        recording.removed = self.retention.as_ref().map(Retention::removed).unwrap_or_default();
        recording
    }

    /// From now on the disk takes `bytes` more of samples and is full then.
    #[cfg(test)]
    pub(super) fn limit_room(&mut self, bytes: u64) {
        self.samples.limit_room(bytes);
    }
}

/// An error with its causes, for a reader who sees nothing else of it.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(text.trim()) {
            line.push_str(&format!(" ({text})"));
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
pub(in crate::agent) mod tests;
