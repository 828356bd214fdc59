//! Rows of the `marks` table.

use arrow::array::StringArray;
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
    /// User who sent it, where it came by a socket.
    pub uid: Option<u32>,
    /// Slurm job that it came from.
    pub job_id: Option<String>,
    /// Step of that job.
    pub step_id: Option<String>,
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
            .u32s("uid", rows.iter().map(|r| r.uid))
            .labels("job_id", rows.iter().map(|r| r.job_id.as_deref()))
            .labels("step_id", rows.iter().map(|r| r.step_id.as_deref()))
            .finish()
    }

    /// The rows of a batch.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let t_mono = columns::i64s(batch, "t_mono_ns")?;
        let run_id = columns::text(batch, "run_id")?;
        let phase = columns::text(batch, "phase")?;
        let event = columns::text(batch, "event")?;
        let source = columns::text(batch, "source")?;
        // Columns that files of earlier versions do not have.
        let uid = columns::optional(batch, "uid", columns::u32s)?;
        let job_id = columns::optional(batch, "job_id", columns::text)?;
        let step_id = columns::optional(batch, "step_id", columns::text)?;
        let word = |column: &Option<StringArray>, row| {
            column.as_ref().and_then(|c| columns::text_at(c, row)).map(str::to_owned)
        };
        let row = |row: usize| {
            Ok(Self {
                t_mono_ns: columns::required(&t_mono, "t_mono_ns", row)?,
                run_id: columns::required_text(&run_id, "run_id", row)?.to_owned(),
                phase: columns::required_text(&phase, "phase", row)?.to_owned(),
                event: columns::required_text(&event, "event", row)?.parse().map_err(unknown("event"))?,
                source: columns::required_text(&source, "source", row)?.parse().map_err(unknown("source"))?,
                uid: uid.as_ref().and_then(|c| columns::value(c, row)),
                job_id: word(&job_id, row),
                step_id: word(&step_id, row),
            })
        };
        (0..batch.num_rows()).map(row).collect()
    }
}

pub(super) fn unknown(column: &'static str) -> impl FnOnce(UnknownLabel) -> Error {
    move |e| Error::column(column, "a known label", e.to_string())
}
