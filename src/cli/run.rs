//! `energylens run`: a sweep, carried out here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use energylens::agent::{JobIds, JobPlaces, MarkWriter, RecorderOptions, Recording, VirtualRecorder};
use energylens::clock::{ClockAnchor, SimClock, SystemClock};
use energylens::dataset::{self, Dataset};
use energylens::schema::{MARKS, MarkEvent, Phase, SAMPLES};
use energylens::source::sim::SimNode;
use energylens::store::{Campaign, FileMetadata, MarkRow, RunRow, columns, host_name, read_table};
use energylens::sweep::runner::{Event, Outcome as RunOutcome, run_plan};
use energylens::sweep::{Journal, Plan, Workload};
use energylens::units::NS_PER_MS;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Outcome, agent, doctor, output, service};

/// Where simulated time begins, and the pause before a resumed sweep goes on.
const SIMULATED_PAUSE_NS: i64 = 1_000 * NS_PER_MS;

/// Run a sweep on this machine; a sweep that was interrupted goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens run scripts/sweeps/demo.lua -o demo && energylens fit demo -o model.json")]
pub(crate) struct Arguments {
    /// The Lua script.
    script: PathBuf,
    /// The campaign directory; the sweep's name if left out.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let plan = Plan::from_script(&a.script, &mut output::say)?;
    let dir = a.output.clone().unwrap_or_else(|| PathBuf::from(&plan.name));
    energylens::slurm::Records::refuse_open(&dir)?;
    let stop = super::signals::stop_on_signal()?;
    let conducted = conduct(&plan, &dir, &stop)?;
    let (runs, data) = (&conducted.runs, &conducted.dataset);
    output::remark(data, &[]);
    if a.json {
        output::print_json(&json!({
            "campaign": dir, "simulated": true, "runs": plan.runs.len(), "carried_out": runs.carried_out,
            "resumed": runs.resumed, "failed": runs.failed, "left": runs.left,
            "phases": data.rows.len(), "rejected": data.rejected, "recording": conducted.recording,
        }))?;
    } else {
        output::print(&conducted.describe(&dir))?;
    }
    if runs.left > 0 {
        anyhow::bail!("stopped with {} runs left; the same command goes on with them", runs.left);
    }
    Ok(if runs.failed == 0 && data.rejected.is_empty() { Outcome::Done } else { Outcome::SomeRejected })
}

/// A sweep that was carried out, and what it cost.
pub(crate) struct Conducted {
    pub(crate) runs: RunOutcome,
    pub(crate) recording: Recording,
    pub(crate) dataset: Dataset,
    /// True energy of one batch, J, by run and phase: known on the simulated node alone, and to nobody who measures it.
    pub(crate) truth_j: HashMap<(String, Phase), f64>,
}

