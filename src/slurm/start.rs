//! Where a sweep was submitted from: what its names are relative to, on every node.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::records::write_whole;

/// Where a sweep was submitted from. Kept in the campaign, so that tasks submitted again later start in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The script, absolute. What was submitted is a copy of it; its neighbours are where it was.
    pub script: PathBuf,
    /// The directory in which commands and servers start, absolute.
    pub directory: PathBuf,
}

impl Start {
    /// Keeps it in the campaign, with a copy of the script.
    pub fn keep(&self, campaign_dir: &Path) -> Result<(), Error> {
        let path = file(campaign_dir);
        let dir = campaign_dir.join("slurm");
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir, "created"))?;
        let copy = Self::script_copy(campaign_dir);
        std::fs::copy(&self.script, &copy).map_err(Error::io(&copy, "written"))?;
        let json = serde_json::to_vec(self).map_err(|source| Error::Foreign {
            path: path.clone(),
            expected: "place that JSON can hold",
            source,
        })?;
        write_whole(&path, &json)
    }

    /// What the campaign keeps.
    pub fn of_campaign(campaign_dir: &Path) -> Result<Self, Error> {
        let path = file(campaign_dir);
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Foreign {
            path,
            expected: "place that a sweep was submitted from",
            source,
        })
    }

    /// The script as it was when it was submitted, whatever became of it since.
    pub fn script_copy(campaign_dir: &Path) -> PathBuf {
        campaign_dir.join("slurm/sweep.lua")
    }
}

fn file(campaign_dir: &Path) -> PathBuf {
    campaign_dir.join("slurm/start.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_the_script_is_the_one_of_then() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("s.lua");
        std::fs::write(&script, "then").unwrap();
        let start = Start { script: script.clone(), directory: "/home/u".into() };
        start.keep(dir.path()).unwrap();
        std::fs::write(&script, "now").unwrap();
        assert_eq!(Start::of_campaign(dir.path()).unwrap(), start);
        assert_eq!(std::fs::read_to_string(Start::script_copy(dir.path())).unwrap(), "then");
        std::fs::write(dir.path().join("slurm/start.json"), "{}").unwrap();
        let foreign = Start::of_campaign(dir.path()).unwrap_err().to_string();
        assert!(foreign.ends_with("start.json is no place that a sweep was submitted from"), "{foreign}");
    }
}
