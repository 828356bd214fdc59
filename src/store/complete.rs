//! Rows as they are sealed: every column of the table, whether it was recorded, follows from the metadata, or is missing
//! because an earlier version did not have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, StringArray, TimestampMillisecondArray, new_null_array};
use arrow::datatypes::{Field, Int32Type, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::columns;
use super::error::{Error, Result};
use super::metadata::RECORDING_ID_KEY;
use crate::clock::ClockAnchor;
use crate::schema::{Column, Derived, Table};

/// Wall-clock instants are told to a hundredth of a second: nodes seldom agree better, the monotonic column beside them is
/// exact, and whole milliseconds of samples would take 0.3 bytes a row more (5.46 against 5.77 with eight devices).
const STEP_NS: i64 = 10_000_000;
const STEP_MS: i64 = 10;

/// What completes the rows of one file.
pub(super) struct Completion {
    table: &'static Table,
    host: Option<String>,
    recording_id: Option<String>,
    anchor: Option<ClockAnchor>,
}

impl Completion {
    /// `pairs` are the file's metadata, prefix included. What they do not say, or do not say legibly, stays missing.
    pub(super) fn of(table: &'static Table, pairs: &BTreeMap<String, String>) -> Self {
        let value = |key: &str| pairs.get(key).filter(|text| !text.is_empty());
        Self {
            table,
            host: value("energylens.host").cloned(),
            recording_id: value(RECORDING_ID_KEY).cloned(),
            anchor: value("energylens.clock_anchor").and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    /// Whether rows with `schema` can be completed; else what is wrong with it. A column that the table does not have
    /// would be lost, so it is refused.
    pub(super) fn check(&self, schema: &Schema) -> Result<(), String> {
        for field in schema.fields() {
            match self.table.column(field.name()) {
                None => return Err(format!("a column `{}` that is not known here", field.name())),
                Some(column) if column.field().data_type() != field.data_type() => {
                    return Err(format!("`{}` of type {}", field.name(), field.data_type()));
                }
                Some(_) => {}
            }
        }
        let is_missing = |c: &&Column| !c.nullable && schema.field_with_name(c.name).is_err();
        match self.table.columns.iter().find(is_missing) {
            Some(column) => Err(format!("no column `{}`", column.name)),
            None => Ok(()),
        }
    }

    /// The rows with all columns of the table. A derived column that is there already, from an earlier sealing, stays.
    pub(super) fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let misfit = |source| Error::Batch { table: self.table.name, source };
        self.check(&batch.schema()).map_err(|found| misfit(ArrowError::SchemaError(found)))?;
        let array = |column: &Column| {
            let (field, rows) = (column.field(), batch.num_rows());
            match (batch.column_by_name(column.name), column.derived) {
                (Some(array), _) => Ok(array.clone()),
                (None, Some(Derived::Host)) => self.repeated(self.host.as_deref(), &field, rows),
                (None, Some(Derived::Recording)) => self.repeated(self.recording_id.as_deref(), &field, rows),
                (None, Some(Derived::WallClock(of))) => self.instants(&field, batch, of),
                (None, None) => Ok(new_null_array(field.data_type(), rows)),
            }
        };
        let arrays = self.table.columns.iter().map(array).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.table.arrow_schema(), arrays).map_err(misfit)
    }

    /// One word in every row.
    fn repeated(&self, word: Option<&str>, field: &Field, rows: usize) -> Result<ArrayRef> {
        let Some(word) = word else { return Ok(new_null_array(field.data_type(), rows)) };
        let words = Arc::new(StringArray::from(vec![word]));
        let array = DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; rows]), words)
            .map_err(|source| Error::Batch { table: self.table.name, source })?;
        Ok(Arc::new(array))
    }

    fn instants(&self, field: &Field, batch: &RecordBatch, of: &str) -> Result<ArrayRef> {
        let Some(anchor) = &self.anchor else { return Ok(new_null_array(field.data_type(), batch.num_rows())) };
        let monotonic = columns::i64s(batch, of)?;
        let instants = monotonic.iter().map(|t| Some(anchor.unix_ns(t?).div_euclid(STEP_NS) * STEP_MS));
        Ok(Arc::new(TimestampMillisecondArray::from_iter(instants).with_timezone("UTC")))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::TimestampMillisecondType;

    use super::*;
    use crate::schema::MARKS;
    use crate::store::BatchBuilder;

    fn pairs(host: &str, anchor: &str) -> BTreeMap<String, String> {
        [("energylens.host", host), ("energylens.clock_anchor", anchor)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    }

    fn marks() -> RecordBatch {
        let words = |word| [Some(word), Some(word)];
        BatchBuilder::new(&MARKS)
            .i64s("t_mono_ns", [Some(14_000_000), Some(43_999_999)])
            .labels("run_id", words("a"))
            .labels("phase", words("total"))
            .labels("event", words("end"))
            .labels("source", words("measured"))
            .finish()
            .unwrap()
    }

    #[test]
    fn host_and_wall_clock_follow_from_the_metadata() {
        // The anchor: 4 ms on the monotonic clock were 10 ms before the epoch.
        let anchor = r#"{"t_mono_ns":4000000,"t_unix_ns":-10000000}"#;
        let whole = Completion::of(&MARKS, &pairs("n1", anchor)).complete(&marks()).unwrap();
        assert_eq!(columns::text(&whole, "host").unwrap().value(1), "n1");
        let t = whole.column_by_name("t").unwrap().as_primitive::<TimestampMillisecondType>();
        // 14 ms lie at 0 ms; 43.999999 ms at 29.999999 ms, whose hundredth begins at 20 ms.
        assert_eq!(t.values(), &[0, 20]);
        // Completing again changes nothing, whatever the metadata say then.
        assert_eq!(Completion::of(&MARKS, &pairs("n2", "")).complete(&whole).unwrap(), whole);
    }

    #[test]
    fn what_the_metadata_do_not_say_stays_missing() {
        let bare = Completion::of(&MARKS, &pairs("", "not an anchor")).complete(&marks()).unwrap();
        assert_eq!(bare.column_by_name("host").unwrap().null_count(), 2);
        assert_eq!(bare.column_by_name("t").unwrap().null_count(), 2);
    }

    #[test]
    fn a_column_too_many_and_one_too_few_are_refused_by_name() {
        let completion = Completion::of(&MARKS, &pairs("", ""));
        let without = |name: &str| {
            marks().project(&(0..8).filter(|i| marks().schema().field(*i).name() != name).collect::<Vec<_>>())
        };
        assert!(completion.complete(&without("uid").unwrap()).is_ok());
        assert!(completion.complete(&without("phase").unwrap()).is_err());
        assert_eq!(completion.check(without("phase").unwrap().schema().as_ref()).unwrap_err(), "no column `phase`");
        let strange = Schema::new(vec![Field::new("colour", arrow::datatypes::DataType::Utf8, true)]);
        assert!(completion.check(&strange).unwrap_err().contains("`colour`"));
    }
}
