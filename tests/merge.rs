//! Results of tasks come together in their campaign, once, whatever ends a merge in between.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use energylens::dataset;
use energylens::schema::{PHASES, RUNS};
use energylens::slurm::{ArrayRecord, Class, Merged, Records, TaskId, is_taken, merge, task_dir};
use energylens::store::{Campaign, columns, read_table};
use energylens::sweep::{Journal, Plan, Workload, run_plan};

const TASKS: usize = 5;

fn plan() -> Plan {
    let source = "local el = require 'energylens'\nreturn el.sweep { name = 'm', axes = { model = 'llama-2-7b',\n\
                  gpu_model = 'h100', batch_size = el.linear { 1, 20 }, input_tokens = 64, output_tokens = 16 },\n\
                  design = el.factorial {}, workload = el.simulated { gpus = 8 }, measure = { min_window_s = 0.1 } }";
    Plan::from_source("m.lua", source, Path::new("."), &mut |_| ()).unwrap()
}

/// A submitted campaign of five tasks with four runs each; so many runs of each task have been carried out.
fn campaign(dir: &Path, done: [usize; TASKS]) -> Plan {
    let plan = plan();
    let campaign = Campaign::create_or_open(dir).unwrap();
    drop(Journal::open(&campaign, &plan).unwrap());
    fs::create_dir(dir.join("slurm")).unwrap();
    let places: Vec<usize> = (0..plan.runs.len()).collect();
    let tasks: Vec<&[usize]> = places.chunks(4).collect();
    let ids = |task: &&[usize]| task.iter().map(|&p| plan.runs[p].run_id.clone()).collect();
    let class = Class { num_gpus: 1, gpu_model: "H100".to_owned() };
    let record = ArrayRecord { array: 0, class, job_id: Some(9), tasks: tasks.iter().map(ids).collect() };
    Records::open(dir).unwrap().put(record).unwrap();
    for (task, runs) in (0..).zip(tasks) {
        let done = done[task as usize];
        if done == 0 {
            continue;
        }
        let task_dir = task_dir(dir, TaskId { array: 0, task });
        fs::create_dir_all(&task_dir).unwrap();
        let part = plan.part(&runs[..done], u64::from(task));
        let mut journal = Journal::open(&Campaign::create_or_open(&task_dir).unwrap(), &part).unwrap();
        let mut workload = Workload::start(&part, 0, 1_000).unwrap();
        run_plan(&part, &mut journal, &mut workload, &mut |_| Ok(()), &AtomicBool::new(false)).unwrap();
        // What a recording leaves; its content is nobody's business here.
        fs::write(task_dir.join("samples-n1-000000.parquet"), [task as u8]).unwrap();
        fs::create_dir(task_dir.join("logs")).unwrap();
        fs::write(task_dir.join("logs/server.log"), "ready").unwrap();
    }
    plan
}

/// Reduces without looking at the recordings.
fn reduce(dir: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let aside = dir.join("samples-n1-000000.parquet");
    let hidden = dir.join("hidden");
    fs::rename(&aside, &hidden)?;
    dataset::reduce(dir)?;
    fs::rename(&hidden, &aside)?;
    Ok(())
}

fn merge_all(dir: &Path, plan: &Plan) -> Merged {
    let campaign = Campaign::open(dir).unwrap();
    let mut journal = Journal::open(&campaign, plan).unwrap();
    let mut records = Records::open(dir).unwrap();
    merge(&campaign, &mut journal, &mut records, &|_| true, &mut reduce).unwrap()
}

fn ids(dir: &Path, table: &'static energylens::schema::Table) -> Vec<String> {
    let mut found = Vec::new();
    for batch in read_table(dir, table).unwrap() {
        let batch = batch.unwrap();
        let ids = columns::text(&batch, "run_id").unwrap();
        found.extend((0..batch.num_rows()).map(|row| columns::text_at(&ids, row).unwrap().to_owned()));
    }
    found
}

/// Runs, each once; and phases, of each run some.
fn content(dir: &Path) -> (Vec<String>, Vec<String>, BTreeSet<String>) {
    let mut runs = ids(dir, &RUNS);
    runs.sort();
    let mut phases = ids(dir, &PHASES);
    phases.sort();
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    (runs, phases, names.filter(|n| n.starts_with("samples")).collect())
}

#[test]
fn results_come_together_and_a_second_merge_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plan = campaign(dir.path(), [4, 4, 1, 0, 4]);
    let merged = merge_all(dir.path(), &plan);
    assert_eq!((merged.tasks, merged.runs, merged.empty, merged.problems.len()), (4, 13, 1, 0));
    let (runs, phases, samples) = content(dir.path());
    let mut expected: Vec<String> =
        [0..4, 4..8, 8..9, 16..20].into_iter().flatten().map(|i: usize| plan.runs[i].run_id.clone()).collect();
    expected.sort();
    assert_eq!(runs, expected);
    assert_eq!(phases.len(), 3 * 13, "prefill, decode and total of each");
    let parts = ["000-0", "000-1", "000-2", "000-4"].map(|part| format!("samples-n1-000000@{part}.parquet"));
    assert_eq!(samples, parts.into());
    assert!(!dir.path().join("tasks").exists());
    assert!(dir.path().join("logs/000-2/server.log").exists());
    let again = merge_all(dir.path(), &plan);
    assert_eq!((again.tasks, again.runs, again.empty, again.open), (0, 0, 0, 0));
    assert_eq!(content(dir.path()), (runs, phases, samples));
    assert!(is_taken(dir.path(), TaskId { array: 0, task: 3 }).unwrap(), "a closed task does not begin anew");
}

