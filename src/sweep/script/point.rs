//! What `where` gets to see of a point.

use std::cell::RefCell;

use mlua::{Lua, Table, Value};

use super::fields::show;
use super::place::Place;
use crate::sweep::design::{Candidate, Deployment};
use crate::sweep::template::CANDIDATE_NAMES;

/// Makes the `p` of `where`: a table of the point's facts that knows what it lacks.
///
/// Facts of the deployment stand in a table behind it, made once for all points of a deployment, since these come one
/// after the other: a hundred thousand tables of thirteen fields take seconds.
pub(super) struct PointTable {
    strict: Table,
    last: RefCell<Option<(Identity, Table)>>,
}

/// What tells deployments of one plan apart.
type Identity = (String, String, String, [u32; 3]);

impl PointTable {
    pub(super) fn new(lua: &Lua, place: &Place) -> mlua::Result<Self> {
        let strict = lua.create_table()?;
        let at = place.clone();
        let index = lua.create_function(move |lua, (_, key): (Value, Value)| -> mlua::Result<Value> {
            Err(at.fail(lua, super::sandbox::unknown("a point", "field", &show(&key), CANDIDATE_NAMES)))
        })?;
        strict.raw_set("__index", index)?;
        Ok(Self { strict, last: RefCell::new(None) })
    }

    pub(super) fn fill(&self, lua: &Lua, c: &Candidate<'_>) -> mlua::Result<Table> {
        let p = lua.create_table_with_capacity(0, 3)?;
        p.raw_set("batch_size", c.batch_size)?;
        p.raw_set("input_tokens", c.input_tokens)?;
        p.raw_set("output_tokens", c.output_tokens)?;
        p.set_metatable(Some(self.behind(lua, c.deployment)?))?;
        Ok(p)
    }

    /// The metatable that holds the facts of `d`.
    fn behind(&self, lua: &Lua, d: &Deployment) -> mlua::Result<Table> {
        let degrees = [d.tensor_parallel, d.pipeline_parallel, d.data_parallel];
        let mut last = self.last.borrow_mut();
        if let Some(((model, gpu, precision, of), table)) = &*last
            && (*of, model, gpu, precision) == (degrees, &d.model.model, &d.gpu.gpu_model, &d.precision)
        {
            return Ok(table.clone());
        }
        let facts = lua.create_table()?;
        facts.raw_set("model", d.model.model.as_str())?;
        facts.raw_set("architecture", d.model.architecture.as_str())?;
        facts.raw_set("params", d.model.params)?;
        facts.raw_set("gpu_model", d.gpu.gpu_model.as_str())?;
        facts.raw_set("precision", d.precision.as_str())?;
        facts.raw_set("num_gpus", d.tensor_parallel * d.pipeline_parallel * d.data_parallel)?;
        facts.raw_set("tensor_parallel", d.tensor_parallel)?;
        facts.raw_set("pipeline_parallel", d.pipeline_parallel)?;
        facts.raw_set("data_parallel", d.data_parallel)?;
        facts.raw_set("kv_capacity_tokens", d.kv_capacity_tokens)?;
        facts.set_metatable(Some(self.strict.clone()))?;
        let metatable = lua.create_table()?;
        metatable.raw_set("__index", facts)?;
        let identity = (d.model.model.clone(), d.gpu.gpu_model.clone(), d.precision.clone(), degrees);
        *last = Some((identity, metatable.clone()));
        Ok(metatable)
    }
}
