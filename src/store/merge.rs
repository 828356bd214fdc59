//! Many small segments of a recording as few, in the directory where they lie.
//!
//! ```text
//! samples-HOST-000000.parquet .. 000023.parquet     the segments of one day
//!   -> .samples-HOST-000000+000023.parquet.merging    written, synced, counted    killed here: the segments are whole
//!   -> .samples-HOST-000000+000023.parquet.ready      renamed, directory synced   from here on it stands for them
//!   -> segments removed one by one                    killed here: what is left of them is ignored, and removed next time
//!   -> samples-HOST-000000+000023.parquet             renamed
//! ```
//!
//! The name says which segments are in it, so that a reader of the directory never counts a row twice, whatever is left of
//! them. A reader that knows no names (a pattern such as `samples-*.parquet`) may miss rows between the last two steps,
//! which take milliseconds, and never has one twice either.
//!
//! Only neighbours of one recorder, one boot and one day are merged. Each keeps its row groups, its span and the summary
//! of its losses, so that a lake still knows what it has of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compact::{Made, SOURCES, devices, made_of};
use super::error::{Error, Result};
use super::metadata::{FileMetadata, RECORDING_ID_KEY, read_pairs, value_of};
use super::read::read_file;
use super::sealed::{SealedWriter, sync_directory};
use super::segment::{READY_SUFFIX, Segments, segments};
use super::span;
use super::{Campaign, CampaignLock};
use crate::schema::{MARKS, SAMPLES, TELEMETRY, Table};

/// Tables whose segments are merged: those that grow by segments.
const MERGED: [&Table; 3] = [&SAMPLES, &TELEMETRY, &MARKS];
/// Rows of a row group, as in a lake.
const ROW_GROUP_ROWS: usize = 262_144;
/// What stands behind the name of a merged file that is not counted yet.
const MERGING_SUFFIX: &str = ".merging";
const NS_PER_DAY: i64 = 86_400_000_000_000;
/// Two anchors of one boot differ by what the wall clock was corrected by.
const SAME_BOOT_NS: i64 = 1_000_000_000;

/// What merging came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Segments that were merged.
    pub files_merged: u64,
    /// Files that they became.
    pub files_written: u64,
    /// Segments that stay as they are: alone on their day, or of another recorder.
    pub files_kept: u64,
    /// Rows in what was written.
    pub rows: u64,
    /// Bytes of the segments.
    pub bytes_before: u64,
    /// Bytes of what was written.
    pub bytes: u64,
}

/// One sealed segment that may be merged.
struct Source {
    path: PathBuf,
    numbers: (u64, u64),
    pairs: BTreeMap<String, String>,
    metadata: FileMetadata,
    span: (i64, i64),
    rows: u64,
    bytes: u64,
    made: Vec<Made>,
}

