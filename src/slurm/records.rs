//! What was submitted, on disk: enough to follow a campaign whoever asks, and from whichever node.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Class, Error};
use crate::file;

/// One task of one array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// Number of the array in its campaign, from 0. Slurm's own numbers begin anew after some millions.
    pub array: u32,
    /// Number of the task in the array, from 0: Slurm's too.
    pub task: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}-{}", self.array, self.task)
    }
}

/// An array that was submitted, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayRecord {
    /// Number of the array in its campaign.
    pub array: u32,
    /// What its tasks have in common.
    pub class: Class,
    /// Slurm's number; `None` if whoever submitted it was interrupted before writing it down.
    pub job_id: Option<u64>,
    /// Runs of each task.
    pub tasks: Vec<Vec<String>>,
}

/// All arrays of a campaign, and which of their tasks are closed: merged, or over without a result.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
    /// In the order of their numbers.
    pub arrays: Vec<ArrayRecord>,
    closed: BTreeSet<TaskId>,
    spared: HashSet<String>,
}

/// A line of `closed.jsonl`.
#[derive(Serialize, Deserialize)]
struct Closed {
    #[serde(flatten)]
    id: TaskId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    spared: Vec<String>,
}

impl Records {
    /// Reads the records of the campaign in `campaign_dir`; one that was never submitted has none.
    pub fn open(campaign_dir: &Path) -> Result<Self, Error> {
        let dir = campaign_dir.join("slurm");
        let mut records =
            Self { dir: dir.clone(), arrays: Vec::new(), closed: BTreeSet::new(), spared: HashSet::new() };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            // What is in the way is for whoever makes the campaign to say.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(records),
            Err(e) => return Err(Error::io(&dir, "read")(e)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io(&dir, "read"))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with("array-") && name.ends_with(".json") {
                records.arrays.push(read_array(&path)?);
            }
        }
        records.arrays.sort_by_key(|a| a.array);
        read_closed(&dir.join("closed.jsonl"), &mut |Closed { id, spared }| {
            records.closed.insert(id);
            records.spared.extend(spared);
        })?;
        Ok(records)
    }

    /// The record of one array, without reading the others.
    pub fn array(campaign_dir: &Path, array: u32) -> Result<ArrayRecord, Error> {
        read_array(&campaign_dir.join("slurm").join(format!("array-{array:03}.json")))
    }

    /// Whether one task is closed, without reading the arrays.
    pub fn is_closed_in(campaign_dir: &Path, id: TaskId) -> Result<bool, Error> {
        let mut is_closed = false;
        read_closed(&campaign_dir.join("slurm/closed.jsonl"), &mut |closed| is_closed |= closed.id == id)?;
        Ok(is_closed)
    }

    /// Where scripts and records lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Number of the next array.
    pub fn next_array(&self) -> u32 {
        self.arrays.last().map_or(0, |a| a.array.saturating_add(1))
    }

    /// Whether the task is closed.
    pub fn is_closed(&self, id: TaskId) -> bool {
        self.closed.contains(&id)
    }

    /// Repeats that closed tasks left out, because their points were known well enough.
    pub fn spared(&self) -> &HashSet<String> {
        &self.spared
    }

    /// Tasks that are not closed, with their array and their runs.
    pub fn open_tasks(&self) -> impl Iterator<Item = (TaskId, &ArrayRecord, &[String])> {
        let all = self.arrays.iter().flat_map(|record| {
            (0..)
                .zip(&record.tasks)
                .map(move |(task, runs)| (TaskId { array: record.array, task }, record, runs.as_slice()))
        });
        all.filter(|(id, ..)| !self.closed.contains(id))
    }

    /// Refuses where Slurm's tasks may be at work: whoever ran the campaign here would repeat their runs.
    pub fn refuse_open(campaign_dir: &Path) -> Result<(), Error> {
        match Self::open(campaign_dir)?.open_tasks().count() {
            0 => Ok(()),
            tasks => Err(Error::WithSlurm { path: campaign_dir.to_owned(), tasks }),
        }
    }

    /// Slurm's numbers of arrays with open tasks.
    pub fn open_jobs(&self) -> Vec<u64> {
        let jobs: BTreeSet<u64> = self.open_tasks().filter_map(|(_, record, _)| record.job_id).collect();
        jobs.into_iter().collect()
    }

    /// Puts an array's record on the disk, new or changed.
    pub fn put(&mut self, record: ArrayRecord) -> Result<(), Error> {
        let path = self.dir.join(format!("array-{:03}.json", record.array));
        let json = serde_json::to_vec(&record).map_err(|source| Error::Foreign {
            path: path.clone(),
            expected: "record that JSON can hold",
            source,
        })?;
        write_whole(&path, &json)?;
        self.arrays.retain(|a| a.array != record.array);
        self.arrays.push(record);
        self.arrays.sort_by_key(|a| a.array);
        Ok(())
    }

    /// Forgets an array that was not submitted after all.
    pub fn withdraw(&mut self, array: u32) -> Result<(), Error> {
        let path = self.dir.join(format!("array-{array:03}.json"));
        self.arrays.retain(|a| a.array != array);
        std::fs::remove_file(&path).map_err(Error::io(&path, "removed"))
    }

    /// Closes tasks, each with the repeats that it left out; when this returns it is on the disk.
    pub fn close(&mut self, tasks: Vec<(TaskId, Vec<String>)>) -> Result<(), Error> {
        if tasks.is_empty() {
            return Ok(());
        }
        let path = self.dir.join("closed.jsonl");
        let mut lines = Vec::new();
        // What a killed writer left of a line must not swallow the next.
        if std::fs::read(&path).is_ok_and(|bytes| bytes.last().is_some_and(|b| *b != b'\n')) {
            lines.push(b'\n');
        }
        for (id, spared) in tasks {
            let closed = Closed { id, spared };
            let json = serde_json::to_vec(&closed).map_err(|source| Error::Foreign {
                path: path.clone(),
                expected: "task that JSON can hold",
                source,
            })?;
            lines.extend(json);
            lines.push(b'\n');
            self.closed.insert(closed.id);
            self.spared.extend(closed.spared);
        }
        let file = OpenOptions::new().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let written = file.and_then(|mut file| file.write_all(&lines).and_then(|()| file.sync_all()));
        written.map_err(Error::io(&path, "written"))
    }
}

