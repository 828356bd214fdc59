//! Reading a JSON object of unknown origin key by key: every answer is checked, none panics.

use serde_json::{Map, Value};

use super::HuggingFaceError;

/// Largest count believed: beyond it products of counts would leave the range in which they are exact enough.
const LARGEST_COUNT: f64 = 1e9;

/// One object of a `config.json`, with objects looked into after the main one.
#[derive(Clone)]
pub(super) struct Keys<'a> {
    objects: Vec<&'a Map<String, Value>>,
}

impl<'a> Keys<'a> {
    /// The object itself, then the groups into which some models put half of their keys.
    pub(super) fn new(object: &'a Map<String, Value>) -> Self {
        const GROUPS: [&str; 3] = ["attn_config", "ffn_config", "ssm_cfg"];
        let mut objects = vec![object];
        objects.extend(GROUPS.iter().filter_map(|group| object.get(*group)?.as_object()));
        Self { objects }
    }

    /// The same, with another object for what this one lacks.
    pub(super) fn or_from(mut self, object: &'a Map<String, Value>) -> Self {
        self.objects.push(object);
        self
    }

    /// The first value under any of `names`; `null` counts as absent.
    pub(super) fn value(&self, names: &[&str]) -> Option<(&'a str, &'a Value)> {
        self.objects.iter().find_map(|object| {
            names.iter().find_map(|name| {
                object.get_key_value(*name).filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.as_str(), v))
            })
        })
    }

    /// A count: a whole number from 0, or absent.
    pub(super) fn count(&self, names: &[&str]) -> Result<Option<f64>, HuggingFaceError> {
        let Some((key, value)) = self.value(names) else { return Ok(None) };
        match value.as_f64() {
            Some(n) if n >= 0.0 && n <= LARGEST_COUNT && n.fract() == 0.0 => Ok(Some(n)),
            _ => Err(bad(key, "a whole number from 0 to 10^9", value)),
        }
    }

    /// A count of at least 1, or an error that names the first of `names`.
    pub(super) fn need(&self, names: &[&'static str]) -> Result<f64, HuggingFaceError> {
        match self.count(names)? {
            Some(n) if n >= 1.0 => Ok(n),
            Some(n) => {
                let key = names.first().copied().unwrap_or_default();
                Err(HuggingFaceError::BadValue { key: key.to_owned(), expected: "at least 1", found: n.to_string() })
            }
            None => Err(HuggingFaceError::MissingKey { keys: names.join("` or `") }),
        }
    }

    /// A real number, or absent.
    pub(super) fn ratio(&self, names: &[&str]) -> Result<Option<f64>, HuggingFaceError> {
        let Some((key, value)) = self.value(names) else { return Ok(None) };
        match value.as_f64() {
            Some(n) if n.is_finite() && (0.0..=1e6).contains(&n) => Ok(Some(n)),
            _ => Err(bad(key, "a number from 0 to 10^6", value)),
        }
    }

    /// `true` or `false`, or absent.
    pub(super) fn flag(&self, names: &[&str]) -> Option<bool> {
        self.value(names).and_then(|(_, v)| v.as_bool())
    }

    /// A text, or absent.
    pub(super) fn text(&self, names: &[&str]) -> Option<&'a str> {
        self.value(names).and_then(|(_, v)| v.as_str())
    }

    /// A list, or absent.
    pub(super) fn list(&self, names: &[&str]) -> Option<&'a [Value]> {
        self.value(names).and_then(|(_, v)| v.as_array()).map(Vec::as_slice)
    }

    /// An object inside, or absent.
    pub(super) fn object(&self, names: &[&str]) -> Option<&'a Map<String, Value>> {
        self.value(names).and_then(|(_, v)| v.as_object())
    }
}

/// The error for a value that is not what its key promises.
pub(super) fn bad(key: &str, expected: &'static str, found: &Value) -> HuggingFaceError {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(60) {
        found.truncate(cut);
        found.push_str("...");
    }
    HuggingFaceError::BadValue { key: key.to_owned(), expected, found }
}
