//! The campaign directory.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::lock::{self, Attempt, CampaignLock};
use super::sealed::{sync_directory, temporary_prefix};
use super::segment::{READY_SUFFIX, remove_spool, seal_spool};
use super::spool::{self, sealed_path};
use super::sql::is_lake;
use crate::schema::{FORMAT_VERSION, TABLES, Table};

const MARKER: &str = "campaign.json";
/// Files that other rooms may have put into a campaign before anything was recorded.
const PLAN_FILES: [&str; 2] = ["plan.json", "runs.jsonl"];

/// A directory of tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    dir: PathBuf,
}

/// One orphaned spool, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The spool.
    pub spool: PathBuf,
    /// What became of it.
    pub outcome: RecoveredAs,
}

/// What became of an orphaned spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveredAs {
    /// It is Parquet now.
    Sealed {
        /// The new file.
        path: PathBuf,
        /// Rows that were saved.
        rows: u64,
        /// Whether the last batch was cut off and lost.
        torn: bool,
    },
    /// It had been sealed already; only the leftover was removed.
    AlreadySealed,
    /// Not even its head had been written; it was removed.
    Empty,
    /// Its writer is alive, or the file system cannot tell; it was left alone.
    Live,
    /// It cannot be read as one of our tables; it was left alone, for the reason given.
    Refused(String),
}

impl Campaign {
    /// Opens the campaign in `dir`, or starts one there if `dir` is missing or empty.
    pub fn create_or_open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let content = content(dir)?;
        if !content.is_empty() && !is_campaign(&content) {
            return Err(Error::Occupied { path: dir.to_owned(), found: listed(&content) });
        }
        let marker = dir.join(MARKER);
        match OpenOptions::new().write(true).create_new(true).open(&marker) {
            Ok(mut file) => {
                let text = serde_json::json!({
                    "format_version": FORMAT_VERSION,
                    "created_by": concat!("energylens ", env!("CARGO_PKG_VERSION")),
                });
                writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(Error::io("write", &marker))?;
                sync_directory(dir)?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io("create", &marker)(e)),
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Opens an existing campaign; a directory that holds nothing but its tables will do.
    pub fn open(dir: &Path) -> Result<Self> {
        let content = content(dir)?;
        if is_campaign(&content) { Ok(Self { dir: dir.to_owned() }) } else { Err(not_a_campaign(dir, &content)) }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the exclusive right to run the campaign. Recording and reading need none.
    pub fn lock(&self) -> Result<CampaignLock> {
        CampaignLock::take(&self.dir)
    }

    /// Finishes what a killed [`merge`](super::merge()) had ready, and seals the spools whose writer has died. A torn tail loses only the batch that was not finished.
    pub fn recover(&self) -> Result<Vec<Recovered>> {
        // Whatever was merged is safe; its segments are only in the way.
        super::merge::finish_all(&self.dir)?;
        let mut spools: Vec<PathBuf> =
            content(&self.dir)?.into_iter().map(|name| self.dir.join(name)).filter(|p| spool::is_spool(p)).collect();
        spools.sort();
        let mut recovered = Vec::new();
        for spool in spools {
            if let Some(outcome) = recover_one(&spool)? {
                recovered.push(Recovered { spool, outcome });
            }
        }
        Ok(recovered)
    }
}

fn recover_one(spool: &Path) -> Result<Option<RecoveredAs>> {
    let file = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(spool) {
        Ok(file) => file,
        // Another user's, such as the daemon's.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(Some(RecoveredAs::Live)),
        // A link, put there by somebody: no writer makes one.
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(Some(RecoveredAs::Refused("it is a symbolic link".to_owned())));
        }
        // Sealed by its writer since the directory was listed.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", spool)(e)),
    };
    if lock::try_lock(&file, spool)? != Attempt::Held {
        return Ok(Some(RecoveredAs::Live));
    }
    // The lock is on the inode: its writer may have sealed and removed it before we got it.
    if !spool.exists() {
        return Ok(None);
    }
    if sealed_path(spool).exists() {
        remove_spool(spool)?;
        return Ok(Some(RecoveredAs::AlreadySealed));
    }
    remove_temporaries(spool)?;
    let Some(table) = table_of(spool) else {
        return Ok(Some(RecoveredAs::Refused("its name begins with no known table".to_owned())));
    };
    if !spool::has_whole_head(spool)? {
        // The head is written and flushed before the first row is accepted, so without a head there were no rows.
        remove_spool(spool)?;
        return Ok(Some(RecoveredAs::Empty));
    }
    match seal_spool(spool, table, &[("recovered".to_owned(), "true".to_owned())]) {
        Ok((path, rows, torn)) => {
            remove_spool(spool)?;
            Ok(Some(RecoveredAs::Sealed { path, rows, torn }))
        }
        Err(e @ (Error::Foreign { .. } | Error::Unreadable { .. })) => Ok(Some(RecoveredAs::Refused(e.to_string()))),
        Err(e) => Err(e),
    }
}

/// Removes what a killed sealing of this spool left under temporary names.
fn remove_temporaries(spool: &Path) -> Result<()> {
    let sealed = sealed_path(spool);
    let name = sealed.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let dir = crate::file::directory_of(spool);
    for leftover in content(dir)? {
        if leftover.starts_with(&temporary_prefix(&name)) && leftover.ends_with(".tmp") {
            let path = dir.join(leftover);
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn table_of(path: &Path) -> Option<&'static Table> {
    let name = path.file_name()?.to_str()?;
    TABLES.into_iter().find(|t| name.strip_prefix(t.name).is_some_and(|rest| rest.starts_with(['-', '.'])))
}

fn content(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("open", dir))?;
    entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(Error::io("list", dir))).collect()
}

fn is_campaign(content: &[String]) -> bool {
    content.iter().any(|name| {
        // Merged segments that a kill left under their hidden name.
        let name = name.strip_suffix(READY_SUFFIX).and_then(|n| n.strip_prefix('.')).unwrap_or(name);
        let is_table = name.ends_with(".parquet") || name.ends_with(spool::SPOOL_SUFFIX);
        name == MARKER || PLAN_FILES.contains(&name) || (is_table && table_of(Path::new(name)).is_some())
    })
}

fn not_a_campaign(dir: &Path, names: &[String]) -> Error {
    let is_one = |name: &&String| content(&dir.join(name)).is_ok_and(|names| is_campaign(&names));
    let near = names.iter().filter(is_one).min().map(|name| dir.join(name));
    let found = if is_lake(dir) { "a lake, with tables by date and node".to_owned() } else { listed(names) };
    Error::NotACampaign { path: dir.to_owned(), found, near }
}

/// What is in a directory, in few words.
fn listed(content: &[String]) -> String {
    // Names come from outside, and one of two lines would forge a message.
    let first = content.iter().min().map(|name| name.replace('\n', "\\n")).unwrap_or_default();
    match content.len() {
        0 => "an empty directory".to_owned(),
        1 => format!("`{first}`"),
        count => format!("`{first}` and {} more", count - 1),
    }
}
