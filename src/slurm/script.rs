//! The texts that sbatch is given.
//!
//! Whatever comes from outside (names, paths, options) is inert in them. In `#SBATCH` lines, which bash takes for
//! comments, sbatch splits words at blanks and knows quotes, `#` and the backslash: texts stand in double quotes, with a
//! backslash before each `"` and `\`. In commands they stand in single quotes. Neither can hold a line break: control
//! characters are refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::tasks::notice_s;
use super::{ArrayRecord, Error};
use crate::sweep::{OptionValue, Plan, Point, SlurmSpec, template};

/// Exit status of a task that was stopped before its end and got something done.
pub const UNFINISHED: u8 = 75;

/// Where things lie, as the nodes see it.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The campaign directory, absolute.
    pub campaign: &'a Path,
    /// This program, absolute.
    pub program: &'a Path,
    /// Where commands and servers start, absolute.
    pub directory: &'a Path,
}

/// Options by long name; without a value they are flags.
type Options = BTreeMap<String, Option<String>>;

/// The script of one array.
pub fn array(plan: &Plan, spec: &SlurmSpec, record: &ArrayRecord, places: Places<'_>) -> Result<String, Error> {
    let class = &record.class;
    let point = plan.points.iter().find(|p| p.num_gpus() == class.num_gpus && p.gpu.gpu_model == class.gpu_model);
    let mut options = options(&spec.options, point)?;
    enough_gpus(&options, record.class.num_gpus)?;
    let last = record.tasks.len().saturating_sub(1);
    let at_once = spec.at_once.map_or(String::new(), |n| format!("%{n}"));
    own(&mut options, plan, places)?;
    options.insert("array".to_owned(), Some(format!("0-{last}{at_once}")));
    options.insert("output".to_owned(), Some(format!("slurm/logs/{:03}-%a.log", record.array)));
    options.insert("signal".to_owned(), Some(format!("B:USR1@{}", notice_s(spec))));
    if !options.contains_key("no-requeue") {
        options.insert("requeue".to_owned(), None);
    }
    let mut text = head(&options)?;
    let (array, tasks) = (record.array, record.tasks.len());
    let _ = write!(text, "\n# Array {array:03}: {tasks} tasks for runs on {} GPUs each.\n", record.class.num_gpus);
    let program = quoted("the program's path", path(places.program)?)?;
    let campaign = quoted("the campaign's path", path(places.campaign)?)?;
    let directory = quoted("the working directory", path(places.directory)?)?;
    let requeue = if options.contains_key("no-requeue") { "no" } else { "yes" };
    let _ = write!(
        text,
        "program={program}\ncampaign={campaign}\ndirectory={directory}\narray={array}\nrequeue={requeue}\n"
    );
    text.push_str(TASK);
    Ok(text)
}

/// The script of the job that merges the results.
pub fn merge(
    plan: &Plan,
    given: &BTreeMap<String, OptionValue>,
    number: u32,
    places: Places<'_>,
) -> Result<String, Error> {
    let mut options = options(given, None)?;
    own(&mut options, plan, places)?;
    options.insert("output".to_owned(), Some(format!("slurm/logs/merge-{number:03}.log")));
    let mut text = head(&options)?;
    let program = quoted("the program's path", path(places.program)?)?;
    let campaign = quoted("the campaign's path", path(places.campaign)?)?;
    let _ = write!(text, "\nexec {program} status {campaign} --merge\n");
    Ok(text)
}

/// What every job of ours has.
fn own(options: &mut Options, plan: &Plan, places: Places<'_>) -> Result<(), Error> {
    let mut usual = |name: &str, value: &str| {
        options.entry(name.to_owned()).or_insert_with(|| Some(value.to_owned()));
    };
    usual("job-name", &plan.name);
    usual("nodes", "1");
    usual("ntasks", "1");
    let campaign = path(places.campaign)?;
    // A relative output is put behind the directory before its patterns are replaced.
    if campaign.contains(['%', '\\']) {
        return Err(Error::Pattern { found: campaign.to_owned() });
    }
    options.insert("chdir".to_owned(), Some(campaign.to_owned()));
    options.insert("open-mode".to_owned(), Some("append".to_owned()));
    Ok(())
}

/// What follows the assignments: bash carries out a trap only after its foreground child, so the task runs behind it.
const TASK: &str = r#"
# Slurm writes the log in the campaign; commands and servers start where the sweep was submitted.
cd "$directory" || echo "commands start in $PWD: this node does not see the directory in which the sweep was submitted" >&2