/// Merges the segments of each day in the campaign's directory. `progress` is told files done and files to do.
///
/// Recording and reading may go on meanwhile; `run` on the same campaign, and a second merging, are refused.
pub fn merge(campaign: &Campaign, progress: &dyn Fn(u64, u64)) -> Result<Merged> {
    let dir = campaign.dir();
    let lock = campaign.lock()?;
    campaign.recover()?;
    remove_unfinished(dir, &lock)?;
    let mut done = Merged::default();
    let mut groups: Vec<(&'static Table, String, Vec<Source>)> = Vec::new();
    for table in MERGED {
        for (prefix, found) in segments(dir, table)? {
            for group in neighbours(dir, table, &prefix, &found)? {
                match group.len() {
                    0 | 1 => done.files_kept += group.len() as u64,
                    _ => groups.push((table, prefix.clone(), group)),
                }
            }
        }
    }
    let all: u64 = groups.iter().map(|(.., group)| group.len() as u64).sum();
    for (table, prefix, group) in groups {
        let merging = write(dir, table, &prefix, &group, &mut |files| progress(done.files_merged + files, all))?;
        done.files_merged += group.len() as u64;
        done.bytes_before += group.iter().map(|s| s.bytes).sum::<u64>();
        done.rows += group.iter().map(|s| s.rows).sum::<u64>();
        done.bytes += fs::metadata(&merging).map_err(Error::io("inspect", &merging))?.len();
        done.files_written += 1;
        finish(&commit(&merging)?)?;
    }
    Ok(done)
}

/// The sealed segments of one table and host in groups that may become one file, in order.
fn neighbours(dir: &Path, table: &'static Table, prefix: &str, found: &Segments) -> Result<Vec<Vec<Source>>> {
    let mut groups: Vec<Vec<Source>> = Vec::new();
    let mut is_broken = true;
    for numbers in &found.sealed {
        // A spool of the same number may still be thought to hold the rows, and one between would be out of order.
        if found.spools.contains(&numbers.1) {
            is_broken = true;
            continue;
        }
        let path = dir.join(name(prefix, *numbers));
        let Some(source) = source(path, table, *numbers)? else {
            is_broken = true;
            continue;
        };
        match groups.last_mut() {
            Some(group) if !is_broken && group.last().is_some_and(|before| fits(before, &source, found)) => {
                group.push(source);
            }
            _ => groups.push(vec![source]),
        }
        is_broken = false;
    }
    Ok(groups)
}

/// What a segment says of itself; `None` of one that cannot be read or does not say enough, which is left alone.
fn source(path: PathBuf, table: &'static Table, numbers: (u64, u64)) -> Result<Option<Source>> {
    let is_file = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file());
    let Ok(pairs) = read_pairs(&path) else { return Ok(None) };
    let Ok(metadata) = FileMetadata::from_pairs(&pairs, &path) else { return Ok(None) };
    let instant = |key: &str| value_of(&pairs, key).and_then(|t| t.parse::<i64>().ok());
    let (Some(begin), Some(end)) = (instant(span::BEGIN), instant(span::END)) else { return Ok(None) };
    if !is_file || value_of(&pairs, "table") != Some(table.name) {
        return Ok(None);
    }
    let bytes = fs::metadata(&path).map_err(Error::io("inspect", &path))?.len();
    let made = made_of(&path, &pairs)?;
    let rows = made.iter().filter_map(|m| m.rows).sum();
    Ok(Some(Source {
        made,
        span: (begin, end),
        rows,
        bytes,
        pairs: pairs.into_iter().collect(),
        metadata,
        numbers,
        path,
    }))
}

/// Whether `next` continues `before` so that both can be one file.
fn fits(before: &Source, next: &Source, found: &Segments) -> bool {
    let between = before.numbers.1 + 1..next.numbers.0;
    let (a, b) = (&before.metadata, &next.metadata);
    let offset = |m: &FileMetadata| m.anchor.t_unix_ns.saturating_sub(m.anchor.t_mono_ns);
    let day = |s: &Source| s.metadata.anchor.unix_ns(s.span.0).div_euclid(NS_PER_DAY);
    let same_devices = a.devices.iter().all(|d| b.devices.iter().all(|other| other.id != d.id || other == d));
    a.host == b.host
        && a.extra.get("recorder") == b.extra.get("recorder")
        && a.driver == b.driver
        && same_devices
        && (offset(a).saturating_sub(offset(b))).abs() <= SAME_BOOT_NS
        && day(before) == day(next)
        && before.span.1.saturating_sub(SAME_BOOT_NS) <= next.span.0
        && !found.spools.iter().any(|number| between.contains(number))
}

/// From here on the file stands for its segments.
fn commit(merging: &Path) -> Result<PathBuf> {
    let ready = merging.with_extension(READY_SUFFIX.trim_start_matches('.'));
    fs::rename(merging, &ready).map_err(Error::io("rename", merging))?;
    sync_directory(crate::file::directory_of(&ready))?;
    Ok(ready)
}

