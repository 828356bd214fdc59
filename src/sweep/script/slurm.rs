//! `slurm = { ... }`: options of sbatch under their own names, and a few of ours.

use std::collections::BTreeMap;

use mlua::Value;

use super::fields::{Fields, as_whole, show};
use super::place::Place;
use crate::sweep::sbatch::{self, OptionValue, SlurmSpec};

/// Options that the merging job takes over from the arrays, unless `merge` says otherwise.
const SHARED: [&str; 8] = ["account", "export", "partition", "qos", "reservation", "time", "wckey", "mail_user"];

pub(super) fn slurm(place: &Place, line: usize, value: &Value) -> mlua::Result<SlurmSpec> {
    let mut options = options(place, line, "slurm", value, &SlurmSpec::OWN)?;
    let fields = Fields::at(place, line, value, "slurm", "option", &names(value)?, 0)?;
    let own = |name: &str, low, high| match fields.get(name)? {
        Value::Nil => Ok(None),
        _ => fields.whole(name, low, high, None).map(|n| Some(n as u32)),
    };
    let mut merge: BTreeMap<String, OptionValue> = options
        .iter()
        .filter(|(name, _)| SHARED.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let merge = match fields.get("merge")? {
        Value::Nil => Some(merge),
        Value::Boolean(false) => None,
        value @ Value::Table(_) => {
            merge.extend(self::options(place, fields.line_of("merge"), "merge", &value, &[])?);
            Some(merge)
        }
        other => {
            let message = format!("`merge` is {}; expected false or a table of sbatch options", show(&other));
            return Err(fields.fail("merge", message));
        }
    };
    if let Some(OptionValue::Flag(true)) = options.get("requeue") {
        // What is the case anyway.
        options.remove("requeue");
    }
    let spec = SlurmSpec {
        merge,
        runs_per_task: own("runs_per_task", 1, 1_000_000)?,
        at_once: own("at_once", 1, 1_000_000)?,
        stop_early_s: own("stop_early_s", 1, 65_535)?,
        options,
    };
    if let (Some(early_s), Some(limit_s)) = (spec.stop_early_s, spec.time_limit_s())
        && u64::from(early_s) >= limit_s
    {
        let message = format!(
            "`stop_early_s` is {early_s}, and `time` is {limit_s} s: tasks would be told to end as soon as they begin; expected \
             less than the time limit"
        );
        return Err(fields.fail("stop_early_s", message));
    }
    Ok(spec)
}

/// Every key that is a text: what is known is for [`sbatch::check`] to say.
fn names(value: &Value) -> mlua::Result<Vec<&'static str>> {
    let Value::Table(table) = value else { return Ok(Vec::new()) };
    let known = sbatch::names().chain(SlurmSpec::OWN);
    let mut found = Vec::new();
    for name in known {
        if !table.raw_get::<Value>(name)?.is_nil() {
            found.push(name);
        }
    }
    Ok(found)
}

fn options(
    place: &Place,
    line: usize,
    what: &'static str,
    value: &Value,
    own: &[&'static str],
) -> mlua::Result<BTreeMap<String, OptionValue>> {
    let Value::Table(table) = value else {
        return Err(place.fail_at(line, format!("{what} is {}; expected a table {{ ... }}", show(value))));
    };
    let mut options = BTreeMap::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let name = match &key {
            Value::String(name) => name.to_string_lossy(),
            other => {
                let message = format!("{what} takes named options; found a value without a name (at {})", show(other));
                return Err(place.fail_at(line, message));
            }
        };
        if own.contains(&name.as_str()) {
            continue;
        }
        let at = place.line_of(&name, line);
        let option = match (&value, as_whole(&value)) {
            (Value::Boolean(flag), _) => OptionValue::Flag(*flag),
            (_, Some(number)) => OptionValue::Whole(number),
            (Value::String(text), _) => match text.to_str() {
                Ok(text) => OptionValue::Text(text.to_owned()),
                Err(_) => return Err(place.fail_at(at, format!("`{name}` is no UTF-8"))),
            },
            (other, _) => {
                let message = format!("`{name}` is {}; expected a text, a whole number or true", show(other));
                return Err(place.fail_at(at, message));
            }
        };
        sbatch::check(what, own, &name, &option).map_err(|message| place.fail_at(at, message))?;
        options.insert(name, option);
    }
    Ok(options)
}
