//! Segments that were recorded elsewhere and brought together: one directory, several recordings.
//!
//! Two recordings may overlap in host, device and time (tasks of a cluster, each on its own simulated clock; one node
//! before and after a reboot), and their segments have the same names. Moved into one directory, a segment keeps its
//! name and gets its recording, its *part*, behind an `@`, which stands in no host name: `samples-n1-000000@003-7`.

use std::path::Path;

use super::error::{Error, Result};
use super::segment::is_segment;
use crate::schema::{MARKS, SAMPLES, TELEMETRY};

/// The part that a file of a table belongs to; `None` is what was recorded in the directory itself.
pub fn part_of(path: &Path) -> Option<&str> {
    let stem = path.file_name()?.to_str()?.split_once(".parquet")?.0;
    stem.rsplit_once('@').map(|(_, part)| part)
}

/// Moves the sealed segments of `from` into `to` as part `part`. Returns how many there were; what was moved before is
/// not there any more, so it can be called again after a kill. The directories are not synced.
pub fn move_segments(from: &Path, to: &Path, part: &str) -> Result<usize> {
    let mut moved = 0;
    for entry in std::fs::read_dir(from).map_err(Error::io("list", from))? {
        let path = entry.map_err(Error::io("list", from))?.path();
        let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".parquet")) else {
            continue;
        };
        if [&SAMPLES, &TELEMETRY, &MARKS].iter().any(|table| is_segment(stem, table)) && part_of(&path).is_none() {
            let target = to.join(format!("{stem}@{part}.parquet"));
            std::fs::rename(&path, &target).map_err(Error::io("move", &path))?;
            moved += 1;
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_behind_the_name() {
        let part = |name: &str| part_of(Path::new(name)).map(str::to_owned);
        assert_eq!(part("c/samples-n1-000000@003-7.parquet").as_deref(), Some("003-7"));
        assert_eq!(part("c/samples-n1-000000.parquet"), None);
        assert_eq!(part("c/runs.parquet"), None);
        assert_eq!(part("c@4/marks-n1.x-000001.parquet"), None);
    }

    #[test]
    fn segments_are_moved_once_and_nothing_else_is() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = ["samples-a-b-000000.parquet", "marks-a-b-000003.parquet", "telemetry-a-000000.parquet"];
        for name in names.iter().chain(&["runs.parquet", "phases.parquet", "samples-a-000009.arrows.spool"]) {
            std::fs::write(from.path().join(name), name).unwrap();
        }
        assert_eq!(move_segments(from.path(), to.path(), "000-1").unwrap(), 3);
        assert_eq!(move_segments(from.path(), to.path(), "000-1").unwrap(), 0);
        let mut there: Vec<_> = std::fs::read_dir(to.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(
            there,
            ["marks-a-b-000003@000-1.parquet", "samples-a-b-000000@000-1.parquet", "telemetry-a-000000@000-1.parquet"]
        );
        assert_eq!(std::fs::read_dir(from.path()).unwrap().count(), 3);
    }
}
