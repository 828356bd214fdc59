//! The jobs of a node, as they come and go.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{JobIds, JobPlaces, is_slurms, job_directory};

/// Jobs of one label. A node has some hundred cores.
const MOST_JOBS: usize = 256;

/// Which jobs are on the node: looked up about once a second by one, read for each row by others. The default watches
/// nothing, and knows no job.
#[derive(Debug, Clone, Default)]
pub struct JobWatch(Option<Arc<Watched>>);

#[derive(Debug)]
struct Watched {
    places: JobPlaces,
    /// The one job that we are part of: then it is ours that is recorded.
    own: Option<Arc<str>>,
    label: Mutex<Option<Arc<str>>>,
}

impl JobWatch {
    /// Watches the node. `variable` looks into this process's environment.
    pub fn start(places: JobPlaces, variable: impl Fn(&str) -> Option<String>) -> Self {
        let own = JobIds::own(&places, variable).map(|ids| Arc::from(ids.job_id));
        let watch = Self(Some(Arc::new(Watched { places, own, label: Mutex::new(None) })));
        watch.look();
        watch
    }

    /// Looks at the node. Costs one or two listings of directories.
    pub fn look(&self) {
        let Some(watched) = &self.0 else { return };
        let label = watched.own.clone().or_else(|| label(&jobs_of_node(&watched.places)));
        *watched.label.lock().unwrap_or_else(PoisonError::into_inner) = label;
    }

    /// The job on the node when it was last looked at; several are joined by `+`.
    pub fn label(&self) -> Option<Arc<str>> {
        self.0.as_ref().and_then(|watched| watched.label.lock().unwrap_or_else(PoisonError::into_inner).clone())
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
