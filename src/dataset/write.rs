//! Rows to files: the `phases` table as Parquet, and the same columns as CSV.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder, UInt32Array,
};
use arrow::datatypes::{Field, Int32Type};

use super::{Dataset, Error, Row};
use crate::clock::ClockAnchor;
use crate::file;
use crate::schema::{Column, ColumnType, PHASES};
use crate::store::{self, FileMetadata};

/// What one column says of one row.
enum Value<'a> {
    Text(Option<&'a str>),
    Number(Option<f64>),
    Count(u32),
    List(&'a [String]),
}

fn value<'a>(row: &'a Row, column: &str) -> Value<'a> {
    use Value::{Count, List, Number, Text};
    match column {
        "run_id" => Text(Some(&row.run_id)),
        "phase" => Text(Some(row.phase.as_str())),
        "model" => Text(Some(&row.model)),
        "architecture" => Text(row.architecture.as_deref()),
        "engine" => Text(row.engine.as_deref()),
        "precision" => Text(row.precision.as_deref()),
        "gpu_model" => Text(Some(&row.gpu_model)),
        "num_gpus" => Count(row.num_gpus),
        "tensor_parallel" => Count(row.tensor_parallel),
        "pipeline_parallel" => Count(row.pipeline_parallel),
        "data_parallel" => Count(row.data_parallel),
        "expert_parallel" => Count(row.expert_parallel),
        "batch_size" => Number(Some(row.batch_size)),
        "input_tokens" => Number(row.input_tokens),
        "output_tokens" => Number(Some(row.output_tokens)),
        "energy_j" => Number(row.energy_j),
        "energy_j_std" => Number(row.energy_j_std),
        "duration_s" => Number(row.duration_s),
        "mean_power_w" => Number(row.energy_j.zip(row.duration_s).map(|(e, d)| e / d)),
        "mean_ttft_s" => Number(row.mean_ttft_s),
        "mean_tpot_s" => Number(row.mean_tpot_s),
        "kv_capacity_tokens" => Number(row.kv_capacity_tokens),
        "params" => Number(row.params),
        "active_params" => Number(row.active_params),
        "n_layers" => Number(row.n_layers),
        "hidden_size" => Number(row.hidden_size),
        "kv_bytes_per_token" => Number(row.kv_bytes_per_token),
        "num_experts" => Number(row.num_experts),
        "experts_per_token" => Number(row.experts_per_token),
        "bytes_per_weight" => Number(row.bytes_per_weight),
        "gpu_memory_bytes" => Number(row.gpu_memory_bytes),
        "quality" => List(&row.quality),
        "source" => Text(Some(row.source.as_str())),
        "method" => Text(row.method.map(|m| m.as_str())),
        "idle_power_w" => Number(row.idle_power_w),
        _ => Text(None),
    }
}

fn texts<'a>(rows: &'a [Row], name: &str) -> Vec<Option<&'a str>> {
    rows.iter().map(|r| if let Value::Text(text) = value(r, name) { text } else { None }).collect()
}

fn numbers(rows: &[Row], name: &str) -> Vec<Option<f64>> {
    rows.iter().map(|r| if let Value::Number(number) = value(r, name) { number } else { None }).collect()
}

fn array(rows: &[Row], column: &Column) -> ArrayRef {
    match column.column_type {
        ColumnType::F64 if column.nullable => Arc::new(Float64Array::from(numbers(rows, column.name))),
        // A non-null column of the file: an energy that was not measured (rejected phases) is NaN, never 0.
        ColumnType::F64 => {
            Arc::new(Float64Array::from_iter_values(numbers(rows, column.name).iter().map(|n| n.unwrap_or(f64::NAN))))
        }
        ColumnType::U32 => {
            let count = |r| if let Value::Count(count) = value(r, column.name) { count } else { 0 };
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(count)))
        }
        ColumnType::Label => {
            let mut labels = StringDictionaryBuilder::<Int32Type>::new();
            labels.extend(texts(rows, column.name));
            Arc::new(labels.finish())
        }
        ColumnType::Labels => {
            let item = Arc::new(Field::new("item", arrow::datatypes::DataType::Utf8, false));
            let mut lists = ListBuilder::new(StringBuilder::new()).with_field(item);
            for row in rows {
                if let Value::List(items) = value(row, column.name) {
                    items.iter().for_each(|item| lists.values().append_value(item));
                }
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
        ColumnType::Text | ColumnType::I64 | ColumnType::U64 | ColumnType::Timestamp => {
            Arc::new(StringArray::from(texts(rows, column.name)))
        }
    }
}

/// The rows as a batch of the `phases` table.
pub fn batch(rows: &[Row]) -> Result<RecordBatch, arrow::error::ArrowError> {
    RecordBatch::try_new(PHASES.arrow_schema(), PHASES.columns.iter().map(|c| array(rows, c)).collect())
}

/// Writes the rows as a `phases` Parquet file; a reader never sees half of it.
pub fn write_phases(path: &Path, dataset: &Dataset) -> Result<(), Error> {
    // Rows of others were measured on no clock of ours.
    let metadata = FileMetadata::of_host("", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
    write_phases_with(path, dataset, &metadata)
}

pub(super) fn write_phases_with(path: &Path, dataset: &Dataset, metadata: &FileMetadata) -> Result<(), Error> {
    let fail = |source| Error::Write { path: path.to_owned(), source };
    let batch = batch(&dataset.rows).map_err(|e| fail(io::Error::other(e)))?;
    store::write_table(path, &PHASES, &[batch], metadata).map_err(|e| fail(io::Error::other(e)))
}

/// Writes the rows as CSV with a header of all `phases` columns; what is missing stays empty, lists are joined by `;`.
pub fn write_csv(path: &Path, dataset: &Dataset) -> Result<(), Error> {
    file::replace(path, |file| {
        let mut writer = csv::Writer::from_writer(io::BufWriter::new(file));
        writer.write_record(PHASES.columns.iter().map(|c| c.name))?;
        for row in &dataset.rows {
            writer.write_record(PHASES.columns.iter().map(|c| match value(row, c.name) {
                Value::Text(text) => text.unwrap_or_default().to_owned(),
                Value::Number(number) => number.map_or_else(String::new, |n| n.to_string()),
                Value::Count(count) => count.to_string(),
                Value::List(items) => items.join(";"),
            }))?;
        }
        writer.flush()
    })
    .map_err(|source| Error::Write { path: path.to_owned(), source })
}
