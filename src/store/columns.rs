//! Columns of a batch by name, in the type that is wanted.
//!
//! Other people's Parquet has other integer widths, plain text instead of dictionaries, integers where we write
//! floats. All of that is accepted where no value changes by it; anything else is an error that names the column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, PrimitiveArray, StringArray,
    UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float64Type, Int64Type, Schema, UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::error::{Error, Result};
use crate::schema::{Column, Table};

fn find<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| {
        let schema = batch.schema();
        let names = schema.fields().iter().map(|f| f.name().as_str());
        let found = match crate::schema::nearest(name, names) {
            Some(near) => format!("none; is `{near}` meant?"),
            None => "none".to_owned(),
        };
        Error::column(name, "a column of this name", found)
    })
}

fn cast(array: &ArrayRef, name: &str, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    // A fraction must not become an integer quietly.
    if to.is_integer() && array.data_type().is_floating() {
        let floats = cast(array, name, &DataType::Float64)?;
        if let Some(odd) = floats.as_primitive::<Float64Type>().iter().flatten().find(|v| v.fract() != 0.0) {
            return Err(Error::column(name, "whole numbers", odd.to_string()));
        }
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options)
        .map_err(|e| Error::column(name, format!("values of type {to}"), format!("{} ({e})", array.data_type())))
}

fn primitive<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Result<PrimitiveArray<T>> {
    Ok(cast(find(batch, name)?, name, &T::DATA_TYPE)?.as_primitive::<T>().clone())
}

/// The columns of `table`, in its order and types: what else there is goes, what may be missing is empty. What follows
/// from a file's metadata is left to its sealing, unless it is there already.
pub fn conform(batch: &RecordBatch, table: &Table) -> Result<RecordBatch> {
    let schema = table.arrow_schema();
    if batch.schema().fields() == schema.fields() {
        return Ok(batch.clone());
    }
    let column = |column: &Column, field: &Field| match batch.column_by_name(column.name) {
        Some(array) => cast(array, column.name, field.data_type()),
        None if column.nullable => Ok(new_null_array(field.data_type(), batch.num_rows())),
        None => find(batch, column.name).cloned(),
    };
    let kept = table.columns.iter().zip(schema.fields());
    let kept = kept.filter(|(c, _)| c.derived.is_none() || has(batch, c.name));
    let (fields, columns): (Vec<_>, Vec<_>) = kept.map(|(c, f)| (f.clone(), column(c, f))).unzip();
    let columns = columns.into_iter().collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|source| Error::Batch { table: table.name, source })
}

/// The rows whose text in column `name` is wanted.
pub fn rows_where(batch: &RecordBatch, name: &str, mut wanted: impl FnMut(&str) -> bool) -> Result<RecordBatch> {
    let texts = text(batch, name)?;
    let keep: BooleanArray = (0..texts.len()).map(|row| Some(text_at(&texts, row).is_some_and(&mut wanted))).collect();
    filter_record_batch(batch, &keep).map_err(|e| Error::column(name, "rows that can be filtered", e.to_string()))
}

/// Floats.
pub fn f64s(batch: &RecordBatch, name: &str) -> Result<Float64Array> {
    primitive::<Float64Type>(batch, name)
}

/// Signed integers. Instants on our own clock are within seventy years of its origin, so that those who take differences
/// need not think of overflow; a device's own timestamps may be anything.
pub fn i64s(batch: &RecordBatch, name: &str) -> Result<Int64Array> {
    let array = primitive::<Int64Type>(batch, name)?;
    let is_ours = name.ends_with("_mono_ns") || name == "t_prev_poll_ns";
    match array.iter().flatten().find(|ns| is_ours && ns.unsigned_abs() > FURTHEST_NS) {
        Some(ns) => Err(Error::column(name, format!("an instant of at most {FURTHEST_NS} ns"), ns.to_string())),
        None => Ok(array),
    }
}

/// Whether an instant is one that [`i64s`] lets through.
pub fn is_instant(ns: i64) -> bool {
    ns.unsigned_abs() <= FURTHEST_NS
}

/// 2^61 ns: differences of two differences still fit.
const FURTHEST_NS: u64 = 1 << 61;

/// Unsigned integers.
pub fn u64s(batch: &RecordBatch, name: &str) -> Result<UInt64Array> {
    primitive::<UInt64Type>(batch, name)
}

/// Small unsigned integers.
pub fn u32s(batch: &RecordBatch, name: &str) -> Result<UInt32Array> {
    primitive::<UInt32Type>(batch, name)
}

