//! A law as a self-contained function of another language.
//!
//! Start at [`export`] for a fitted law, at [`export_skeleton`] for the structure alone. What is exported computes in the
//! same order of operations as [`Law::contributions`](super::Law::contributions), known factors and limits included, so
//! that figures agree to rounding.
//!
//! Python, Rust, C and Lua are templates over the same data (`source`); SQL has no functions that one could rely on, so its
//! expression is put together in `sql`. LaTeX and JSON describe the law and compute nothing.
//!
//! Limits: the functions give the point prediction without its interval, and they do not refuse what lies outside the
//! measured range, which stands in their first lines.

mod code;
mod json;
mod latex;
mod select;
mod source;
mod sql;

use std::fmt;
use std::str::FromStr;

use super::model::Model;
use super::skeleton::Skeleton;
use super::target::Target;
use crate::schema::nearest;

/// A language that laws are exported to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python 3, standard library alone.
    Python,
    /// Rust, a module without dependencies.
    Rust,
    /// C99, a header of static functions.
    C,
    /// Lua 5.3 or later, a module.
    Lua,
    /// Columns of a select list, for DuckDB and PostgreSQL.
    Sql,
    /// LaTeX with amsmath.
    Latex,
    /// JSON: structure, numbers and cards.
    Json,
}

impl Language {
    /// Every language.
    pub const ALL: &'static [Language] =
        &[Self::Python, Self::Rust, Self::C, Self::Lua, Self::Sql, Self::Latex, Self::Json];

    /// The spelling on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Rust => "rust",
            Self::C => "c",
            Self::Lua => "lua",
            Self::Sql => "sql",
            Self::Latex => "latex",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Language {
    type Err = ExportError;
    fn from_str(text: &str) -> Result<Self, ExportError> {
        Self::ALL.iter().copied().find(|l| l.as_str() == text).ok_or_else(|| {
            let known = || Self::ALL.iter().map(|l| l.as_str());
            let hint = match nearest(text, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", known().collect::<Vec<_>>().join(", ")),
            };
            ExportError::UnknownLanguage { found: text.to_owned(), hint }
        })
    }
}

/// Which part of a model file is exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Part of a scenario's name (`MODEL / GPU / ENGINE / PRECISION`), where the file has several.
    pub scenario: Option<String>,
    /// The model whose card is put in, for laws that hold for several; all known cards where left out.
    pub model: Option<String>,
    /// What is exported; all that the scenario has laws of where empty.
    pub targets: Vec<Target>,
}

/// Why a law cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No such language.
    #[error("language `{found}` is unknown; {hint}")]
    UnknownLanguage {
        /// What was given.
        found: String,
        /// The nearest known one, or all of them.
        hint: String,
    },
    /// The file has no law.
    #[error("the model file has no law")]
    NoLaw,
    /// Several scenarios, and nothing says which.
    #[error("the model file has {count} scenarios, and one is exported at a time; name one with --scenario: {known}")]
    WhichScenario {
        /// How many.
        count: usize,
        /// Some of them.
        known: String,
    },
    /// Nothing of that name.
    #[error("no scenario is called `{asked}`; the model file has {known}")]
    UnknownScenario {
        /// What was asked.
        asked: String,
        /// What there is.
        known: String,
    },
    /// No card of that name.
    #[error("no card of `{asked}`; {hint}")]
    UnknownModel {
        /// What was asked.
        asked: String,
        /// What there is.
        hint: String,
    },
    /// The scenario has no law of it.
    #[error("{scope} has no law of {target}; it has {known}")]
    NoTarget {
        /// Scenario.
        scope: String,
        /// What was asked.
        target: Target,
        /// What there is.
        known: String,
    },
    /// A number of the law cannot be written.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// Its value.
        value: f64,
    },
    /// A template is wrong: ours.
    #[error("cannot write the law as {language}")]
    Template {
        /// Language.
        language: Language,
        /// Cause.
        source: minijinja::Error,
    },
    /// JSON could not be written.
    #[error("cannot write the law as JSON")]
    Json(#[from] serde_json::Error),
}

/// The selected laws of `model` as text of `language`.
pub fn export(model: &Model, selection: &Selection, language: Language) -> Result<String, ExportError> {
    write(&select::select(model, selection)?, language)
}

/// A structure without numbers: the functions take its coefficients `k` and exponents `a`, and the model's card.
pub fn export_skeleton(skeleton: &Skeleton, language: Language) -> Result<String, ExportError> {
    write(&source::Source::of_skeleton(skeleton), language)
}

fn write(source: &source::Source<'_>, language: Language) -> Result<String, ExportError> {
    source.check()?;
    match language {
        Language::Python | Language::Rust | Language::C | Language::Lua => code::write(source, language),
        Language::Sql => Ok(sql::write(source)),
        Language::Latex => Ok(latex::write(source)),
        Language::Json => json::write(source),
    }
}
