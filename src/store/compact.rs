//! Many small segments as few large files, in directories by date and node: what lakes and query engines like.
//!
//! ```text
//! LAKE/samples/date=2026-11-23/node=n1/ID.parquet     ID stands for the campaign's directory
//! ```
//!
//! The campaign is only read: nothing in it changes, and recording goes on meanwhile. A file of the lake says from which
//! segments it was made. Doing it again adds those that came since and leaves alone what is complete; what retention has
//! removed from the campaign stays in the lake. Each file appears whole or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::complete::Completion;
use super::error::{Error, Result};
use super::lock::CampaignLock;
use super::metadata::{RECORDING_ID_KEY, read_pairs, value_of};
use super::read::{read_file, read_row_groups, sealed_rows, table_files};
use super::sealed::SealedWriter;
use super::segment::file_name_part;
use super::span;
use super::spool::is_spool;
use crate::clock::ClockAnchor;
use crate::schema::{Derived, MARKS, SAMPLES, TABLES, TELEMETRY, Table};

/// Rows of a row group: eight devices of a node have long runs of their own in it.
const ROW_GROUP_ROWS: usize = 262_144;
const MS_PER_DAY: i64 = 86_400_000;
const NS_PER_DAY: i64 = MS_PER_DAY * 1_000_000;
/// Days of a segment; a span in metadata that says more is not believed.
const LONGEST_DAYS: i64 = 400;
pub(super) const SOURCES: &str = "compacted_from";

/// What compacting came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Sealed files of the campaign.
    pub files_read: u64,
    /// Files of the lake that were written.
    pub files_written: u64,
    /// Files of the lake that had everything already.
    pub files_kept: u64,
    /// Rows in what was written.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// A segment that a larger file was made from; the summary of its recording, with what was lost, goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) file: String,
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recording: Option<String>,
    /// Its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
    /// Where it lies in merged segments: its first row group, and the first that is not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) row_groups: Option<(usize, usize)>,
}

impl Made {
    /// Whether both are the same segment, wherever it lies now.
    fn is(&self, other: &Self) -> bool {
        (&self.file, self.bytes) == (&other.file, other.bytes)
    }

    /// Its rows in the file at `path`, which is the segment or was made from it.
    pub(super) fn batches(
        &self,
        path: &Path,
        table: &'static Table,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        read_row_groups(path, table, self.row_groups)
    }
}

/// The segments that a file was made from: itself, unless it holds merged ones.
pub(super) fn made_of(path: &Path, pairs: &HashMap<String, String>) -> Result<Vec<Made>> {
    let several: Option<Vec<Made>> = value_of(pairs, SOURCES).and_then(|text| serde_json::from_str(text).ok());
    if let Some(several) = several {
        return Ok(several);
    }
    Ok(vec![Made {
        file: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        bytes: std::fs::metadata(path).map_err(Error::io("inspect", path))?.len(),
        recording: value_of(pairs, "recording").map(str::to_owned),
        rows: Some(sealed_rows(path)?),
        row_groups: None,
    }])
}

/// One segment of the campaign, in a file of its own or among merged ones.
#[derive(Clone)]
struct Segment {
    path: PathBuf,
    made: Made,
    pairs: BTreeMap<String, String>,
    node: String,
    /// Days since the epoch on which it may have rows.
    days: Vec<i64>,
}

