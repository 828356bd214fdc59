//! What the runs of a sweep find around them on a real node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::visible::VisibleDevices;
use super::{Error, Point, Run};
use crate::store::MarkRow;
use crate::units::ns_to_s;

/// How often whoever waits looks whether he should stop.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// The node as a workload sees it. The sweep does not know who records: it is told where things are.
#[derive(Debug)]
pub struct Surroundings {
    /// The campaign directory; logs go to `logs` inside of it.
    pub dir: PathBuf,
    /// Counters that runs can call theirs.
    pub devices: VisibleDevices,
    /// Where marks are taken; `None` where they cannot be.
    pub marks: Option<MarksTaken>,
    /// The script that the plan came from, for its `run`.
    pub script: Option<ScriptFile>,
    /// Set when somebody asked to stop.
    pub stop: Arc<AtomicBool>,
    /// Refresh period of the slowest counter, ns, as far as the recorder has learnt it; 0 before.
    pub slowest_refresh_ns: Arc<AtomicI64>,
}

/// A window shall hold this many refreshes of every counter: its edges then blur some per cent of it at worst.
const WINDOW_REFRESHES: f64 = 20.0;
/// Idle time after the last window of a run, s: some refreshes of the slowest counters known (100 ms)...
pub(super) const CLOSING_S: f64 = 0.5;
/// ... or so many of one that is slower still.
const CLOSING_REFRESHES: f64 = 5.0;

/// The script that a plan came from. A copy of it may be what lies at hand, its neighbours elsewhere.
#[derive(Debug, Clone)]
pub struct ScriptFile {
    /// Where its text lies.
    pub text: PathBuf,
    /// What messages call it, and beside what relative names in it are looked for.
    pub origin: PathBuf,
}

impl ScriptFile {
    /// One that lies where it was written.
    pub fn at(path: &Path) -> Self {
        Self { text: path.to_owned(), origin: path.to_owned() }
    }
}

/// Where marks are taken, and what has come.
#[derive(Debug)]
pub struct MarksTaken {
    /// The socket's path, for `$ENERGYLENS_MARKS`.
    pub path: PathBuf,
    /// Every mark that was taken, as it comes.
    pub heard: Receiver<MarkRow>,
}

impl Surroundings {
    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn slowest_refresh_s(&self) -> f64 {
        ns_to_s(self.slowest_refresh_ns.load(Ordering::Relaxed))
    }

    /// How long a window must be of which a sweep says `asked_s`: long enough for the counters too.
    pub fn window_s(&self, asked_s: f64) -> f64 {
        asked_s.max(WINDOW_REFRESHES * self.slowest_refresh_s())
    }

    /// How long the counters are given after the last window of a run.
    pub fn closing_s(&self) -> f64 {
        CLOSING_S.max(CLOSING_REFRESHES * self.slowest_refresh_s())
    }

    /// Sleeps, or less long when somebody asks to stop.
    pub fn sleep(&self, duration_s: f64) {
        sleep(duration_s, &self.stop);
    }

    /// The file that what `name` prints is appended to; its directory is there.
    pub fn log(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join("logs");
        std::fs::create_dir_all(&dir).map_err(|e| format!("{} cannot be created: {e}", dir.display()))?;
        Ok(dir.join(format!("{name}.log")))
    }

    /// What the environment of everything gets that is started for a run at this point: the GPUs that are its own, where
    /// marks go, the point's values as `ENERGYLENS_BATCH_SIZE` and so on.
    pub fn environment(&self, run: &Run, point: &Point) -> Vec<(String, String)> {
        let mut variables = self.devices.environment(point.num_gpus());
        variables.push(("ENERGYLENS_RUN_ID".to_owned(), run.run_id.clone()));
        if let Some(marks) = &self.marks {
            variables.push(("ENERGYLENS_MARKS".to_owned(), marks.path.to_string_lossy().into_owned()));
        }
        for name in super::template::POINT_NAMES {
            let value = super::template::value(point, name).unwrap_or_default();
            variables.push((format!("ENERGYLENS_{}", name.to_ascii_uppercase()), value));
        }
        // What a name cannot say: a program that builds the model needs its sizes.
        if let Ok(card) = serde_json::to_string(&point.model) {
            variables.push(("ENERGYLENS_MODEL_CARD".to_owned(), card));
        }
        variables
    }

    /// The script's text, as long as it is the one that was planned.
    pub(super) fn script_source(&self, sha256: &str) -> Result<(String, String, PathBuf), Error> {
        let ScriptFile { text: path, origin } = self.script.as_ref().ok_or_else(|| {
            Error::Workload(
                "the plan's `run` is in its script, and the script is not at hand; run it from there".into(),
            )
        })?;
        let source = std::fs::read_to_string(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            verb: "read",
            source,
        })?;
        if super::plan::script_hash(&source) != sha256 {
            return Err(Error::Workload(format!("{} has changed since it was planned; run it again", path.display())));
        }
        let name = origin.file_name().map_or_else(|| "sweep.lua".to_owned(), |n| n.to_string_lossy().into_owned());
        Ok((name, source, origin.parent().unwrap_or(Path::new(".")).to_owned()))
    }
}

/// Sleeps, or less long when `stop` is set.
pub(super) fn sleep(duration_s: f64, stop: &AtomicBool) {
    let deadline = Instant::now() + Duration::try_from_secs_f64(duration_s).unwrap_or_default();
    while !stop.load(Ordering::Relaxed) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(LOOK));
    }
}
