//! The jobs of a node over time.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::{JobIds, JobPlaces, is_slurms, job_directory};

/// Changes that are remembered: rows wait for the disk for minutes at most, and jobs do not change by the second.
const REMEMBERED: usize = 1_024;
/// Jobs of one label. A node has some hundred cores.
const MOST_JOBS: usize = 256;

/// Looks now and then which jobs are on the node, and knows which were there at an instant.
#[derive(Debug)]
pub struct JobWatch {
    /// The one job that we are part of: then it is ours that is recorded.
    own: Option<Arc<str>>,
    places: JobPlaces,
    /// From when on which label held, in time order.
    changes: VecDeque<(i64, Option<Arc<str>>)>,
}

impl JobWatch {
    /// Watches from the instant `t_mono_ns` on. `variable` looks into this process's environment.
    pub fn start(places: JobPlaces, variable: impl Fn(&str) -> Option<String>, t_mono_ns: i64) -> Self {
        let own = JobIds::own(&places, variable).map(|ids| Arc::from(ids.job_id));
        let mut watch = Self { own, places, changes: VecDeque::new() };
        watch.look(t_mono_ns);
        watch
    }

    /// Looks at the node. Costs one or two listings of directories.
    pub fn look(&mut self, t_mono_ns: i64) {
        let label = match &self.own {
            Some(own) => Some(own.clone()),
            None => label(&jobs_of_node(&self.places)),
        };
        if self.changes.back().is_none_or(|(_, last)| *last != label) {
            if self.changes.len() == REMEMBERED {
                self.changes.pop_front();
            }
            self.changes.push_back((t_mono_ns, label));
        }
    }

    /// The job on the node at an instant; several are joined by `+`.
    pub fn label_at(&self, t_mono_ns: i64) -> Option<Arc<str>> {
        let since = self.changes.iter().rev().find(|(from, _)| *from <= t_mono_ns);
        since.or(self.changes.front()).and_then(|(_, label)| label.clone())
    }
}

fn label(jobs: &BTreeSet<u64>) -> Option<Arc<str>> {
    let ids: Vec<String> = jobs.iter().take(MOST_JOBS).map(u64::to_string).collect();
    (!ids.is_empty()).then(|| Arc::from(ids.join("+")))
}

/// Jobs that have a cgroup on this node.
fn jobs_of_node(places: &JobPlaces) -> BTreeSet<u64> {
    let root = &places.cgroup_root;
    let mut scopes = slurms_directories(root.join("system.slice"));
    // v1 has a tree per controller; Slurm makes its own in those that it uses, and one of them is enough.
    for controller in ["", "freezer", "memory", "cpuset", "cpu,cpuacct", "devices", "cpuacct"] {
        if !scopes.is_empty() {
            break;
        }
        let trees = slurms_directories(root.join(controller));
        scopes = trees.into_iter().flat_map(|tree| directories(tree, |name| name.starts_with("uid_"))).collect();
    }
    scopes.into_iter().flat_map(jobs_in).collect()
}

fn slurms_directories(place: PathBuf) -> Vec<PathBuf> {
    directories(place, is_slurms)
}

fn directories(place: PathBuf, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_str().is_some_and(&is_wanted)).map(|e| e.path()).collect()
}

fn jobs_in(scope: PathBuf) -> Vec<u64> {
    let entries = std::fs::read_dir(scope).into_iter().flatten().flatten();
    entries.filter_map(|e| job_directory(e.file_name().to_str()?)?.parse().ok()).collect()
}
