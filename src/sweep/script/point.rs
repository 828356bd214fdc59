//! What `where` gets to see of a point.

use std::cell::RefCell;

use mlua::{Lua, Table, Value};

use super::fields::show;
use super::place::Place;
use crate::sweep::design::{Candidate, Deployment};
use crate::sweep::template::CANDIDATE_NAMES;

/// Makes the `p` of `where`: a table of the point's facts that knows what it lacks and cannot be written.
///
/// `p` itself is empty, so that every assignment is noticed. Behind it stand the sizes, and behind these the facts of
/// the deployment: all of it is made once for the points of a deployment, since these come one after the other and a
/// hundred thousand tables of thirteen fields take seconds. Only the sizes change from point to point.
pub(super) struct PointTable {
    strict: Table,
    refuse: mlua::Function,
    last: RefCell<Option<Made>>,
}

/// What was made for a deployment.
struct Made {
    identity: Identity,
    point: Table,
    sizes: Table,
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
        let at = place.clone();
        let refuse = lua.create_function(move |lua, (_, key, _): (Value, Value, Value)| -> mlua::Result<()> {
            Err(at.fail(lua, format!("{} is assigned, but a point cannot be changed", show(&key))))
        })?;
        Ok(Self { strict, refuse, last: RefCell::new(None) })
    }

    pub(super) fn fill(&self, lua: &Lua, c: &Candidate<'_>) -> mlua::Result<Table> {
        let (point, sizes) = self.of_deployment(lua, c.deployment)?;
        sizes.raw_set("batch_size", c.batch_size)?;
        sizes.raw_set("input_tokens", c.input_tokens)?;
        sizes.raw_set("output_tokens", c.output_tokens)?;
        Ok(point)
    }

    /// The table for the points of `d`, and the one behind it that holds their sizes.
    fn of_deployment(&self, lua: &Lua, d: &Deployment) -> mlua::Result<(Table, Table)> {
        let degrees = [d.tensor_parallel, d.pipeline_parallel, d.data_parallel];
        let mut last = self.last.borrow_mut();
        if let Some(Made { identity: (model, gpu, precision, of), point, sizes }) = &*last
            && (*of, model, gpu, precision) == (degrees, &d.model.model, &d.gpu.gpu_model, &d.precision)
        {
            return Ok((point.clone(), sizes.clone()));
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
        let behind = lua.create_table()?;
        behind.raw_set("__index", facts)?;
        let sizes = lua.create_table_with_capacity(0, 3)?;
        sizes.set_metatable(Some(behind))?;
        let front = lua.create_table()?;
        front.raw_set("__index", sizes.clone())?;
        front.raw_set("__newindex", self.refuse.clone())?;
        let point = lua.create_table()?;
        point.set_metatable(Some(front))?;
        let identity = (d.model.model.clone(), d.gpu.gpu_model.clone(), d.precision.clone(), degrees);
        *last = Some(Made { identity, point: point.clone(), sizes: sizes.clone() });
        Ok((point, sizes))
    }
}
