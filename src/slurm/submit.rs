//! From a plan to submitted arrays.

use std::path::{Path, PathBuf};

use super::Error;
use super::client::{Launch, Launcher};
use super::records::{ArrayRecord, Records, write_whole};
use super::script::{self, Places};
use super::tasks::{self, Block};
use crate::sweep::{Plan, Run, SlurmSpec};

/// What to submit.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What the sweep says to Slurm.
    pub spec: &'a SlurmSpec,
    /// Where things lie.
    pub places: Places<'a>,
    /// Which runs are wanted.
    pub wanted: &'a dyn Fn(&Run) -> bool,
    /// Most tasks of one array.
    pub most_tasks: u64,
    /// Number of the first array.
    pub first_array: u32,
}

/// Arrays that are ready to be submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Records and scripts of the arrays.
    pub arrays: Vec<(ArrayRecord, String)>,
    /// The script of the merging job, if there shall be one.
    pub merge: Option<String>,
}

impl Prepared {
    /// Tasks of all arrays.
    pub fn tasks(&self) -> usize {
        self.arrays.iter().map(|(record, _)| record.tasks.len()).sum()
    }

    /// Runs of all tasks.
    pub fn runs(&self) -> usize {
        self.arrays.iter().flat_map(|(record, _)| &record.tasks).map(Vec::len).sum()
    }
}

/// What was submitted.
#[derive(Debug)]
pub struct Submitted {
    /// Arrays, as they stand in the records now.
    pub arrays: Vec<ArrayRecord>,
    /// The merging job, if it was submitted.
    pub merge_job: Option<u64>,
    /// What was not, and why.
    pub refused: Option<Refused>,
}

/// Why a submission broke off.
#[derive(Debug)]
pub struct Refused {
    /// Arrays that were not submitted.
    pub arrays: usize,
    /// The answer.
    pub error: Error,
}

/// Lays the wanted runs out as arrays; touches nothing.
pub fn prepare(request: &Request<'_>) -> Result<Prepared, Error> {
    let Request { plan, spec, places, .. } = *request;
    let most = usize::try_from(request.most_tasks).unwrap_or(usize::MAX).max(1);
    let mut arrays = Vec::new();
    let ids = |task: &Vec<usize>| {
        task.iter().filter_map(|&run| plan.runs.get(run)).map(|run| run.run_id.clone()).collect::<Vec<_>>()
    };
    for Block { class, tasks } in tasks::blocks(plan, spec, request.wanted) {
        for tasks in tasks.chunks(most) {
            let array = request.first_array.saturating_add(arrays.len() as u32);
            let tasks = tasks.iter().map(ids).collect();
            let record = ArrayRecord { array, class: class.clone(), job_id: None, tasks };
            let text = script::array(plan, spec, &record, places)?;
            arrays.push((record, text));
        }
    }
    if arrays.is_empty() {
        return Err(Error::NothingLeft);
    }
    let merge = spec.merge.as_ref().map(|given| script::merge(plan, given, request.first_array, places)).transpose()?;
    Ok(Prepared { arrays, merge })
}

/// Submits what was prepared, each array noted before and after: a kill in between is found out later.
pub fn submit(records: &mut Records, prepared: Prepared, launcher: &dyn Launcher) -> Result<Submitted, Error> {
    let logs = records.dir().join("logs");
    std::fs::create_dir_all(&logs).map_err(Error::io(&logs, "created"))?;
    let mut submitted = Submitted { arrays: Vec::new(), merge_job: None, refused: None };
    let all = prepared.arrays.len();
    let first = prepared.arrays.first().map_or(0, |(record, _)| record.array);
    for (i, (record, text)) in prepared.arrays.into_iter().enumerate() {
        let path = script_path(records.dir(), record.array);
        write_whole(&path, text.as_bytes())?;
        records.put(record.clone())?;
        match launcher.launch(&Launch { script: &path, after: &[] }) {
            Ok(job_id) => {
                let record = ArrayRecord { job_id: Some(job_id), ..record };
                records.put(record.clone())?;
                submitted.arrays.push(record);
            }
            // Sites bound how many jobs one may have waiting; what was taken will run.
            Err(error) => {
                // Where it is not certain that it was refused, the record stays and its job is looked for later.
                if !error.is_uncertain() {
                    records.withdraw(record.array)?;
                    std::fs::remove_file(&path).map_err(Error::io(&path, "removed"))?;
                }
                submitted.refused = Some(Refused { arrays: all - i, error });
                break;
            }
        }
    }
    let jobs: Vec<u64> = submitted.arrays.iter().filter_map(|record| record.job_id).collect();
    if let (Some(text), false) = (prepared.merge, jobs.is_empty()) {
        let path = records.dir().join(format!("merge-{first:03}.sh"));
        write_whole(&path, text.as_bytes())?;
        match launcher.launch(&Launch { script: &path, after: &jobs }) {
            Ok(job) => submitted.merge_job = Some(job),
            Err(error) if submitted.refused.is_none() => submitted.refused = Some(Refused { arrays: 0, error }),
            Err(_) => {}
        }
    }
    Ok(submitted)
}

/// The script of an array.
pub(super) fn script_path(dir: &Path, array: u32) -> PathBuf {
    dir.join(format!("array-{array:03}.sh"))
}