fn read_array(path: &Path) -> Result<ArrayRecord, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Foreign {
        path: path.to_owned(),
        expected: "record of a job array",
        source,
    })
}

fn read_closed(path: &Path, each: &mut dyn FnMut(Closed)) -> Result<(), Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(path, "read")(e)),
    };
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::io(path, "read"))?;
        // A line that was cut off closes nothing: its task is merged once more, to the same end.
        if let Ok(closed) = serde_json::from_str(&line) {
            each(closed);
        }
    }
    Ok(())
}

/// Writes a file that has its name only once it is whole.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file::replace(path, |file| file.write_all(bytes)).map_err(Error::io(path, "written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(array: u32) -> ArrayRecord {
        let class = Class { num_gpus: 2, gpu_model: "H100".to_owned() };
        ArrayRecord { array, class, job_id: None, tasks: vec![vec!["a-0".to_owned()], vec!["b-0".to_owned()]] }
    }

    #[test]
    fn what_was_submitted_and_closed_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("slurm")).unwrap();
        let mut records = Records::open(dir.path()).unwrap();
        assert_eq!(records.next_array(), 0);
        for array in [0, 1, 2] {
            records.put(record(array)).unwrap();
        }
        records.put(ArrayRecord { job_id: Some(7), ..record(1) }).unwrap();
        records.withdraw(2).unwrap();
        records.close(vec![(TaskId { array: 0, task: 1 }, vec!["b-0".to_owned()])]).unwrap();
        let again = Records::open(dir.path()).unwrap();
        assert_eq!(again.arrays, [record(0), ArrayRecord { job_id: Some(7), ..record(1) }]);
        assert_eq!(again.next_array(), 2);
        let open: Vec<String> = again.open_tasks().map(|(id, ..)| id.to_string()).collect();
        assert_eq!(open, ["000-0", "001-0", "001-1"]);
        assert_eq!(again.open_jobs(), [7]);
        assert!(again.spared().contains("b-0") && again.spared() == records.spared());
        assert!(Records::is_closed_in(dir.path(), TaskId { array: 0, task: 1 }).unwrap());
    }

    #[test]
    fn a_line_cut_by_a_kill_closes_nothing_and_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let slurm = dir.path().join("slurm");
        std::fs::create_dir(&slurm).unwrap();
        std::fs::write(slurm.join("closed.jsonl"), "{\"array\":0,\"task\":0}\n{\"array\":0,\"ta").unwrap();
        let mut records = Records::open(dir.path()).unwrap();
        assert!(records.is_closed(TaskId { array: 0, task: 0 }));
        records.close(vec![(TaskId { array: 3, task: 9 }, Vec::new())]).unwrap();
        let again = Records::open(dir.path()).unwrap();
        assert!(again.is_closed(TaskId { array: 3, task: 9 }) && again.is_closed(TaskId { array: 0, task: 0 }));
    }
}
