//! What a server's log says about a failure: the one or two lines among thousands that name the cause.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::stream::short;

/// A failure stands at the end of a log, before some hundred lines of traceback for each worker.
const TAIL_BYTES: u64 = 512 << 10;
/// Of the beginning, where a server says what it has set up, so much is read.
const HEAD_BYTES: u64 = 8 << 20;

/// The first megabytes of a log; empty where it cannot be read.
pub(super) fn head(log: &Path) -> String {
    read(log, 0, HEAD_BYTES)
}

fn read(log: &Path, from: u64, length: u64) -> String {
    let mut bytes = Vec::new();
    // A log that cannot be read has nothing to say.
    let _ = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(length).read_to_end(&mut bytes)
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Words for why a server failed, from its log.
pub(super) fn why(log: &Path) -> String {
    let length = std::fs::metadata(log).map_or(0, |m| m.len());
    let text = read(log, length.saturating_sub(TAIL_BYTES), TAIL_BYTES);
    let told = match telling(&text) {
        Some(told) => told,
        None => "it printed nothing".to_owned(),
    };
    format!("{told}; its log is {}", log.display())
}

/// Whether the log says that the port was taken.
pub(super) fn says_port_is_taken(log: &Path) -> bool {
    let length = std::fs::metadata(log).map_or(0, |m| m.len());
    let text = read(log, length.saturating_sub(TAIL_BYTES), TAIL_BYTES).to_lowercase();
    PORT_TAKEN.iter().any(|words| text.contains(words))
}

const PORT_TAKEN: [&str; 3] =
    ["address already in use", "couldn't bind http server socket", "port is already allocated"];

const OUT_OF_MEMORY: [&str; 9] = [
    "out of memory",
    "outofmemory",
    "not enough memory",
    "no available memory for the cache blocks",
    "free memory on device",
    "failed to allocate",
    "cannot allocate memory",
    "insufficient memory",
    "larger than the maximum number of tokens that can be stored in kv cache",
];

const BAD_OPTION: [&str; 5] =
    ["unrecognized arguments", "invalid argument", "unknown argument", "invalid choice", "expected one argument"];

/// The line or two that tell most, and in front of them what they mean where that is known.
fn telling(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    let most = lines.iter().map(|line| weight(line)).max()?;
    let mut chosen: Vec<&str> = match most {
        0 => lines.iter().rev().take(2).rev().copied().collect(),
        // What is raised first is the cause, and what is raised last its consequence.
        _ => lines.iter().find(|line| weight(line) == most).into_iter().copied().collect(),
    };
    chosen.dedup();
    let told: Vec<String> = chosen.iter().map(|line| format!("\"{}\"", short(line))).collect();
    let has = |known: &[&str]| chosen.iter().any(|line| holds(line, known));
    let meaning = match () {
        () if has(&OUT_OF_MEMORY) => "out of memory: ",
        () if has(&PORT_TAKEN) => "the port is taken: ",
        () if has(&BAD_OPTION) => "it does not know an option: ",
        () => "",
    };
    Some(format!("{meaning}{}", told.join(" ")))
}

/// A line without what loggers put before it: `(Worker pid=3) ERROR 09-28 15:47:24 [core.py:718] ...`.
fn plain(line: &str) -> &str {
    let line = line.trim();
    let is_prefix = |head: &str| head.len() < 100 && (head.contains(".py:") || head.ends_with(char::is_numeric));
    match line.find("] ").map(|at| line.split_at(at + 2)) {
        Some((head, rest)) if is_prefix(head.trim_end_matches("] ")) && !rest.trim().is_empty() => rest.trim(),
        _ => line,
    }
}

fn holds(line: &str, known: &[&str]) -> bool {
    let line = line.to_lowercase();
    known.iter().any(|words| line.contains(words))
}

/// How much a line tells about a failure.
fn weight(line: &str) -> u8 {
    let is_exception = line.split(' ').next().is_some_and(|word| {
        let name = word.trim_end_matches(':');
        name.len() < word.len() && (name.ends_with("Error") || name.ends_with("Exception"))
    });
    // Says only that there is a cause elsewhere.
    let points_away = holds(line, &["see root cause above", "engine core initialization failed"]);
    match () {
        () if holds(line, &OUT_OF_MEMORY) || holds(line, &PORT_TAKEN) || holds(line, &BAD_OPTION) => 4,
        () if is_exception && !points_away => 3,
        () if holds(line, &["error:", "fatal", "failed to", "no such file", "not found"]) => 2,
        () if holds(line, &["error", "failed", "exception", "abort"]) => 1,
        () => 0,
    }
}

#[cfg(test)]
mod tests;
