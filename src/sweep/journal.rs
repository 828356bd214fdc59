//! What has been done: the memory that makes a sweep resumable.
//!
//! `plan.json` holds the plan that the campaign began with. `runs.jsonl` gets one line per finished run, synced to the
//! disk before the next run starts: a killed sweep repeats at most the run it was in. Failed runs stay, until somebody
//! asks for them to be carried out again. A last line without its end is
//! what a kill leaves; it is cut off. `runs.parquet` is written from these lines and can be written again.
//!
//! `decisions.jsonl` is the same for what an adaptive sweep decides between its batches.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;

pub use self::decisions::read_decisions;
use super::adaptive::Decision;
use super::{Error, Plan};
use crate::clock::ClockAnchor;
use crate::file;
use crate::schema::{RUNS, RunStatus};
use crate::store::{Campaign, CampaignLock, FileMetadata, RunRow, columns, host_name, write_table_from};

/// Rows of one batch of the `runs` table: so many are in memory at once.
const ROWS_PER_BATCH: usize = 4096;

/// The record of a campaign's runs, held by the one process that carries them out.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    finished: HashSet<String>,
    failed: usize,
    failed_before: usize,
    last_end_mono_ns: Option<i64>,
    job: (Option<String>, Option<String>),
    decisions: Vec<Decision>,
    _lock: CampaignLock,
}

impl Journal {
    /// Opens the campaign's journal, or begins it, and takes the campaign's lock: two runners would repeat each other's
    /// runs on busy GPUs. A campaign that began with a plan that does something else is refused.
    pub fn open(campaign: &Campaign, plan: &Plan) -> Result<Self, Error> {
        Self::begin(campaign, plan, false)
    }

    /// The same, without the runs that failed: they are carried out again. Where nothing else was, `plan` may be another
    /// one; its predecessor may be why they failed.
    pub fn open_to_retry(campaign: &Campaign, plan: &Plan) -> Result<Self, Error> {
        Self::begin(campaign, plan, true)
    }

    fn begin(campaign: &Campaign, plan: &Plan, retries: bool) -> Result<Self, Error> {
        let lock = campaign.lock().map_err(Error::Store)?;
        let dir = campaign.dir().to_owned();
        if retries {
            retry::forget_failed(&dir, plan)?;
        }
        keep_plan(&dir.join("plan.json"), plan)?;
        let path = dir.join("runs.jsonl");
        let mut file = open_lines(&path).map_err(io(&path, "opened"))?;
        let mut finished = HashSet::new();
        let mut failed = 0;
        let mut last_end_mono_ns: Option<i64> = None;
        let whole_bytes = read_lines(&path, &mut file, parsed, &mut |row| {
            failed += usize::from(row.status == RunStatus::Failed);
            last_end_mono_ns = last_end_mono_ns.max(Some(row.t_end_mono_ns));
            finished.insert(row.run_id);
            Ok(())
        })?;
        file.set_len(whole_bytes).map_err(io(&path, "cut to its whole lines"))?;
        file.seek(SeekFrom::Start(whole_bytes)).map_err(io(&path, "read"))?;
        let decisions = decisions::cut_to_whole(&dir)?;
        let job = (None, None);
        let failed_before = failed;
        Ok(Self { dir, file, finished, failed, failed_before, last_end_mono_ns, job, decisions, _lock: lock })
    }

    /// The same, with runs that are part of a Slurm job and its step.
    pub fn within_job(self, job_id: Option<String>, step_id: Option<String>) -> Self {
        Self { job: (job_id, step_id), ..self }
    }

    /// Whether the run has been carried out, well or not.
    pub fn is_finished(&self, run_id: &str) -> bool {
        self.finished.contains(run_id)
    }

    /// Runs carried out so far, failed ones included.
    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Runs that failed so far.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Of these, runs that had failed when the journal was opened.
    pub fn failed_before(&self) -> usize {
        self.failed_before
    }

    /// Instant at which the last run ended: simulated time goes on behind it.
    pub fn last_end_mono_ns(&self) -> Option<i64> {
        self.last_end_mono_ns
    }

    /// Notes what came of a run; when this returns it is on the disk.
    pub fn note(&mut self, row: &RunRow) -> Result<(), Error> {
        let path = self.dir.join("runs.jsonl");
        let (job_id, step_id) = self.job.clone();
        let row = &RunRow { job_id, step_id, ..row.clone() };
        let mut line = serde_json::to_vec(row).map_err(|source| Error::Json { path: path.clone(), source })?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(io(&path, "written"))?;
        self.failed += usize::from(row.status == RunStatus::Failed);
        self.last_end_mono_ns = self.last_end_mono_ns.max(Some(row.t_end_mono_ns));
        self.finished.insert(row.run_id.clone());
        Ok(())
    }

    /// What an adaptive sweep has decided so far, in order.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Notes a decision; when this returns it is on the disk, and will be kept to.
    pub fn decide(&mut self, decision: Decision) -> Result<(), Error> {
        decisions::append(&self.dir, &decision)?;
        self.decisions.push(decision);
        Ok(())
    }