/// Writes the group as one file, and counts what can be read back.
fn write(
    dir: &Path,
    table: &'static Table,
    prefix: &str,
    group: &[Source],
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Err(Error::column("segments", "at least one", "none"));
    };
    let numbers = (first.numbers.0, last.numbers.1);
    let merging = dir.join(format!(".{}{MERGING_SUFFIX}", name(prefix, numbers)));
    let mut pairs = first.pairs.clone();
    // Of one segment only, or of Parquet's own making.
    let own = ["recording", SOURCES].map(|key| format!("energylens.{key}"));
    pairs.retain(|key, _| key.starts_with("energylens.") && key != RECORDING_ID_KEY && !own.contains(key));
    let mut insert = |key: &str, value: String| pairs.insert(format!("energylens.{key}"), value);
    let begin = group.iter().map(|s| s.span.0).min().unwrap_or(first.span.0);
    let end = group.iter().map(|s| s.span.1).max().unwrap_or(last.span.1);
    insert(span::BEGIN, begin.to_string());
    insert(span::END, end.to_string());
    insert("devices", devices(group.iter().filter_map(|s| s.pairs.get("energylens.devices").cloned())));
    let mut writer = SealedWriter::create(&merging, table, &pairs)?.with_row_group_rows(ROW_GROUP_ROWS);
    let (mut written, mut row_groups): (Vec<Made>, usize) = (Vec::new(), 0);
    for (i, source) in group.iter().enumerate() {
        // Each of those that a merged one was made from keeps row groups of its own too.
        for made in &source.made {
            let mut rows = 0;
            for batch in made.batches(&source.path, table)? {
                let batch = batch?;
                rows += batch.num_rows() as u64;
                writer.write(&batch)?;
            }
            if Some(rows) != made.rows {
                return Err(Error::Foreign {
                    path: source.path.clone(),
                    expected: format!("{} rows of {}", made.rows.unwrap_or_default(), made.file),
                    found: format!("{rows}; nothing was merged"),
                });
            }
            let from = row_groups;
            row_groups = writer.end_row_group()?;
            written.push(Made { row_groups: Some((from, row_groups)), ..made.clone() });
        }
        progress(i as u64 + 1);
    }
    let text = serde_json::to_string(&written).map_err(|e| Error::column(SOURCES, "JSON", e.to_string()))?;
    writer.append_metadata(SOURCES, &text);
    let rows = writer.finish()?;
    let expected: u64 = group.iter().map(|s| s.rows).sum();
    let found: u64 =
        read_file(&merging, table)?.map(|batch| batch.map(|b| b.num_rows() as u64)).sum::<Result<u64>>()?;
    if rows != expected || found != expected {
        fs::remove_file(&merging).map_err(Error::io("remove", &merging))?;
        return Err(Error::Foreign {
            path: merging,
            expected: format!("{expected} rows, as the segments have"),
            found: format!("{found}; nothing was merged, the disk returned other bytes"),
        });
    }
    Ok(merging)
}

/// Removes what a file that is ready stands for, and gives it its name.
pub(super) fn finish(ready: &Path) -> Result<()> {
    let dir = crate::file::directory_of(ready);
    let refused = || Error::column("name", "that of merged segments", ready.display().to_string());
    let file = ready.file_name().and_then(|n| n.to_str()).ok_or_else(refused)?;
    let visible = file.strip_prefix('.').and_then(|n| n.strip_suffix(READY_SUFFIX)).ok_or_else(refused)?;
    for path in stood_for(dir, visible)? {
        match fs::remove_file(&path) {
            Ok(()) => {}
            // Retention was faster.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", &path)(e)),
        }
    }
    sync_directory(dir)?;
    match fs::rename(ready, dir.join(visible)) {
        Ok(()) => sync_directory(dir),
        // Somebody else finished it, to the same end.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("rename", ready)(e)),
    }
}

/// The files in `dir` whose rows are in the merged file called `name`.
fn stood_for(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let other = path.file_name().and_then(|n| n.to_str());
        if other.is_some_and(|other| super::segment::stands_for(name, other)) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Finishes what a killed merging had ready. Returns how many files.
pub(super) fn finish_all(dir: &Path) -> Result<usize> {
    let ready = hidden(dir, |name| name.ends_with(READY_SUFFIX) && name.starts_with('.'))?;
    for path in &ready {
        match finish(path) {
            // Another user's, such as the daemon's: readers know without us what it stands for.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    Ok(ready.len())
}

/// Removes what a killed merging was still writing; the lock says that none is at it.
fn remove_unfinished(dir: &Path, _lock: &CampaignLock) -> Result<()> {
    let leftovers = hidden(dir, |name| {
        let is_temporary = name.starts_with("..") && name.contains(MERGING_SUFFIX) && name.ends_with(".tmp");
        is_temporary || (name.starts_with('.') && name.ends_with(MERGING_SUFFIX))
    })?;
    leftovers.iter().try_for_each(|path| fs::remove_file(path).map_err(Error::io("remove", path)))
}

/// Whether some file stands for segments that are still there.
pub(super) fn is_merging(dir: &Path) -> Result<bool> {
    Ok(!hidden(dir, |name| name.starts_with('.') && name.ends_with(READY_SUFFIX))?.is_empty())
}

fn hidden(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(&is_wanted) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// `samples-HOST-000003.parquet`, or `samples-HOST-000003+000009.parquet`.
fn name(prefix: &str, (first, last): (u64, u64)) -> String {
    if first == last {
        format!("{prefix}-{first:06}.parquet")
    } else {
        format!("{prefix}-{first:06}+{last:06}.parquet")
    }
}

#[cfg(test)]
mod tests;
