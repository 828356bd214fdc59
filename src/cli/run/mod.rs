//! `energylens run`: a sweep, carried out here.

pub(crate) mod adaptive;
mod energies;
mod here;
mod precision;
mod simulated;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use energylens::agent::{JobIds, JobPlaces, Recording};
use energylens::dataset::{Dataset, Row};
use energylens::schema::{MarkEvent, Origin, Phase};
use energylens::store::{Campaign, MarkRow};
use energylens::sweep::runner::Outcome as RunOutcome;
use energylens::sweep::{Decision, Journal, Plan, ScriptFile, WorkloadSpec};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use self::precision::Precision;
use super::agent::CadenceArguments;
use super::sources::SourceArguments;
use super::{Outcome, agent, doctor, output, service};

/// Run a sweep on this machine; a sweep that was interrupted goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens run scripts/sweeps/demo.lua -o demo && energylens fit demo -o model.json")]
pub(crate) struct Arguments {
    /// The Lua script.
    script: PathBuf,
    /// The campaign directory; the sweep's name if left out.
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    equipment: Equipment,
    /// Carry out again the runs that failed. Where no run has worked yet, the script may have changed since.
    #[arg(long)]
    retry_failed: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// With what a sweep is measured that runs in real time; a simulated node brings its own counters.
#[derive(Debug, Args)]
pub(crate) struct Equipment {
    #[command(flatten)]
    sources: SourceArguments,
    #[command(flatten)]
    cadence: CadenceArguments,
    /// The script that the plan came from: `run` functions are in there.
    #[arg(skip)]
    pub(crate) script: Option<ScriptFile>,
    /// Phases of other repeats of the plan's points, measured elsewhere: they count where points are repeated until they
    /// are known well enough.
    #[arg(skip)]
    pub(crate) measured_before: Vec<Row>,
    /// Whether runs that failed are carried out again.
    #[arg(skip)]
    pub(crate) retries: bool,
}

/// How a sweep is carried out.
#[derive(Clone, Copy)]
pub(crate) enum Means<'a> {
    /// On the simulated node; a plan for another workload is refused.
    Simulated,
    /// As the plan says: on this node, where its workload is not simulated.
    Real(&'a Equipment),
}

pub(crate) fn run(a: Arguments) -> anyhow::Result<Outcome> {
    let (script, retries) = (Some(ScriptFile::at(&a.script)), a.retry_failed);
    let a = Arguments { equipment: Equipment { script, retries, ..a.equipment }, ..a };
    let plan = Plan::from_script(&a.script, &mut output::say)?;
    let dir = a.output.clone().unwrap_or_else(|| PathBuf::from(&plan.name));
    energylens::slurm::Records::refuse_open(&dir)?;
    let stop = super::signals::stop_on_signal()?;
    let conducted = conduct(&plan, &dir, &stop, Means::Real(&a.equipment))?;
    let (runs, data) = (&conducted.runs, &conducted.dataset);
    output::remark(data, &[]);
    if a.json {
        output::print_json(&json!({
            "campaign": dir, "simulated": conducted.origin == Origin::Simulated,
            "runs": plan.most_runs(), "carried_out": runs.carried_out,
            "resumed": runs.resumed, "failed": runs.failed, "failed_before": runs.failed_before, "left": runs.left,
            "spared": runs.spared, "adaptive": adaptive::json(&plan, &conducted.decisions),
            "phases": data.rows.len(), "rejected": data.rejected, "recording": conducted.recording,
        }))?;
    } else {
        output::print(&conducted.describe(&dir))?;
        if let Some(text) = adaptive::describe(&plan, &conducted.decisions) {
            output::print(&text)?;
        }
        if let Some(table) = energies::table(data, &dir.join("phases.parquet")) {
            output::print(&table)?;
        }
    }
    if runs.left > 0 {
        let up_to = if plan.adaptive.is_some() { "up to " } else { "" };
        anyhow::bail!("stopped with {up_to}{} runs left; the same command goes on with them", runs.left);
    }
    Ok(if runs.failed == 0 && data.rejected.is_empty() { Outcome::Done } else { Outcome::SomeRejected })
}

/// How runs that failed before come to be carried out after all.
const RETRY: &str = ": `energylens run ... --retry-failed` repeats them)";

/// A sweep that was carried out, and what it cost.
pub(crate) struct Conducted {
    pub(crate) runs: RunOutcome,
    pub(crate) recording: Recording,
    pub(crate) dataset: Dataset,
    pub(crate) origin: Origin,
    /// What an adaptive sweep decided, in this session and before.
    pub(crate) decisions: Vec<Decision>,
    /// True energy of one batch, J, by run and phase: known on the simulated node alone, and to nobody who measures it.
    pub(crate) truth_j: HashMap<(String, Phase), f64>,
}

impl Conducted {
    pub(crate) fn describe(&self, dir: &Path) -> String {
        let resumed =
            if self.runs.resumed > 0 { format!(", {} done before", self.runs.resumed) } else { String::new() };
        // A session that found everything done has recorded nothing; that says nothing of the campaign.
        let spared = match self.runs.spared {
            0 => String::new(),
            n => format!(", {n} repeats not needed"),
        };
        let before = match self.runs.failed_before {
            0 => String::new(),
            n if n == self.runs.failed => " (all of them before".to_owned() + RETRY,
            n => format!(" ({n} of them before{RETRY}"),
        };
        let label = if self.origin == Origin::Simulated { "  [simulated]" } else { "" };
        let recording = match self.runs.carried_out {
            0 => String::new(),
            _ => format!("{}\n", doctor::summary(&self.recording)),
        };
        format!(
            "{} runs carried out{resumed}{spared}, {} failed{before}{label}\n{recording}{} phase energies in {}, {} rejected",
            self.runs.carried_out,
            self.runs.failed,
            self.dataset.rows.len(),
            dir.join("phases.parquet").display(),
            self.dataset.rejected.len()
        )
    }

