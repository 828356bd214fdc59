//! Cells of a Parquet file, whatever types its writer chose.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Cell, Error, Frame, MOST_ROWS, Record, too_many_rows};
use crate::store::{contained, open_parquet};

pub(super) fn read(path: &Path) -> Result<Frame, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    // The decoder does not check everything it reads: single changed bytes make it panic.
    contained(|| decode(file, MOST_ROWS)).map_err(|e| Error::Parquet { path: path.to_owned(), reason: e.to_string() })
}

fn decode(file: File, most_rows: usize) -> Result<Frame, String> {
    let builder = open_parquet(file).map_err(|e| e.to_string())?;
    let mut frame =
        Frame { headers: builder.schema().fields().iter().map(|f| f.name().clone()).collect(), ..Frame::default() };
    for batch in builder.build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        // Counted as they come: what the footer says costs nothing to write.
        if frame.records.len() + batch.num_rows() > most_rows {
            return Err(too_many_rows(most_rows));
        }
        append_batch(&mut frame, &batch);
    }
    Ok(frame)
}

fn append_batch(frame: &mut Frame, batch: &RecordBatch) {
    let first = frame.records.len();
    frame.records.extend((0..batch.num_rows()).map(|i| Record {
        line: first + i + 1,
        cells: Vec::with_capacity(batch.num_columns()),
        text: Vec::with_capacity(batch.num_columns()),
        defect: None,
    }));
    for (column, name) in batch.columns().iter().zip(&frame.headers) {
        let (column, zone) = without_zone(column);
        let texts = texts_of(column.as_ref(), zone).unwrap_or_else(|_| {
            // Somebody else's extra column must not cost the whole table.
            let kind = column.data_type();
            let note = format!("column {name} is of type {kind}, which has no text form here; it is taken to be empty");
            if !frame.notes.contains(&note) {
                frame.notes.push(note);
            }
            vec![String::new(); column.len()]
        });
        let cells = cells_of(column.as_ref(), zone);
        for (record, (text, cell)) in frame.records.iter_mut().skip(first).zip(texts.into_iter().zip(cells)) {
            record.text.push(text);
            record.cells.push(cell);
        }
    }
}

/// An instant that knows its zone, as the same instant in UTC, with the `Z` that its text then ends in. Only offsets are
/// understood where arrow formats a zone; other writers put a name there, `UTC` above all.
fn without_zone(column: &ArrayRef) -> (ArrayRef, &'static str) {
    let unit = match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => *unit,
        DataType::Dictionary(_, value) => match value.as_ref() {
            DataType::Timestamp(unit, Some(_)) => *unit,
            _ => return (column.clone(), ""),
        },
        _ => return (column.clone(), ""),
    };
    // In steps: a dictionary is unpacked as what it holds.
    let zoned = match column.data_type() {
        DataType::Dictionary(_, value) => cast(column, value),
        _ => Ok(column.clone()),
    };
    match zoned.and_then(|zoned| cast(&zoned, &DataType::Timestamp(unit, None))) {
        Ok(instants) => (instants, "Z"),
        Err(_) => (column.clone(), ""),
    }
}

/// Every value as text with `zone` behind it, empty where there is none.
fn texts_of(column: &dyn Array, zone: &str) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::default().with_null("");
    let shown = ArrayFormatter::try_new(column, &options)?;
    let text = |i| match shown.value(i).try_to_string() {
        Ok(text) if text.is_empty() => text,
        Ok(text) => text + zone,
        // An instant beyond what calendars reach, for one.
        Err(_) => String::new(),
    };
    Ok((0..column.len()).map(text).collect())
}

