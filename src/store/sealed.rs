//! Parquet files: how they are encoded, and how they appear all at once or not at all.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arrow::array::{Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tempfile::NamedTempFile;

use super::column_order::state_type_order;
use super::columns;
use super::complete::Completion;
use super::error::{Error, Result};
use super::metadata::FileMetadata;
use crate::file::{self, directory_of};
use crate::schema::{ColumnType, Table};

/// Rows of a row group: large enough for long runs of one device, small enough that sealing stays in a few MiB.
const ROW_GROUP_ROWS: usize = 32_768;

/// Of Zstandard. Level 3 takes 3 % more bytes, level 9 saves less than half a per cent more.
const LEVEL: i32 = 6;

/// Encodings by column type. Times and counters of one device rise nearly evenly, so their differences are short;
/// a dictionary of them would be longer than they are. Floats are readings of a few digits, which come again: a
/// dictionary, and where there are too many for one, their bytes apart. Figures in `tests.rs`.
fn properties(table: &Table, pairs: &BTreeMap<String, String>) -> WriterProperties {
    let key_values = pairs.iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())).collect();
    let start: WriterPropertiesBuilder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL).unwrap_or_default()))
        // Row groups are what is written at once, below.
        .set_max_row_group_row_count(None)
        .set_created_by(concat!("energylens ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(key_values));
    let encoded = table.columns.iter().fold(start, |builder, column| {
        let encoding = match column.column_type {
            ColumnType::I64 | ColumnType::U64 | ColumnType::Timestamp => Encoding::DELTA_BINARY_PACKED,
            ColumnType::F64 => {
                return builder.set_column_encoding(ColumnPath::from(column.name), Encoding::BYTE_STREAM_SPLIT);
            }
            ColumnType::U32 | ColumnType::Label | ColumnType::Text | ColumnType::Labels => return builder,
        };
        let path = ColumnPath::from(column.name);
        builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
    });
    encoded.build()
}

/// A Parquet file under a temporary name in the directory of `path`.
pub(super) struct SealedWriter {
    writer: ArrowWriter<File>,
    temporary: NamedTempFile,
    table: &'static Table,
    completion: Completion,
    path: std::path::PathBuf,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    row_group_rows: usize,
    row_groups: usize,
    rows: u64,
}

impl SealedWriter {
    pub(super) fn create(path: &Path, table: &'static Table, pairs: &BTreeMap<String, String>) -> Result<Self> {
        let dir = directory_of(path);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = tempfile::Builder::new()
            .prefix(&temporary_prefix(&name))
            .suffix(".tmp")
            // As any new file, minus the umask: analysts are not the daemon's user.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(Error::io("create", path))?;
        let file = temporary.as_file().try_clone().map_err(Error::io("create", path))?;
        let writer = ArrowWriter::try_new(file, table.arrow_schema(), Some(properties(table, pairs)))
            .map_err(|e| Error::parquet("write", path, e))?;
        let completion = Completion::of(table, pairs);
        let path = path.to_owned();
        let (waiting, row_group_rows) = (Vec::new(), ROW_GROUP_ROWS);
        Ok(Self {
            writer,
            temporary,
            table,
            completion,
            path,
            waiting,
            waiting_rows: 0,
            row_group_rows,
            row_groups: 0,
            rows: 0,
        })
    }

    /// Row groups of another size; each has its rows grouped by device.
    pub(super) fn with_row_group_rows(mut self, rows: usize) -> Self {
        self.row_group_rows = rows;
        self
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = self.completion.complete(batch)?;
        self.rows += batch.num_rows() as u64;
        self.waiting_rows += batch.num_rows();
        self.waiting.push(batch);
        if self.waiting_rows >= self.row_group_rows { self.write_row_group() } else { Ok(()) }
    }

    /// Ends the row group: the next row begins another. Returns how many there are.
    pub(super) fn end_row_group(&mut self) -> Result<usize> {
        if self.waiting_rows > 0 {
            self.write_row_group()?;
        }
        Ok(self.row_groups)
    }

    fn write_row_group(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        self.row_groups += 1;
        let batch = concat_batches(&self.table.arrow_schema(), &waiting)
            .and_then(|all| grouped_by_device(&all))
            .map_err(|source| Error::Batch { table: self.table.name, source })?;
        self.writer.write(&batch).and_then(|()| self.writer.flush()).map_err(|e| Error::parquet("write", &self.path, e))
    }

    /// Adds metadata that was not known at the start.
    pub(super) fn append_metadata(&mut self, key: &str, value: &str) {
        self.writer.append_key_value_metadata(KeyValue::new(format!("energylens.{key}"), value.to_owned()));
    }

    /// Writes the footer, syncs, and gives the file its name. Returns the rows written.
    pub(super) fn finish(mut self) -> Result<u64> {
        if self.waiting_rows > 0 {
            self.write_row_group()?;
        }
        let written = self.writer.close().map_err(|e| Error::parquet("write", &self.path, e))?;
        state_type_order(self.temporary.as_file(), &written).map_err(|e| Error::parquet("write", &self.path, e))?;
        self.temporary.as_file().sync_all().map_err(Error::io("write", &self.path))?;
        self.temporary.persist(&self.path).map_err(|e| Error::io("create", &self.path)(e.error))?;
        sync_directory(directory_of(&self.path))?;
        Ok(self.rows)
    }
}

/// Hidden, and found again by recovery: what a killed sealing leaves starts so.
pub(super) fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Orders rows by device, keeping the order within each: differences between two devices' counters are long, those
/// within one are short (5 bytes against 3 per counter value with 8 devices).
fn grouped_by_device(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let Ok(devices) = columns::text(batch, "device") else { return Ok(batch.clone()) };
    let mut order: Vec<u32> = (0..devices.len() as u32).collect();
    order.sort_by_key(|&row| devices.value(row as usize));
    take_record_batch(batch, &UInt32Array::from(order))
}

/// Makes a rename or an unlink in `dir` last.
pub(super) fn sync_directory(dir: &Path) -> Result<()> {
    file::sync_directory(dir).map_err(Error::io("sync", dir))
}

/// Writes a whole table at once, replacing the file if there is one: readers see the old rows or the new, never half.
pub fn write_table(path: &Path, table: &'static Table, batches: &[RecordBatch], meta: &FileMetadata) -> Result<()> {
    write_table_from(path, table, batches.iter().cloned().map(Ok::<_, Error>), meta).map(|_| ())
}

/// The same for batches that come one after the other and need not all be in memory. Returns the rows written.
pub fn write_table_from<E: From<Error>>(
    path: &Path,
    table: &'static Table,
    batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
    meta: &FileMetadata,
) -> Result<u64, E> {
    let mut writer = SealedWriter::create(path, table, &meta.to_pairs(table))?;
    for batch in batches {
        writer.write(&columns::conform(&batch?, table)?)?;
    }
    Ok(writer.finish()?)
}
