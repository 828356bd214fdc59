//! The recordings of a campaign directory, apart from each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::recording::{Asked, Recordings};
use super::super::steadiness::Steadiness;
use super::{MarkedWindows, Seen};
use crate::schema;
use crate::store::{self, MarkRow, RunRow};

/// What one recording left: the directory's own, or one that was moved into it.
#[derive(Default)]
pub(super) struct Part {
    pub(super) marks: Vec<PathBuf>,
    pub(super) samples: Vec<PathBuf>,
    pub(super) telemetry: Vec<PathBuf>,
}

impl Part {
    /// What it holds of these runs.
    pub(super) fn seen<'a>(
        &self,
        windows: MarkedWindows,
        runs: impl Iterator<Item = &'a RunRow>,
    ) -> store::Result<Seen> {
        let mut asked = Asked::default();
        for run in runs {
            for device in &run.devices {
                asked.entry((run.host.clone(), device.clone())).or_default().extend(windows.of_run(run));
            }
        }
        let steadiness = Steadiness::read(&self.telemetry, &asked)?;
        let recordings = Recordings::read(&self.samples, asked)?;
        Ok(Seen { windows, recordings, steadiness })
    }
}

/// The recordings of a directory. They are kept apart: two of them may overlap in host, device and time, and only
/// within one does the order of rows mean anything.
pub(super) fn parts(campaign_dir: &Path) -> store::Result<BTreeMap<Option<String>, Part>> {
    let mut parts: BTreeMap<Option<String>, Part> = BTreeMap::new();
    for path in store::table_files(campaign_dir, &schema::MARKS)? {
        parts.entry(store::part_of(&path).map(str::to_owned)).or_default().marks.push(path);
    }
    for path in store::table_files(campaign_dir, &schema::SAMPLES)? {
        parts.entry(store::part_of(&path).map(str::to_owned)).or_default().samples.push(path);
    }
    for path in store::table_files(campaign_dir, &schema::TELEMETRY)? {
        parts.entry(store::part_of(&path).map(str::to_owned)).or_default().telemetry.push(path);
    }
    Ok(parts)
}

pub(super) fn read_marks(files: &[PathBuf]) -> store::Result<Vec<MarkRow>> {
    let mut marks = Vec::new();
    for path in files {
        for batch in store::read_file(path, &schema::MARKS)? {
            marks.extend(MarkRow::from_batch(&batch?)?);
        }
    }
    Ok(marks)
}
