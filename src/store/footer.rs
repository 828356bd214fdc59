//! A look at a Parquet file's footer before the decoder has its rows.
//!
//! The decoder skips what it does not know, and takes a truth value in a list for one that needs no byte (parquet 60).
//! A list that claims two thousand million of them stands in six bytes and costs seconds; a small file of such lists
//! costs days. No field of a Parquet footer is a list of truth values, so that a file with one is refused. Where a footer
//! contradicts its own types the decoder may meet such a list all the same: it has a minute.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::ChunkReader;

use super::decode::contained;

/// The length of the footer and the four letters behind it.
pub(super) const TAIL_BYTES: u64 = 8;
/// Footers nest some ten deep.
pub(super) const MOST_DEPTH: u8 = 64;
/// How long a footer may take. The longest of ours take milliseconds; a machine may be busy.
const LONGEST: Duration = Duration::from_secs(60);

/// What reads a Parquet file, once its footer has been looked at.
pub(crate) fn open_parquet<R>(input: R) -> Result<ParquetRecordBatchReaderBuilder<R>>
where
    R: ChunkReader + Send + 'static,
{
    if let Some(tail) = input.len().checked_sub(TAIL_BYTES) {
        let length = input.get_bytes(tail, 4)?;
        let length = length.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        // A length that cannot be is for the decoder to complain about.
        if let Some(begin) = tail.checked_sub(length) {
            let footer = input.get_bytes(begin, length as usize)?;
            Walk { rest: &footer }.value(Kind::STRUCT, MOST_DEPTH).map_err(|e| ParquetError::General(e.to_owned()))?;
        }
    }
    let builder = within(LONGEST, || ParquetRecordBatchReaderBuilder::try_new(input))?;
    let mut columns = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    if let Some(column) = columns.find(|c| matches!(c.compression(), Compression::BROTLI(_) | Compression::LZO)) {
        return Err(ParquetError::General(format!(
            "column {} is compressed with {}, which is not read here; write the file with zstd, snappy, gzip or lz4",
            column.column_path(),
            column.compression()
        )));
    }
    Ok(builder)
}

/// What `work` comes to; an error if it panics, or takes longer than `limit`. Nothing can stop it then: it goes on until
/// it is done or the program ends, which the error is about to make it do.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || drop(sender.send(contained(work)));
    let worker = thread::Builder::new().name("footer".to_owned()).spawn(run)?;
    match receiver.recv_timeout(limit) {
        Ok(done) => {
            // It has nothing left to do but to end, and `contained` leaves nothing to panic.
            drop(worker.join());
            done.map_err(|e| e.downcast().map_or_else(ParquetError::External, |known| *known))
        }
        Err(_) => Err(ParquetError::General(format!(
            "its footer keeps the decoder busy for more than {} s; it is damaged, or was made to do so",
            limit.as_secs()
        ))),
    }
}

/// What is wrong with a footer, where something is.
pub(super) type Walked<T> = std::result::Result<T, &'static str>;

/// Types of Thrift's compact protocol, by the numbers that stand for them.
pub(super) struct Kind;

impl Kind {
    pub(super) const STOP: u8 = 0;
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const BYTE: u8 = 3;
    const I16: u8 = 4;
    const I64: u8 = 6;
    const DOUBLE: u8 = 7;
    const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    const SET: u8 = 10;
    const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
    const UUID: u8 = 13;
}

/// Goes over a value without keeping anything of it.
pub(super) struct Walk<'a> {
    pub(super) rest: &'a [u8],
}

