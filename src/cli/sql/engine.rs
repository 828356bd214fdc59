//! The DuckDB that there is: the program, or the module of a `python3`. Both do the same here.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use anyhow::Context;
use serde::Deserialize;

use super::output;

/// What Python does: the task, the views and the query are its arguments. A failure is one line.
const PYTHON: &str = include_str!("query.py");

/// Which DuckDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// `duckdb` on the PATH.
    Program,
    /// `python3` on the PATH, which has it.
    Python,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Table,
    Csv,
    Json,
}

/// What DuckDB says of a text that it parsed.
#[derive(Debug, Deserialize)]
struct Parsed {
    error: bool,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    statements: Vec<serde::de::IgnoredAny>,
}

impl Engine {
    /// The first that is there.
    pub(super) fn find() -> Option<Self> {
        [Self::Program, Self::Python].into_iter().find(|engine| {
            let question: &[&str] = if *engine == Self::Program { &["-version"] } else { &["-c", PYTHON] };
            let mut asked = Command::new(engine.program());
            asked.args(question).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            asked.status().is_ok_and(|status| status.success())
        })
    }

    fn program(self) -> &'static str {
        match self {
            Self::Program => "duckdb",
            Self::Python => "python3",
        }
    }

    /// What `query` is, if it is not one SELECT: nothing at all, several, or a statement that may change something.
    /// DuckDB itself parses it, without carrying it out.
    pub(super) fn other_than_one_select(self, query: &str) -> anyhow::Result<Option<String>> {
        let program = self.program();
        let asked = match self {
            Self::Program => {
                let question = format!("SELECT json_serialize_sql('{}')", query.replace('\'', "''"));
                self.output(&["-noheader", "-list", "-c", &question])?
            }
            Self::Python => self.output(&["-c", PYTHON, "parse", "", query])?,
        };
        let parsed: Parsed = serde_json::from_slice(&asked.stdout).with_context(|| {
            format!("{program} could not say what kind of statement this is; expected DuckDB 0.8 or newer")
        })?;
        Ok(match parsed.statements.len() {
            _ if parsed.error && parsed.error_type == "parser" => {
                anyhow::bail!("{program} could not read the query: {}", parsed.error_message)
            }
            _ if parsed.error => Some("a statement of another kind".to_owned()),
            0 => Some("nothing".to_owned()),
            1 => None,
            several => Some(format!("{several} statements")),
        })
    }

    /// Prints the result of `query` on stdout.
    pub(super) fn carry_out(self, views: &str, query: &str, form: Form) -> anyhow::Result<()> {
        let program = self.program();
        let mut arguments = match (self, form) {
            (Self::Program, Form::Table) => vec!["-bail"],
            (Self::Program, Form::Csv) => vec!["-bail", "-csv"],
            (Self::Program, Form::Json) => vec!["-bail", "-json"],
            (Self::Python, Form::Table) => vec!["-c", PYTHON, "table"],
            (Self::Python, Form::Csv) => vec!["-c", PYTHON, "csv"],
            (Self::Python, Form::Json) => vec!["-c", PYTHON, "json"],
        };
        match self {
            Self::Program => arguments.extend(["-c", views, "-c", query]),
            Self::Python => arguments.extend([views, query]),
        }
        let succeeded = if self == Self::Program && form == Form::Json {
            let said = self.output(&arguments)?;
            if said.status.success() {
                output::print_exactly(&valid_json(&String::from_utf8_lossy(&said.stdout)))?;
            }
            said.status.success()
        } else {
            let status = Command::new(program).args(&arguments).status();
            let status = status.with_context(|| format!("cannot run {program}"))?;
            // Whoever reads has seen enough, as `head` has.
            status.success() || status.signal() == Some(libc::SIGPIPE)
        };
        anyhow::ensure!(succeeded, "{program} could not carry out the query");
        Ok(())
    }

    /// Its stdout; what it says on stderr passes through.
    fn output(self, arguments: &[&str]) -> anyhow::Result<Output> {
        let program = self.program();
        let command = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        command.with_context(|| format!("cannot run {program}"))
    }
}

/// The rows that the program printed: it writes `NaN` and `Infinity`, for which JSON has no word, columns of one name as
/// equal keys, of which readers keep one, and nothing at all where there are no rows.
fn valid_json(rows: &str) -> String {
    if rows.trim().is_empty() {
        return "[]".to_owned();
    }
    let mut text = String::with_capacity(rows.len());
    let mut rest = rows;
    // Rows are objects in a list; what they hold lies deeper.
    const OF_A_ROW: u32 = 2;
    let (mut depth, mut keys) = (0_u32, HashSet::new());
    while let Some(first) = rest.chars().next() {
        match first {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth < OF_A_ROW {
            keys.clear();
        }
        let length = match first {
            '"' => string_length(rest),
            // A word or a number, whose letters (1e9) belong to it.
            c if c.is_ascii_alphanumeric() || c == '-' => {
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'))).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_no_number = token.trim_start_matches('-').starts_with(|c: char| c.is_ascii_alphabetic())
            && !matches!(token, "true" | "false" | "null");
        if depth == OF_A_ROW && first == '"' && after.trim_start().starts_with(':') {
            text.push_str(&distinct(token, &mut keys));
        } else {
            text.push_str(if is_no_number { "null" } else { token });
        }
        rest = after;
    }
    text
}

/// A key in its quotes, of which a second `"model"` becomes `"model_1"`.
fn distinct(quoted: &str, keys: &mut HashSet<String>) -> String {
    let body = quoted.strip_suffix('"').unwrap_or(quoted);
    let mut key = quoted.to_owned();
    let mut count = 0;
    while !keys.insert(key.clone()) {
        count += 1;
        key = format!("{body}_{count}\"");
    }
    key
}

/// Bytes of the string that `text` begins with, its quotes counted.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_no_number_become_null_and_nothing_else_changes() {
        let printed =
            r#"[{"NaN":NaN,"b":-Infinity,"c":[1.0,NaN,-2e-9,1E+5],"d":"NaN \" inf \\","e":true,"f":null,"ä":-nan}]"#;
        let expected =
            r#"[{"NaN":null,"b":null,"c":[1.0,null,-2e-9,1E+5],"d":"NaN \" inf \\","e":true,"f":null,"ä":null}]"#;
        assert_eq!(valid_json(printed), expected);
        assert!(serde_json::from_str::<serde_json::Value>(&valid_json(printed)).is_ok());
        assert_eq!(valid_json("\n"), "[]");
        let twice = r#"[{"m":"m","m":[{"m":1}],"m":2},
{"m":3,"n":{"m":4,"m":5}}]"#;
        let told = r#"[{"m":"m","m_1":[{"m":1}],"m_2":2},
{"m":3,"n":{"m":4,"m":5}}]"#;
        assert_eq!(valid_json(twice), told);
        // Cut off, as by a full pipe: no more than it was.
        assert_eq!(valid_json("[{\"a"), "[{\"a");
    }
}