impl Conducted {
    pub(crate) fn describe(&self, dir: &Path) -> String {
        let resumed =
            if self.runs.resumed > 0 { format!(", {} done before", self.runs.resumed) } else { String::new() };
        // A session that found everything done has recorded nothing; that says nothing of the campaign.
        let recording = match self.runs.carried_out {
            0 => String::new(),
            _ => format!("{}\n", doctor::summary(&self.recording)),
        };
        format!(
            "{} runs carried out{resumed}, {} failed  [simulated]\n{recording}{} phase energies in {}, {} rejected",
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

/// Carries out `plan` in `dir` under a virtual clock: the node lays its time line, the recorder polls through it behind.
pub(crate) fn conduct(plan: &Plan, dir: &Path, stop: &AtomicBool) -> anyhow::Result<Conducted> {
    let campaign = Campaign::create_or_open(dir)?;
    let job = JobIds::own(&JobPlaces::default(), service::variable);
    let (job_id, step_id) = job.map_or((None, None), |job| (Some(job.job_id), job.step_id));
    let mut journal = Journal::open(&campaign, plan)?.within_job(job_id.clone(), step_id.clone());
    for recovered in campaign.recover()? {
        output::say(&agent::describe(&recovered));
    }
    let t_start_mono_ns = last_instant_ns(dir)?.max(journal.last_end_mono_ns().unwrap_or(0)) + SIMULATED_PAUSE_NS;
    let mut workload = Workload::start(plan, journal.finished(), t_start_mono_ns)?;
    let node = workload.sim_node().context("this workload is not simulated, and no other can be run yet")?.clone();
    let anchor = ClockAnchor { t_mono_ns: t_start_mono_ns, ..ClockAnchor::now(&SystemClock) };
    let clock = SimClock::starting_at(t_start_mono_ns);
    let options =
        RecorderOptions { driver: "simulated".to_owned(), anchor: Some(anchor), ..RecorderOptions::default() };
    let mut recorder =
        VirtualRecorder::start(dir, vec![Box::new(node.source(clock.clone()))], Arc::new(clock), options)?;
    let mut marks = MarkWriter::create(dir, &host_name(), &FileMetadata::of_host(&host_name(), anchor))?;

    let bar = progress(plan.runs.len() as u64, journal.finished() as u64);
    let origin = workload.origin();
    let mut truth = Truth { node: &node, windows: Vec::new(), energy_j: HashMap::new() };
    let runs = run_plan(
        plan,
        &mut journal,
        &mut workload,
        &mut |event| {
            match event {
                Event::RunStarted { .. } => truth.windows.clear(),
                Event::Mark { t_mono_ns, run_id, phase, event } => {
                    truth.mark(phase, event, t_mono_ns);
                    let (run_id, phase) = (run_id.to_owned(), phase.to_owned());
                    let (job_id, step_id) = (job_id.clone(), step_id.clone());
                    marks.write(&MarkRow {
                        t_mono_ns,
                        run_id,
                        phase,
                        event,
                        source: origin,
                        uid: None,
                        job_id,
                        step_id,
                    })?;
                }
                Event::Advanced { t_mono_ns } => recorder.run_until(t_mono_ns)?,
                Event::RunEnded { row, .. } => {
                    truth.run_ended(row);
                    recorder.flush()?;
                    bar.inc(1);
                }
            }
            Ok(())
        },
        stop,
    )?;
    bar.finish_and_clear();
    let energy_j = truth.energy_j;
    let recording = recorder.finish()?;
    marks.seal()?;
    journal.write_table(anchor)?;
    let dataset = dataset::phases::reduce(dir)?;
    Ok(Conducted { runs, recording, dataset, truth_j: energy_j })
}

/// The last instant that the campaign has recorded, or 0: simulated time must not run twice over the same instants.
///
/// Marks count as samples do. A killed run may leave them further on than its samples, and they would then stand between
/// those of the run that is repeated.
fn last_instant_ns(dir: &Path) -> anyhow::Result<i64> {
    let mut last = 0;
    for table in [&SAMPLES, &MARKS] {
        for batch in read_table(dir, table)? {
            last = columns::i64s(&batch?, "t_mono_ns")?.iter().flatten().fold(last, i64::max);
        }
    }
    Ok(last)
}

/// A bar on stderr, shown only where it takes time and somebody looks.
pub(crate) fn progress(total: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_position(done);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// The simulated node's own knowledge of what its runs cost, kept apart from everything that measures.
struct Truth<'a> {
    node: &'a SimNode,
    windows: Vec<(&'static str, i64, Option<i64>)>,
    energy_j: HashMap<(String, Phase), f64>,
}

impl Truth<'_> {
    fn mark(&mut self, phase: &'static str, event: MarkEvent, t_mono_ns: i64) {
        match event {
            MarkEvent::Begin => self.windows.push((phase, t_mono_ns, None)),
            MarkEvent::End => {
                if let Some(open) = self.windows.iter_mut().rev().find(|w| w.0 == phase) {
                    open.2 = Some(t_mono_ns);
                }
            }
        }
    }

    fn run_ended(&mut self, row: &RunRow) {
        for (phase, begin, end) in &self.windows {
            let batches = match *phase {
                "prefill" => (Phase::Prefill, row.prefill_batches),
                "total" => (Phase::Total, row.total_batches),
                _ => continue,
            };
            let energy = |device: &String| self.node.true_energy_j(device, *begin, (*end)?);
            if let Some(energy_j) = row.devices.iter().map(energy).sum::<Option<f64>>() {
                self.energy_j.insert((row.run_id.clone(), batches.0), energy_j / f64::from(batches.1.max(1)));
            }
        }
    }
}
