//! Tables that scripts pass, read strictly.

use mlua::{Lua, Table, Value};

use super::place::Place;
use super::sandbox::unknown;

/// A table whose keys have been checked, and where it was written.
pub(super) struct Fields<'a> {
    pub(super) place: &'a Place,
    /// Line on which the call that got the table begins.
    pub(super) line: usize,
    /// What the table is: `el.sweep`, `axes`.
    what: &'static str,
    table: Table,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which must be a table with no other keys than `known` and `list` values without a key.
    pub(super) fn new(
        lua: &Lua,
        place: &'a Place,
        value: &Value,
        what: &'static str,
        kind: &str,
        known: &[&str],
        list: usize,
    ) -> mlua::Result<Self> {
        Self::at(place, place.caller(lua), value, what, kind, known, list)
    }

    /// The same, for a table inside another.
    pub(super) fn at(
        place: &'a Place,
        line: usize,
        value: &Value,
        what: &'static str,
        kind: &str,
        known: &[&str],
        list: usize,
    ) -> mlua::Result<Self> {
        #[cfg(test)]
        tests::SEEN.with_borrow_mut(|seen| seen.extend(known.iter().map(|key| (what, (*key).to_owned()))));
        let Value::Table(table) = value else {
            return Err(place.fail_at(line, format!("{what} is {}; expected a table {{ ... }}", show(value))));
        };
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::String(key) if known.iter().any(|k| key.as_bytes() == k.as_bytes()) => {}
                Value::Integer(i) if i >= 1 && i as u64 <= list as u64 => {}
                Value::String(key) => {
                    let key = Value::String(key);
                    let text = show(&key);
                    let at = place.line_of(text.trim_matches('`'), line);
                    return Err(place.fail_at(at, unknown(what, kind, &text, known.iter().copied())));
                }
                other => {
                    let message = match list {
                        0 => format!("{what} takes named fields; found a value without a name (at {})", show(&other)),
                        _ => format!("{what} takes {list} values; found one at {}", show(&other)),
                    };
                    return Err(place.fail_at(line, message));
                }
            }
        }
        Ok(Self { place, line, what, table: table.clone() })
    }

    pub(super) fn get(&self, key: &str) -> mlua::Result<Value> {
        self.table.raw_get(key)
    }

    /// Value number `i` of those without a key, from 1.
    pub(super) fn positional(&self, i: usize) -> mlua::Result<Value> {
        self.table.raw_get(i)
    }

    pub(super) fn line_of(&self, key: &str) -> usize {
        self.place.line_of(key, self.line)
    }

    /// An error about `key`.
    pub(super) fn fail(&self, key: &str, message: impl AsRef<str>) -> mlua::Error {
        self.place.fail_at(self.line_of(key), message)
    }

    fn expected(&self, key: &str, expected: &str, found: &Value) -> mlua::Error {
        let message = match found {
            Value::Nil => format!("{} needs `{key}`: {expected}", self.what),
            found => format!("`{key}` is {}; expected {expected}", show(found)),
        };
        self.fail(key, message)
    }

    /// The value under `key`, or an error that says what belongs there.
    pub(super) fn need(&self, key: &str, expected: &str) -> mlua::Result<Value> {
        match self.get(key)? {
            Value::Nil => Err(self.expected(key, expected, &Value::Nil)),
            value => Ok(value),
        }
    }

    pub(super) fn text(&self, key: &str, expected: &str) -> mlua::Result<String> {
        let value = self.get(key)?;
        match &value {
            Value::String(text) => {
                text.to_str().map(|s| s.to_owned()).map_err(|_| self.expected(key, expected, &value))
            }
            other => Err(self.expected(key, expected, other)),
        }
    }

    /// A number from `low` to `high`; `default` where it is absent, an error where there is none.
    pub(super) fn number(&self, key: &str, low: f64, high: f64, default: Option<f64>) -> mlua::Result<f64> {
        let value = self.get(key)?;
        match (as_number(&value), &value, default) {
            (Some(n), _, _) if (low..=high).contains(&n) => Ok(n),
            (_, Value::Nil, Some(default)) => Ok(default),
            _ => Err(self.expected(key, &format!("a number from {low} to {high}"), &value)),
        }
    }

    /// A whole number from `low` to `high`.
    pub(super) fn whole(&self, key: &str, low: u64, high: u64, default: Option<u64>) -> mlua::Result<u64> {
        let value = self.get(key)?;
        match (as_whole(&value), &value, default) {
            (Some(n), _, _) if (low..=high).contains(&n) => Ok(n),
            (_, Value::Nil, Some(default)) => Ok(default),
            _ => Err(self.expected(key, &format!("a whole number from {low} to {high}"), &value)),
        }
    }
}

pub(super) fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Number(n) if n.is_finite() => Some(*n),
        _ => None,
    }
}

/// A whole number from 0, also where Lua made a float of it (`1e3`, `64 / 2`).
pub(super) fn as_whole(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        Value::Number(n) if n.fract() == 0.0 && (0.0..=9e15).contains(n) => Some(*n as u64),
        _ => None,
    }
}

/// A value as messages show it: short.
pub(super) fn show(value: &Value) -> String {
    const LONGEST: usize = 40;
    match value {
        Value::String(text) => {
            let text = text.to_string_lossy();
            match text.char_indices().nth(LONGEST) {
                Some((cut, _)) => format!("`{}...`", text.get(..cut).unwrap_or_default()),
                None => format!("`{text}`"),
            }
        }
        Value::Integer(n) => n.to_string(),
        // 1e300 has 301 digits.
        Value::Number(n) if n.is_finite() && *n != 0.0 && !(1e-5..1e15).contains(&n.abs()) => format!("{n:e}"),
        Value::Number(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Nil => "nil".to_owned(),
        Value::UserData(data) => super::api::kind(data).to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        /// Every key that a table was allowed to have so far, with the table: what a reference must hold.
        pub(in crate::sweep::script) static SEEN: RefCell<BTreeSet<(&'static str, String)>> = RefCell::default();
    }
}
