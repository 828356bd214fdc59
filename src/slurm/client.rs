//! Slurm's programs, called with lists of arguments and never through a shell.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Error;
use super::state::{self, JobStates};

/// Most tasks of an array where the controller does not say: Slurm's default, less one.
const USUAL_ARRAY_TASKS: u64 = 1000;
/// Characters of an answer that a message quotes.
const QUOTED: usize = 600;
/// Jobs that one call asks for: far below what an argument list may hold.
const JOBS_PER_CALL: usize = 500;

/// Hands jobs to whoever runs them.
pub trait Launcher {
    /// Submits a job and returns its number.
    fn launch(&self, job: &Launch<'_>) -> Result<u64, Error>;

    /// What became of jobs. Tasks of which nothing is known any more are not in the answer.
    fn state(&self, jobs: &[u64]) -> Result<JobStates, Error>;
}

/// A job to be submitted.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its script.
    pub script: &'a Path,
    /// Begins when these jobs have ended, however they end.
    pub after: &'a [u64],
}

/// The cluster that the programs in a PATH talk to.
#[derive(Debug, Clone)]
pub struct SlurmClient {
    path: OsString,
}

impl SlurmClient {
    /// Looks for Slurm's programs in the directories of `path`.
    pub fn new(path: OsString) -> Self {
        Self { path }
    }

    fn program(&self, name: &'static str) -> Result<PathBuf, Error> {
        let found = std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|file| file.is_file());
        found.ok_or(Error::NoProgram { program: name })
    }

    fn call(&self, name: &'static str, arguments: &[String]) -> Result<Output, Error> {
        let mut command = Command::new(self.program(name)?);
        command.args(arguments).env("PATH", &self.path).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            // They change what is printed, and we read it; for sbatch, they go before the lines of the script.
            let is_format = variable.to_str().is_some_and(|v| v.starts_with("SQUEUE_") || v.starts_with("SACCT_"));
            if is_format || variable.to_str().is_some_and(overrides_script) {
                command.env_remove(variable);
            }
        }
        command.output().map_err(|source| Error::Start { program: name, source })
    }

    fn answer(&self, name: &'static str, arguments: &[String]) -> Result<String, Error> {
        let output = self.call(name, arguments)?;
        if !output.status.success() {
            return Err(Error::Refused { program: name, said: said(&output) });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Most tasks that one array may have.
    pub fn most_array_tasks(&self) -> Result<u64, Error> {
        let config = match self.answer("scontrol", &["show".to_owned(), "config".to_owned()]) {
            Ok(config) => config,
            Err(Error::NoProgram { .. } | Error::Refused { .. }) => return Ok(USUAL_ARRAY_TASKS),
            Err(error) => return Err(error),
        };
        match state::max_array_size(&config) {
            // Indices end one below it.
            Some(found @ 0..=1) => Err(Error::NoArrays { found }),
            Some(size) => Ok(size - 1),
            None => Ok(USUAL_ARRAY_TASKS),
        }
    }

    /// Most tasks of an array where no cluster is asked.
    pub fn usual_array_tasks() -> u64 {
        USUAL_ARRAY_TASKS
    }

    /// The job that was submitted with this script, if the cluster still knows it.
    pub fn job_of_script(&self, script: &Path) -> Result<Option<u64>, Error> {
        // Everybody's: who submitted it may be somebody else.
        let arguments = ["--noheader", "--states=all", "--format=%F|%o"].map(str::to_owned);
        let answer = self.answer("squeue", &arguments)?;
        let wanted = script.to_string_lossy();
        let mut found = answer.lines().filter_map(|line| line.split_once('|')).filter(|(_, of)| *of == wanted);
        Ok(found.find_map(|(job, _)| job.trim().parse().ok()))
    }

    /// What the cluster's accounts say of jobs that it has forgotten otherwise; nothing where it keeps none.
    fn accounts(&self, jobs: &[u64], states: &mut JobStates) {
        let unknown: Vec<u64> = jobs.iter().copied().filter(|job| !states.knows(*job)).collect();
        for jobs in unknown.chunks(JOBS_PER_CALL) {
            let arguments = [
                "--noheader".to_owned(),
                "--parsable2".to_owned(),
                "--allocations".to_owned(),
                "--array".to_owned(),
                "--format=JobID,JobIDRaw,State,NodeList,ExitCode".to_owned(),
                format!("--jobs={}", list(jobs)),
            ];
            // Without a database it fails, which says nothing of the jobs.
            if let Ok(answer) = self.answer("sacct", &arguments) {
                state::read_sacct(&answer, states);
            }
        }
    }
}

impl Launcher for SlurmClient {
    fn launch(&self, job: &Launch<'_>) -> Result<u64, Error> {
        let mut arguments = vec!["--parsable".to_owned()];
        if !job.after.is_empty() {
            let jobs: Vec<String> = job.after.iter().map(u64::to_string).collect();
            arguments.push(format!("--dependency=afterany:{}", jobs.join(":")));
            arguments.push("--kill-on-invalid-dep=yes".to_owned());
        }
        let script = job
            .script
            .to_str()
            .ok_or_else(|| Error::Unquotable { what: "the path", found: job.script.to_string_lossy().into_owned() })?;
        arguments.push(script.to_owned());
        let answer = self.answer("sbatch", &arguments)?;
        // `NUMBER` or `NUMBER;CLUSTER`, behind whatever a submission filter of the site may say.
        let last = answer.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        last.split(';').next().and_then(|number| number.trim().parse().ok()).ok_or_else(|| Error::Answer {
            program: "sbatch",
            expected: "the number of a job",
            found: short(last),
        })
    }

    fn state(&self, jobs: &[u64]) -> Result<JobStates, Error> {
        let mut states = JobStates::default();
        for jobs in jobs.chunks(JOBS_PER_CALL) {
            let arguments = [
                "--noheader".to_owned(),
                "--array".to_owned(),
                "--states=all".to_owned(),
                "--format=%F|%K|%A|%T|%N|%r".to_owned(),
                format!("--jobs={}", list(jobs)),
            ];
            let output = self.call("squeue", &arguments)?;
            // A job that is forgotten is an error if it is the only one asked for.
            let forgotten = String::from_utf8_lossy(&output.stderr).contains("Invalid job id");
            if !output.status.success() && !forgotten {
                return Err(Error::Refused { program: "squeue", said: said(&output) });
            }
            state::read_squeue(&String::from_utf8_lossy(&output.stdout), &mut states);
        }
        self.accounts(jobs, &mut states);
        Ok(states)
    }
}

/// Whether a variable of the environment goes before a line of our scripts that must stand.
fn overrides_script(variable: &str) -> bool {
    const OURS: [&str; 12] = [
        "ARRAY_INX",
        "OPEN_MODE",
        "OUTPUT",
        "ERROR",
        "INPUT",
        "REQUEUE",
        "NO_REQUEUE",
        "SIGNAL",
        "WAIT",
        "JOB_NAME",
        "TEST_ONLY",
        "CHDIR",
    ];
    variable.strip_prefix("SBATCH_").is_some_and(|name| OURS.contains(&name))
}

fn list(jobs: &[u64]) -> String {
    jobs.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// What a program that failed printed, on one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = if text.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { text };
    let words: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if words.is_empty() { format!("nothing ({})", output.status) } else { short(&words.join("; ")) }
}

fn short(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.char_indices().nth(QUOTED) {
        Some((cut, _)) => format!("{}...", plain.get(..cut).unwrap_or_default()),
        None => plain,
    }
}