    /// Takes over the runs of the journal in another directory that this one does not have, as they stand there.
    ///
    /// They are safe from a power failure after [`sync`](Self::sync). `each` is told every run of the other journal.
    pub fn take_over(&mut self, dir: &Path, each: &mut dyn FnMut(&RunRow)) -> Result<usize, Error> {
        let path = self.dir.join("runs.jsonl");
        let mut lines = Vec::new();
        let mut taken = 0;
        read_runs(dir, &mut |row| {
            each(&row);
            if !self.finished.contains(&row.run_id) {
                let foreign = |source| Error::Json { path: path.clone(), source };
                serde_json::to_writer(&mut lines, &row).map_err(foreign)?;
                lines.push(b'\n');
                self.failed += usize::from(row.status == RunStatus::Failed);
                self.finished.insert(row.run_id);
                taken += 1;
            }
            Ok(())
        })?;
        self.file.write_all(&lines).map_err(io(&path, "written"))?;
        Ok(taken)
    }

    /// Makes everything noted last.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(io(&self.dir.join("runs.jsonl"), "written"))
    }

    /// Writes `runs.parquet` from the noted runs and returns its path.
    pub fn write_table(&self, anchor: ClockAnchor) -> Result<PathBuf, Error> {
        write_runs(&self.dir, anchor)
    }
}

/// Calls `each` for every whole line of the journal in `dir`; no journal has no lines.
pub fn read_runs(dir: &Path, each: &mut dyn FnMut(RunRow) -> Result<(), Error>) -> Result<(), Error> {
    let path = dir.join("runs.jsonl");
    match File::open(&path) {
        Ok(mut file) => read_lines(&path, &mut file, parsed, each).map(|_| ()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io(&path, "read")(e)),
    }
}

/// Writes the `runs.parquet` of `dir` from its journal, some thousand rows at a time, and returns its path.
pub fn write_runs(dir: &Path, anchor: ClockAnchor) -> Result<PathBuf, Error> {
    let path = dir.join("runs.parquet");
    let batches = RunBatches { path: dir.join("runs.jsonl"), lines: None, line: 0 };
    let metadata = FileMetadata::of_host(&host_name(), anchor);
    write_table_from(&path, &RUNS, batches, &metadata)?;
    Ok(path)
}

/// The lines of a journal as batches.
struct RunBatches {
    path: PathBuf,
    lines: Option<BufReader<File>>,
    line: usize,
}

impl RunBatches {
    fn rows(&mut self) -> Result<Vec<RunRow>, Error> {
        let mut reader = match self.lines.take() {
            Some(reader) => reader,
            None => BufReader::new(File::open(&self.path).map_err(io(&self.path, "read"))?),
        };
        let mut rows = Vec::new();
        let mut line = Vec::new();
        while rows.len() < ROWS_PER_BATCH {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(io(&self.path, "read"))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            self.line += 1;
            rows.push(parsed(&self.path, self.line, &line)?);
        }
        self.lines = Some(reader);
        Ok(rows)
    }
}

impl Iterator for RunBatches {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows() {
            Ok(rows) if rows.is_empty() => None,
            Ok(rows) => Some(RunRow::batch(&rows).map_err(Error::Store)),
            Err(error) => Some(Err(error)),
        }
    }
}

fn parsed(path: &Path, line: usize, text: &[u8]) -> Result<RunRow, Error> {
    let foreign = |source| Error::Foreign { path: path.to_owned(), line, expected: "run", source };
    let row: RunRow = serde_json::from_slice(text).map_err(foreign)?;
    if !columns::is_instant(row.t_begin_mono_ns) || !columns::is_instant(row.t_end_mono_ns) {
        let problem = "t_begin_mono_ns and t_end_mono_ns must be instants of a monotonic clock";
        return Err(foreign(serde::de::Error::custom(problem)));
    }
    Ok(row)
}

fn io(path: &Path, verb: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, verb, source }
}

/// Compares with the plan on disk, or puts it there under its name only once it is whole.
fn keep_plan(path: &Path, plan: &Plan) -> Result<(), Error> {
    let Some(began_with) = read_plan(path)? else {
        let json = serde_json::to_vec(plan).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        return put_whole(path, &json);
    };
    match began_with.difference(plan) {
        None => Ok(()),
        Some(difference) => Err(Error::PlanChanged { difference }),
    }
}

/// The plan on disk, if there is one.
fn read_plan(path: &Path) -> Result<Option<Plan>, Error> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(path, "read")(e)),
    };
    let foreign = |source: serde_json::Error| Error::Foreign {
        path: path.to_owned(),
        line: source.line(),
        expected: "plan",
        source,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(foreign)
}

/// Writes a file that has its name only once it is whole.
fn put_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file::replace(path, |file| file.write_all(bytes)).map_err(io(path, "written"))
}

/// Opens a file of lines to be read and appended to.
fn open_lines(path: &Path) -> std::io::Result<File> {
    // Not through a link, which in a directory of others could lead to any file of ours.
    let flags = libc::O_NOFOLLOW;
    OpenOptions::new().create(true).read(true).write(true).truncate(false).custom_flags(flags).open(path)
}

/// Calls `each` for every whole line and returns how many bytes these have.
fn read_lines<T>(
    path: &Path,
    file: &mut File,
    parse: fn(&Path, usize, &[u8]) -> Result<T, Error>,
    each: &mut dyn FnMut(T) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut reader = BufReader::new(file);
    let mut whole_bytes = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(io(path, "read"))?;
        if line.last() != Some(&b'\n') {
            break;
        }
        each(parse(path, number, &line)?)?;
        whole_bytes += bytes as u64;
    }
    Ok(whole_bytes)
}

mod decisions;
mod retry;
#[cfg(test)]
mod tests;
