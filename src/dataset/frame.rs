//! A foreign table before anything is believed of it: headers, and cells that are missing, numbers or text.

mod columnar;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Error;
use super::headers;

/// Rows of the longest table. A law needs fifty; a file of a few kilobytes can unpack to billions.
const MOST_ROWS: usize = 5_000_000;

/// Bytes of the longest text; five million rows of ours are some 1.5 GB, and nobody fits so many.
const MOST_BYTES: u64 = 512 << 20;

/// Bytes in which binary data shows itself: a device without an end must not be read to the limit.
const HEAD_BYTES: u64 = 1024;

fn too_many_rows(most_rows: usize) -> String {
    format!("it has more than {most_rows} rows; expected one per run and phase (samples are not rows of this kind)")
}

/// One value of a foreign table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Missing,
    Number(f64),
    Text(String),
}

/// One row of a foreign table.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Position in the file, from 1, the header not counted.
    pub(super) line: usize,
    pub(super) cells: Vec<Cell>,
    /// The row as text, to be written back beside a prediction.
    pub(super) text: Vec<String>,
    /// Why the row as a whole makes no sense.
    pub(super) defect: Option<String>,
}

/// A foreign table.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) headers: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) notes: Vec<String>,
}

impl Cell {
    fn of_text(text: &str) -> Self {
        let text = text.trim();
        let missing = ["", "na", "n/a", "nan", "null", "none", "-"].iter().any(|m| text.eq_ignore_ascii_case(m));
        if missing { Self::Missing } else { Self::Text(text.to_owned()) }
    }

    fn of_number(number: f64) -> Self {
        if number.is_nan() { Self::Missing } else { Self::Number(number) }
    }
}

/// Reads a CSV or Parquet file; which of the two, its first bytes say.
pub(super) fn read(path: &Path) -> Result<Frame, Error> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(fail)?;
    if magic == b"PAR1" {
        return columnar::read(path);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
        let reason = "it does not begin with the four bytes PAR1 (an unfinished or truncated file?)".to_owned();
        return Err(Error::Parquet { path: path.to_owned(), reason });
    }
    read_text(path, file, magic, MOST_BYTES)
}

/// The rest of a text that begins with `bytes`, as CSV.
fn read_text(path: &Path, mut file: impl Read, mut bytes: Vec<u8>, most_bytes: u64) -> Result<Frame, Error> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.contains(&0) {
        // No text of ours: this much is enough to say so.
        return read_csv(path, &bytes);
    }
    file.take(most_bytes.saturating_sub(bytes.len() as u64) + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > most_bytes {
        let reason = format!("it has more than {most_bytes} bytes; expected a table of one row per run and phase");
        return Err(Error::Csv { path: path.to_owned(), reason });
    }
    read_csv(path, &bytes)
}

/// Reads CSV text whose separator is guessed from the header.
pub(super) fn read_csv(path: &Path, bytes: &[u8]) -> Result<Frame, Error> {
    read_csv_up_to(path, bytes, MOST_ROWS)
}

fn read_csv_up_to(path: &Path, bytes: &[u8], most_rows: usize) -> Result<Frame, Error> {
    let bad = |reason: String| Error::Csv { path: path.to_owned(), reason };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(bad("it is UTF-16 text; save it as UTF-8".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().take(4096).any(|b| *b == 0) {
        return Err(bad("it holds binary data; expected text with a header line".to_owned()));
    }
    let mut frame = Frame::default();
    let text = String::from_utf8_lossy(bytes);
    if let Cow::Owned(_) = text {
        frame.notes.push("some bytes are not UTF-8 and were replaced; save the file as UTF-8".to_owned());
    }
    let Some(header_line) = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')) else {
        return Err(bad("it is empty; expected a header line".to_owned()));
    };
    if header_line.trim_start().starts_with(['{', '[']) {
        let what = if text.contains("\"energylens-model/") { "a model file that `fit` wrote" } else { "JSON" };
        return Err(bad(format!("it is {what}; expected comma-separated text with a header line, or Parquet")));
    }
    let separator = sniff(header_line);
    if separator != b',' {
        let name = match separator {
            b'\t' => "tabs",
            b';' => "semicolons",
            _ => "vertical bars",
        };
        frame.notes.push(format!("fields are taken to be separated by {name}"));
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    let header = match records.next() {
        Some(Ok(header)) => header,
        Some(Err(e)) => return Err(bad(e.to_string())),
        None => return Err(bad("it is empty; expected a header line".to_owned())),
    };
    frame.headers = header.iter().map(str::to_owned).collect();
    // Spreadsheets leave separators behind the last column.
    while frame.headers.last().is_some_and(String::is_empty) {
        frame.headers.pop();
    }
    for record in records {
        if frame.records.len() == most_rows {
            return Err(bad(too_many_rows(most_rows)));
        }
        let record = record.map_err(|e| bad(e.to_string()))?;
        let mut fields: Vec<&str> = record.iter().collect();
        if fields.iter().all(|f| f.is_empty()) {
            continue;
        }
        while fields.len() > frame.headers.len() && fields.last().is_some_and(|f| f.is_empty()) {
            fields.pop();
        }
        let defect =
            (fields.len() != frame.headers.len()).then(|| field_count_reason(fields.len(), frame.headers.len()));
        frame.records.push(Record {
            line: frame.records.len() + 1,
            cells: fields.iter().map(|f| Cell::of_text(f)).collect(),
            text: fields.into_iter().map(str::to_owned).collect(),
            defect,
        });
    }
    Ok(frame)
}

fn field_count_reason(found: usize, expected: usize) -> String {
    let fix = if found > expected {
        "is there a decimal comma, or text with a separator that wants quotes?"
    } else {
        "is the line cut off?"
    };
    format!("expected {expected} fields as in the header, found {found}; {fix}")
}

/// The separator that cuts the header into the most names we know; a comma when none does better.
fn sniff(header_line: &str) -> u8 {
    let known = |separator: u8| {
        let names = header_line.split(char::from(separator));
        let names: Vec<&str> = names.map(|n| n.trim().trim_matches('"')).collect();
        (names.iter().filter(|n| headers::is_known(n)).count(), names.len())
    };
    [b'|', b'\t', b';', b','].into_iter().max_by_key(|s| known(*s)).unwrap_or(b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_an_end_is_read_no_further_than_to_its_limit() {
        let read = |file: &mut dyn Read, most| read_text(Path::new("rows"), file, b"ener".to_vec(), most);
        let text = format!("gy_j\n{}", "7\n".repeat(5_000));
        assert_eq!(read(&mut text.as_bytes(), 4 + text.len() as u64).unwrap().records.len(), 5_000);
        let refused = read(&mut text.as_bytes(), 3 + text.len() as u64).unwrap_err().to_string();
        assert!(refused.contains("it has more than 10008 bytes"), "{refused}");
        // Zeros are known for what they are before the limit, of which most machines have no memory.
        let refused = read(&mut std::io::repeat(0), u64::MAX - 1).unwrap_err().to_string();
        assert!(refused.contains("binary data"), "{refused}");
    }

    #[test]
    fn a_text_with_too_many_rows_is_refused() {
        let path = Path::new("rows");
        let text = format!("energy_j\n{}", "7\n".repeat(10));
        assert_eq!(read_csv_up_to(path, text.as_bytes(), 10).unwrap().records.len(), 10);
        let refused = read_csv_up_to(path, text.as_bytes(), 9).unwrap_err().to_string();
        assert!(refused.contains("it has more than 9 rows"), "{refused}");
    }
}
