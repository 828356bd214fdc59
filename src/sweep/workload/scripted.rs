//! The script's own `run` as a workload.

use super::own_phases::OwnPhases;
use crate::sweep::surroundings::Surroundings;
use crate::sweep::{Error, Plan, Point, Run};

/// The script's own `run` function.
#[derive(Debug)]
pub struct ScriptedWorkload {
    surroundings: Surroundings,
}

impl ScriptedWorkload {
    pub(super) fn new(plan: &Plan, surroundings: Surroundings) -> Result<Self, Error> {
        let _ = surroundings.script_source(&plan.script_sha256)?;
        Ok(Self { surroundings })
    }

    pub(super) fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    pub(super) fn carry_out(&mut self, _run: &Run, _point: &Point) -> Result<OwnPhases, String> {
        Err("a script's own `run` cannot be carried out yet".to_owned())
    }
}
