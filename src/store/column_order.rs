//! How a file says that the least and the greatest value of its float columns are ordered.
//!
//! parquet 60 always says IEEE 754's total order, which the format has had since 2025 only. Arrow C++ 24, below pyarrow
//! and pandas, takes it for an order that it does not know and throws the statistics of every float column away. Where
//! no value is NaN both orders name the same extremes (readers take either zero for both), so such columns are said to
//! be in the order of their type, as every other writer has it. In the footer that is one byte a column; its length and
//! everything else stay as they are. A column with a NaN keeps the newer order: its extremes may be NaNs, which the older
//! one forbids.

use std::fs::File;
use std::os::unix::fs::FileExt;

use parquet::basic::Type;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::footer::{Kind, MOST_DEPTH, TAIL_BYTES, Walk, Walked};

/// Where the footer's outermost struct has a column order for each leaf column.
const COLUMN_ORDERS: u64 = 7;
/// How a union begins that holds a struct in its field 1, the order of the type; or in its field 2, the total order.
const TYPE_ORDER: u8 = 0x1c;
const TOTAL_ORDER: u8 = 0x2c;

/// Rewrites the orders of the float columns of a file that was just written, with `metadata`.
pub(super) fn state_type_order(file: &File, metadata: &ParquetMetaData) -> Result<()> {
    let end = file.metadata()?.len();
    let tail = end.checked_sub(TAIL_BYTES).ok_or_else(|| ParquetError::EOF("no footer".to_owned()))?;
    let mut length = [0; 4];
    file.read_exact_at(&mut length, tail)?;
    let length = u32::from_le_bytes(length);
    let begin = tail.checked_sub(u64::from(length)).ok_or_else(|| ParquetError::EOF("no footer".to_owned()))?;
    let mut footer = vec![0; length as usize];
    file.read_exact_at(&mut footer, begin)?;
    let places = orders(&footer).map_err(|e| ParquetError::General(e.to_owned()))?;
    for (column, place) in places.into_iter().enumerate() {
        if footer.get(place) == Some(&TOTAL_ORDER) && is_without_nan(metadata, column) {
            file.write_all_at(&[TYPE_ORDER], begin + place as u64)?;
        }
    }
    Ok(())
}

/// Whether it is a float column of which every row group knows that it has no NaN.
fn is_without_nan(metadata: &ParquetMetaData, column: usize) -> bool {
    let schema = metadata.file_metadata().schema_descr();
    let is_float =
        column < schema.num_columns() && matches!(schema.column(column).physical_type(), Type::FLOAT | Type::DOUBLE);
    // Where every value is missing nothing was counted, and there is no extreme either.
    let has_none = |s: &Statistics| s.nan_count_opt().map_or(s.min_bytes_opt().is_none(), |count| count == 0);
    let mut chunks = metadata.row_groups().iter().map(|group| group.columns().get(column));
    is_float && chunks.all(|chunk| chunk.and_then(|c| c.statistics()).is_some_and(has_none))
}

/// Where in the footer each leaf column's order begins.
fn orders(footer: &[u8]) -> Walked<Vec<usize>> {
    let mut walk = Walk { rest: footer };
    let mut field = 0;
    loop {
        let head = walk.byte()?;
        let (step, kind) = (u64::from(head >> 4), head & 15);
        if kind == Kind::STOP {
            return Ok(Vec::new());
        }
        // Numbers that are far apart stand for themselves, with their sign in the lowest bit.
        field = if step == 0 { walk.number()? / 2 } else { field + step };
        if (field, kind) != (COLUMN_ORDERS, Kind::LIST) {
            walk.value(kind, MOST_DEPTH)?;
            continue;
        }
        let (count, kind) = walk.list_head()?;
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(footer.len() - walk.rest.len());
            walk.value(kind, MOST_DEPTH)?;
        }
        return Ok(places);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::{ColumnOrder, SortOrder};

    use super::*;

    #[test]
    fn float_columns_without_a_nan_are_in_the_order_that_every_reader_knows() {
        let floats = |values: [f64; 3]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("whole".to_owned(), Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("plain".to_owned(), floats([-2.5, 0.0, 7.0])),
            ("odd".to_owned(), floats([1.0, f64::NAN, 3.0])),
            ("none".to_owned(), Arc::new(Float64Array::from(vec![None, None, None]))),
        ];
        // More than fourteen: then the list's length has a number of its own.
        columns.extend((0..20).map(|i| (format!("c{i}"), floats([f64::from(i); 3]))));
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(n, c)| (n, c.clone(), true))).unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut writer = ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let metadata = writer.close().unwrap();
        let length = file.metadata().unwrap().len();
        state_type_order(&file, &metadata).unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);

        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let orders = reader.metadata().file_metadata().column_orders().unwrap().clone();
        let signed = ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::SIGNED);
        assert_eq!(orders[..4], [signed, signed, ColumnOrder::IEEE_754_TOTAL_ORDER, signed]);
        assert!(orders[4..].iter().all(|order| *order == signed), "{orders:?}");
        let read = reader.build().unwrap().next().unwrap().unwrap();
        assert_eq!(read.column(1), batch.column(1));
    }
}