/// Brings the lake up to what the campaign holds. Rows in spools come with the next time, when they are sealed.
pub fn compact(campaign: &Path, lake: &Path) -> Result<Compacted> {
    let whole = campaign.canonicalize().map_err(Error::io("open", campaign))?;
    let id: String =
        Sha256::digest(whole.as_os_str().as_encoded_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let locks = lake.join(".locks").join(&id);
    std::fs::create_dir_all(&locks).map_err(Error::io("create", &locks))?;
    let _lock = CampaignLock::take(&locks)?;
    let mut done = Compacted::default();
    for table in TABLES {
        let sealed = table_files(&whole, table)?.into_iter().filter(|path| !is_spool(path));
        let segments = sealed.map(|path| segments(&path, table)).collect::<Result<Vec<_>>>()?.concat();
        done.files_read += segments.len() as u64;
        let mut parts: BTreeMap<(i64, &str), Vec<&Segment>> = BTreeMap::new();
        for segment in &segments {
            for day in &segment.days {
                parts.entry((*day, &segment.node)).or_default().push(segment);
            }
        }
        for ((day, node), segments) in parts {
            let dir = lake.join(table.name).join(format!("date={}", date(day))).join(format!("node={node}"));
            part(table, day, &segments, &dir.join(format!("{id}.parquet")), &mut done)?;
        }
    }
    Ok(done)
}

fn segments(path: &Path, table: &'static Table) -> Result<Vec<Segment>> {
    let pairs = read_pairs(path)?;
    let node = file_name_part(value_of(&pairs, "host").unwrap_or_default());
    let made = made_of(path, &pairs)?;
    let pairs: BTreeMap<String, String> = pairs.into_iter().collect();
    let segment = |made| {
        let (path, pairs, node) = (path.to_owned(), pairs.clone(), node.clone());
        with_days(Segment { path, made, pairs, node, days: Vec::new() }, table)
    };
    made.into_iter().map(segment).collect()
}

fn with_days(mut segment: Segment, table: &'static Table) -> Result<Segment> {
    let anchor_day = segment.anchor_day();
    // Recordings say their span; the few rows of other tables are looked through.
    if let Some(days) = segment.told_days() {
        segment.days = days;
        return Ok(segment);
    }
    let mut days = BTreeSet::new();
    segment.rows(table, &mut |batch| {
        days.extend(days_of(batch, table, anchor_day));
        Ok(())
    })?;
    segment.days = if days.is_empty() { vec![anchor_day] } else { days.into_iter().collect() };
    Ok(segment)
}

impl Segment {
    /// The rows, each with its host and wall-clock instant by this segment's own metadata.
    fn rows(&self, table: &'static Table, take: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
        let completion = Completion::of(table, &self.pairs);
        for batch in self.made.batches(&self.path, table)? {
            take(&completion.complete(&batch?).map_err(|e| e.in_file(&self.path))?)?;
        }
        Ok(())
    }

    fn anchor(&self) -> Option<ClockAnchor> {
        serde_json::from_str(self.pairs.get("energylens.clock_anchor")?).ok()
    }

    fn anchor_day(&self) -> i64 {
        self.anchor().map_or(0, |anchor| anchor.t_unix_ns.div_euclid(NS_PER_DAY))
    }

    /// The days of the span in the metadata, unless it is longer than any segment is.
    fn told_days(&self) -> Option<Vec<i64>> {
        let instant = |key: &str| self.pairs.get(&format!("energylens.{key}"))?.parse::<i64>().ok();
        let anchor = self.anchor()?;
        let day = |t_mono_ns| anchor.unix_ns(t_mono_ns).div_euclid(NS_PER_DAY);
        let (first, last) = (day(instant(span::BEGIN)?), day(instant(span::END)?));
        (0..=LONGEST_DAYS).contains(&(last - first)).then(|| (first..=last).collect())
    }
}

/// The day of each row; of the file's anchor where the table has no instants, or the row's is missing.
fn days_of(batch: &RecordBatch, table: &Table, anchor_day: i64) -> Vec<i64> {
    let column = table.columns.iter().find(|c| matches!(c.derived, Some(Derived::WallClock(_))));
    let instants = column.and_then(|c| batch.column_by_name(c.name)?.as_primitive_opt::<TimestampMillisecondType>());
    let day = |row| match instants {
        Some(instants) if instants.is_valid(row) => instants.value(row).div_euclid(MS_PER_DAY),
        _ => anchor_day,
    };
    (0..batch.num_rows()).map(day).collect()
}

/// Brings one file of the lake up to date.
fn part(table: &'static Table, day: i64, segments: &[&Segment], path: &Path, done: &mut Compacted) -> Result<()> {
    // Recordings grow by segments; runs and phases are written anew as a whole.
    let grows = [SAMPLES.name, TELEMETRY.name, MARKS.name].contains(&table.name);
    let before: Vec<Made> = match path.exists() {
        true => {
            value_of(&read_pairs(path)?, SOURCES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
        }
        false => Vec::new(),
    };
    let is_new = |s: &&Segment| !before.iter().any(|made| made.is(&s.made));
    let new: Vec<&Segment> = segments.iter().copied().filter(is_new).collect();
    let Some(first) = segments.first() else { return Ok(()) };
    if new.is_empty() && path.exists() {
        done.files_kept += 1;
        return Ok(());
    }
    let dir = crate::file::directory_of(path);
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let (sources, kept) = if grows && path.exists() { (new, before) } else { (segments.to_vec(), Vec::new()) };
    // Where it lay in the campaign is of no use here.
    let made = kept.iter().chain(sources.iter().map(|s| &s.made)).map(|m| Made { row_groups: None, ..m.clone() });
    let made: Vec<Made> = made.collect();
    let mut pairs = first.pairs.clone();
    // Of one segment only; what it says of its own stands in the list.
    pairs.retain(|key, _| !["recording", span::BEGIN, span::END].iter().any(|k| key == &format!("energylens.{k}")));
    pairs.retain(|key, _| key.starts_with("energylens.") && key != RECORDING_ID_KEY);
    pairs.insert(format!("energylens.{SOURCES}"), serde_json::to_string(&made).unwrap_or_default());
    let before = if path.exists() { value_of(&read_pairs(path)?, "devices").map(str::to_owned) } else { None };
    let own = sources.iter().filter_map(|s| s.pairs.get("energylens.devices").cloned());
    pairs.insert("energylens.devices".to_owned(), devices(before.into_iter().chain(own)));
    let mut writer = SealedWriter::create(path, table, &pairs)?.with_row_group_rows(ROW_GROUP_ROWS);
    if !kept.is_empty() {
        for batch in read_file(path, table)? {
            writer.write(&batch?)?;
        }
    }
    for segment in sources {
        segment.rows(table, &mut |batch| {
            let days = days_of(batch, table, segment.anchor_day());
            let today = filter_record_batch(batch, &days.iter().map(|d| Some(*d == day)).collect::<BooleanArray>())
                .map_err(|source| Error::Batch { table: table.name, source })?;
            if today.num_rows() > 0 { writer.write(&today) } else { Ok(()) }
        })?;
    }
    done.rows += writer.finish()?;
    done.files_written += 1;
    done.bytes += std::fs::metadata(path).map_err(Error::io("inspect", path))?.len();
    Ok(())
}

/// Device tables as one.
pub(super) fn devices(tables: impl IntoIterator<Item = String>) -> String {
    let mut known: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for table in tables {
        let list: Vec<serde_json::Value> = serde_json::from_str(&table).unwrap_or_default();
        for device in list {
            let id = device.get("id").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            known.insert(id, device);
        }
    }
    serde_json::to_string(&known.into_values().collect::<Vec<_>>()).unwrap_or_default()
}

/// A day since the epoch as `2026-11-23`, by Hinnant's division into eras of 400 years.
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::schema::EnergySource;
    use crate::store::{FileMetadata, SampleRow, SegmentWriter, read_metadata};

    const MS: i64 = 1_000_000;

    /// A segment of `rows` samples, one a second, that begins so many seconds after the epoch.
    fn segment_at(dir: &Path, begin_s: i64, rows: i64) {
        // The monotonic clock began 1000 s before.
        let anchor = ClockAnchor { t_mono_ns: 1_000_000 * MS, t_unix_ns: begin_s * 1_000 * MS };
        let meta = FileMetadata::of_host("n/1", anchor);
        let mut writer = SegmentWriter::create(dir, &SAMPLES, "n1", &meta).unwrap();
        let row = |i: i64| SampleRow {
            device: Arc::from("a"),
            t_mono_ns: (1_000_000 + i * 1_000) * MS,
            t_prev_poll_ns: (1_000_000 + i * 1_000) * MS - 1,
            energy_counter_uj: Some(i as u64),
            power_w: None,
            t_device_ns: None,
            source: EnergySource::Counter,
            job_id: None,
        };
        writer.append(&SampleRow::batch(&(0..rows).map(row).collect::<Vec<_>>()).unwrap()).unwrap();
        writer.set_extra("recording", "{\"lost_rows\":3}".to_owned());
        writer.seal().unwrap();
    }

    fn rows(path: &Path) -> usize {
        read_file(path, &SAMPLES).unwrap().map(|b| b.unwrap().num_rows()).sum()
    }

    #[test]
    fn days_have_their_names() {
        // 2000-02-29 is day 11016, as 30 years have 7 leap days before it: 30 x 365 + 7 + 31 + 28.
        let names = [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (-1, "1969-12-31")];
        names.iter().for_each(|(day, name)| assert_eq!(date(*day), *name));
    }

    #[test]
    fn segments_become_a_file_a_day_and_a_second_time_adds_only_what_is_new() {
        let (campaign, lake) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        // The first ends 50 s after midnight.
        segment_at(campaign.path(), 86_400 - 50, 100);
        segment_at(campaign.path(), 86_400 + 50, 7);
        let done = compact(campaign.path(), lake.path()).unwrap();
        assert_eq!((done.files_read, done.files_written, done.rows), (2, 2, 107));
        let found = |day: &str| {
            let dir = lake.path().join(format!("samples/date={day}/node=n_1"));
            std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).next().unwrap()
        };
        assert_eq!((rows(&found("1970-01-01")), rows(&found("1970-01-02"))), (50, 57));
        // What each segment said of its losses is still there.
        let meta = read_metadata(&found("1970-01-02")).unwrap();
        assert_eq!(meta.extra[SOURCES].matches("lost_rows").count(), 2, "{}", meta.extra[SOURCES]);

        let again = compact(campaign.path(), lake.path()).unwrap();
        assert_eq!((again.files_written, again.files_kept), (0, 2));

        // Retention removes the first segment from the campaign; the lake keeps its rows and takes the new ones.
        let first = table_files(campaign.path(), &SAMPLES).unwrap().remove(0);
        std::fs::remove_file(first).unwrap();
        segment_at(campaign.path(), 86_400 + 500, 11);
        let grown = compact(campaign.path(), lake.path()).unwrap();
        assert_eq!((grown.files_written, grown.rows), (1, 68));
        assert_eq!((rows(&found("1970-01-01")), rows(&found("1970-01-02"))), (50, 68));
    }

    #[test]
    fn a_second_writer_of_the_same_files_is_refused() {
        let (campaign, lake) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        segment_at(campaign.path(), 0, 1);
        compact(campaign.path(), lake.path()).unwrap();
        let locks = std::fs::read_dir(lake.path().join(".locks")).unwrap().flatten().next().unwrap().path();
        let _held = CampaignLock::take(&locks).unwrap();
        assert!(matches!(compact(campaign.path(), lake.path()), Err(Error::Locked { .. })));
    }
}
