//! Reading tables back: sealed segments in order, then what live spools already hold.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::file::reader::ChunkReader;

use super::decode::contained;
use super::error::{Error, Result};
use super::footer::open_parquet;
use super::segment::{READY_SUFFIX, segment_order, stands_for};
use super::spool::{self, SPOOL_SUFFIX, SpoolBatches, sealed_path};
use crate::schema::{ColumnType, Table};

const BATCH_ROWS: usize = 8_192;
/// A file of up to so many bytes is read at once: out of a larger one, each page of each column takes half a dozen calls
/// of the system, which for a small table of forty columns is nearly all that reading it costs.
const WHOLE_BYTES: u64 = 1 << 20;

/// Listings of a directory that changes, at most.
const LISTINGS: usize = 20;

/// Batches of a table in a campaign directory: `<table>.parquet`, then `<table>-<host>-<n>` by host and number, sealed
/// or still growing. No files at all is no error: a table without rows has none. Within one device, rows come in the
/// order of time; across devices they do not.
pub fn read_table(dir: &Path, table: &'static Table) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let files = table_files(dir, table)?;
    Ok(files.into_iter().flat_map(move |path| match read_file(&path, table) {
        Ok(batches) => Box::new(batches) as Box<dyn Iterator<Item = Result<RecordBatch>>>,
        Err(e) => Box::new(std::iter::once(Err(e))),
    }))
}

/// Batches of one file of `table`, Parquet or spool. Extra columns are kept, missing or unusable ones are an error
/// before the first batch.
pub fn read_file(path: &Path, table: &'static Table) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    read_row_groups(path, table, None)
}

/// Rows of a sealed file, as its footer says.
pub(super) fn sealed_rows(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let builder = contained(|| open_parquet(file)).map_err(Error::unreadable(path, "Parquet"))?;
    Ok(u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// The same of some row groups of a sealed file: the first, and the first that is not wanted any more.
pub(super) fn read_row_groups(
    path: &Path,
    table: &'static Table,
    row_groups: Option<(usize, usize)>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let (path, opened) = open(path, row_groups)?;
    let schema = match &opened {
        Opened::Sealed(reader) => arrow::record_batch::RecordBatchReader::schema(reader),
        Opened::Spool(batches) => batches.schema(),
    };
    check_columns(&schema, table).map_err(|e| e.in_file(&path))?;
    Ok(match opened {
        Opened::Sealed(reader) => Batches::Sealed(path, Some(reader)),
        Opened::Spool(batches) => Batches::Spool(batches),
    })
}

enum Opened {
    Sealed(ParquetRecordBatchReader),
    Spool(SpoolBatches),
}

enum Batches {
    /// The reader goes with the first error.
    Sealed(PathBuf, Option<ParquetRecordBatchReader>),
    Spool(SpoolBatches),
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, slot) = match self {
            Self::Sealed(path, slot) => (path, slot),
            Self::Spool(batches) => return batches.next().map(Ok),
        };
        let reader = slot.as_mut()?;
        let batch = contained(|| reader.next().transpose()).map_err(Error::unreadable(path, "Parquet")).transpose();
        if matches!(batch, Some(Err(_))) {
            *slot = None;
        }
        batch
    }
}

fn open(path: &Path, row_groups: Option<(usize, usize)>) -> Result<(PathBuf, Opened)> {
    if spool::is_spool(path) {
        match File::open(path) {
            Ok(file) => return Ok((path.to_owned(), Opened::Spool(spool::open(file, path)?))),
            // Sealed since the directory was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return open_sealed(sealed_path(path), None),
            Err(e) => return Err(Error::io("open", path)(e)),
        }
    }
    open_sealed(path.to_owned(), row_groups)
}

