//! Options of Slurm's `sbatch` as a sweep gives them: plain data, part of the plan.
//!
//! Names are those of the long options, with `-` as `_`. They say where a sweep runs, not what it does: a campaign may
//! be submitted again with others.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::template;
use crate::schema;

/// Longest value of an option, characters.
const LONGEST_VALUE: usize = 1000;

/// What a sweep says to Slurm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmSpec {
    /// Options of `sbatch`, by name.
    pub options: BTreeMap<String, OptionValue>,
    /// Options of the job that merges the results, where they differ; `None` for no such job.
    pub merge: Option<BTreeMap<String, OptionValue>>,
    /// About so many runs make one task.
    pub runs_per_task: Option<u32>,
    /// Most tasks of one array that run at the same time.
    pub at_once: Option<u32>,
    /// So long before its time limit a task begins to end, s.
    pub stop_early_s: Option<u32>,
}

/// The value of one option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// Given or not: `--exclusive`.
    Flag(bool),
    /// A number: `--cpus-per-task=8`.
    Whole(u64),
    /// A text: `--partition=gpu`. It may hold `{num_gpus}` and `{gpu_model}`.
    Text(String),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// `true`, or nothing.
    Flag,
    /// `true` or a text.
    FlagOrText,
    /// A whole number.
    Whole,
    /// A text or a whole number: sizes, lists, names.
    Text,
    /// Minutes, or one of sbatch's forms of a duration.
    Time,
    /// `true` or `false`.
    Switch,
    /// `1` alone.
    One,
}

use Takes::{Flag, FlagOrText, One, Switch, Text, Time, Whole};

/// The long options of sbatch 22.05 and what newer versions added, as far as they go with a job array of ours.
const OPTIONS: [(&str, Takes); 87] = [
    ("account", Text),
    ("acctg_freq", Text),
    ("batch", Text),
    ("bb", Text),
    ("bbf", Text),
    ("begin", Text),
    ("cluster_constraint", Text),
    ("comment", Text),
    ("consolidate_segments", Flag),
    ("constraint", Text),
    ("contiguous", Flag),
    ("core_spec", Whole),
    ("cores_per_socket", Whole),
    ("cpu_freq", Text),
    ("cpus_per_gpu", Whole),
    ("cpus_per_task", Whole),
    ("deadline", Text),
    ("delay_boot", Whole),
    ("dependency", Text),
    ("distribution", Text),
    ("exclude", Text),
    ("exclusive", FlagOrText),
    ("export", Text),
    ("export_file", Text),
    ("extra", Text),
    ("extra_node_info", Text),
    ("get_user_env", FlagOrText),
    ("gpu_bind", Text),
    ("gpu_freq", Text),
    ("gpus", Text),
    ("gpus_per_node", Text),
    ("gpus_per_socket", Text),
    ("gpus_per_task", Text),
    ("gres", Text),
    ("gres_flags", Text),
    ("hint", Text),
    ("hold", Flag),
    ("job_name", Text),
    ("kill_on_invalid_dep", Text),
    ("licenses", Text),
    ("mail_type", Text),
    ("mail_user", Text),
    ("mcs_label", Text),
    ("mem", Text),
    ("mem_bind", Text),
    ("mem_per_cpu", Text),
    ("mem_per_gpu", Text),
    ("mincpus", Whole),
    ("network", Text),
    ("nice", Text),
    ("no_kill", FlagOrText),
    ("nodefile", Text),
    ("nodelist", Text),
    ("nodes", One),
    ("ntasks", One),
    ("ntasks_per_core", Whole),
    ("ntasks_per_gpu", Whole),
    ("ntasks_per_node", One),
    ("ntasks_per_socket", Whole),
    ("oom_kill_step", FlagOrText),
    ("overcommit", Flag),
    ("oversubscribe", Flag),
    ("partition", Text),
    ("power", Text),
    ("prefer", Text),
    ("priority", Text),
    ("profile", Text),
    ("propagate", FlagOrText),
    ("qos", Text),
    ("reboot", Flag),
    ("requeue", Switch),
    ("reservation", Text),
    ("resv_ports", FlagOrText),
    ("segment", Whole),
    ("sockets_per_node", Whole),
    ("spread_job", Flag),
    ("spread_segments", Flag),
    ("stepmgr", Flag),
    ("switches", Text),
    ("thread_spec", Whole),
    ("threads_per_core", Whole),
    ("time", Time),
    ("time_min", Time),
    ("tmp", Text),
    ("tres_bind", Text),
    ("tres_per_task", Text),
    ("wckey", Text),
];

