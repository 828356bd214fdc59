//! Builds a batch of a table column by column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, ListBuilder, StringArray, StringBuilder,
    UInt32Array, UInt64Array, new_null_array,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::super::error::{Error, Result};
use crate::schema::Table;

/// Columns by name, in any order; [`finish`](Self::finish) puts them in the table's order and checks them against it.
///
/// ```
/// use energylens::{schema, store::BatchBuilder};
/// let batch = BatchBuilder::new(&schema::MARKS)
///     .i64s("t_mono_ns", [Some(5)])
///     .labels("run_id", [Some("a1")])
///     .labels("phase", [Some("prefill")])
///     .labels("event", [Some("begin")])
///     .labels("source", [Some("measured")])
///     .finish()?;
/// assert_eq!(batch.num_rows(), 1);
/// # Ok::<(), energylens::store::Error>(())
/// ```
pub struct BatchBuilder {
    table: &'static Table,
    columns: BTreeMap<&'static str, ArrayRef>,
}

impl BatchBuilder {
    /// A batch of `table` without columns.
    pub fn new(table: &'static Table) -> Self {
        Self { table, columns: BTreeMap::new() }
    }

    /// Adds floats.
    pub fn f64s(self, name: &'static str, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        self.with(name, Arc::new(Float64Array::from_iter(values)))
    }

    /// Adds signed integers.
    pub fn i64s(self, name: &'static str, values: impl IntoIterator<Item = Option<i64>>) -> Self {
        self.with(name, Arc::new(Int64Array::from_iter(values)))
    }

    /// Adds unsigned integers.
    pub fn u64s(self, name: &'static str, values: impl IntoIterator<Item = Option<u64>>) -> Self {
        self.with(name, Arc::new(UInt64Array::from_iter(values)))
    }

    /// Adds small unsigned integers.
    pub fn u32s(self, name: &'static str, values: impl IntoIterator<Item = Option<u32>>) -> Self {
        self.with(name, Arc::new(UInt32Array::from_iter(values)))
    }

    /// Adds text of mostly distinct values.
    pub fn texts<'a>(self, name: &'static str, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        self.with(name, Arc::new(StringArray::from_iter(values)))
    }

    /// Adds text of few distinct values, as a dictionary. Its values are sorted, so that batches with the same labels
    /// share one dictionary in a stream.
    pub fn labels<'a>(self, name: &'static str, values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        let distinct: BTreeSet<&str> = values.iter().copied().flatten().collect();
        let key_of: BTreeMap<&str, i32> = distinct.iter().copied().zip(0..).collect();
        let keys = Int32Array::from_iter(values.iter().map(|v| v.and_then(|v| key_of.get(v).copied())));
        let dictionary = Arc::new(StringArray::from_iter_values(distinct));
        match DictionaryArray::<Int32Type>::try_new(keys, dictionary) {
            Ok(array) => self.with(name, Arc::new(array)),
            // Keys come from the dictionary itself. Were they wrong, `finish` would miss the column.
            Err(_) => self,
        }
    }

    /// Adds lists of labels.
    pub fn label_lists<'a, L>(self, name: &'static str, values: impl IntoIterator<Item = L>) -> Self
    where
        L: IntoIterator<Item = &'a str>,
    {
        let item = Field::new("item", DataType::Utf8, false);
        let mut builder = ListBuilder::new(StringBuilder::new()).with_field(item);
        for list in values {
            for label in list {
                builder.values().append_value(label);
            }
            builder.append(true);
        }
        self.with(name, Arc::new(builder.finish()))
    }

    fn with(mut self, name: &'static str, array: ArrayRef) -> Self {
        self.columns.insert(name, array);
        self
    }

    /// The batch, without the columns that sealing derives. A nullable column that was not given is missing in every row;
    /// one that the table does not have, or has in another type, is an error.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let table = self.table;
        let misfit = |source| Error::Batch { table: table.name, source };
        let rows = self.columns.values().next().map_or(0, arrow::array::Array::len);
        let schema = table.recorded_schema();
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            match self.columns.remove(field.name().as_str()) {
                Some(array) => arrays.push(array),
                None if field.is_nullable() => arrays.push(new_null_array(field.data_type(), rows)),
                None => return Err(misfit(ArrowError::SchemaError(format!("column `{}` is missing", field.name())))),
            }
        }
        if let Some(name) = self.columns.keys().next() {
            return Err(misfit(ArrowError::SchemaError(format!("the table has no column `{name}`"))));
        }
        RecordBatch::try_new(schema, arrays).map_err(misfit)
    }
}
