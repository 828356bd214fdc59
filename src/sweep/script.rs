//! The Lua script of a sweep: evaluated in a sandbox, read strictly, turned into plain data.
//!
//! Evaluating has no side effects: no clock, no files but the model configurations that `el.card_from` names, no
//! processes, no randomness. What Lua would let pass in silence (an unknown field, a misspelt name, a global made by
//! accident) is an error with file and line and, where there is one, the name that was probably meant.

mod api;
mod cards;
mod fields;
mod place;
mod point;
mod run;
mod sample;
mod sandbox;
mod servers;
mod slurm;
#[cfg(test)]
mod tests;
mod workloads;

use std::cell::RefCell;
use std::path::Path;

use mlua::{Function, Value};

use self::place::Place;
use self::point::PointTable;
pub(super) use self::run::Job;
use self::sample::Sample;
use self::sandbox::Sandbox;
use super::Error;
use super::axis::Sweep;
use super::design::Candidate;

/// A script that has been evaluated; it stays alive because its `where` is asked for every point.
pub struct Script {
    sandbox: Sandbox,
    place: Place,
    sweep: Sweep,
    accepts: Option<Function>,
    run: Option<Function>,
    point_table: PointTable,
    asked: RefCell<Sample>,
}

impl Script {
    /// Evaluates `source`, which messages call `file_name`; `el.card_from` looks beside `directory`.
    pub fn evaluate(file_name: &str, source: &str, directory: &Path, log: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        let place = Place::new(file_name, source);
        let sandbox = Sandbox::new(&place).map_err(|e| place.error(&e))?;
        let result = Self::returned(&sandbox, &place, source, directory);
        sandbox.drain_log(log);
        let (sweep, accepts, run) = result.map_err(|e| place.error(&e))?;
        let point_table = PointTable::new(&sandbox.lua, &place).map_err(|e| place.error(&e))?;
        let asked = RefCell::default();
        Ok(Self { sandbox, place, sweep, accepts, run, point_table, asked })
    }

    fn returned(
        sandbox: &Sandbox,
        place: &Place,
        source: &str,
        directory: &Path,
    ) -> mlua::Result<(Sweep, Option<Function>, Option<Function>)> {
        let el = api::module(&sandbox.lua, place, directory)?;
        let value = sandbox.evaluate(place, source, el)?;
        let returned = match &value {
            Value::UserData(data) => {
                data.borrow::<api::Returned>().ok().map(|r| (r.sweep.clone(), r.accepts.clone(), r.run.clone()))
            }
            _ => None,
        };
        returned.ok_or_else(|| {
            let found = fields::show(&value);
            place.fail_at(
                place.last_line(),
                format!("the script returns {found}; end it with `return el.sweep {{ ... }}`"),
            )
        })
    }

    /// What the script describes.
    pub fn sweep(&self) -> &Sweep {
        &self.sweep
    }

    /// Hands over what the script has printed since it was last asked.
    pub fn drain_log(&self, log: &mut dyn FnMut(&str)) {
        self.sandbox.drain_log(log);
    }

    /// Has the script's own `run` carry out a run; what it started has ended when this returns.
    pub(super) fn carry_out(&self, job: run::Job) -> Result<run::Told, Error> {
        let run = self.run.as_ref().ok_or_else(|| Error::Script("the script has no `run`".to_owned()))?;
        run::call(&self.sandbox.lua, &self.place, self.sandbox.budget(), run, job).map_err(|e| self.place.error(&e))
    }

    /// Whether `where` takes this point; a script without one takes all.
    pub fn accepts(&self, candidate: &Candidate<'_>) -> Result<bool, Error> {
        let Some(accepts) = &self.accepts else { return Ok(true) };
        let answer = self.ask(accepts, candidate).map_err(|e| self.place.error(&e))?;
        self.asked.borrow_mut().note(candidate, answer);
        Ok(answer)
    }

    /// Asks `where` again for some of the points, and refuses one whose answers depend on more than the point.
    pub fn check_answers(&self) -> Result<(), Error> {
        let Some(accepts) = &self.accepts else { return Ok(()) };
        for asked in self.asked.take().into_kept() {
            let c = asked.candidate();
            // Twice: an answer that alternates is the same every other time.
            for _ in 0..2 {
                let answer = self.ask(accepts, &c).map_err(|e| self.place.error(&e))?;
                if answer != asked.answer {
                    let line = self.place.line_of("where", 1);
                    let message = format!(
                        "`where` answers {} and, asked again for the same point, {answer} (tensor_parallel {}, batch_size \
                         {}, input_tokens {}, output_tokens {}); its answer must depend on the point alone",
                        asked.answer, c.deployment.tensor_parallel, c.batch_size, c.input_tokens, c.output_tokens
                    );
                    return Err(self.place.error(&self.place.fail_at(line, message)));
                }
            }
        }
        Ok(())
    }

    /// What is wrong with the sweep's plan, with the place in the script.
    pub fn placed(&self, error: Error) -> Error {
        self.place.of_plan(error)
    }

    fn ask(&self, accepts: &Function, candidate: &Candidate<'_>) -> mlua::Result<bool> {
        self.sandbox.renew_budget();
        let point = self.point_table.fill(&self.sandbox.lua, candidate)?;
        match accepts.call::<Value>(point)? {
            Value::Boolean(answer) => Ok(answer),
            other => {
                let line = self.place.line_of("where", 1);
                let found = fields::show(&other);
                Err(self.place.fail_at(line, format!("`where` returns {found}; it must return true or false")))
            }
        }
    }
}