/// Options that energylens gives itself, or that would take the job out of its hands.
const REFUSED: [(&str, &str); 26] = [
    ("array", "energylens numbers the tasks itself; `at_once = N` limits how many run at the same time"),
    ("chdir", "tasks run in the campaign directory"),
    ("clusters", "jobs of other clusters cannot be followed from here; submit on the cluster itself"),
    ("cluster", "jobs of other clusters cannot be followed from here; submit on the cluster itself"),
    ("container", "a task must see the campaign directory and this program; put the container into the workload"),
    ("container_id", "a task must see the campaign directory and this program; put the container into the workload"),
    ("error", "logs are in slurm/logs of the campaign, where `energylens status` finds them"),
    ("gid", "a campaign belongs to whoever submits it"),
    ("help", "it submits nothing"),
    ("ignore_pbs", "the scripts hold no PBS lines"),
    ("input", "tasks read nothing"),
    ("no_requeue", "write `requeue = false`"),
    ("open_mode", "logs are appended to, so that a requeued task keeps its first lines"),
    ("output", "logs are in slurm/logs of the campaign, where `energylens status` finds them"),
    ("parsable", "energylens reads the job's number itself"),
    ("quiet", "what sbatch has to say is wanted"),
    ("signal", "tasks are told of their time limit by SIGUSR1; `stop_early_s = N` says how long before"),
    ("test_only", "it submits nothing; `energylens submit --dry-run` shows the scripts"),
    ("uid", "a campaign belongs to whoever submits it"),
    ("usage", "it submits nothing"),
    ("use_min_nodes", "a run is recorded on one node"),
    ("verbose", "it changes what sbatch prints"),
    ("version", "it submits nothing"),
    ("wait", "`energylens status` follows the campaign"),
    ("wait_all_nodes", "a run is recorded on one node"),
    ("wrap", "energylens writes the script itself"),
];

/// Names in an option's value that stand for something of its tasks.
const PLACEHOLDERS: [&str; 2] = ["num_gpus", "gpu_model"];

