//! Where in the script something is: messages begin with `file:line`.

use std::sync::Arc;

use mlua::Lua;

use crate::sweep::Error;

/// A script's name and text.
#[derive(Clone)]
pub(super) struct Place {
    file: Arc<str>,
    lines: Arc<[String]>,
}

impl Place {
    pub(super) fn new(file: &str, source: &str) -> Self {
        Self { file: file.into(), lines: source.lines().map(str::to_owned).collect() }
    }

    /// How Lua is to call the chunk: `@` keeps it from wrapping the name in `[string "..."]`.
    pub(super) fn chunk_name(&self) -> String {
        format!("@{}", self.file)
    }

    pub(super) fn last_line(&self) -> usize {
        self.lines.len().max(1)
    }

    /// The line from which the running Rust function was called.
    pub(super) fn caller(&self, lua: &Lua) -> usize {
        (1..8).find_map(|level| lua.inspect_stack(level, |d| d.current_line())?).unwrap_or(1)
    }

    /// The line on which `key` is written, from line `from` on; `from` itself if it is nowhere.
    ///
    /// Lua gives a call over several lines the line it begins on, which is not where the slip is.
    pub(super) fn line_of(&self, key: &str, from: usize) -> usize {
        let holds = |line: &String| {
            let code = line.split("--").next().unwrap_or_default();
            code.match_indices(key).any(|(at, _)| {
                let before = code.get(..at).and_then(|s| s.chars().next_back());
                let rest = code.get(at + key.len()..).unwrap_or_default();
                let assigned = rest.trim_start_matches(['"', '\'', ']', ' ', '\t']);
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                    && assigned.starts_with('=')
                    && !assigned.starts_with("==")
            })
        };
        let start = from.saturating_sub(1);
        self.lines.iter().skip(start).position(holds).map_or(from, |offset| start + offset + 1)
    }

    /// An error of the running Rust function, at `line`.
    pub(super) fn fail_at(&self, line: usize, message: impl AsRef<str>) -> mlua::Error {
        mlua::Error::RuntimeError(format!("{}:{line}: {}", self.file, message.as_ref()))
    }

    /// An error of the running Rust function, at the line that called it.
    pub(super) fn fail(&self, lua: &Lua, message: impl AsRef<str>) -> mlua::Error {
        self.fail_at(self.caller(lua), message)
    }

    /// An error of one of Lua's own functions that a Rust function called: at the line that called that, if it has none.
    pub(super) fn placed(&self, lua: &Lua, error: mlua::Error) -> mlua::Error {
        match innermost(&error) {
            mlua::Error::RuntimeError(text) if !self.begins(text) => self.fail(lua, without_stack(text)),
            _ => error,
        }
    }

    /// Whether a message begins with a place in this script.
    fn begins(&self, text: &str) -> bool {
        text.strip_prefix(&*self.file).is_some_and(|rest| rest.starts_with(':'))
    }

    /// What is wrong with a sweep that was read well and cannot be laid out, at the field that it hangs on.
    pub(super) fn of_plan(&self, error: Error) -> Error {
        let field = match &error {
            Error::NothingFits { .. } | Error::TooMany { .. } => "axes",
            Error::TooFewFeasible { .. } | Error::StartTooSmall { .. } => "design",
            Error::Workload(_) => "workload",
            _ => return error,
        };
        Error::At { file: self.file.to_string(), line: self.line_of(field, 1), what: Box::new(error) }
    }

    /// The script's error as people should see it: the innermost cause, without Lua's stack.
    pub(super) fn error(&self, error: &mlua::Error) -> Error {
        let text = match innermost(error) {
            mlua::Error::RuntimeError(text) | mlua::Error::SyntaxError { message: text, .. } => text.clone(),
            mlua::Error::MemoryError(_) => "the script needs more memory than a sweep may use (64 MiB)".to_owned(),
            other => other.to_string(),
        };
        let text = without_stack(&text);
        // `error({})`: its address says nothing, and differs from run to run.
        let text =
            if text.starts_with("table: 0x") { "the script raised an error that is a table; use a text" } else { text };
        Error::Script(if self.begins(text) { text.to_owned() } else { format!("{}: {text}", self.file) })
    }
}

fn innermost(mut error: &mlua::Error) -> &mlua::Error {
    while let mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } = error {
        error = cause;
    }
    error
}

fn without_stack(text: &str) -> &str {
    text.split("\nstack traceback:").next().unwrap_or_default().trim()
}
