//! Promises: 100,000 points are planned in under 2 s and 300 MiB; the results of 10,000 tasks are merged without being
//! held in memory.
//!
//! Run with `cargo bench --bench slurm`, or without optimisation with `cargo test --bench slurm`. Each part runs in a
//! process of its own, so that its memory is its own.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use energylens::dataset::{self, Dataset};
use energylens::schema::PHASES;
use energylens::slurm::{ArrayRecord, Class, Records, TaskId, merge, note_end, task_dir};
use energylens::store::{Campaign, read_table};
use energylens::sweep::{Journal, Plan, Workload, journal, run_plan};

/// Runs of a task.
const RUNS: usize = 4;
const TASKS_PER_ARRAY: usize = 1000;

/// Tasks: 10,000, or what `$ENERGYLENS_BENCH_TASKS` says.
fn tasks() -> usize {
    std::env::var("ENERGYLENS_BENCH_TASKS").ok().and_then(|tasks| tasks.parse().ok()).unwrap_or(10_000)
}

fn main() {
    match std::env::var("ENERGYLENS_BENCH_PART").as_deref() {
        Ok("plan") => plan_many(),
        Ok("merge") => merge_many(Path::new(&std::env::var("ENERGYLENS_BENCH_DIR").expect("a directory"))),
        _ => {
            part("plan", Path::new("."));
            let dir = tempfile::tempdir().expect("a directory");
            let begin = Instant::now();
            lay_tasks(dir.path());
            println!("{} tasks laid in {:.0} s", tasks(), begin.elapsed().as_secs_f64());
            part("merge", dir.path());
        }
    }
}

fn part(name: &str, dir: &Path) {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.env("ENERGYLENS_BENCH_PART", name).env("ENERGYLENS_BENCH_DIR", dir);
    assert!(command.status().expect("it starts").success(), "{name}");
}

/// Most memory that this process had so far, MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Processor time that this process had so far, s.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn plan_of(points: usize) -> Plan {
    let source = format!(
        "local el = require 'energylens'\nreturn el.sweep {{ name = 'many', axes = {{ model = 'llama-2-7b',\n\
         gpu_model = 'h100', tensor_parallel = el.choice {{ 1, 2, 4, 8 }}, batch_size = el.geometric {{ 1, 256 }},\n\
         input_tokens = el.geometric {{ 16, 1900 }}, output_tokens = el.geometric {{ 1, 2000 }} }},\n\
         design = el.latin_hypercube {{ points = {points} }}, workload = el.simulated {{ gpus = 8 }},\n\
         measure = {{ min_window_s = 0.1 }} }}"
    );
    Plan::from_source("many.lua", &source, Path::new("."), &mut |_| ()).expect("a plan")
}

fn plan_many() {
    let begin = Instant::now();
    let plan = plan_of(100_000);
    println!(
        "{} points planned in {:.2} s, {:.2} s of processor time, {:.0} MiB",
        plan.points.len(),
        begin.elapsed().as_secs_f64(),
        cpu_s(),
        peak_mib()
    );
}

/// What 10,000 tasks leave: a journal, phases, a recording.
fn lay_tasks(dir: &Path) {
    let plan = plan_of(1);
    let campaign = Campaign::create_or_open(dir).expect("a campaign");
    // One run for real; the others are copies under other names.
    let one = dir.join("one");
    let mut journal = Journal::open(&Campaign::create_or_open(&one).expect("a campaign"), &plan).expect("a journal");
    let mut workload = Workload::start(&plan, 0, 1_000).expect("a workload");
    let stop = std::sync::atomic::AtomicBool::new(false);
    run_plan(&plan, &mut journal, &mut workload, &mut |_| Ok(()), &stop).expect("a run");
    let mut rows = Vec::new();
    journal::read_runs(&one, &mut |row| {
        rows.push(row);
        Ok(())
    })
    .expect("its line");
    let row = rows.pop().expect("one run");
    drop(journal);
    let phases = template_rows(&row.run_id);
    std::fs::remove_dir_all(&one).expect("removed");
    drop(Journal::open(&campaign, &plan).expect("a journal"));
    std::fs::create_dir_all(dir.join("slurm")).expect("a directory");
    let mut records = Records::open(dir).expect("records");
    for first in (0..tasks()).step_by(TASKS_PER_ARRAY) {
        let array = (first / TASKS_PER_ARRAY) as u32;
        let ids = |task: usize| (0..RUNS).map(|run| format!("{:010x}-{run}", first + task)).collect::<Vec<_>>();
        let tasks: Vec<Vec<String>> = (0..TASKS_PER_ARRAY.min(tasks() - first)).map(ids).collect();
        for (task, runs) in (0..).zip(&tasks) {
            let at = task_dir(dir, TaskId { array, task });
            Campaign::create_or_open(&at).expect("a task");
            let mut lines = String::new();
            let mut dataset = Dataset::default();
            for run_id in runs {
                let row = energylens::store::RunRow { run_id: run_id.clone(), ..row.clone() };
                lines.push_str(&serde_json::to_string(&row).expect("JSON"));
                lines.push('\n');
                dataset.rows.extend(phases.iter().map(|p| dataset::Row { run_id: run_id.clone(), ..p.clone() }));
            }
            std::fs::write(at.join("runs.jsonl"), lines).expect("a journal");
            std::fs::write(at.join("samples-n1-000000.parquet"), [0; 1000]).expect("a recording");
            dataset::write_phases(&at.join("phases.parquet"), &dataset).expect("phases");
            note_end(&at, runs.len(), Vec::new()).expect("a note");
        }
        let class = Class { num_gpus: 1, gpu_model: "H100".to_owned() };
        records.put(ArrayRecord { array, class, job_id: Some(1), tasks }).expect("a record");
    }
}

/// Three phases of a run, with an energy of no matter what.
fn template_rows(run_id: &str) -> Vec<dataset::Row> {
    use energylens::schema::Phase;
    let csv = "model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,output_tokens,energy_j,duration_s,phase\n\
               llama-2-7b,H100-SXM5-80GB,1,1,1,4,64,16,100,1,total\n";
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("one.csv");
    std::fs::write(&path, csv).expect("a file");
    let row = dataset::load(&path).expect("a row").rows.remove(0);
    [Phase::Prefill, Phase::Decode, Phase::Total]
        .map(|phase| dataset::Row { run_id: run_id.to_owned(), phase, ..row.clone() })
        .to_vec()
}

fn merge_many(dir: &Path) {
    let plan = plan_of(1);
    let campaign = Campaign::open(dir).expect("a campaign");
    let before_mib = peak_mib();
    let begin = Instant::now();
    let mut journal = Journal::open(&campaign, &plan).expect("a journal");
    let mut records = Records::open(dir).expect("records");
    let mut reduce = |dir: &Path| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{} is reduced already", dir.display()).into())
    };
    let merged = merge(&campaign, &mut journal, &mut records, &|_| true, &mut reduce).expect("a merge");
    assert!(merged.problems.is_empty(), "{:?}", merged.problems.first());
    let rows: usize = read_table(dir, &PHASES).expect("phases").map(|b| b.expect("a batch").num_rows()).sum();
    println!(
        "{} tasks, {} runs, {rows} phases merged in {:.1} s, {:.1} s of processor time; {:.0} MiB at most, {before_mib:.0} before",
        merged.tasks,
        merged.runs,
        begin.elapsed().as_secs_f64(),
        cpu_s(),
        peak_mib()
    );
}
