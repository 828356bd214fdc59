//! Sweeps from the script to the table of runs, on the simulated node.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use energylens::clock::{ClockAnchor, SystemClock};
use energylens::schema::{MarkEvent, RUNS, RunStatus};
use energylens::store::{Campaign, RunRow, read_table};
use energylens::sweep::{Event, Journal, Outcome, Plan, Workload, run_plan};

fn example(name: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sweeps").join(name);
    Plan::from_script(&path, &mut |line| panic!("{name} printed {line}")).unwrap()
}

/// Carries the plan out in `dir` until `stop_after` runs have ended.
fn carry_out(plan: &Plan, dir: &Path, stop_after: usize) -> Outcome {
    let campaign = Campaign::create_or_open(dir).unwrap();
    let mut journal = Journal::open(&campaign, plan).unwrap();
    let t_start = journal.last_end_mono_ns().unwrap_or(1_000);
    let mut workload = Workload::start(plan, journal.finished(), t_start).unwrap();
    let stop = AtomicBool::new(false);
    let mut ended = 0;
    let outcome = run_plan(
        plan,
        &mut journal,
        &mut workload,
        &mut |event| {
            if let Event::RunEnded { .. } = event {
                ended += 1;
                stop.store(ended >= stop_after, Ordering::Relaxed);
            }
            Ok(())
        },
        &stop,
    )
    .unwrap();
    journal.write_table(ClockAnchor::now(&SystemClock)).unwrap();
    outcome
}

fn rows(dir: &Path) -> Vec<RunRow> {
    let batches = read_table(dir, &RUNS).unwrap();
    batches.flat_map(|batch| RunRow::from_batch(&batch.unwrap()).unwrap()).collect()
}

#[test]
fn every_example_sweep_runs_to_its_end() {
    for (name, points) in [("demo.lua", 50), ("experts.lua", 56), ("hybrid.lua", 40), ("gpus.lua", 60)] {
        let plan = example(name);
        assert_eq!(plan.points.len(), points, "{name}");
        let dir = tempfile::tempdir().unwrap();
        let outcome = carry_out(&plan, dir.path(), usize::MAX);
        assert_eq!((outcome.carried_out, outcome.left), (plan.runs.len(), 0), "{name}");
        let rows = rows(dir.path());
        assert_eq!(rows.len(), plan.runs.len(), "{name}");
        for row in &rows {
            let what = format!("{name} {} {:?}", row.run_id, row.error);
            assert_eq!(row.status, RunStatus::Done, "{what}");
            assert_eq!(row.devices.len(), row.num_gpus as usize, "{what}");
            assert!(row.prefill_batches > 0 && row.prefill_duration_s.unwrap() > 0.0, "{what}");
            assert_eq!(row.total_batches > 0, row.output_tokens > 1.0, "{what}");
            assert_eq!(row.mean_tpot_s.is_some(), row.output_tokens > 1.0, "{what}");
        }
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|r| &r.run_id).collect();
        assert_eq!(ids.len(), rows.len(), "{name}");
    }
}

#[test]
fn an_adaptive_sweep_that_nobody_fits_goes_on_with_its_start_design() {
    let plan = example("adaptive.lua");
    let adaptive = plan.adaptive.as_ref().unwrap();
    assert_eq!((plan.runs.len(), adaptive.rule.start, adaptive.rule.max_points), (12, 12, 60));
    let dir = tempfile::tempdir().unwrap();
    let outcome = carry_out(&plan, dir.path(), usize::MAX);
    assert_eq!((outcome.carried_out, outcome.left, outcome.failed), (60, 0, 0));
    let done: std::collections::BTreeSet<String> = rows(dir.path()).into_iter().map(|r| r.point_id).collect();
    let expected = adaptive.order.iter().map(|&place| plan.points[place].point_id.clone()).collect();
    assert_eq!(done, expected);
    let decisions = energylens::sweep::journal::read_decisions(dir.path()).unwrap();
    assert!(decisions.iter().all(|d| d.no_law.is_some() || d.stopped.is_some()), "{decisions:?}");
}

#[test]
fn sweeps_for_real_engines_are_laid_out() {
    for (name, points, engine) in [("torch.lua", 24, "torch"), ("own_run.lua", 4, "llama.cpp")] {
        let plan = example(name);
        assert_eq!((plan.points.len(), plan.workload.engine()), (points, engine), "{name}");
        assert!(Workload::start(&plan, 0, 0).is_err(), "{name} does not run on the simulated node");
    }
    let plan = example("precise.lua");
    assert_eq!((plan.points.len(), plan.repeats, plan.runs.len()), (4, 2, 40), "ten repeats are laid out");
}

