//! The spool: an Arrow IPC stream that may end anywhere.
//!
//! Other tools read it too: `pyarrow.ipc.open_stream("samples-HOST-000000.arrows.spool")` while it grows.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;

use super::decode::contained;
use super::error::{Error, Result};

pub(super) const SPOOL_SUFFIX: &str = ".arrows.spool";

pub(super) fn is_spool(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(SPOOL_SUFFIX))
}

/// The sealed file that a spool becomes.
pub(super) fn sealed_path(spool: &Path) -> PathBuf {
    let name = spool.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    spool.with_file_name(format!("{}.parquet", name.strip_suffix(SPOOL_SUFFIX).unwrap_or(&name)))
}

/// Batches of a spool up to the first that is not whole. What follows a torn batch cannot be told from garbage, so
/// reading stops there, without an error: that is what a killed writer leaves.
pub(super) struct SpoolBatches {
    stream: StreamReader<BufReader<File>>,
    torn: bool,
}

/// Opens a spool. Fails if not even the schema at its head is whole.
pub(super) fn open(file: File, path: &Path) -> Result<SpoolBatches> {
    let stream =
        contained(|| StreamReader::try_new_buffered(file, None)).map_err(Error::unreadable(path, "Arrow stream"))?;
    Ok(SpoolBatches { stream, torn: false })
}

/// Whether the schema message that begins a stream is there to its last byte, whatever the bytes say. Without it no
/// row was ever accepted; with it, a spool that cannot be read is damaged, and nobody's to delete.
pub(super) fn has_whole_head(path: &Path) -> Result<bool> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("inspect", path))?.len();
    let mut prefix = [0; 8]; // Continuation marker, then the length of the schema message.
    match file.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(e) => return Err(Error::io("read", path)(e)),
    }
    let [_, _, _, _, a, b, c, d] = prefix;
    Ok(length >= 8 + u64::from(u32::from_le_bytes([a, b, c, d])))
}

impl SpoolBatches {
    pub(super) fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// Whether reading ended at a batch that is not whole.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }
}

impl Iterator for SpoolBatches {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        if self.torn {
            return None;
        }
        contained(|| self.stream.next().transpose()).unwrap_or_else(|_| {
            self.torn = true;
            None
        })
    }
}
