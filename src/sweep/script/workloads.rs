//! The workloads that a script can name.

use std::collections::BTreeMap;

use mlua::{Lua, Value};

use super::fields::{Fields, show};
use super::place::Place;
use crate::sweep::template;
use crate::sweep::workload::{COMMAND_NAMES, CommandSpec, WorkloadSpec};

/// Words of a command, and variables of its environment, at most.
const MOST_WORDS: usize = 1_000;
/// Bytes of one of them.
const LONGEST_WORD_BYTES: usize = 64 << 10;
/// A week.
const LONGEST_RUN_S: f64 = 7.0 * 86_400.0;

/// `el.command { argv = { ... }, env = { ... }, engine = "torch", gpus = 8, timeout_s = 600 }`
pub(super) fn command(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<WorkloadSpec> {
    const KNOWN: [&str; 5] = ["argv", "env", "engine", "gpus", "timeout_s"];
    let fields = Fields::new(lua, place, value, "el.command", "option", &KNOWN, 0)?;
    Ok(WorkloadSpec::Command(CommandSpec {
        engine: engine(&fields)?,
        gpus: gpus(&fields)?,
        argv: argv(&fields, &COMMAND_NAMES)?,
        env: environment(&fields, Some(&COMMAND_NAMES))?,
        timeout_s: fields.number("timeout_s", 1.0, LONGEST_RUN_S, Some(3_600.0))?,
    }))
}

/// `el.fill_in { engine = "torch", gpus = 8 }`: what stands where somebody has to say how rows are measured.
pub(super) fn fill_in(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<WorkloadSpec> {
    let fields = Fields::new(lua, place, value, "el.fill_in", "option", &["engine", "gpus"], 0)?;
    Ok(WorkloadSpec::Blank { engine: engine(&fields)?, gpus: gpus(&fields)? })
}

/// What the `engine` column shall say.
pub(super) fn engine(fields: &Fields<'_>) -> mlua::Result<String> {
    const EXPECTED: &str = "1 to 64 letters, digits, `-`, `_` or `.`, for the column of that name";
    let text = fields.text("engine", EXPECTED)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(fields.fail("engine", format!("`engine` is {}; expected {EXPECTED}", show(&fields.get("engine")?))));
    }
    // Rows of the simulated node are known by this word too.
    if text == "simulated" {
        return Err(fields.fail("engine", "`engine` is `simulated`; that name is the simulated node's"));
    }
    Ok(text)
}

/// GPUs of the node that points may occupy.
pub(super) fn gpus(fields: &Fields<'_>) -> mlua::Result<u32> {
    Ok(fields.whole("gpus", 1, 1024, Some(8))? as u32)
}

/// `argv`: the words of a command, templates with the point's names and those of `more`.
pub(super) fn argv(fields: &Fields<'_>, more: &[&str]) -> mlua::Result<Vec<String>> {
    let value = fields.need("argv", "a list of words, such as { \"python3\", \"serve.py\" }")?;
    let words = words(fields.place, fields.line_of("argv"), &value)?;
    for word in &words {
        template::check(word, more).map_err(|e| fields.fail("argv", e))?;
    }
    Ok(words)
}

/// A list of words: texts and whole numbers.
pub(super) fn words(place: &Place, line: usize, value: &Value) -> mlua::Result<Vec<String>> {
    let list = Fields::at(place, line, value, "argv", "field", &[], MOST_WORDS)?;
    let mut words = Vec::new();
    for i in 1..=MOST_WORDS {
        match list.positional(i)? {
            Value::Nil => break,
            value => words.push(word(&value).ok_or_else(|| {
                let message = format!("argv has {} at {i}; expected a text or a whole number", show(&value));
                place.fail_at(line, message)
            })?),
        }
    }
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(place.fail_at(line, "argv names no program; expected a list of words, the program first")),
    }
}

/// `env`: variables by name; templates with the point's names and those of `more`, or plain texts.
pub(super) fn environment(fields: &Fields<'_>, more: Option<&[&str]>) -> mlua::Result<BTreeMap<String, String>> {
    let Value::Table(table) = fields.get("env")? else {
        return match fields.get("env")? {
            Value::Nil => Ok(BTreeMap::new()),
            other => Err(fields.fail("env", format!("`env` is {}; expected a table of variables", show(&other)))),
        };
    };
    let mut variables = BTreeMap::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let fail = |expected: &str| {
            fields.fail("env", format!("env has {} = {}; expected {expected}", show(&name), show(&value)))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let known = word(&name).filter(|n| !n.is_empty() && n.chars().all(plain) && name.is_string());
        let known = known.ok_or_else(|| fail("a name of letters, digits and `_`"))?;
        if known.starts_with("ENERGYLENS_") {
            return Err(fail("another name: those beginning with ENERGYLENS_ are set for every run"));
        }
        let value = word(&value).ok_or_else(|| fail("a text or a whole number"))?;
        if let Some(more) = more {
            template::check(&value, more).map_err(|e| fields.fail("env", e))?;
        }
        if variables.insert(known, value).is_none() && variables.len() > MOST_WORDS {
            return Err(fail("fewer variables"));
        }
    }
    Ok(variables)
}

fn word(value: &Value) -> Option<String> {
    let word = match value {
        Value::String(text) => text.to_str().ok()?.to_owned(),
        Value::Integer(n) => n.to_string(),
        _ => return None,
    };
    (word.len() <= LONGEST_WORD_BYTES && !word.contains('\0')).then_some(word)
}
