//! A command as a workload: started once per run, it marks its phases and may leave its counts in a file.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Trouble;
use super::own_phases::{Counts, OwnMark, OwnPhases};
use super::spec::CommandSpec;
use crate::sweep::process::{PATIENCE, Process};
use crate::sweep::server::orphan::{self, Note, Tag};
use crate::sweep::surroundings::Surroundings;
use crate::sweep::{Measure, Point, Run, template};

/// Words beside the point's values that a command's template may hold.
pub(in crate::sweep) const COMMAND_NAMES: [&str; 5] =
    ["run_id", "result", "min_window_s", "warmup_batches", "max_batches"];

/// Marks that were sent before the command ended are taken from the socket within this.
const MARKS_WITHIN: Duration = Duration::from_secs(30);
/// The phase that the runner itself marks at the end of the command: behind it no mark can be on its way.
const LAST_PHASE: &str = "run";
/// No run takes a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Lines of the log that a failure shows.
const TAIL_LINES: usize = 10;

/// A command that marks its own phases.
#[derive(Debug)]
pub struct CommandWorkload {
    spec: CommandSpec,
    measure: Measure,
    surroundings: Surroundings,
}

impl CommandWorkload {
    pub(super) fn new(spec: CommandSpec, measure: Measure, surroundings: Surroundings) -> Self {
        // What a runner that was killed here has left would compute into our runs.
        orphan::end(&surroundings.dir.join("logs"));
        Self { spec, measure, surroundings }
    }

    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// Runs the command once. It ends with everything it started, however the run ends.
    pub(super) fn carry_out(&mut self, run: &Run, point: &Point) -> Result<OwnPhases, Trouble> {
        let marks = self.surroundings.marks.as_ref().ok_or("marks cannot be taken here, and a command needs them")?;
        // Late marks of a run before are nobody's.
        while marks.heard.try_recv().is_ok() {}
        let log = self.surroundings.log(&run.run_id)?;
        let result = self.surroundings.dir.join("logs").join(format!("{}.result.json", run.run_id));
        remove(&result)?;
        let tag = Tag::new();
        let note = Note::begin(&self.surroundings.dir.join("logs"), "command", &tag);
        let process = self.start(run, point, &log, &result, &tag)?;
        note.started(process.id());
        let limit = Duration::try_from_secs_f64(self.spec.timeout_s).unwrap_or(LONGEST).min(LONGEST);
        let ended = process.wait(limit, &mut || self.surroundings.is_stopped());
        let program = process.program().to_owned();
        let tail = |what: String| {
            let lines = crate::sweep::process::log_tail(&log, TAIL_LINES);
            let lines = if lines.is_empty() { String::new() } else { format!("; the end of its output:\n{lines}") };
            format!("`{program}` {what}{lines}")
        };
        // Also what it left behind in the background goes: it would compute into the next run.
        let _ = process.stop(PATIENCE);
        drop(note);
        match ended {
            None if self.surroundings.is_stopped() => return Err("somebody asked to stop".into()),
            None => return Err(tail(format!("has not ended within {} s", self.spec.timeout_s)).into()),
            Some(ended) if !ended.is_success() => return Err(tail(ended.to_string()).into()),
            Some(_) if self.names_result() && !result.exists() => {
                let missing = format!(
                    "is given {{result}} and has not written it: expected a JSON object of its counts in {}",
                    result.display()
                );
                return Err(tail(missing).into());
            }
            Some(_) => {}
        }
        let counts = Counts::read(&result).map_err(&tail)?;
        Ok(OwnPhases::of(&self.own_marks(run)?, &counts, point.is_prefill_only()).map_err(tail)?)
    }

    /// Whether the command is told, in so many words, where its counts go: then it is meant to leave some.
    fn names_result(&self) -> bool {
        let names = |word: &String| template::names(word).unwrap_or_default();
        self.spec.argv.iter().chain(self.spec.env.values()).flat_map(names).any(|name| name == "result")
    }

    fn start(&self, run: &Run, point: &Point, log: &Path, result: &Path, tag: &Tag) -> Result<Process, Trouble> {
        let (min_window_s, warmup, most) = (
            self.surroundings.window_s(self.measure.min_window_s).to_string(),
            self.measure.warmup_batches.to_string(),
            self.measure.max_batches.to_string(),
        );
        let result = result.to_string_lossy();
        let more = [
            ("run_id", run.run_id.as_str()),
            ("result", &*result),
            ("min_window_s", &min_window_s),
            ("warmup_batches", &warmup),
            ("max_batches", &most),
        ];
        let expand = |word: &String| template::expand(word, point, &more);
        let argv = self.spec.argv.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let mut environment = self.surroundings.environment(run, point);
        environment.push(("ENERGYLENS_RESULT".to_owned(), result.clone().into_owned()));
        for (name, value) in more.iter().filter(|(name, _)| *name != "run_id" && *name != "result") {
            environment.push((format!("ENERGYLENS_{}", name.to_ascii_uppercase()), (*value).to_owned()));
        }
        for (name, value) in &self.spec.env {
            environment.push((name.clone(), expand(value)?));
        }
        environment.extend(tag.environment());
        Ok(Process::start(&argv, &environment, log)?)
    }

    /// The run's marks, up to the last that the command sent before it ended.
    fn own_marks(&self, run: &Run) -> Result<Vec<OwnMark>, String> {
        let marks = self.surroundings.marks.as_ref().ok_or("marks cannot be taken here")?;
        // Datagrams are taken in the order in which they were sent: ours comes last.
        let last = json!({ "event": "end", "phase": LAST_PHASE, "run_id": run.run_id }).to_string();
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(MARKS_WITHIN))?;
            socket.send_to(last.as_bytes(), &marks.path).map(|_| ())
        });
        socket.map_err(|e| format!("the marks socket takes nothing: {e}"))?;
        let deadline = Instant::now() + MARKS_WITHIN;
        let mut found = Vec::new();
        loop {
            let Ok(mark) = marks.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                return Err("the marks socket has stopped answering".to_owned());
            };
            match mark.phase.as_str() {
                _ if mark.run_id != run.run_id => {}
                LAST_PHASE => return Ok(found),
                _ => found.push(OwnMark { t_mono_ns: mark.t_mono_ns, phase: mark.phase, event: mark.event }),
            }
        }
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("the result file of an earlier attempt, {}, cannot be removed: {e}", path.display()))
        }
        _ => Ok(()),
    }
}