    /// Phase energies whose stated 95 % interval holds the true joules, of those whose truth is known.
    pub(crate) fn coverage(&self) -> (usize, usize) {
        let known = self.dataset.rows.iter().filter_map(|row| {
            let truth = self.truth_j.get(&(row.run_id.clone(), row.phase))?;
            Some((row.energy_j? - truth).abs() <= 1.96 * row.energy_j_std?)
        });
        known.fold((0, 0), |(inside, all), holds| (inside + usize::from(holds), all + 1))
    }
}

/// Carries out `plan` in `dir`, or what is left of it, and reduces what was recorded.
pub(crate) fn conduct(plan: &Plan, dir: &Path, stop: &Arc<AtomicBool>, means: Means<'_>) -> anyhow::Result<Conducted> {
    plan.workload.check_described()?;
    let (before, retries) = match means {
        Means::Simulated => (Vec::new(), false),
        Means::Real(equipment) => (equipment.measured_before.clone(), equipment.retries),
    };
    let begun = Begun::open(plan, dir, retries)?;
    let precision = plan.measure.relative_std.map(|relative_std| Precision::new(relative_std, before));
    match (&plan.workload, means) {
        (WorkloadSpec::Simulated { .. }, _) => simulated::conduct(plan, begun, precision, stop),
        (_, Means::Real(equipment)) => here::conduct(plan, begun, precision, stop, equipment),
        (other, Means::Simulated) => anyhow::bail!("{} does not run on the simulated node", other.engine()),
    }
}

/// A campaign that is ours to go on with.
struct Begun {
    campaign: Campaign,
    journal: Journal,
    job_id: Option<String>,
    step_id: Option<String>,
}

impl Begun {
    fn open(plan: &Plan, dir: &Path, retries: bool) -> anyhow::Result<Self> {
        let campaign = Campaign::create_or_open(dir)?;
        let job = JobIds::own(&JobPlaces::default(), service::variable);
        let (job_id, step_id) = job.map_or((None, None), |job| (Some(job.job_id), job.step_id));
        let journal = if retries { Journal::open_to_retry(&campaign, plan) } else { Journal::open(&campaign, plan) };
        let journal = journal?.within_job(job_id.clone(), step_id.clone());
        for recovered in campaign.recover()? {
            output::say(&agent::describe(&recovered));
        }
        Ok(Self { campaign, journal, job_id, step_id })
    }
}

/// Marks of the runner itself.
struct OwnMarks {
    origin: Origin,
    job_id: Option<String>,
    step_id: Option<String>,
}

impl OwnMarks {
    fn row(&self, t_mono_ns: i64, run_id: &str, phase: &str, event: MarkEvent) -> MarkRow {
        MarkRow {
            t_mono_ns,
            run_id: run_id.to_owned(),
            phase: phase.to_owned(),
            event,
            source: self.origin,
            uid: None,
            job_id: self.job_id.clone(),
            step_id: self.step_id.clone(),
        }
    }
}

/// A bar on stderr, shown only where it takes time and somebody looks.
pub(crate) fn progress(total: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_position(done);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left{msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
