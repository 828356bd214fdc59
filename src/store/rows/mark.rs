//! Rows of the `marks` table.

use arrow::record_batch::RecordBatch;

use super::super::columns;
use super::super::error::{Error, Result};
use super::builder::BatchBuilder;
use crate::schema::{MARKS, MarkEvent, Origin, UnknownLabel};

/// Begin or end of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkRow {
    /// Instant of the mark.
    pub t_mono_ns: i64,
    /// Run that the mark belongs to.
    pub run_id: String,
    /// Phase, in the workload's words: idle, warmup, prefill, decode, total or its own.
    pub phase: String,
    /// Whether the phase begins or ends.
    pub event: MarkEvent,
    /// Whether the workload was simulated.
    pub source: Origin,
}

impl MarkRow {
    /// The rows as a batch.
    pub fn batch(rows: &[Self]) -> Result<RecordBatch> {
        BatchBuilder::new(&MARKS)
            .i64s("t_mono_ns", rows.iter().map(|r| Some(r.t_mono_ns)))
            .labels("run_id", rows.iter().map(|r| Some(r.run_id.as_str())))
            .labels("phase", rows.iter().map(|r| Some(r.phase.as_str())))
            .labels("event", rows.iter().map(|r| Some(r.event.as_str())))
            .labels("source", rows.iter().map(|r| Some(r.source.as_str())))
            .finish()
    }

    /// The rows of a batch.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let t_mono = columns::i64s(batch, "t_mono_ns")?;
        let run_id = columns::text(batch, "run_id")?;
        let phase = columns::text(batch, "phase")?;
        let event = columns::text(batch, "event")?;
        let source = columns::text(batch, "source")?;
        let row = |row: usize| {
            Ok(Self {
                t_mono_ns: columns::required(&t_mono, "t_mono_ns", row)?,
                run_id: columns::required_text(&run_id, "run_id", row)?.to_owned(),
                phase: columns::required_text(&phase, "phase", row)?.to_owned(),
                event: columns::required_text(&event, "event", row)?.parse().map_err(unknown("event"))?,
                source: columns::required_text(&source, "source", row)?.parse().map_err(unknown("source"))?,
            })
        };
        (0..batch.num_rows()).map(row).collect()
    }
}

pub(super) fn unknown(column: &'static str) -> impl FnOnce(UnknownLabel) -> Error {
    move |e| Error::column(column, "a known label", e.to_string())
}
