//! A sweep on the simulated node, under a virtual clock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use energylens::agent::{MarkWriter, RecorderOptions, VirtualRecorder};
use energylens::clock::{ClockAnchor, SimClock, SystemClock};
use energylens::dataset;
use energylens::schema::{MARKS, MarkEvent, Phase, SAMPLES};
use energylens::source::sim::SimNode;
use energylens::store::{FileMetadata, RunRow, columns, host_name, read_table};
use energylens::sweep::runner::{Event, run_plan};
use energylens::sweep::{Plan, Workload};
use energylens::units::NS_PER_MS;

use super::precision::Precision;
use super::{Begun, Conducted, OwnMarks, adaptive, progress};

/// Where simulated time begins, and the pause before a resumed sweep goes on.
const SIMULATED_PAUSE_NS: i64 = 1_000 * NS_PER_MS;

/// Carries out `plan` under a virtual clock: the node lays its time line, the recorder polls through it behind.
pub(super) fn conduct(plan: &Plan, begun: Begun, stop: &AtomicBool) -> anyhow::Result<Conducted> {
    let Begun { campaign, mut journal, job_id, step_id } = begun;
    let dir = campaign.dir();
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

    let mut precision = plan.measure.relative_std.map(Precision::new);
    let bar = progress(plan.most_runs() as u64, journal.finished() as u64);
    let own = OwnMarks { origin: workload.origin(), job_id, step_id };
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
                    marks.write(&own.row(t_mono_ns, run_id, phase, event))?;
                }
                Event::Undecided { point, is_news, wanted, .. } => {
                    if let Some(precision) = &mut precision {
                        if is_news {
                            recorder.flush()?;
                            precision.renew(dir)?;
                        }
                        wanted.set(!precision.has(&point.point_id));
                    }
                    if !wanted.get() {
                        bar.inc(1);
                    }
                }
                Event::Advanced { t_mono_ns } => recorder.run_until(t_mono_ns)?,
                Event::Unplanned { measured, up, room, answer } => {
                    recorder.flush()?;
                    answer.replace(Some(adaptive::next(plan, dir, (measured, up, room), &bar)?));
                }
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
    Ok(Conducted {
        runs,
        recording,
        dataset,
        origin: own.origin,
        decisions: journal.decisions().to_vec(),
        truth_j: energy_j,
    })
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

/// The simulated node's own knowledge of what its runs cost, kept apart from everything that measures.
struct Truth<'a> {
    node: &'a SimNode,
    windows: Vec<(String, i64, Option<i64>)>,
    energy_j: HashMap<(String, Phase), f64>,
}

impl Truth<'_> {
    fn mark(&mut self, phase: &str, event: MarkEvent, t_mono_ns: i64) {
        match event {
            MarkEvent::Begin => self.windows.push((phase.to_owned(), t_mono_ns, None)),
            MarkEvent::End => {
                if let Some(open) = self.windows.iter_mut().rev().find(|w| w.0 == phase) {
                    open.2 = Some(t_mono_ns);
                }
            }
        }
    }

    fn run_ended(&mut self, row: &RunRow) {
        for (phase, begin, end) in &self.windows {
            let batches = match phase.as_str() {
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