signal=
interrupted=
child=
stop() {
    signal=$1
    interrupted=yes
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

"$program" task "$campaign" --array "$array" --task "$SLURM_ARRAY_TASK_ID" &
child=$!
# A signal that came before the child was known.
if [ -n "$signal" ]; then kill -TERM "$child" 2>/dev/null; fi
code=0
while :; do
    interrupted=
    wait "$child"
    status=$?
    # 127: the status had been taken already.
    if [ "$status" -ne 127 ]; then code=$status; fi
    if [ -z "$interrupted" ]; then break; fi
done

# Stopped by the time limit with something done, or with time left: this task goes on later, where it stopped.
if [ "$signal" = USR1 ] && [ "$code" -eq 75 ] && [ "$requeue" = yes ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
"#;

fn head(options: &Options) -> Result<String, Error> {
    let mut text = "#!/bin/bash\n# Written by `energylens submit`.\n".to_owned();
    for (name, value) in options {
        match value {
            None => {
                let _ = writeln!(text, "#SBATCH --{name}");
            }
            Some(value) => {
                let _ = writeln!(text, "#SBATCH --{name}={}", escaped("a slurm option", value)?);
            }
        }
    }
    Ok(text)
}

/// The user's options under sbatch's names, with their templates filled in.
fn options(given: &BTreeMap<String, OptionValue>, point: Option<&Point>) -> Result<Options, Error> {
    let mut options = Options::new();
    for (name, value) in given {
        let (dashed, value) = match (name.as_str(), value) {
            ("requeue", OptionValue::Flag(false)) => ("no-requeue".to_owned(), None),
            (name, OptionValue::Flag(true)) => (name.replace('_', "-"), None),
            (_, OptionValue::Flag(false)) => continue,
            (name, OptionValue::Whole(number)) => (name.replace('_', "-"), Some(number.to_string())),
            (name, OptionValue::Text(text)) => {
                let bad = |reason| Error::Option { option: name.to_owned(), reason };
                let filled = match point {
                    Some(point) => template::expand(text, point, &[]).map_err(bad)?,
                    None if template::names(text).map_err(bad)?.is_empty() => text.clone(),
                    None => return Err(bad("the merging job has no GPUs; name no `{...}` in it".to_owned())),
                };
                (name.replace('_', "-"), Some(filled))
            }
        };
        options.insert(dashed, value);
    }
    Ok(options)
}

/// Refuses a fixed number of GPUs below what the runs need: the rest would fail one by one, on the cluster's time.
fn enough_gpus(options: &Options, needed: u32) -> Result<(), Error> {
    for name in ["gpus", "gpus-per-node", "gpus-per-task", "gres"] {
        let Some(Some(value)) = options.get(name) else { continue };
        let is_gpus = |part: &&str| name != "gres" || part.split(':').next() == Some("gpu");
        let counts = value.split(',').filter(is_gpus).map(|part| {
            let count = part.rsplit(':').next().unwrap_or_default().split('(').next().unwrap_or_default();
            // `gres = "gpu"` is one; `gpu:h100` too.
            count.parse::<u64>().unwrap_or(1)
        });
        let counts: Vec<u64> = counts.collect();
        let asked: u64 = counts.iter().sum();
        if !counts.is_empty() && asked < u64::from(needed) {
            return Err(Error::TooFewGpus { option: format!("{}={value}", name.replace('-', "_")), asked, needed });
        }
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Unquotable { what: "the path", found: path.to_string_lossy().into_owned() })
}

fn one_line<'a>(what: &'static str, text: &'a str) -> Result<&'a str, Error> {
    if text.chars().any(char::is_control) {
        return Err(Error::Unquotable { what, found: text.escape_debug().to_string() });
    }
    Ok(text)
}

/// `text` as one word of a `#SBATCH` line. An escaped blank would not do: sbatch 22.05 ends the word there all the same.
pub fn escaped(what: &'static str, text: &str) -> Result<String, Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("\"{}\"", one_line(what, text)?.replace('\\', r"\\").replace('"', "\\\"")))
}

/// `text` as one word of a bash command.
pub fn quoted(what: &'static str, text: &str) -> Result<String, Error> {
    Ok(format!("'{}'", one_line(what, text)?.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests;
