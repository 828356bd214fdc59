//! `plan`, `run` and `demo`: what is measured once is not measured again, whatever ended the first attempt.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use energylens::schema::RUNS;
use energylens::store::{RunRow, read_table};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::desk::{Desk, program};

/// `scripts/sweeps/demo.lua` with other sizes.
fn sweep(points: u32, window_s: u32) -> String {
    let demo = include_str!("../../scripts/sweeps/demo.lua");
    let resized = demo
        .replace("points = 50", &format!("points = {points}"))
        .replace("min_window_s = 5", &format!("min_window_s = {window_s}"));
    assert_ne!(resized, demo, "demo.lua has other sizes now");
    resized
}

fn planned(desk: &Desk, script: &str) -> Vec<String> {
    let json = desk.run(&["plan", script, "--json"]).done().json();
    let runs = json["runs"].as_array().expect("runs");
    runs.iter().map(|r| r["run_id"].as_str().expect("an identifier").to_owned()).collect()
}

fn carried_out(desk: &Desk, campaign: &str) -> Vec<RunRow> {
    let batches = read_table(&desk.path(campaign), &RUNS).expect("a table of runs");
    batches.flat_map(|batch| RunRow::from_batch(&batch.expect("a batch")).expect("rows")).collect()
}

/// Starts `energylens run` and waits until `lines` runs are in its journal.
fn running(desk: &Desk, script: &str, campaign: &str, lines: usize) -> Child {
    let child = Command::new(program())
        .args(["run", script, "-o", campaign])
        .current_dir(desk.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let journal = desk.path(campaign).join("runs.jsonl");
    let give_up = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(&journal).map_or(0, |t| t.lines().count()) < lines {
        assert!(Instant::now() < give_up, "no {lines} runs within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Points went without a word, and of servers only how many different ones there are was said.
#[test]
fn a_plan_says_what_it_leaves_out_and_how_often_servers_start() {
    let desk = Desk::new();
    let sweep = |more: &str| {
        format!(
            "local el = require \"energylens\"\nreturn el.sweep {{ name = \"v\", repeats = 2, axes = {{\n\
             model = \"llama-2-7b\", gpu_model = \"a100-80gb\", tensor_parallel = el.choice {{ 1, 3, 16 }},\n\
             batch_size = el.choice {{ 1, 2 }}, input_tokens = el.choice {{ 64, 90000000 }}, output_tokens = 8 }},\n\
             design = el.factorial {{}}, workload = el.vllm {{ gpus = 8 }}, {more} }}\n"
        )
    };
    desk.put("v.lua", sweep(""));
    desk.type_in("plan v.lua")
        .done()
        .prints("sweep v: 2 points, 4 runs")
        .prints("left out: 10 of 12 combinations: 4 for GPUs that the node does not have, 4 for a hidden_size")
        .prints("2 for the KV cache")
        .prints("one server, started once:");
    desk.put("more.lua", sweep("measure = { relative_std = 0.02, max_repeats = 5 }"));
    desk.type_in("plan more.lua").done().prints("2 points, 4 to 10 runs");
    let json = desk.type_in("plan more.lua --json").done().json();
    let of = |name: &str| json[name].as_u64();
    assert_eq!(
        (of("least_runs"), of("most_runs"), of("least_starts"), of("most_starts")),
        (Some(4), Some(10), Some(1), Some(1))
    );
    assert_eq!((json["left_out"]["of"].as_u64(), json["left_out"]["kv_cache"].as_u64()), (Some(12), Some(2)));
    // Each card once.
    assert_eq!(json["models"].as_array().map(Vec::len), Some(1));
    assert_eq!((json["points"][1]["model"].as_u64(), json["points"][1]["batch_size"].as_u64()), (Some(0), Some(2)));
}

#[test]
fn a_plan_is_printed_and_nothing_is_touched() {
    let desk = Desk::new();
    desk.put("sweep.lua", sweep(30, 1));
    desk.type_in("plan sweep.lua").done().prints("sweep demo: 30 points, 30 runs").prints("18 more points");
    assert_eq!(
        desk.type_in("plan sweep.lua --all").done().stdout.matches("A100-SXM4-80GB").count(),
        30,
        "one line a point"
    );
    assert_eq!(planned(&desk, "sweep.lua"), planned(&desk, "sweep.lua"), "one script, one plan");
    assert_eq!(fs::read_dir(desk.path("")).expect("the desk").count(), 1, "only the script lies there");
}

#[test]
fn a_sweep_runs_once_and_gives_rows_to_fit() {
    let desk = Desk::new();
    desk.put("sweep.lua", sweep(20, 1));
    let first = desk.type_in("run sweep.lua -o c --json").done().json();
    assert_eq!((first["carried_out"].as_u64(), first["resumed"].as_u64()), (Some(20), Some(0)));
    assert_eq!(first["simulated"], true);
    let again = desk.type_in("run sweep.lua -o c").done();
    again.prints("0 runs carried out, 20 done before").prints("[simulated]");
    let fitted = desk.type_in("fit c -o model.json").done();
    fitted.prints("[simulated]");
    desk.type_in("recommend model.json --workload input_tokens=512,output_tokens=64").done().prints("simulated");
    desk.type_in("report c -o c.html").done();
    assert!(desk.text("c.html").contains("simulated"));
    // The tables of a campaign are nobody's output file.
    desk.type_in("fit c -o c/phases.parquet").ends_with(1).remarks("name another file");
    desk.type_in("fit c").done();
}

#[test]
fn a_killed_run_goes_on_without_loss_or_repetition() {
    let desk = Desk::new();
    desk.put("sweep.lua", sweep(60, 10));
    let planned = planned(&desk, "sweep.lua");
    let mut first = running(&desk, "sweep.lua", "c", 3);
    // A second runner is refused, by name of the first.
    let second = desk.type_in("run sweep.lua -o c").ends_with(1);
    let second = second.remarks(&format!("in use by process {}", first.id()));
    assert_eq!(second.stdout, "");
    first.kill().expect("it is killed");
    assert_eq!(first.wait().expect("it ends").code(), None, "killed, not ended");
    let before: Vec<String> = desk.text("c/runs.jsonl").lines().map(str::to_owned).collect();
    assert!((3..60).contains(&before.len()), "it was killed in the middle: {}", before.len());

    let ran = desk.type_in("run sweep.lua -o c").done();
    ran.remarks("recovered").prints("done before");
    assert!(desk.text("c/runs.jsonl").starts_with(&before[..3].join("\n")), "the first runs stand as they were");
    let rows = carried_out(&desk, "c");
    let done: Vec<&String> = rows.iter().map(|r| &r.run_id).collect();
    assert_eq!(done, planned.iter().collect::<Vec<_>>(), "each run of the plan, once, in its order");
    // Every run that ended has its phases; those recorded before the kill too.
    let json = desk.type_in("run sweep.lua -o c --json").done().json();
    assert_eq!((json["carried_out"].as_u64(), json["rejected"].as_array().map(Vec::len)), (Some(0), Some(0)), "{json}");
    let phases = energylens::dataset::load(&desk.path("c")).expect("phases").rows;
    let with_phases: BTreeSet<&String> = phases.iter().map(|r| &r.run_id).collect();
    assert_eq!(with_phases.len(), planned.len());
}

/// `scripts/sweeps/adaptive.lua`, smaller.
fn adaptive(most: u32, window_s: u32) -> String {
    let example = include_str!("../../scripts/sweeps/adaptive.lua");
    let resized = example
        .replace(
            "start = 12, batch = 4, precision = 0.05, max_points = 60",
            &format!("start = 8, batch = 4, precision = 0.02, max_points = {most}, candidates = 200"),
        )
        .replace("min_window_s = 2", &format!("min_window_s = {window_s}"));
    assert!(
        resized.contains("candidates = 200") && resized.contains(&format!("= {window_s}")),
        "adaptive.lua has other sizes now"
    );
    resized
}

#[test]
fn an_adaptive_sweep_measures_fits_and_says_how_sure_it_is() {
    let desk = Desk::new();
    desk.put("sweep.lua", adaptive(16, 1));
    let plan = desk.type_in("plan sweep.lua").done();
    plan.prints("200 candidates; a start of 8 points in 8 runs")
        .prints("sure to 2 % on 95 %")
        .prints("16 points at most");
    let ran = desk.type_in("run sweep.lua -o c --json").done().json();
    assert_eq!((ran["carried_out"].as_u64(), ran["runs"].as_u64()), (Some(16), Some(16)));
    let stands = &ran["adaptive"];
    assert_eq!((stands["points"].as_u64(), stands["batches"].as_u64()), (Some(16), Some(3)), "{stands}");
    assert_eq!(stands["stopped"], "max_points");
    assert!(stands["half_width"].as_f64().is_some_and(|w| w > 0.02 && w < 1.0), "{stands}");
    let status = desk.type_in("status c --json").done().json();
    assert_eq!((&status["adaptive"], status["finished"].as_u64()), (stands, Some(16)));
    let status = desk.type_in("status c").done();
    status
        .prints("16 of at most 16 runs done")
        .prints("after 16 points the law is sure")
        .prints("max_points are measured");
    desk.type_in("fit c -o model.json --no-held-out").done();
    // Another precision is another plan.
    desk.put("sweep.lua", desk.text("sweep.lua").replace("precision = 0.02", "precision = 0.5"));
    desk.type_in("run sweep.lua -o c").ends_with(1).remarks("the script has changed").remarks("adaptive");
}

#[test]
fn a_killed_adaptive_run_keeps_to_what_it_had_chosen() {
    let desk = Desk::new();
    desk.put("sweep.lua", adaptive(24, 10));
    let mut first = running(&desk, "sweep.lua", "c", 10);
    first.kill().expect("it is killed");
    first.wait().expect("it ends");
    let runs: Vec<String> = desk.text("c/runs.jsonl").lines().map(str::to_owned).collect();
    let decided = desk.text("c/decisions.jsonl");
    let whole = decided.rfind('\n').map_or("", |end| &decided[..=end]);
    assert!(!whole.is_empty(), "ten runs need a choice behind the start of eight");
    desk.type_in("run sweep.lua -o c").done().prints("done before");
    assert!(desk.text("c/runs.jsonl").starts_with(&runs[..10].join("\n")), "the first runs stand as they were");
    assert!(desk.text("c/decisions.jsonl").starts_with(whole), "what was decided is kept to");
    let done: Vec<String> = carried_out(&desk, "c").into_iter().map(|r| r.run_id).collect();
    assert_eq!((done.len(), done.iter().collect::<BTreeSet<_>>().len()), (24, 24), "each run once");
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let desk = Desk::new();
    desk.put("sweep.lua", sweep(60, 10));
    let child = running(&desk, "sweep.lua", "c", 2);
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let done = desk.text("c/runs.jsonl").lines().count();
    assert!((2..60).contains(&done), "{done}");
    let json = desk.type_in("run sweep.lua -o c --json").done().json();
    assert_eq!(json["resumed"].as_u64(), Some(done as u64));
    assert_eq!(json["carried_out"].as_u64(), Some(60 - done as u64));
}

#[test]
fn a_changed_script_does_not_mix_its_runs_into_a_campaign() {
    let desk = Desk::new();
    desk.put("sweep.lua", sweep(5, 1));
    desk.type_in("run sweep.lua -o c").done();
    desk.put("sweep.lua", sweep(5, 2));
    desk.type_in("run sweep.lua -o c").ends_with(1).remarks("the script has changed").remarks("new campaign directory");
    // Another comment is no other plan.
    desk.put("sweep.lua", format!("-- a note\n{}", sweep(5, 1)));
    desk.type_in("run sweep.lua -o c").done().prints("5 done before");
}

/// A sweep of two runs that its own `run` carries out, in a second.
fn own_run(body: &str) -> String {
    format!(
        r#"local el = require "energylens"
local function work(run) {body} end
return el.sweep {{
  name = "own", engine = "mine", gpus = 1, design = el.factorial {{}}, measure = {{ idle_s = 0, settle_s = 0 }},
  axes = {{ model = "llama-2-7b", gpu_model = "a100-80gb", batch_size = el.choice {{ 1, 2 }}, input_tokens = 64,
           output_tokens = 1 }},
  run = function(run) work(run) end,
}}
"#
    )
}

/// Without counters: what is looked at is which runs are carried out.
const UNCOUNTED: &str = "run sweep.lua -o c --sources rapl --sysfs-root sys";

#[test]
fn runs_of_two_functions_do_not_mix_in_a_campaign() {
    let desk = Desk::new();
    let body = "run:phase('prefill', function() run:sleep(0.1) end)";
    desk.put("sys/empty", "").put("sweep.lua", own_run(body));
    desk.type_in(UNCOUNTED).ends_with(3).prints("2 runs carried out, 0 failed");
    // The plan is the same, and what is done is not.
    desk.put("sweep.lua", own_run(&body.replace("0.1", "0.2")));
    desk.type_in(UNCOUNTED).ends_with(1).remarks("the script has changed").remarks("`run`");
    desk.type_in(&format!("{UNCOUNTED} --retry-failed")).ends_with(1).remarks("the script has changed");
    desk.put("sweep.lua", format!("-- a note\n\n{}", own_run(&format!("\n {body} -- and another\n"))));
    desk.type_in(UNCOUNTED).ends_with(3).prints("0 runs carried out, 2 done before, 0 failed");
}

#[test]
fn a_function_that_never_worked_may_be_mended() {
    let desk = Desk::new();
    desk.put("sys/empty", "").put("sweep.lua", own_run("run:phaze('prefill')"));
    desk.type_in(UNCOUNTED).ends_with(3).prints("2 runs carried out, 2 failed");
    let again = "0 runs carried out, 2 done before, 2 failed (all of them before: `energylens run ... --retry-failed`";
    desk.type_in(UNCOUNTED).ends_with(3).prints(again);
    desk.put("sweep.lua", own_run("run:phase('prefill', function() run:sleep(0.1) end)"));
    desk.type_in(UNCOUNTED).ends_with(1).remarks("the script has changed");
    desk.type_in(&format!("{UNCOUNTED} --retry-failed")).ends_with(3).prints("2 runs carried out, 0 failed");
    assert_eq!(carried_out(&desk, "c").len(), 2);
}

#[test]
fn the_demo_does_the_whole_job_and_resumes() {
    let desk = Desk::new();
    let first = desk.type_in("demo -o d").done();
    for expected in [
        "50 points",
        "50 runs carried out",
        "energy_j =",
        "k7",
        "a4",
        "judged on workloads that were never fitted",
        "fewest GPUs",
        "mean_tpot_s <= 0.05",
    ] {
        assert!(first.stdout.contains(expected), "{expected}: {}", first.stdout);
    }
    for heading in first.stdout.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())) {
        assert!(heading.contains("[simulated]") || heading.contains("report"), "not labelled: {heading}");
    }
    assert!(desk.text("d/report.html").contains("simulated"));
    let model: serde_json::Value = serde_json::from_str(&desk.text("d/model.json")).expect("JSON");
    assert!(model["laws"].as_array().expect("laws").iter().all(|l| l["simulated"] == true));
    for table in ["d/demo", "d/unseen"] {
        let rows = energylens::dataset::load(&desk.path(table)).expect("phases").rows;
        assert!(rows.iter().all(|r| r.source.to_string() == "simulated"), "{table}");
    }
    let journals = [desk.text("d/demo/runs.jsonl"), desk.text("d/unseen/runs.jsonl")];
    let json = desk.type_in("demo -o d --json").done().json();
    assert_eq!(
        [desk.text("d/demo/runs.jsonl"), desk.text("d/unseen/runs.jsonl")],
        journals,
        "nothing is measured again"
    );
    assert_eq!(json["simulated"], true);
    // A law fitted to the same rows is the same law.
    assert_eq!(json["model"]["laws"][0]["coefficients"], model["laws"][0]["coefficients"]);
}