/// Any integer, float, string or dictionary of these is welcome; a list becomes its items joined by semicolons. What has
/// no text form (nested structures) is somebody else's extra column: as good as missing.
fn cells_of(column: &dyn Array, zone: &str) -> Vec<Cell> {
    let missing = || vec![Cell::Missing; column.len()];
    let numeric = |data_type: &DataType| {
        data_type.is_numeric() || matches!(data_type, DataType::Dictionary(_, v) if v.is_numeric())
    };
    if numeric(column.data_type()) {
        let Ok(numbers) = cast(column, &DataType::Float64) else { return missing() };
        let numbers = numbers.as_primitive::<Float64Type>();
        return numbers.iter().map(|n| n.map_or(Cell::Missing, Cell::of_number)).collect();
    }
    // Polars writes large lists of large texts, others fixed ones: all of them are lists of texts.
    if column.data_type().is_list() {
        let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let Ok(lists) = cast(column, &texts) else { return missing() };
        let joined = |list: ArrayRef| list.as_string::<i32>().iter().flatten().collect::<Vec<&str>>().join(";");
        let cell = |list: Option<ArrayRef>| list.map_or(Cell::Missing, |list| Cell::of_text(&joined(list)));
        return lists.as_list::<i32>().iter().map(cell).collect();
    }
    if matches!(column.data_type(), DataType::Null) {
        return missing();
    }
    let Ok(text) = cast(column, &DataType::Utf8) else { return missing() };
    let cell =
        |text: &str| if zone.is_empty() { Cell::of_text(text) } else { Cell::of_text(&(text.to_owned() + zone)) };
    text.as_string::<i32>().iter().map(|t| t.map_or(Cell::Missing, cell)).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int32Array, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    };
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn a_table_that_unpacks_without_an_end_is_refused() {
        // One value ten thousand times: a few hundred bytes of runs behind a dictionary.
        let column: ArrayRef = Arc::new(Int32Array::from(vec![7; 10_000]));
        let batch = RecordBatch::try_from_iter([("energy_j", column)]).unwrap();
        let mut writer = ArrowWriter::try_new(tempfile::tempfile().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = writer.into_inner().unwrap();
        assert!(file.metadata().unwrap().len() < 2_000, "the file is not small");
        let read = |most| decode(file.try_clone().unwrap(), most);
        assert_eq!(read(10_000).unwrap().records.len(), 10_000);
        let refused = read(9_999).unwrap_err();
        assert!(refused.contains("it has more than 9999 rows"), "{refused}");
    }

    #[test]
    fn lists_of_any_width_are_their_items_joined() {
        let lists = || {
            let mut lists = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
            lists.append_value([Some("throttled"), Some("drift")]);
            lists.append_value([None::<&str>; 0]);
            lists.append_null();
            lists.finish()
        };
        let item = |kind| Arc::new(Field::new_list_field(kind, true));
        for kind in [
            DataType::List(item(DataType::Utf8)),
            DataType::LargeList(item(DataType::LargeUtf8)),
            DataType::LargeList(item(DataType::Utf8View)),
        ] {
            let column = cast(&lists(), &kind).unwrap();
            let cells = cells_of(column.as_ref(), "");
            assert_eq!(cells, [Cell::of_text("throttled;drift"), Cell::of_text(""), Cell::Missing], "{kind}");
        }
    }

    /// The columns of a file that holds these.
    fn frame_of(columns: Vec<(&str, ArrayRef)>) -> Frame {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let mut writer = ArrowWriter::try_new(tempfile::tempfile().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        decode(writer.into_inner().unwrap(), MOST_ROWS).unwrap()
    }

    #[test]
    fn instants_of_any_zone_are_told_in_utc() {
        // 2026-03-01T00:00:00Z, in every unit; no calendar reaches the last.
        let seconds = 1_772_323_200;
        let instants: [(&str, ArrayRef); 5] = [
            ("utc", Arc::new(TimestampMicrosecondArray::from(vec![seconds * 1_000_000]).with_timezone("UTC"))),
            ("named", Arc::new(TimestampMillisecondArray::from(vec![seconds * 1_000]).with_timezone("Europe/Berlin"))),
            ("offset", Arc::new(TimestampNanosecondArray::from(vec![seconds * 1_000_000_000]).with_timezone("+01:00"))),
            ("naive", Arc::new(TimestampMicrosecondArray::from(vec![seconds * 1_000_000]))),
            ("beyond", Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]).with_timezone("UTC"))),
        ];
        let frame = frame_of(instants.into());
        let told = "2026-03-01T00:00:00";
        let zoned = format!("{told}Z");
        assert_eq!(frame.records[0].text, [&zoned, &zoned, &zoned, told, ""]);
        let cells = [&zoned, &zoned, &zoned, told].map(Cell::of_text);
        assert_eq!(frame.records[0].cells[..4], cells);
        assert!(frame.notes.is_empty(), "{:?}", frame.notes);
    }

    #[test]
    fn a_strange_extra_column_costs_a_note_and_not_the_table() {
        let created: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0, 1]).with_timezone("UTC"));
        let field = Field::new("at", created.data_type().clone(), true);
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(Arc::new(field), created)]));
        let frame = frame_of(vec![("when", nested), ("energy_j", Arc::new(Int32Array::from(vec![7, 8])))]);
        assert_eq!(frame.records[1].cells, [Cell::Missing, Cell::Number(8.0)]);
        assert_eq!(frame.records[1].text, ["", "8"]);
        assert!(frame.notes.len() == 1 && frame.notes[0].starts_with("column when is of type"), "{:?}", frame.notes);
    }
}