impl Walk<'_> {
    pub(super) fn value(&mut self, kind: u8, depth: u8) -> Walked<()> {
        let depth = depth.checked_sub(1).ok_or("the footer nests too deep")?;
        match kind {
            Kind::TRUE | Kind::FALSE => Ok(()),
            Kind::BYTE => self.skip(1),
            Kind::I16..=Kind::I64 => self.number().map(drop),
            Kind::DOUBLE => self.skip(8),
            Kind::UUID => self.skip(16),
            Kind::BINARY => {
                let length = self.number()?;
                self.skip(length)
            }
            Kind::LIST | Kind::SET => {
                let (count, kind) = self.list_head()?;
                self.values(count, &[kind], depth)
            }
            Kind::MAP => match self.number()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.values(count, &[kinds >> 4, kinds & 15], depth)
                }
            },
            Kind::STRUCT => loop {
                let head = self.byte()?;
                if head & 15 == Kind::STOP {
                    return Ok(());
                }
                if head >> 4 == 0 {
                    self.number()?;
                }
                self.value(head & 15, depth)?;
            },
            _ => Err("the footer has a value of no known type"),
        }
    }

    /// How many values a list has, and of which kind.
    pub(super) fn list_head(&mut self) -> Walked<(u64, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
        Ok((count, head & 15))
    }

    /// So many values of each kind, in turn.
    fn values(&mut self, count: u64, kinds: &[u8], depth: u8) -> Walked<()> {
        if count > 0 && kinds.iter().any(|k| [Kind::TRUE, Kind::FALSE].contains(k)) {
            return Err("the footer has a list of truth values, and no Parquet file has one there");
        }
        for _ in 0..count {
            for kind in kinds {
                self.value(*kind, depth)?;
            }
        }
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Walked<u8> {
        let (first, rest) = self.rest.split_first().ok_or("the footer ends too early")?;
        self.rest = rest;
        Ok(*first)
    }

    fn skip(&mut self, length: u64) -> Walked<()> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.rest = self.rest.get(length..).ok_or("the footer ends too early")?;
        Ok(())
    }

    /// Seven bits in each byte, the lowest first.
    pub(super) fn number(&mut self) -> Walked<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 127).checked_shl(shift).unwrap_or(0);
            if byte < 128 {
                return Ok(number);
            }
        }
        Err("the footer has a number without an end")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn file(footer: &[u8]) -> File {
        let length = u32::try_from(footer.len()).expect("a short footer");
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[b"PAR1", footer, &length.to_le_bytes()[..], b"PAR1"].concat()).expect("room for it");
        file
    }

    fn refusal(footer: &[u8]) -> String {
        open_parquet(file(footer)).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn lists_of_truth_values_are_refused_however_they_are_wrapped() {
        // Field 9 of an unknown kind: a list of 2^31 - 1 truth values, which the decoder would count.
        let list = [0x99, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
        let set = [0x9a, 0xf2, 0xff, 0xff, 0xff, 0xff, 0x07];
        let map = [0x9b, 0xff, 0xff, 0xff, 0xff, 0x07, 0x11];
        let inside = [&[0x9c][..], &list].concat();
        for footer in [&list[..], &set, &map, &inside] {
            assert!(refusal(footer).contains("list of truth values"), "{footer:?}");
        }
        // An empty one costs nothing.
        assert!(!refusal(&[0x99, 0x01, 0x00]).contains("truth values"));
    }

    #[test]
    fn a_decoder_that_never_ends_comes_to_an_error_and_its_panic_too() {
        let (end, wait) = mpsc::channel::<()>();
        let stuck =
            within(Duration::from_millis(20), move || wait.recv().map_err(|_| ParquetError::General(String::new())));
        assert!(stuck.is_err_and(|e| e.to_string().contains("keeps the decoder busy")));
        drop(end);
        let broken = within(LONGEST, || -> Result<()> { panic!("an index out of bounds") });
        assert!(broken.is_err_and(|e| e.to_string().contains("an index out of bounds")));
        let refused = within(LONGEST, || Err::<(), _>(ParquetError::EOF("too short".to_owned())));
        assert!(matches!(refused, Err(ParquetError::EOF(why)) if why == "too short"));
        assert_eq!(within(LONGEST, || Ok(7)).unwrap_or_default(), 7);
    }

    #[test]
    fn a_footer_that_claims_more_than_it_has_comes_to_an_end() {
        let claims = [0x99, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(refusal(&claims).contains("ends too early"));
        assert!(refusal(&[0x1c; 200]).contains("nests too deep"));
        assert!(refusal(&[0x15, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]).contains("without an end"));
        assert!(refusal(&[0x1e, 0]).contains("no known type"));
    }
}
