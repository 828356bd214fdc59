//! The script's own `run` as a workload.

use std::io::Write;

use super::own_phases::OwnPhases;
use crate::sweep::script::{Job, Script};
use crate::sweep::server::orphan;
use crate::sweep::surroundings::Surroundings;
use crate::sweep::{Error, Plan, Point, Run};

/// The script's own `run` function, evaluated again in the same sandbox that planned.
pub struct ScriptedWorkload {
    script: Script,
    surroundings: Surroundings,
}

impl std::fmt::Debug for ScriptedWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedWorkload").field("surroundings", &self.surroundings).finish_non_exhaustive()
    }
}

impl ScriptedWorkload {
    pub(super) fn new(plan: &Plan, surroundings: Surroundings) -> Result<Self, Error> {
        // What a runner that was killed here has left would compute into our runs.
        orphan::end(&surroundings.dir.join("logs"));
        let (name, source, directory) = surroundings.script_source(&plan.script_sha256)?;
        // What it prints while it is evaluated was heard when it was planned.
        let script = Script::evaluate(&name, &source, &directory, &mut |_| ())?;
        Ok(Self { script, surroundings })
    }

    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    pub(super) fn carry_out(&mut self, run: &Run, point: &Point) -> Result<OwnPhases, String> {
        let log = self.surroundings.log(&run.run_id)?;
        let job = Job {
            run: run.clone(),
            point: point.clone(),
            environment: self.surroundings.environment(run, point),
            logs: log.parent().map(std::path::Path::to_owned).unwrap_or_default(),
            stop: self.surroundings.stop.clone(),
        };
        let told = self.script.carry_out(job);
        if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(&log) {
            // A log that cannot be written costs a line, not the run.
            self.script.drain_log(&mut |line| drop(writeln!(file, "{line}")));
        }
        let told = told.map_err(|e| e.to_string())?;
        let phases = OwnPhases::of(&told.marks, &told.counts, point.is_prefill_only())?;
        Ok(OwnPhases { untold: told.marks, ..phases })
    }
}