#[test]
fn windows_are_as_long_as_asked_and_follow_each_other() {
    let plan = example("demo.lua");
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let mut journal = Journal::open(&campaign, &plan).unwrap();
    let mut workload = Workload::start(&plan, 0, 5).unwrap();
    let mut marks: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
    let mut last = 5;
    let mut advanced = 5;
    run_plan(
        &plan,
        &mut journal,
        &mut workload,
        &mut |event| {
            match event {
                Event::Mark { t_mono_ns, run_id, phase, event } => {
                    assert!(t_mono_ns >= last, "marks go back");
                    // Whoever polls up to the last `Advanced` has seen everything before this mark.
                    assert_eq!(t_mono_ns, advanced);
                    last = t_mono_ns;
                    let window = marks.entry((run_id.to_owned(), phase.to_owned())).or_insert((t_mono_ns, -1));
                    if event == MarkEvent::End {
                        window.1 = t_mono_ns;
                    }
                }
                Event::Advanced { t_mono_ns } => advanced = t_mono_ns,
                _ => {}
            }
            Ok(())
        },
        &AtomicBool::new(false),
    )
    .unwrap();
    for run in &plan.runs {
        let phases: Vec<&str> = if plan.points[run.point].is_prefill_only() {
            vec!["idle", "warmup", "prefill"]
        } else {
            vec!["idle", "warmup", "prefill", "total"]
        };
        let mut end_before = None;
        for phase in &phases {
            let (begin, end) = marks[&(run.run_id.clone(), (*phase).to_owned())];
            assert!(end_before.is_none_or(|t| t == begin), "{} {phase} does not follow", run.run_id);
            end_before = Some(end);
            let at_least_ns = match *phase {
                "idle" => 500_000_000,
                "warmup" => 1,
                _ => 5_000_000_000,
            };
            assert!(end - begin >= at_least_ns, "{} {phase} lasts {} ns", run.run_id, end - begin);
        }
        assert_eq!(marks.keys().filter(|k| k.0 == run.run_id).count(), phases.len());
    }
}

#[test]
fn a_stopped_sweep_goes_on_where_it_stopped() {
    let plan = example("demo.lua");
    let dir = tempfile::tempdir().unwrap();
    let first = carry_out(&plan, dir.path(), 7);
    assert_eq!((first.carried_out, first.resumed, first.left), (7, 0, 43));
    let second = carry_out(&plan, dir.path(), usize::MAX);
    assert_eq!((second.carried_out, second.resumed, second.left), (43, 7, 0));
    let rows = rows(dir.path());
    let done: Vec<&str> = rows.iter().map(|r| r.run_id.as_str()).collect();
    let planned: Vec<&str> = plan.runs.iter().map(|r| r.run_id.as_str()).collect();
    assert_eq!(done, planned, "runs in the order of the plan, none twice");
    assert!(rows.windows(2).all(|w| w[0].t_end_mono_ns <= w[1].t_begin_mono_ns), "runs overlap");
}

#[test]
fn a_run_that_cannot_start_is_an_outcome() {
    let mut plan = example("demo.lua");
    // Behind the planner's back: a replica that is too small.
    let victim = plan.runs[3].point;
    plan.points[victim].tensor_parallel = 1;
    plan.points[victim].pipeline_parallel = 1;
    let dir = tempfile::tempdir().unwrap();
    let outcome = carry_out(&plan, dir.path(), usize::MAX);
    assert_eq!((outcome.failed, outcome.carried_out), (1, 50));
    let rows = rows(dir.path());
    let failed: Vec<_> = rows.iter().filter(|r| r.status == RunStatus::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].error.as_deref().unwrap().contains("GiB"), "{:?}", failed[0].error);
    assert_eq!(carry_out(&plan, dir.path(), usize::MAX).resumed, 50, "a failed run is not repeated");
}

#[test]
fn a_second_runner_and_a_changed_plan_are_refused() {
    let plan = example("demo.lua");
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let journal = Journal::open(&campaign, &plan).unwrap();
    assert!(Journal::open(&campaign, &plan).is_err(), "two runners at once");
    drop(journal);
    let mut changed = plan.clone();
    changed.measure.min_window_s = 3.0;
    let message = Journal::open(&campaign, &changed).unwrap_err().to_string();
    assert!(message.contains("min_window_s\":5.0") && message.contains("min_window_s\":3.0"), "{message}");
    let mut reworded = plan.clone();
    reworded.script_sha256 = "0".repeat(64);
    assert!(Journal::open(&campaign, &reworded).is_ok(), "another comment is no other plan");
}

#[test]
fn a_run_broken_off_leaves_no_row_and_closed_phases() {
    let plan = example("demo.lua");
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let mut journal = Journal::open(&campaign, &plan).unwrap();
    let mut workload = Workload::start(&plan, 0, 0).unwrap();
    let stop = AtomicBool::new(false);
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    let outcome = run_plan(
        &plan,
        &mut journal,
        &mut workload,
        &mut |event| {
            if let Event::Mark { phase, event, .. } = event {
                stop.store(phase == "prefill", Ordering::Relaxed);
                if event == MarkEvent::Begin { &mut begun } else { &mut ended }.push(phase.to_owned());
            }
            Ok(())
        },
        &stop,
    )
    .unwrap();
    assert_eq!((outcome.carried_out, outcome.left, journal.finished()), (0, 50, 0));
    assert_eq!(begun, ["idle", "warmup", "prefill"]);
    assert_eq!(ended, begun);
}

#[test]
fn an_observer_that_fails_ends_the_sweep_with_its_reason() {
    let plan = example("demo.lua");
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign::create_or_open(dir.path()).unwrap();
    let mut journal = Journal::open(&campaign, &plan).unwrap();
    let mut workload = Workload::start(&plan, 0, 0).unwrap();
    let error = run_plan(&plan, &mut journal, &mut workload, &mut |_| Err("disk full".into()), &AtomicBool::new(false))
        .unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk full");
    assert_eq!(journal.finished(), 0);
}
