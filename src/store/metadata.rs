//! The key-value metadata that stands in every file: who wrote it, from which devices, and on which clock.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use parquet::file::metadata::KeyValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::decode::contained;
use super::error::{Error, Result};
use super::footer::open_parquet;
use crate::clock::ClockAnchor;
use crate::schema::{FORMAT_VERSION, Table};
use crate::source::Device;

const PREFIX: &str = "energylens.";

/// Under which a file's metadata says which recording it is a part of, prefix included.
pub(super) const RECORDING_ID_KEY: &str = "energylens.recording_id";

/// What a file says about itself, beside format version, energylens version and table name.
#[derive(Debug, Clone, PartialEq)]
pub struct FileMetadata {
    /// Host name of the node that measured.
    pub host: String,
    /// Driver and its version, as the source names it; empty where there is none.
    pub driver: String,
    /// The device table: what the `device` column refers to.
    pub devices: Vec<Device>,
    /// One instant on both clocks.
    pub anchor: ClockAnchor,
    /// Anything else, by key without the `energylens.` prefix; summaries are JSON.
    pub extra: BTreeMap<String, String>,
}

impl FileMetadata {
    /// Metadata without devices: of tables that are not recordings.
    pub fn of_host(host: &str, anchor: ClockAnchor) -> Self {
        Self { host: host.to_owned(), driver: String::new(), devices: Vec::new(), anchor, extra: BTreeMap::new() }
    }

    /// Says which recording the file is a part of, unless that is said already: another start of a recorder is another
    /// recording, on the same host too.
    pub fn name_recording(&mut self) {
        let name = || format!("{:x}-{}", self.anchor.t_unix_ns, std::process::id());
        let key = RECORDING_ID_KEY.trim_start_matches(PREFIX).to_owned();
        self.extra.entry(key).or_insert_with(name);
    }

    /// Keys and values as they stand in a file of `table`.
    pub(super) fn to_pairs(&self, table: &Table) -> BTreeMap<String, String> {
        let own = [
            ("format_version", FORMAT_VERSION.to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("table", table.name.to_owned()),
            ("host", self.host.clone()),
            ("driver", self.driver.clone()),
            ("devices", json(&self.devices)),
            ("clock_anchor", json(&self.anchor)),
        ];
        let extra = self.extra.iter().map(|(k, v)| (k.as_str(), v.clone()));
        // Own keys last: an extra of the same name does not shadow them.
        extra.chain(own).map(|(k, v)| (format!("{PREFIX}{k}"), v)).collect()
    }

    /// Reads back what [`to_pairs`](Self::to_pairs) wrote. `path` is for messages only.
    pub(super) fn from_pairs(pairs: &HashMap<String, String>, path: &Path) -> Result<Self> {
        let mut own: BTreeMap<String, String> =
            pairs.iter().filter_map(|(k, v)| Some((k.strip_prefix(PREFIX)?.to_owned(), v.clone()))).collect();
        let foreign = |expected: &str, found: String| Error::Foreign {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let version = own
            .remove("format_version")
            .ok_or_else(|| foreign("a file written by energylens", "one without energylens metadata".to_owned()))?;
        if version != FORMAT_VERSION {
            let found = format!("format version {version}; a newer energylens reads it");
            return Err(foreign(&format!("format version {FORMAT_VERSION}"), found));
        }
        own.remove("version");
        own.remove("table");
        Ok(Self {
            host: own.remove("host").unwrap_or_default(),
            driver: own.remove("driver").unwrap_or_default(),
            devices: parsed(&mut own, "devices", path)?,
            anchor: parsed(&mut own, "clock_anchor", path)?,
            extra: own,
        })
    }
}

fn json<T: Serialize>(value: &T) -> String {
    // Plain structs with string keys always serialise; an empty value would be refused when read, not misread.
    serde_json::to_string(value).unwrap_or_default()
}

fn parsed<T: DeserializeOwned>(own: &mut BTreeMap<String, String>, key: &str, path: &Path) -> Result<T> {
    let text = own.remove(key).unwrap_or_default();
    serde_json::from_str(&text).map_err(|e| Error::Foreign {
        path: path.to_owned(),
        expected: format!("metadata `{PREFIX}{key}` in JSON"),
        found: format!("{text:.80} ({e})"),
    })
}

/// Reads the metadata of a sealed file or of a spool.
pub fn read_metadata(path: &Path) -> Result<FileMetadata> {
    FileMetadata::from_pairs(&read_pairs(path)?, path)
}

/// Keys and values as they stand in a sealed file or a spool, prefix included.
pub(super) fn read_pairs(path: &Path) -> Result<HashMap<String, String>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    if super::spool::is_spool(path) {
        let schema = super::spool::open(file, path)?.schema();
        return Ok(schema.metadata().iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    }
    let builder = contained(|| open_parquet(file)).map_err(Error::unreadable(path, "Parquet"))?;
    let pairs = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    Ok(pairs.into_iter().filter_map(|KeyValue { key, value }| Some((key, value?))).collect())
}

/// The value of `key`, given without prefix.
pub(super) fn value_of<'a>(pairs: &'a HashMap<String, String>, key: &str) -> Option<&'a str> {
    pairs.get(&format!("{PREFIX}{key}")).map(String::as_str)
}
