//! Failed runs that are to be carried out again.

use std::path::Path;

use super::{Error, decisions, put_whole, read_plan, read_runs};
use crate::schema::RunStatus;
use crate::sweep::Plan;

/// Takes failed runs out of the journal in `dir`: to whoever opens it they were never carried out.
///
/// Where nothing but failures is known, `plan` may be another than that the campaign began with: they may have failed
/// because of it, and nothing is there that it could be mixed with.
pub(super) fn forget_failed(dir: &Path, plan: &Plan) -> Result<(), Error> {
    let path = dir.join("runs.jsonl");
    let (mut kept, mut has_failed) = (Vec::new(), false);
    read_runs(dir, &mut |row| {
        if row.status == RunStatus::Failed {
            has_failed = true;
            return Ok(());
        }
        serde_json::to_writer(&mut kept, &row).map_err(|source| Error::Json { path: path.clone(), source })?;
        kept.push(b'\n');
        Ok(())
    })?;
    let plan_path = dir.join("plan.json");
    let difference = read_plan(&plan_path)?.and_then(|began_with| began_with.difference(plan));
    if let Some(difference) = &difference
        && !(kept.is_empty() && decisions::read_decisions(dir)?.is_empty())
    {
        return Err(Error::PlanChanged { difference: difference.clone() });
    }
    if has_failed {
        put_whole(&path, &kept)?;
    }
    if difference.is_some() {
        let json = serde_json::to_vec(plan).map_err(|source| Error::Json { path: plan_path.clone(), source })?;
        put_whole(&plan_path, &json)?;
    }
    Ok(())
}
