//! `energylens submit`: a sweep, handed to Slurm.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use energylens::slurm::{Places, Prepared, Records, Request, SlurmClient, Submitted, prepare, submit};
use energylens::store::Campaign;
use energylens::sweep::{Journal, Plan, SlurmSpec, WorkloadSpec};
use serde_json::{Value, json};

use super::{Outcome, output};

/// Run a sweep on a cluster: as job arrays of Slurm, whose tasks are blocks of runs with equal resources.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens submit sweep.lua -o campaign && energylens status campaign
The script's `slurm = { ... }` holds options of sbatch under their own names; see docs/slurm.md.")]
pub(crate) struct Arguments {
    /// The Lua script.
    script: PathBuf,
    /// The campaign directory, seen by all nodes; the sweep's name if left out.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print the batch scripts and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print what was submitted as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let plan = Plan::from_script(&a.script, &mut output::say)?;
    plan.workload.check_described()?;
    let dir = std::path::absolute(a.output.clone().unwrap_or_else(|| PathBuf::from(&plan.name)))
        .context("the campaign directory has no absolute path")?;
    anyhow::ensure!(
        !matches!(plan.workload, WorkloadSpec::Script(_)) && plan.measure.relative_std.is_none(),
        "a job array has its runs laid out beforehand: leave out `relative_std`, and put what the script's own `run` does \
         into an el.command {{ ... }}"
    );
    anyhow::ensure!(
        plan.adaptive.is_none(),
        "an adaptive sweep decides as it goes, and a job array has its runs laid out beforehand: run it inside of one job \
         (sbatch --gpus-per-node=8 --wrap 'energylens run {}'), or take el.d_optimal {{ points = ... }}",
        a.script.display()
    );
    let spec = plan.slurm.clone().unwrap_or_else(default_spec);
    let client = client();
    if a.dry_run {
        // Whoever only looks need not be on a cluster.
        let most = client.most_array_tasks().unwrap_or_else(|_| SlurmClient::usual_array_tasks());
        let prepared = prepare(&request(&plan, &spec, &dir, &program()?, most, 0, &|_| true))?;
        return show(&prepared, a.json);
    }
    refuse_second(&dir)?;
    let most = client.most_array_tasks()?;
    let campaign = Campaign::create_or_open(&dir)?;
    // Held until everything is submitted: two that submit at once would both.
    let journal = Journal::open(&campaign, &plan)?;
    refuse_second(&dir)?;
    let mut records = Records::open(&dir)?;
    let wanted = |run: &energylens::sweep::Run| !journal.is_finished(&run.run_id);
    let prepared = prepare(&request(&plan, &spec, &dir, &program()?, most, records.next_array(), &wanted))?;
    keep_script(&a.script, &dir)?;
    let submitted = submit(&mut records, prepared, &client)?;
    report(&dir, submitted, a.json)
}

/// What Slurm is told where the sweep says nothing: the cluster's defaults, and a merging job.
pub(crate) fn default_spec() -> SlurmSpec {
    SlurmSpec { merge: Some(Default::default()), ..SlurmSpec::default() }
}

pub(crate) fn client() -> SlurmClient {
    SlurmClient::new(std::env::var_os("PATH").unwrap_or_default())
}

/// This program, as the nodes shall start it.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find out where this program lies")
}

pub(crate) fn request<'a>(
    plan: &'a Plan,
    spec: &'a SlurmSpec,
    campaign: &'a Path,
    program: &'a Path,
    most_tasks: u64,
    first_array: u32,
    wanted: &'a dyn Fn(&energylens::sweep::Run) -> bool,
) -> Request<'a> {
    Request { plan, spec, places: Places { campaign, program }, wanted, most_tasks, first_array }
}

/// Keeps the script beside the plan that came of it.
fn keep_script(script: &Path, dir: &Path) -> anyhow::Result<()> {
    let to = dir.join("slurm");
    std::fs::create_dir_all(&to)
        .and_then(|()| std::fs::copy(script, to.join("sweep.lua")))
        .with_context(|| format!("the script cannot be copied to {}", to.display()))?;
    Ok(())
}

fn refuse_second(dir: &Path) -> anyhow::Result<()> {
    match Records::open(dir)?.arrays.len() {
        0 => Ok(()),
        arrays => Err(energylens::slurm::Error::SubmittedBefore { path: dir.to_owned(), arrays }.into()),
    }
}

fn show(prepared: &Prepared, as_json: bool) -> anyhow::Result<Outcome> {
    if as_json {
        let scripts = prepared.arrays.iter().map(|(record, text)| {
            json!({ "array": record.array, "class": record.class, "tasks": record.tasks, "script": text })
        });
        output::print_json(&json!({
            "dry_run": true, "arrays": scripts.collect::<Vec<Value>>(), "merge_script": prepared.merge,
        }))?;
        return Ok(Outcome::Done);
    }
    for (_, text) in &prepared.arrays {
        output::print(text)?;
        output::print("")?;
    }
    if let Some(text) = &prepared.merge {
        output::print(text)?;
    }
    eprintln!(
        "{} runs in {} tasks of {} arrays; nothing was submitted",
        prepared.runs(),
        prepared.tasks(),
        prepared.arrays.len()
    );
    Ok(Outcome::Done)
}

/// Says what was submitted; what was refused is the error.
pub(crate) fn report(dir: &Path, submitted: Submitted, as_json: bool) -> anyhow::Result<Outcome> {
    let arrays = &submitted.arrays;
    if as_json {
        let of = |record: &energylens::slurm::ArrayRecord| {
            json!({
                "array": record.array, "job_id": record.job_id, "num_gpus": record.class.num_gpus,
                "gpu_model": record.class.gpu_model, "tasks": record.tasks.len(),
                "runs": record.tasks.iter().map(Vec::len).sum::<usize>(),
            })
        };
        output::print_json(&json!({
            "campaign": dir, "arrays": arrays.iter().map(of).collect::<Vec<_>>(), "merge_job_id": submitted.merge_job,
            "refused": submitted.refused.as_ref().map(|r| r.error.to_string()),
        }))?;
    } else {
        for record in arrays {
            let runs: usize = record.tasks.iter().map(Vec::len).sum();
            output::print(&format!(
                "job {}: array {:03}, {} tasks, {runs} runs on {} GPUs each",
                record.job_id.map_or_else(|| "?".to_owned(), |id| id.to_string()),
                record.array,
                record.tasks.len(),
                record.class.num_gpus
            ))?;
        }
        if let Some(job) = submitted.merge_job {
            output::print(&format!("job {job}: merges the results when all of these have ended"))?;
        }
        if !arrays.is_empty() {
            output::print(&format!("`energylens status {}` follows them", dir.display()))?;
        }
    }
    match submitted.refused {
        None => Ok(Outcome::Done),
        Some(refused) if refused.arrays == 0 => {
            let advice = format!("`energylens status {} --merge` merges the results", dir.display());
            Err(anyhow::Error::new(refused.error).context(format!("the merging job was not submitted; {advice}")))
        }
        Some(refused) => {
            let count = format!("{} of {} arrays were not submitted", refused.arrays, refused.arrays + arrays.len());
            let advice = match arrays.len() {
                0 => "correct `slurm` in the script and submit again".to_owned(),
                _ => format!("`energylens status {} --resubmit` submits the rest", dir.display()),
            };
            Err(anyhow::Error::new(refused.error).context(format!("{count}; {advice}")))
        }
    }
}