impl SlurmSpec {
    /// Fields of `slurm = { ... }` that are no options of sbatch.
    pub const OWN: [&'static str; 4] = ["runs_per_task", "at_once", "stop_early_s", "merge"];

    /// The time limit, s, where one is given and there is an end to it: for Slurm a limit of zero is none.
    pub fn time_limit_s(&self) -> Option<u64> {
        let limit_s = match self.options.get("time")? {
            OptionValue::Whole(minutes) => minutes.checked_mul(60),
            OptionValue::Text(text) => duration_s(text)?,
            OptionValue::Flag(_) => None,
        };
        limit_s.filter(|limit_s| *limit_s > 0)
    }

    /// Whether tasks that were ended before their time may begin anew.
    pub fn may_requeue(&self) -> bool {
        self.options.get("requeue") != Some(&OptionValue::Flag(false))
    }
}

/// Names of the options that sbatch is given as they are.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// Checks one option of the table called `what` (`slurm`, `merge`), whose `own` fields are none of sbatch's; or says what
/// is wrong with it.
pub fn check(what: &str, own: &[&'static str], name: &str, value: &OptionValue) -> Result<(), String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("{what} takes no `{name}`: {why}"));
    }
    let Some((_, takes)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
        let dashed = name.replace('-', "_");
        let known = OPTIONS.iter().map(|(known, _)| *known).chain(own.iter().copied());
        let near = schema::nearest(&dashed, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(format!("{what} has no option `{name}`{near}"));
    };
    if let OptionValue::Text(text) = value {
        check_text(name, text)?;
    }
    let is_template = matches!(value, OptionValue::Text(text) if text == "{num_gpus}");
    let (fits, expected) = match (takes, value) {
        (Flag, v) => (*v == OptionValue::Flag(true), "true (leave it out otherwise)"),
        (FlagOrText, v) => (*v != OptionValue::Flag(false), "true or a text (leave it out otherwise)"),
        (Switch, v) => (matches!(v, OptionValue::Flag(_)), "true or false"),
        (Whole, v) => (matches!(v, OptionValue::Whole(_)) || is_template, "a whole number"),
        (Text, v) => (!matches!(v, OptionValue::Flag(_)), "a text or a whole number"),
        (One, v) => (*v == OptionValue::Whole(1), "1, since a run is recorded on one node by one process"),
        (Time, OptionValue::Text(text)) => (duration_s(text).is_some(), TIME_FORMS),
        (Time, v) => (matches!(v, OptionValue::Whole(_)), TIME_FORMS),
    };
    if fits { Ok(()) } else { Err(format!("`{name}` is {value}; expected {expected}")) }
}

const TIME_FORMS: &str = "minutes, or one of \"M:S\", \"H:M:S\", \"D-H\", \"D-H:M\", \"D-H:M:S\" and \"UNLIMITED\"";

fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > LONGEST_VALUE {
        return Err(format!("`{name}` has {} characters; expected 1 to {LONGEST_VALUE}", text.chars().count()));
    }
    if let Some(odd) = text.chars().find(|c| c.is_control()) {
        return Err(format!("`{name}` has the control character {}; expected one line of text", odd.escape_default()));
    }
    for used in template::names(text)? {
        if !PLACEHOLDERS.contains(&used.as_str()) {
            let known = "{num_gpus} and {gpu_model}, which all runs of a task share";
            return Err(format!("`{name}` has `{{{used}}}`; expected no other names than {known}"));
        }
    }
    Ok(())
}

/// A duration as sbatch writes it: `Some(None)` where it has no end, `None` where it is none.
pub fn duration_s(text: &str) -> Option<Option<u64>> {
    if ["unlimited", "infinite"].contains(&text.to_ascii_lowercase().as_str()) {
        return Some(None);
    }
    let number = |part: &str| {
        let plain = (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts: Vec<u64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let seconds = match (days, parts.as_slice()) {
        (None, [m]) => m * 60,
        (None, [m, s]) => m * 60 + s,
        (None, [h, m, s]) => h * 3600 + m * 60 + s,
        (Some(d), [h]) => d * 86_400 + h * 3600,
        (Some(d), [h, m]) => d * 86_400 + h * 3600 + m * 60,
        (Some(d), [h, m, s]) => d * 86_400 + h * 3600 + m * 60 + s,
        _ => return None,
    };
    Some(Some(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &OptionValue) -> Result<(), String> {
        super::check("slurm", &SlurmSpec::OWN, name, value)
    }

    fn text(value: &str) -> OptionValue {
        OptionValue::Text(value.to_owned())
    }

    #[test]
    fn options_are_sorted_known_once_and_not_refused_too() {
        assert!(OPTIONS.windows(2).all(|w| w[0].0 < w[1].0), "sorted, each once");
        assert!(REFUSED.windows(2).all(|w| w[0].0 < w[1].0 || w[0].0 == "clusters"), "sorted");
        for (name, _) in OPTIONS {
            assert!(!REFUSED.iter().any(|(refused, _)| *refused == name), "{name}");
            assert!(!SlurmSpec::OWN.contains(&name), "{name}");
        }
    }

    #[test]
    fn options_are_read_strictly() {
        for (name, value) in [
            ("partition", text("gpu")),
            ("mem", text("64G")),
            ("mem", OptionValue::Whole(64_000)),
            ("gres", text("gpu:h100:{num_gpus}")),
            ("cpus_per_task", text("{num_gpus}")),
            ("exclusive", OptionValue::Flag(true)),
            ("exclusive", text("user")),
            ("requeue", OptionValue::Flag(false)),
            ("nodes", OptionValue::Whole(1)),
            ("time", text("1-12:00:00")),
            ("comment", text("it's `x` $(y) # z")),
            ("oom_kill_step", OptionValue::Flag(true)),
            ("oom_kill_step", OptionValue::Whole(0)),
            ("stepmgr", OptionValue::Flag(true)),
            ("tres_bind", text("gres/gpu:closest")),
        ] {
            assert_eq!(check(name, &value), Ok(()), "{name}");
        }
        for (name, value, part) in [
            ("partitoin", text("gpu"), "did you mean `partition`?"),
            ("cpus-per-task", OptionValue::Whole(1), "did you mean `cpus_per_task`?"),
            ("output", text("x"), "slurm/logs"),
            ("array", text("0-3"), "at_once"),
            ("wrap", text("rm"), "writes the script itself"),
            ("signal", text("TERM"), "stop_early_s"),
            ("nodes", OptionValue::Whole(2), "one node"),
            ("partition", OptionValue::Flag(true), "expected a text"),
            ("exclusive", OptionValue::Flag(false), "leave it out"),
            ("cpus_per_task", text("8"), "expected a whole number"),
            ("time", text("1h"), "H:M:S"),
            ("comment", text("a\nb"), "control character \\n"),
            ("comment", text("\u{1b}[1m"), "control character"),
            ("comment", text(""), "0 characters"),
            ("gres", text("gpu:{tensor_parallel}"), "{num_gpus} and {gpu_model}"),
        ] {
            let message = check(name, &value).unwrap_err();
            assert!(message.contains(part), "{name}: {message}");
        }
    }

    /// A limit of zero made one task of each run, as if it were the shortest.
    #[test]
    fn a_time_of_zero_is_no_limit() {
        let limit =
            |value| SlurmSpec { options: [("time".to_owned(), value)].into(), ..SlurmSpec::default() }.time_limit_s();
        assert_eq!((limit(OptionValue::Whole(0)), limit(text("0-0:0:0"))), (None, None));
        assert_eq!((limit(OptionValue::Whole(2)), limit(text("0:07"))), (Some(120), Some(7)));
    }

    #[test]
    fn what_stands_in_another_table_is_said_of_that_table() {
        let message = super::check("merge", &[], "tme", &OptionValue::Whole(3)).unwrap_err();
        assert_eq!(message, "merge has no option `tme`; did you mean `time`?");
        let message = super::check("merge", &[], "runs_per_tas", &OptionValue::Whole(3)).unwrap_err();
        assert!(!message.contains("runs_per_task"), "{message}");
    }

    #[test]
    fn durations_are_sbatchs() {
        for (text, seconds) in
            [("30", 1800), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86_400), ("1-1:1", 90_060), ("0-0:0:7", 7)]
        {
            assert_eq!(duration_s(text), Some(Some(seconds)), "{text}");
        }
        assert_eq!(duration_s("UNLIMITED"), Some(None));
        for bad in ["", "1h", ":", "1-", "-1", "1:2:3:4", "+5", "99999999999999999999"] {
            assert_eq!(duration_s(bad), None, "{bad}");
        }
    }
}