#[test]
fn a_task_at_work_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let plan = campaign(dir.path(), [4, 2, 4, 4, 4]);
    let working = Campaign::open(&task_dir(dir.path(), TaskId { array: 0, task: 1 })).unwrap();
    let lock = working.lock().unwrap();
    // The cluster calls it over; its lock says otherwise.
    let merged = merge_all(dir.path(), &plan);
    assert_eq!((merged.tasks, merged.open, merged.runs), (4, 1, 16));
    assert!(working.dir().join("runs.jsonl").exists());
    drop(lock);
    assert_eq!(merge_all(dir.path(), &plan).runs, 2);
    assert_eq!(content(dir.path()).0.len(), 18);
}

#[test]
fn a_damaged_task_stops_no_other_and_keeps_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let plan = campaign(dir.path(), [4, 4, 4, 4, 4]);
    let bad = task_dir(dir.path(), TaskId { array: 0, task: 2 });
    fs::write(bad.join("runs.jsonl"), "no run\n").unwrap();
    let merged = merge_all(dir.path(), &plan);
    assert_eq!((merged.tasks, merged.problems.len()), (4, 1));
    assert!(merged.problems[0].1.contains("line 1 is no run"), "{}", merged.problems[0].1);
    assert!(bad.join("samples-n1-000000.parquet").exists());
    assert!(!is_taken(dir.path(), TaskId { array: 0, task: 2 }).unwrap());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

/// The states in which a kill can leave a campaign, one step of the merge after the other.
fn states_after_kills(dir: &Path, plan: &Plan) -> Vec<(&'static str, PathBuf)> {
    let aside = |dir: &Path, task| {
        let task_dir = task_dir(dir, TaskId { array: 0, task });
        energylens::sweep::journal::write_runs(
            &task_dir,
            energylens::clock::ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 },
        )
        .unwrap();
        reduce(&task_dir).unwrap();
        fs::rename(&task_dir, task_dir.with_file_name(format!("000-{task}.merging"))).unwrap();
    };
    let mut states = Vec::new();
    let mut state = |name: &'static str, change: &dyn Fn(&Path)| {
        let at = dir.join(name);
        campaign(&at, [4; TASKS]);
        change(&at);
        states.push((name, at));
    };
    state("set aside", &|at| aside(at, 0));
    state("moved", &|at| {
        aside(at, 0);
        energylens::store::move_segments(&at.join("tasks/000-0.merging"), at, "000-0").unwrap();
    });
    state("noted by half", &|at| {
        aside(at, 0);
        let campaign = Campaign::open(at).unwrap();
        Journal::open(&campaign, plan).unwrap().take_over(&at.join("tasks/000-0.merging"), &mut |_| ()).unwrap();
        let journal = fs::read(at.join("runs.jsonl")).unwrap();
        fs::write(at.join("runs.jsonl"), &journal[..journal.len() * 2 / 3]).unwrap();
    });
    // After the tables were written, with nothing closed.
    state("written", &|at| {
        let before = at.with_extension("before");
        copy(at, &before);
        merge_all(at, plan);
        fs::remove_file(at.join("slurm/closed.jsonl")).unwrap();
        copy(&before.join("tasks"), &at.join("tasks"));
        for task in 0..TASKS as u32 {
            let task_dir = task_dir(at, TaskId { array: 0, task });
            fs::remove_file(task_dir.join("samples-n1-000000.parquet")).unwrap();
            fs::remove_dir_all(task_dir.join("logs")).unwrap();
            energylens::sweep::journal::write_runs(
                &task_dir,
                energylens::clock::ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 },
            )
            .unwrap();
            dataset::reduce(&task_dir).unwrap();
            fs::rename(&task_dir, task_dir.with_file_name(format!("000-{task}.merging"))).unwrap();
        }
    });
    // Closed, and not yet removed.
    state("closed", &|at| {
        let before = at.with_extension("before2");
        copy(at, &before);
        merge_all(at, plan);
        copy(&before.join("tasks/000-0"), &at.join("tasks/000-0.merging"));
    });
    states
}

#[test]
fn a_merge_that_is_killed_anywhere_is_carried_on_by_the_next() {
    let whole = tempfile::tempdir().unwrap();
    let plan = campaign(whole.path(), [4; TASKS]);
    merge_all(whole.path(), &plan);
    let expected = content(whole.path());
    assert_eq!((expected.0.len(), expected.1.len(), expected.2.len()), (20, 60, 5));
    let dir = tempfile::tempdir().unwrap();
    for (name, at) in states_after_kills(dir.path(), &plan) {
        let merged = merge_all(&at, &plan);
        assert!(merged.problems.is_empty(), "{name}: {:?}", merged.problems);
        assert_eq!(content(&at), expected, "{name}");
        assert!(!at.join("tasks").exists(), "{name}");
        assert_eq!(Records::open(&at).unwrap().open_tasks().count(), 0, "{name}");
    }
}
