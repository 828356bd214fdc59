//! `energylens status`: how a submitted campaign stands, and what is to be done about it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use energylens::dataset;
use energylens::schema::RunStatus;
use energylens::slurm::{
    self, ArrayRecord, JobStates, Launcher, Records, SlurmClient, Stage, Start, Survey, TaskStatus, log_path, log_tail,
    merge, prepare, submit,
};
use energylens::store::Campaign;
use energylens::sweep::{Journal, Plan, journal};
use serde_json::json;

use super::submit::{client, default_spec, program, report, request};
use super::{Outcome, output};

/// Tasks and failed runs that are listed one by one.
const LISTED: usize = 10;

/// Show how a campaign that was submitted to Slurm stands; merge its results, submit again what is missing.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens status campaign --resubmit")]
pub(crate) struct Arguments {
    /// The campaign directory.
    campaign: PathBuf,
    /// Merge the results of tasks that have ended into the campaign.
    #[arg(long)]
    merge: bool,
    /// Merge, then submit the runs that are neither done nor under way.
    #[arg(long)]
    resubmit: bool,
    /// Submit the runs that failed as well.
    #[arg(long, requires = "resubmit")]
    retry_failed: bool,
    /// Submit with the `slurm = { ... }` of this script, whose plan must be the same.
    #[arg(long, value_name = "SCRIPT", requires = "resubmit")]
    with: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let dir = std::path::absolute(&a.campaign).context("the campaign directory has no absolute path")?;
    let campaign = Campaign::open(&dir)?;
    let client = client();
    let mut records = Records::open(&dir)?;
    if records.arrays.is_empty() {
        if let Some(plan) =
            Plan::of_campaign(&dir).ok().filter(|plan| plan.adaptive.is_some() && !a.merge && !a.resubmit)
        {
            return adaptive(&a.campaign, &plan, a.json);
        }
        return Err(slurm::Error::NeverSubmitted { path: a.campaign.clone() }.into());
    }
    let mut plan = Plan::of_campaign(&dir)?;
    if let Some(script) = &a.with {
        let changed = Plan::from_script(script, &mut output::say)?;
        if let Some(difference) = plan.difference(&changed) {
            return Err(energylens::sweep::Error::PlanChanged { difference }.into());
        }
        plan.slurm = changed.slurm;
    }
    let states = match ask(&client, &mut records) {
        Ok(states) => Some(states),
        Err(error) if a.resubmit => return Err(error.context("without the cluster's answer nothing is resubmitted")),
        Err(error) => {
            eprintln!("the cluster does not answer, so what is shown comes from the campaign alone: {error:#}");
            None
        }
    };
    let mut survey = Survey::take(&dir, &records, states.as_ref())?;
    let mut problems = false;
    if a.merge || a.resubmit {
        let mut journal = Journal::open(&campaign, &plan)?;
        // Again, under the lock: somebody else may have merged in between.
        records = Records::open(&dir)?;
        problems = merge_ended(&campaign, &mut journal, &mut records, &survey)?;
        if a.retry_failed {
            drop(journal);
            journal = Journal::open_to_retry(&campaign, &plan)?;
        }
        survey = Survey::take(&dir, &records, states.as_ref())?;
        if a.resubmit {
            let missing: HashSet<&str> = survey.missing(&plan).collect();
            let wanted = |run: &energylens::sweep::Run| missing.contains(run.run_id.as_str());
            let spec = plan.slurm.clone().unwrap_or_else(default_spec);
            let start = Start::of_campaign(&dir)?;
            let (program, first) = (program()?, records.next_array());
            let most = client.most_array_tasks()?;
            let prepared = prepare(&request(&plan, &spec, (&dir, &start), &program, most, first, &wanted))?;
            let submitted = submit(&mut records, prepared, &client)?;
            drop(journal);
            return report(&dir, submitted, a.json);
        }
    }
    let view = View { dir: &dir, plan: &plan, records: &records, survey: &survey };
    if a.json {
        output::print_json(&view.json())?;
    } else {
        output::print(&view.text())?;
    }
    Ok(if problems { Outcome::SomeRejected } else { Outcome::Done })
}