/// Text, with dictionaries resolved.
pub fn text(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    let array = find(batch, name)?;
    let is_text = match array.data_type() {
        DataType::Dictionary(_, values) => is_text(values),
        other => is_text(other),
    };
    if !is_text {
        return Err(Error::column(name, "text", array.data_type().to_string()));
    }
    Ok(cast(array, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Lists of text; a missing list reads as an empty one.
pub fn text_lists(batch: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>> {
    let array = find(batch, name)?;
    let item = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) => item.clone(),
        other => return Err(Error::column(name, "lists of text", other.to_string())),
    };
    let to = DataType::List(std::sync::Arc::new(item.as_ref().clone().with_data_type(DataType::Utf8)));
    let lists = cast(array, name, &to)?;
    let lists: &ListArray = lists.as_list();
    let texts = |list: Option<ArrayRef>| match list {
        Some(list) => list.as_string::<i32>().iter().flatten().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    Ok(lists.iter().map(texts).collect())
}

/// The column, or `None` where the batch has none of that name: earlier versions wrote fewer.
pub fn optional<T>(
    batch: &RecordBatch,
    name: &str,
    read: impl FnOnce(&RecordBatch, &str) -> Result<T>,
) -> Result<Option<T>> {
    has(batch, name).then(|| read(batch, name)).transpose()
}

/// Whether the batch has the column.
pub fn has(batch: &RecordBatch, name: &str) -> bool {
    batch.column_by_name(name).is_some()
}

/// The value in `row`, or `None` where it is missing.
pub fn value<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    (row < array.len() && array.is_valid(row)).then(|| array.value(row))
}

/// The value in `row`, or an error where it is missing from column `name`.
pub fn required<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, name: &str, row: usize) -> Result<T::Native> {
    value(array, row).ok_or_else(|| missing(name, row))
}

/// The text in `row`, or `None` where it is missing.
pub fn text_at(array: &StringArray, row: usize) -> Option<&str> {
    (row < array.len() && array.is_valid(row)).then(|| array.value(row))
}

/// The text in `row`, or an error where it is missing from column `name`.
pub fn required_text<'a>(array: &'a StringArray, name: &str, row: usize) -> Result<&'a str> {
    text_at(array, row).ok_or_else(|| missing(name, row))
}

fn missing(name: &str, row: usize) -> Error {
    Error::column(name, format!("a value in row {}", row + 1), "none")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Int16Array, LargeStringArray};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn other_widths_and_plain_text_are_accepted_where_no_value_changes() {
        let batch = batch(vec![
            ("small", Arc::new(Int16Array::from(vec![Some(7), None]))),
            ("whole", Arc::new(Float64Array::from(vec![8.0, 1e9]))),
            ("single", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
            ("word", Arc::new(LargeStringArray::from(vec!["a", "b"]))),
        ]);
        assert_eq!(u64s(&batch, "small").unwrap(), UInt64Array::from(vec![Some(7), None]));
        assert_eq!(f64s(&batch, "small").unwrap(), Float64Array::from(vec![Some(7.0), None]));
        assert_eq!(u32s(&batch, "whole").unwrap(), UInt32Array::from(vec![8, 1_000_000_000]));
        assert_eq!(f64s(&batch, "single").unwrap(), Float64Array::from(vec![0.5, 2.0]));
        assert_eq!(text(&batch, "word").unwrap(), StringArray::from(vec!["a", "b"]));
    }

    #[test]
    fn what_would_change_by_a_cast_is_refused_with_column_and_cause() {
        let batch = batch(vec![
            ("negative", Arc::new(Int64Array::from(vec![1, -1]))),
            ("fraction", Arc::new(Float64Array::from(vec![1.0, 2.5]))),
        ]);
        let refused = |e: Error, words: &[&str]| {
            let message = e.to_string();
            assert!(words.iter().all(|w| message.contains(w)), "{message}");
        };
        refused(u64s(&batch, "negative").unwrap_err(), &["`negative`", "UInt64", "-1"]);
        refused(u32s(&batch, "fraction").unwrap_err(), &["`fraction`", "whole numbers", "2.5"]);
        refused(text(&batch, "fraction").unwrap_err(), &["expected text", "Float64"]);
        refused(text_lists(&batch, "fraction").unwrap_err(), &["expected lists of text"]);
        refused(f64s(&batch, "fractoin").unwrap_err(), &["`fractoin`", "is `fraction` meant?"]);
        let large = super::tests::batch(vec![("large", Arc::new(UInt64Array::from(vec![1_u64 << 40])))]);
        refused(u32s(&large, "large").unwrap_err(), &["`large`", "UInt32"]);
    }
}
