//! The decisions of an adaptive sweep on disk, a line each.

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

use super::{Error, io, open_lines, read_lines};
use crate::sweep::adaptive::Decision;

const FILE: &str = "decisions.jsonl";

/// What the adaptive sweep in `dir` has decided so far; nothing, where it is none or has not come so far.
pub fn read_decisions(dir: &Path) -> Result<Vec<Decision>, Error> {
    let path = dir.join(FILE);
    match File::open(&path) {
        Ok(mut file) => read(&path, &mut file).map(|(decisions, _)| decisions),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io(&path, "read")(e)),
    }
}

/// The same, and a line without its end is cut off.
pub(super) fn cut_to_whole(dir: &Path) -> Result<Vec<Decision>, Error> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut file = open_lines(&path).map_err(io(&path, "opened"))?;
    let (decisions, whole_bytes) = read(&path, &mut file)?;
    file.set_len(whole_bytes).map_err(io(&path, "cut to its whole lines"))?;
    Ok(decisions)
}

/// Puts a line behind the others, on the disk.
pub(super) fn append(dir: &Path, decision: &Decision) -> Result<(), Error> {
    let path = dir.join(FILE);
    let mut line = serde_json::to_vec(decision).map_err(|source| Error::Json { path: path.clone(), source })?;
    line.push(b'\n');
    let write = |mut file: File| {
        file.seek(SeekFrom::End(0))?;
        file.write_all(&line)?;
        file.sync_all()
    };
    open_lines(&path).and_then(write).map_err(io(&path, "written"))?;
    // The first line makes the file, whose name must survive a power failure too.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir, "written"))
}

fn read(path: &Path, file: &mut File) -> Result<(Vec<Decision>, u64), Error> {
    let mut decisions = Vec::new();
    let whole_bytes = read_lines(path, file, parsed, &mut |decision| {
        decisions.push(decision);
        Ok(())
    })?;
    Ok((decisions, whole_bytes))
}

fn parsed(path: &Path, line: usize, text: &[u8]) -> Result<Decision, Error> {
    let foreign = |source| Error::Foreign { path: path.to_owned(), line, expected: "decision", source };
    serde_json::from_slice(text).map_err(foreign)
}