/// How an adaptive sweep stands, which runs without arrays: all that it has decided is in its campaign.
fn adaptive(dir: &Path, plan: &Plan, as_json: bool) -> anyhow::Result<Outcome> {
    let decisions = journal::read_decisions(dir)?;
    let (mut finished, mut failed) = (0_usize, 0_usize);
    journal::read_runs(dir, &mut |row| {
        finished += 1;
        failed += usize::from(row.status == RunStatus::Failed);
        Ok(())
    })?;
    if as_json {
        output::print_json(&json!({
            "campaign": dir, "sweep": plan.name, "runs": plan.most_runs(), "finished": finished, "failed": failed,
            "adaptive": super::run::adaptive::json(plan, &decisions),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut lines = vec![format!(
        "sweep {}: {finished} of at most {} runs done, {failed} of them failed",
        plan.name,
        plan.most_runs()
    )];
    lines.extend(super::run::adaptive::describe(plan, &decisions));
    let is_over = decisions.last().is_some_and(|d| d.stopped.is_some());
    lines.push(match is_over {
        true => format!("`energylens fit {}` goes on", dir.display()),
        false => format!("`energylens run SWEEP.lua -o {}` goes on with it", dir.display()),
    });
    output::print(&lines.join("\n"))?;
    Ok(Outcome::Done)
}

/// What the cluster says. An array whose submission was interrupted gets its job's number if the cluster knows it.
fn ask(client: &SlurmClient, records: &mut Records) -> anyhow::Result<JobStates> {
    let unnoted: Vec<ArrayRecord> = records.arrays.iter().filter(|r| r.job_id.is_none()).cloned().collect();
    for record in unnoted {
        let script = records.dir().join(format!("array-{:03}.sh", record.array));
        if let Some(job_id) = client.job_of_script(&script)? {
            records.put(ArrayRecord { job_id: Some(job_id), ..record })?;
        }
    }
    Ok(client.state(&records.open_jobs())?)
}

/// Merges what is over; tells, and says whether something could not be merged.
fn merge_ended(
    campaign: &Campaign,
    journal: &mut Journal,
    records: &mut Records,
    survey: &Survey,
) -> anyhow::Result<bool> {
    let over: HashSet<_> = survey.tasks.iter().filter(|t| t.is_over()).map(|t| t.id).collect();
    let mut reduce = |dir: &Path| match dataset::phases::reduce(dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(Box::new(error) as Box<dyn std::error::Error + Send + Sync>),
    };
    let merged = merge(campaign, journal, records, &|id| over.contains(&id), &mut reduce)?;
    let open = if merged.open > 0 { format!("; {} are not over yet", merged.open) } else { String::new() };
    let empty = if merged.empty > 0 { format!(", {} ended without a run", merged.empty) } else { String::new() };
    eprintln!("merged {} tasks with {} runs{empty}{open}", merged.tasks, merged.runs);
    for (id, why) in &merged.problems {
        output::say(&format!("task {id} cannot be merged, its results stay in tasks/{id}: {why}"));
    }
    Ok(!merged.problems.is_empty())
}

/// What is shown.
struct View<'a> {
    dir: &'a Path,
    plan: &'a Plan,
    records: &'a Records,
    survey: &'a Survey,
}

/// A task's state in one word.
fn word(task: &TaskStatus) -> String {
    match (&task.state, task.stage) {
        _ if task.is_complete() => "DONE".to_owned(),
        (Some(state), _) => state.word.clone(),
        (None, Some(_)) if task.job_id.is_none() => "NOT SUBMITTED".to_owned(),
        (None, Some(_)) => "GONE".to_owned(),
        (None, None) => "UNKNOWN".to_owned(),
    }
}

impl View<'_> {
    fn missing(&self) -> usize {
        self.survey.missing(self.plan).count()
    }

    /// Tasks that were ended before they had done all.
    fn ended_early(&self) -> impl Iterator<Item = &TaskStatus> {
        self.survey.tasks.iter().filter(|t| t.stage == Some(Stage::Ended) && !t.is_complete())
    }

    /// Why tasks wait: some reasons pass by themselves, others (`JobHeldUser`) do not.
    fn waiting(&self) -> Option<String> {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for task in self.survey.tasks.iter().filter(|t| t.stage == Some(Stage::Waiting) && !t.is_complete()) {
            let reason = task.state.as_ref().and_then(|s| s.reason.as_deref()).unwrap_or("no reason is given");
            *reasons.entry(reason).or_default() += 1;
        }
        let told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
        (!told.is_empty()).then(|| format!("tasks wait because of: {}", told.join(", ")))
    }

    fn counts(&self, array: u32) -> [usize; 5] {
        let mut counts = [0; 5];
        for task in self.survey.tasks.iter().filter(|t| t.id.array == array) {
            let place = match (task.is_complete(), task.stage) {
                (true, _) => 1,
                (_, Some(Stage::Running)) => 2,
                (_, Some(Stage::Waiting)) => 3,
                (_, Some(Stage::Ended)) => 4,
                (_, None) => continue,
            };
            if let Some(count) = counts.get_mut(place) {
                *count += 1;
            }
        }
        let open = self.survey.tasks.iter().filter(|t| t.id.array == array).count();
        let all = self.records.arrays.iter().find(|r| r.array == array).map_or(0, |r| r.tasks.len());
        counts[0] = all.saturating_sub(open);
        counts
    }

    fn json(&self) -> serde_json::Value {
        let task = |t: &TaskStatus| {
            json!({
                "task": t.id.to_string(), "array_job_id": t.job_id, "task_id": t.id.task, "state": word(t),
                "job_id": t.state.as_ref().and_then(|s| s.job_id), "nodes": t.state.as_ref().and_then(|s| s.nodes.clone()),
                "reason": t.state.as_ref().and_then(|s| s.reason.clone()), "runs": t.runs, "finished": t.finished,
                "spared": t.spared,
                "log": log_path(self.dir, t.id),
            })
        };
        let array = |r: &ArrayRecord| {
            let [merged, done, running, waiting, ended] = self.counts(r.array);
            json!({
                "array": r.array, "job_id": r.job_id, "num_gpus": r.class.num_gpus, "gpu_model": r.class.gpu_model,
                "tasks": r.tasks.len(), "closed": merged, "done": done, "running": running, "waiting": waiting,
                "ended_early": ended,
            })
        };
        let failed = |r: &energylens::store::RunRow| json!({ "run_id": r.run_id, "host": r.host, "error": r.error });
        json!({
            "campaign": self.dir, "sweep": self.plan.name, "runs": self.plan.runs.len(),
            "finished": self.survey.finished.len(), "failed": self.survey.failed.iter().map(failed).collect::<Vec<_>>(),
            "under_way": self.survey.under_way.len(), "spared": self.survey.spared.len(), "missing": self.missing(),
            "arrays": self.records.arrays.iter().map(array).collect::<Vec<_>>(),
            "tasks": self.survey.tasks.iter().map(task).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let (survey, missing) = (self.survey, self.missing());
        let spared = match survey.spared.len() {
            0 => String::new(),
            n => format!(", {n} repeats not needed"),
        };
        let mut lines = vec![format!(
            "sweep {}: {} of {} runs done, {} of them failed; {} under way, {missing} missing{spared}",
            self.plan.name,
            survey.finished.len(),
            self.plan.runs.len(),
            survey.failed.len(),
            survey.under_way.len()
        )];
        let headers = ["array", "job", "gpus", "tasks", "merged", "done", "running", "waiting", "ended early"];
        let mut table = output::table(&headers, &[1, 2, 3, 4, 5, 6, 7, 8]);
        for record in &self.records.arrays {
            let job = record.job_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
            let mut cells = vec![
                format!("{:03}", record.array),
                job,
                record.class.num_gpus.to_string(),
                record.tasks.len().to_string(),
            ];
            cells.extend(self.counts(record.array).map(|n| n.to_string()));
            table.add_row(cells);
        }
        lines.push(table.to_string());
        for task in self.ended_early().take(LISTED) {
            let state = task.state.as_ref();
            let nodes = state.and_then(|s| s.nodes.as_ref()).map_or(String::new(), |n| format!(" on {n}"));
            let reason = state.and_then(|s| s.reason.as_ref()).map_or(String::new(), |r| format!(" ({r})"));
            let done = format!("{} of {} runs done", task.finished, task.runs);
            lines.push(format!("task {}: {}{reason}{nodes}, {done}", task.id, word(task)));
            let log = log_path(self.dir, task.id);
            lines.extend(log_tail(&log).into_iter().map(|line| format!("    {line}")));
        }
        lines.extend(self.waiting());
        if self.ended_early().count() > LISTED {
            lines.push(format!("... and {} more tasks (--json lists all)", self.ended_early().count() - LISTED));
        }
        for row in survey.failed.iter().take(LISTED) {
            let why = row.error.as_deref().unwrap_or("no reason was noted");
            lines.push(format!("run {} failed on {}: {why}", row.run_id, row.host));
        }
        if survey.failed.len() > LISTED {
            lines.push(format!("... and {} more failed runs (--json lists all)", survey.failed.len() - LISTED));
        }
        let dir = self.dir.display();
        if missing > 0 {
            lines.push(format!("`energylens status {dir} --resubmit` submits the {missing} missing runs"));
        } else if survey.tasks.iter().any(TaskStatus::is_over) {
            lines.push(format!("`energylens status {dir} --merge` merges the tasks that have ended"));
        } else if survey.tasks.is_empty() {
            lines.push(format!("everything is merged; `energylens fit {dir}` goes on"));
        }
        lines.join("\n")
    }
}