fn open_sealed(path: PathBuf, row_groups: Option<(usize, usize)>) -> Result<(PathBuf, Opened)> {
    let (path, file) = match File::open(&path) {
        Ok(file) => (path, file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => reopen(path, e)?,
        Err(e) => return Err(Error::io("open", &path)(e)),
    };
    let length = file.metadata().map_err(Error::io("read", &path))?.len();
    let build = || match (row_groups, length <= WHOLE_BYTES) {
        (None, true) => {
            let whole = file.get_bytes(0, length as usize)?;
            open_parquet(whole)?.with_batch_size(BATCH_ROWS).build()
        }
        (None, false) => open_parquet(file)?.with_batch_size(BATCH_ROWS).build(),
        (Some((from, to)), _) => {
            let all = open_parquet(file)?.with_batch_size(BATCH_ROWS);
            // One that is not there is an error of the decoder.
            all.with_row_groups((from..to).collect()).build()
        }
    };
    let reader = contained(build).map_err(Error::unreadable(&path, "Parquet"))?;
    Ok((path, Opened::Sealed(reader)))
}

/// A file that has gone since it was listed: it has its final name, or its rows are in another file now.
fn reopen(path: PathBuf, gone: io::Error) -> Result<(PathBuf, File)> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if let Some(visible) = name.strip_suffix(READY_SUFFIX).and_then(|n| n.strip_prefix('.')) {
        let path = path.with_file_name(visible);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        return Ok((path, file));
    }
    let entries = std::fs::read_dir(crate::file::directory_of(&path)).into_iter().flatten().flatten();
    let is_merged = entries.filter_map(|e| e.file_name().into_string().ok()).any(|other| stands_for(&other, name));
    Err(if is_merged { Error::Merged { path } } else { Error::io("open", &path)(gone) })
}

/// Files of `table`, in reading order: for their metadata, such as the device table. A spool beside its sealed file is a
/// sealing that was killed before its last step; its rows are in the sealed file. Likewise what is left of segments whose
/// rows are in a merged one.
pub fn table_files(dir: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    // A listing while files are merged may miss both the old ones and the new; two that agree saw neither go.
    let mut names = table_names(dir, table)?;
    for _ in 0..LISTINGS {
        let again = table_names(dir, table)?;
        if again == names {
            break;
        }
        names = again;
    }
    let merged: Vec<&String> = names.iter().filter(|(_, name)| name.contains('+')).map(|(_, name)| name).collect();
    let is_left_over = |name: &str| merged.iter().any(|m| stands_for(m, name));
    let files = names.iter().filter(|(_, name)| !is_left_over(name)).map(|(_, name)| dir.join(name));
    Ok(files.filter(|path| !(spool::is_spool(path) && sealed_path(path).exists())).collect())
}

/// What orders a file among those of its table, and its name.
type Ordered = ((String, (u64, u64)), String);

/// Names of the files of `table` in reading order.
fn table_names(dir: &Path, table: &Table) -> Result<BTreeSet<Ordered>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let Ok(name) = entry.map_err(Error::io("list", dir))?.file_name().into_string() else { continue };
        let visible = name.strip_suffix(READY_SUFFIX).and_then(|n| n.strip_prefix('.')).unwrap_or(&name);
        let stem = visible.strip_suffix(".parquet").or_else(|| visible.strip_suffix(SPOOL_SUFFIX));
        let Some(stem) = stem else { continue };
        if stem == table.name || stem.strip_prefix(table.name).is_some_and(|rest| rest.starts_with('-')) {
            names.insert((segment_order(stem), name));
        }
    }
    Ok(names)
}

/// Whether every column of `table` that must be there is, in a type that can be read as the table's.
fn check_columns(schema: &SchemaRef, table: &Table) -> Result<()> {
    for column in table.columns {
        let Ok(field) = schema.field_with_name(column.name) else {
            if column.nullable {
                continue;
            }
            let names = schema.fields().iter().map(|f| f.name().as_str());
            let found = crate::schema::nearest(column.name, names)
                .map_or_else(|| "none".to_owned(), |near| format!("none; is `{near}` meant?"));
            return Err(Error::column(column.name, format!("a column of table `{}`", table.name), found));
        };
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values.as_ref(),
            other => other,
        };
        let fits = match column.column_type {
            ColumnType::F64 | ColumnType::I64 | ColumnType::U64 | ColumnType::U32 => data_type.is_numeric(),
            ColumnType::Label | ColumnType::Text => {
                matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
            }
            ColumnType::Labels => matches!(data_type, DataType::List(_) | DataType::LargeList(_)),
            ColumnType::Timestamp => matches!(data_type, DataType::Timestamp(..)),
        };
        if !fits && *data_type != DataType::Null {
            let expected = match column.column_type {
                ColumnType::F64 | ColumnType::I64 | ColumnType::U64 | ColumnType::U32 => "numbers",
                ColumnType::Label | ColumnType::Text => "text",
                ColumnType::Labels => "lists of text",
                ColumnType::Timestamp => "timestamps",
            };
            return Err(Error::column(column.name, expected, field.data_type().to_string()));
        }
    }
    Ok(())
}
