//! Where the program runs: what a reader of its figures should know of the place.

use std::path::Path;

use serde::Serialize;

/// The place, as far as it shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Environment {
    /// The Slurm job around this process.
    pub(super) slurm_job: Option<String>,
    /// What kind of container this is, if it is one.
    pub(super) container: Option<String>,
    /// Processors that this process may use.
    pub(super) processors: Option<usize>,
    /// Whether this process is root.
    pub(super) is_root: bool,
}

impl Environment {
    /// Of a process with these environment variables, on the file system below `root`.
    pub(super) fn look(variable: impl Fn(&str) -> Option<String>, root: &Path) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        let marked = |path: &str, kind: &str| root.join(path).exists().then(|| kind.to_owned());
        let container = named("APPTAINER_CONTAINER")
            .or_else(|| named("SINGULARITY_CONTAINER"))
            .map(|_| "apptainer".to_owned())
            .or_else(|| marked(".dockerenv", "docker"))
            .or_else(|| marked("run/.containerenv", "podman"))
            .or_else(|| named("container"));
        Self {
            slurm_job: named("SLURM_JOB_ID"),
            container,
            processors: std::thread::available_parallelism().ok().map(std::num::NonZero::get),
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// One sentence.
    pub(super) fn sentence(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.slurm_job.as_ref().map(|job| format!("inside of Slurm job {job}")));
        parts.extend(self.container.as_ref().map(|kind| format!("in a container ({kind})")));
        parts.extend(self.processors.map(|n| format!("on {n} processor{}", if n == 1 { "" } else { "s" })));
        parts.push(if self.is_root { "as root" } else { "without root" }.to_owned());
        format!("This runs {}.", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_containers_are_recognised() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let plain = Environment::look(|_| None, root.path());
        assert_eq!((plain.slurm_job, plain.container), (None, None));
        std::fs::write(root.path().join(".dockerenv"), "").expect("a writable directory");
        let inside = Environment::look(|name| (name == "SLURM_JOB_ID").then(|| "4711".to_owned()), root.path());
        assert_eq!((inside.slurm_job.as_deref(), inside.container.as_deref()), (Some("4711"), Some("docker")));
        assert!(inside.sentence().starts_with("This runs inside of Slurm job 4711, in a container (docker)"));
    }
}
