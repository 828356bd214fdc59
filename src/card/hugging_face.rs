//! Model cards from a Hugging Face style `config.json` on disk.
//!
//! Parameters are counted from shapes, not read: embeddings (tied or not), attention with grouped or compressed keys,
//! gated or plain MLPs, experts, state-space projections, the vision tower. Biases and norms are counted only where
//! they are worth counting (below 0.1 % elsewhere). A key that a model type needs and the file lacks is named.
//!
//! This is wrong when a model keeps only a window of its KV cache (the card's figure is that of unbounded attention),
//! and for blocks used several times (Zamba2): they are counted once, as memory counts them.

mod keys;
mod layers;
mod shape;
#[cfg(test)]
mod tests;
mod weights;

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::shape::Shape;
use super::ModelCard;

/// Largest `config.json` read; real ones have a few kilobytes, those with quantisation lists a few hundred.
const LARGEST_FILE_BYTES: u64 = 16 << 20;

/// Why a `config.json` gave no card.
#[derive(Debug, thiserror::Error)]
pub enum HuggingFaceError {
    /// The file could not be read.
    #[error("model configuration {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A pipe, a socket or a device.
    #[error("model configuration {path} is a pipe or a device; expected a regular file")]
    NoFile {
        /// Where it lies.
        path: PathBuf,
    },
    /// The file is far larger than any configuration.
    #[error("model configuration {path} has {found_bytes} bytes; expected at most {LARGEST_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found_bytes: u64,
    },
    /// The file is no JSON.
    #[error("model configuration {path} is not JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
    /// The JSON is something else than an object.
    #[error("model configuration is {found}; expected an object with keys such as `hidden_size`")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A key that the model type needs.
    #[error("model configuration has no key `{keys}`")]
    MissingKey {
        /// The key, and its other spellings.
        keys: String,
    },
    /// A key with a value that cannot be meant.
    #[error("model configuration key `{key}` is {found}; expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The file is sound JSON but gives no card; names the file for the error inside.
    #[error("model configuration {path} gives no card")]
    InFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<HuggingFaceError>,
    },
}

impl ModelCard {
    /// The card of the model whose `config.json` lies at `path`, or in the directory `path`.
    ///
    /// The card is called `name`; without one, as the file says (`_name_or_path`), else as its directory.
    pub fn from_hugging_face(path: &Path, name: Option<&str>) -> Result<Self, HuggingFaceError> {
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        let read_error = |source| HuggingFaceError::Read { path: file.clone(), source };
        // A pipe that nobody writes into would be waited for, for ever.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&file).map_err(read_error)?;
        let metadata = opened.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            return Err(HuggingFaceError::NoFile { path: file });
        }
        let found_bytes = metadata.len();
        // Some files of /proc and /sys do not say how long they are.
        let mut bytes = Vec::new();
        opened.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() as u64 > LARGEST_FILE_BYTES {
            return Err(HuggingFaceError::TooLarge { path: file, found_bytes: found_bytes.max(bytes.len() as u64) });
        }
        let config: Value =
            serde_json::from_slice(&bytes).map_err(|source| HuggingFaceError::Json { path: file.clone(), source })?;
        let name = name.map_or_else(|| name_of(&config, &file), str::to_owned);
        Self::from_config(&name, &config)
            .map_err(|source| HuggingFaceError::InFile { path: file, source: Box::new(source) })
    }

    /// The card of a configuration already in memory.
    pub fn from_config(name: &str, config: &Value) -> Result<Self, HuggingFaceError> {
        let Value::Object(object) = config else {
            return Err(HuggingFaceError::NotAnObject { found: kind_of(config) });
        };
        Shape::read(object).and_then(|shape| shape.card(name))
    }
}

/// `_name_or_path` where it reads like `owner/model`; a path of the machine that trained it says nothing to anybody.
fn name_of(config: &Value, file: &Path) -> String {
    let own = config.get("_name_or_path").and_then(Value::as_str).filter(|n| {
        let mut parts = n.split('/');
        matches!((parts.next(), parts.next(), parts.next()), (Some(o), Some(m), None) if !o.is_empty() && !m.is_empty() && !o.starts_with('.'))
    });
    let of_file = || {
        let stem = if file.file_name().is_some_and(|n| n == "config.json") {
            file.parent().and_then(Path::file_name)
        } else {
            file.file_stem()
        };
        stem.map_or_else(|| "model".to_owned(), |s| s.to_string_lossy().into_owned())
    };
    own.map_or_else(of_file, str::to_owned)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
