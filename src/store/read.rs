//! Reading tables back: sealed segments in order, then what live spools already hold.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::decode::contained;
use super::error::{Error, Result};
use super::spool::{self, SPOOL_SUFFIX, SpoolBatches, sealed_path};
use crate::schema::{ColumnType, Table};

const BATCH_ROWS: usize = 8_192;
/// A file of up to so many bytes is read at once: out of a larger one, each page of each column takes half a dozen calls
/// of the system, which for a small table of forty columns is nearly all that reading it costs.
const WHOLE_BYTES: u64 = 1 << 20;

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
    let (path, opened) = open(path)?;
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

fn open(path: &Path) -> Result<(PathBuf, Opened)> {
    if spool::is_spool(path) {
        match File::open(path) {
            Ok(file) => return Ok((path.to_owned(), Opened::Spool(spool::open(file, path)?))),
            // Sealed since the directory was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return open_sealed(sealed_path(path)),
            Err(e) => return Err(Error::io("open", path)(e)),
        }
    }
    open_sealed(path.to_owned())
}

fn open_sealed(path: PathBuf) -> Result<(PathBuf, Opened)> {
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let length = file.metadata().map_err(Error::io("read", &path))?.len();
    let build = || {
        if length > WHOLE_BYTES {
            return ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build();
        }
        let whole = file.get_bytes(0, length as usize)?;
        ParquetRecordBatchReaderBuilder::try_new(whole)?.with_batch_size(BATCH_ROWS).build()
    };
    let reader = contained(build).map_err(Error::unreadable(&path, "Parquet"))?;
    Ok((path, Opened::Sealed(reader)))
}

/// Files of `table`, in reading order: for their metadata, such as the device table. A spool beside its sealed file is a sealing that was killed before its last
/// step; its rows are in the sealed file.
pub fn table_files(dir: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".parquet").or_else(|| name.strip_suffix(SPOOL_SUFFIX)) else { continue };
        let belongs = stem == table.name || stem.strip_prefix(table.name).is_some_and(|rest| rest.starts_with('-'));
        if belongs && !(spool::is_spool(&path) && sealed_path(&path).exists()) {
            files.push((segment_order(stem), path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// `samples-node-a-10` is host `node-a`, segment 10, after segment 9.
fn segment_order(stem: &str) -> (String, u64) {
    match stem.rsplit_once('-').map(|(host, number)| (host, number.parse())) {
        Some((host, Ok(number))) => (host.to_owned(), number),
        _ => (stem.to_owned(), 0),
    }
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
