//! Which span of time the rows of a segment lie in.

use arrow::compute::{max, min};
use arrow::record_batch::RecordBatch;

use super::columns;

/// Metadata key of the earliest instant of a sealed segment's rows.
pub(super) const BEGIN: &str = "t_begin_mono_ns";
/// Metadata key of the latest.
pub(super) const END: &str = "t_end_mono_ns";

/// Earliest and latest `t_mono_ns` of rows that have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    bounds: Option<(i64, i64)>,
}

impl Span {
    /// Takes in the rows of a batch; a table without instants has no span.
    pub(super) fn extend(&mut self, batch: &RecordBatch) {
        if !columns::has(batch, "t_mono_ns") {
            return;
        }
        let Ok(instants) = columns::i64s(batch, "t_mono_ns") else { return };
        if let (Some(first), Some(last)) = (min(&instants), max(&instants)) {
            let (begin, end) = self.bounds.unwrap_or((first, last));
            self.bounds = Some((begin.min(first), end.max(last)));
        }
    }

    /// As metadata.
    pub(super) fn pairs(self) -> impl Iterator<Item = (&'static str, String)> {
        self.bounds.into_iter().flat_map(|(begin, end)| [(BEGIN, begin.to_string()), (END, end.to_string())])
    }
}
