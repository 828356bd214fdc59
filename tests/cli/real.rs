//! Sweeps in real time: commands and scripts that mark their own phases, recorded while they run.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use energylens::dataset::{self, Dataset};
use energylens::schema::{Method, Phase, RUNS, RunStatus};
use energylens::store::{RunRow, read_table};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::desk::{Desk, Ran, program};

/// Marks a second of each phase that its point has, and says so.
const WORK: &str = r#"
set -e
phase() { "$EL" mark begin "$1"; sleep 1; "$EL" mark end "$1"; }
echo "run $ENERGYLENS_RUN_ID batch $ENERGYLENS_BATCH_SIZE of $ENERGYLENS_MODEL, word $1, greeting $GREETING"
echo "$ENERGYLENS_RUN_ID" >> started
phase prefill
if [ "$ENERGYLENS_OUTPUT_TOKENS" -gt 1 ]; then
  phase decode
  phase total
  echo '{"prefill_batches": 10, "decode_batches": 4, "total_batches": 2, "mean_tpot_s": 0.03}' > "$ENERGYLENS_RESULT"
fi
"#;

/// A sweep over these batch sizes and output tokens, with `rest` in it.
fn sweep(batch_sizes: &str, output_tokens: &str, rest: &str) -> String {
    format!(
        r#"local el = require "energylens"
return el.sweep {{
  name = "real", repeats = 1,
  axes = {{ model = "llama-2-7b", gpu_model = "a100-80gb", batch_size = el.choice {{ {batch_sizes} }},
           input_tokens = 64, output_tokens = el.choice {{ {output_tokens} }} }},
  design = el.factorial {{}},
  measure = {{ min_window_s = 0.5, idle_s = 0.5, settle_s = 0 }},
  {rest}
}}
"#
    )
}

/// The sweep's workload: `sh work.sh`, with the program under test at hand.
fn command(timeout_s: u32) -> String {
    let el = program().display();
    format!(
        r#"workload = el.command {{ engine = "shell", gpus = 2, timeout_s = {timeout_s},
    argv = {{ "sh", "work.sh", "b={{batch_size}}" }}, env = {{ EL = "{el}", GREETING = "hello {{model}}" }} }},"#
    )
}

/// What the sweep is recorded with: counters that need no hardware.
const SIMULATED: &str = "--sources sim --simulated-gpus 2";

fn run(desk: &Desk, sources: &str) -> Ran {
    desk.type_in(&format!("run sweep.lua -o c --json {sources}"))
}

/// The same with counters, to its end. Whether every difference of two windows is certain enough is another matter.
fn carried_out(desk: &Desk) -> Ran {
    let ran = run(desk, SIMULATED);
    assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.stderr);
    ran
}

fn runs(desk: &Desk) -> Vec<RunRow> {
    let batches = read_table(&desk.path("c"), &RUNS).expect("a table of runs");
    batches.flat_map(|batch| RunRow::from_batch(&batch.expect("a batch")).expect("rows")).collect()
}

fn phases(desk: &Desk) -> Dataset {
    dataset::load(&desk.path("c")).expect("phases")
}

#[test]
fn a_command_that_marks_itself_is_measured_phase_by_phase() {
    let desk = Desk::new();
    desk.put("work.sh", WORK).put("sweep.lua", sweep("4", "1, 8", &command(60)));
    let ran = carried_out(&desk);
    let json = ran.json();
    assert_eq!((json["carried_out"].as_u64(), json["failed"].as_u64()), (Some(2), Some(0)));
    assert_eq!(json["simulated"], true, "what the counters show is simulated");
    // Where nobody sees a bar, each run gets a line.
    for (place, tokens) in [("[1/2] ", "TP 1 PP 1, batch 4, 64 input and "), ("[2/2] ", " output tokens: prefill ")] {
        let line = ran.stderr.lines().find(|l| l.starts_with(place)).unwrap_or_else(|| panic!("{}", ran.stderr));
        assert!(line.contains(tokens) && line.contains(" ± ") && line.contains(" J"), "{line}");
    }
    for run in runs(&desk) {
        assert_eq!(run.devices, ["sim:0"], "the first GPU, and no other");
        assert_eq!((run.status, run.engine.as_deref()), (RunStatus::Done, Some("shell")));
        let log = desk.text(&format!("c/logs/{}.log", run.run_id));
        let expected = format!("run {} batch 4 of {}, word b=4, greeting hello {}", run.run_id, run.model, run.model);
        assert!(log.contains(&expected), "{log}");
    }
    let rows = phases(&desk).rows;
    let found: Vec<_> = rows.iter().filter(|r| r.output_tokens > 1.0).map(|r| (r.phase, r.method)).collect();
    let decodes = [(Phase::Decode, Some(Method::Difference)), (Phase::Decode, Some(Method::Marks))];
    assert!(found.contains(&decodes[1]) && found.contains(&(Phase::Total, None)), "{found:?}");
    let prefills: Vec<_> = rows.iter().filter(|r| r.phase == Phase::Prefill).collect();
    assert_eq!(prefills.len(), 2);
    let many = rows.iter().find(|r| r.method == Some(Method::Marks)).expect("a marked decode");
    // A second of sleep and what `mark` takes, four decodes in it.
    assert!(many.duration_s.is_some_and(|d| d >= 0.25) && many.mean_tpot_s == Some(0.03));
    assert!(many.idle_power_w.is_some_and(|w| w > 0.0));
    let again = carried_out(&desk).json();
    assert_eq!((again["carried_out"].as_u64(), again["resumed"].as_u64()), (Some(0), Some(2)));
}

#[test]
fn the_decoder_of_the_examples_measures_all_its_phases() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no python3");
        return;
    }
    let desk = Desk::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/workloads/torch_llm.py");
    // Without PyTorch: what is tried out is everything around the arithmetic.
    let workload = format!(
        r#"workload = el.command {{ engine = "torch", gpus = 2,
    argv = {{ "python3", "{script}", "--backend", "python" }} }},"#
    );
    desk.put("sweep.lua", sweep("2", "1, 4", &workload));
    carried_out(&desk);
    let runs = runs(&desk);
    let decoding = runs.iter().find(|r| r.output_tokens > 1.0).expect("a run that decodes");
    assert!(decoding.prefill_batches > 1 && decoding.decode_batches > Some(1) && decoding.total_batches > 1);
    assert!(decoding.mean_tpot_s.is_some_and(|s| s > 0.0) && decoding.mean_ttft_s.is_some_and(|s| s > 0.0));
    // 20 refreshes of the slowest counter, which takes 100 ms, are longer than what the sweep asks for. On a busy machine
    // the first run may be over before the period is known.
    let windows_s = runs.iter().filter_map(|r| Some(r.prefill_duration_s? * f64::from(r.prefill_batches)));
    let longest_s = windows_s.fold(0.0, f64::max);
    assert!(longest_s > 1.5, "{longest_s}");
    let mistaken = |words: &[&str]| {
        let ran = Command::new("python3").arg(script).args(words).env_clear().output().expect("python3");
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (code, told) = mistaken(&["--batch-size", "1", "--input-tokens", "1", "--output-tokens", "0"]);
    assert!(code == Some(2) && told.contains("--output-tokens is 0"), "{told}");
    let sizes =
        ["--batch-size", "1", "--input-tokens", "1", "--output-tokens", "2", "--model-card", "{\"n_layers\": 2}"];
    let (code, told) = mistaken(&sizes);
    assert!(code == Some(2) && told.contains("hidden_size"), "{told}");
}

#[test]
fn a_run_that_fails_is_an_outcome_with_the_end_of_its_log() {
    let desk = Desk::new();
    let work = format!(
        "case $ENERGYLENS_BATCH_SIZE in\n 1) echo the weights are not there; exit 3;;\n 2) sleep 1000;;\n \
         4) exit 0;;\n 8) echo '{{\"prefil_batches\": 1}}' > $ENERGYLENS_RESULT; exit 0;;\nesac\n{WORK}"
    );
    desk.put("work.sh", work).put("sweep.lua", sweep("1, 2, 4, 8, 16", "1", &command(8)));
    let ran = run(&desk, SIMULATED).ends_with(3).remarks("batch 2, 64 input and 1 output tokens): `sh` has not ended");
    let json = ran.json();
    assert_eq!((json["carried_out"].as_u64(), json["failed"].as_u64()), (Some(5), Some(4)));
    let error = |batch: f64| {
        let rows = runs(&desk);
        rows.iter().find(|r| r.batch_size == batch).expect("a run").error.clone().unwrap_or_default()
    };
    for (batch, expected) in [
        (1.0, "`sh` ended with status 3; the end of its output:\nthe weights are not there"),
        (2.0, "has not ended within 8 s"),
        (4.0, "phase prefill was not marked"),
        (8.0, "prefil_batches"),
    ] {
        assert!(error(batch).contains(expected), "batch {batch}: {}", error(batch));
    }
    assert_eq!(error(16.0), "");
    assert_eq!(phases(&desk).rows.len(), 1);
}

#[test]
fn a_result_file_is_found_from_everywhere_and_missed_where_it_was_promised() {
    let desk = Desk::new();
    // A relative campaign directory, and a command that does not stay where it was started.
    desk.put(
        "work.sh",
        WORK.replace("set -e\n", "set -e\nEL=$(realpath \"$EL\")\n").replace("phase prefill", "cd /\nphase prefill"),
    );
    desk.put("sweep.lua", sweep("4", "8", &command(60)));
    carried_out(&desk);
    let row = &runs(&desk)[0];
    assert_eq!((row.status, row.prefill_batches, row.total_batches), (RunStatus::Done, 10, 2), "{:?}", row.error);

    let desk = Desk::new();
    let told = command(60).replace(r#""b={batch_size}""#, r#""{result}""#);
    desk.put("work.sh", WORK).put("sweep.lua", sweep("4", "1", &told));
    run(&desk, SIMULATED).ends_with(3);
    let error = runs(&desk)[0].error.clone().unwrap_or_default();
    assert!(error.contains("is given {result} and has not written it") && error.contains(".result.json"), "{error}");
}

#[test]
fn failed_runs_are_carried_out_again_when_somebody_asks() {
    let desk = Desk::new();
    let work = format!("[ $ENERGYLENS_BATCH_SIZE = 1 ] || [ -e mended ] || exit 3\n{WORK}");
    desk.put("work.sh", work).put("sweep.lua", sweep("1, 2", "1", &command(60)));
    let first = run(&desk, SIMULATED).ends_with(3).json();
    assert_eq!((first["carried_out"].as_u64(), first["failed"].as_u64()), (Some(2), Some(1)));
    desk.put("mended", "");
    let plain = run(&desk, SIMULATED).ends_with(3).json();
    let counts = ["carried_out", "resumed", "failed", "failed_before"];
    assert_eq!(counts.map(|c| plain[c].as_u64()), [Some(0), Some(2), Some(1), Some(1)]);
    let again = desk.type_in(&format!("run sweep.lua -o c --json --retry-failed {SIMULATED}"));
    assert!(matches!(again.code, Some(0 | 3)), "{}", again.stderr);
    assert_eq!(counts.map(|c| again.json()[c].as_u64()), [Some(1), Some(1), Some(0), Some(0)]);
    let rows = runs(&desk);
    assert!(rows.len() == 2 && rows.iter().all(|r| r.status == RunStatus::Done), "{rows:?}");
}

#[test]
fn a_program_that_is_not_there_stops_the_sweep_before_any_run() {
    let desk = Desk::new();
    desk.put("work.sh", WORK).put("sweep.lua", sweep("1, 2", "1", &command(60).replace("\"sh\"", "\"no-such-shell\"")));
    run(&desk, SIMULATED).ends_with(1).remarks("`no-such-shell` is not found; expected a program on the PATH");
    assert_eq!(desk.text("c/runs.jsonl"), "", "a run that was never begun");
    // Nothing is measured yet, so that nothing can be mixed with the mended script.
    desk.put("sweep.lua", sweep("1, 2", "1", &command(60)));
    run(&desk, SIMULATED).ends_with(1).remarks("the script has changed");
    let mended = desk.type_in(&format!("run sweep.lua -o c --json --retry-failed {SIMULATED}"));
    assert_eq!(mended.json()["carried_out"].as_u64(), Some(2), "{}", mended.stderr);
}

#[test]
fn a_server_that_cannot_start_is_not_started_for_every_run() {
    let desk = Desk::new();
    let script = "echo x >> starts; echo 'torch.OutOfMemoryError: CUDA out of memory.' >&2; exit 3";
    let workload =
        format!(r#"workload = el.server {{ engine = "mine", gpus = 1, argv = {{ "sh", "-c", "{script}" }} }},"#);
    desk.put("sweep.lua", sweep("1, 2, 4", "1", &workload).replace("repeats = 1", "repeats = 2"));
    let json = run(&desk, SIMULATED).ends_with(3).json();
    assert_eq!((json["carried_out"].as_u64(), json["failed"].as_u64()), (Some(6), Some(6)));
    assert_eq!(desk.text("starts").lines().count(), 2);
    let errors: Vec<String> = runs(&desk).into_iter().filter_map(|r| r.error).collect();
    let at_once = errors.iter().filter(|e| e.contains("not started again") && e.contains("logs/server-0001-")).count();
    assert_eq!((errors.len(), at_once), (6, 4), "{errors:?}");
}

#[test]
fn without_any_counter_runs_are_timed_and_nothing_is_fitted() {
    let desk = Desk::new();
    fs::create_dir(desk.path("sys")).expect("a directory");
    desk.put("work.sh", WORK).put("sweep.lua", sweep("4", "1", &command(60)));
    let ran = run(&desk, "--sources rapl --sysfs-root sys").ends_with(3).remarks("no energy counter can be read here");
    assert_eq!(ran.json()["failed"].as_u64(), Some(0));
    let refused = dataset::load(&desk.path("c")).expect_err("no joules").to_string();
    assert!(refused.contains("no_energy_source") && refused.contains("energylens doctor"), "{refused}");
    assert!(runs(&desk)[0].prefill_duration_s.is_some_and(|d| d >= 1.0), "it was timed");
    desk.type_in("fit c -o model.json").ends_with(1).remarks("no_energy_source");
}

/// Starts the sweep and waits until it has noted `lines` runs and begun `started`.
fn under_way(desk: &Desk, lines: usize, started: usize) -> Child {
    let child = Command::new(program())
        .args("run sweep.lua -o c".split(' ').chain(SIMULATED.split(' ')))
        .current_dir(desk.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let count = |name: &str| fs::read_to_string(desk.path(name)).map_or(0, |t| t.lines().count());
    let give_up = Instant::now() + Duration::from_secs(120);
    while count("c/runs.jsonl") < lines || count("started") < started {
        assert!(Instant::now() < give_up, "it does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn a_killed_sweep_ends_what_it_left_and_repeats_no_finished_run() {
    let desk = Desk::new();
    let work = format!("echo $$ >> processes\n{WORK}\nif [ ! -e c/second ]; then sleep 1000; fi\n");
    let first_is_quick = work.replace("if [ ! -e", "if [ $(wc -l < started) -gt 1 ] && [ ! -e");
    desk.put("work.sh", first_is_quick).put("sweep.lua", sweep("1, 2, 4", "1", &command(600)));
    let mut child = under_way(&desk, 1, 2);
    let pid = Pid::from_raw(child.id() as i32).expect("a number");
    kill_process(pid, Signal::KILL).expect("a process");
    child.wait().expect("an end");
    let left: i32 = desk.text("processes").lines().last().and_then(|n| n.parse().ok()).expect("a number");
    desk.put("c/second", "");
    let json = carried_out(&desk).json();
    assert_eq!((json["resumed"].as_u64(), json["carried_out"].as_u64()), (Some(1), Some(2)));
    // Init may take its time to reap what was killed.
    let left = Pid::from_raw(left).expect("a number");
    let stat = fs::read_to_string(format!("/proc/{}/stat", left.as_raw_nonzero())).unwrap_or_default();
    assert!(test_kill_process(left).is_err() || stat.contains(") Z "), "{stat}");
    let started = desk.text("started");
    let first = started.lines().next().expect("a run");
    assert_eq!(started.matches(first).count(), 1, "{started}");
    assert_eq!(phases(&desk).rows.len(), 3);
}

#[test]
fn stopping_ends_the_command_at_once_and_leaves_the_run_for_later() {
    let desk = Desk::new();
    desk.put("work.sh", format!("{WORK}\nsleep 1000")).put("sweep.lua", sweep("1, 2", "1", &command(600)));
    let mut child = under_way(&desk, 0, 1);
    kill_process(Pid::from_raw(child.id() as i32).expect("a number"), Signal::INT).expect("a process");
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(1));
    assert_eq!(fs::read_to_string(desk.path("c/runs.jsonl")).unwrap_or_default(), "");
}

/// A sweep whose own `run` is `body`.
fn own_run(body: &str) -> String {
    sweep("4", "8", &format!("engine = \"mine\", gpus = 2,\n  run = function(run)\n{body}\n  end,"))
}

#[test]
fn a_script_carries_out_its_own_runs() {
    let desk = Desk::new();
    desk.put(
        "sweep.lua",
        own_run(
            r#"    local p = run.point
    local server = run:spawn { argv = { "sh", "-c", "echo up; sleep 1000" }, env = { KIND = "server" } }
    local told = run:exec { argv = { "sh", "-c", "echo $KIND $ENERGYLENS_RUN_ID; exit 7" }, env = { KIND = p.batch_size } }
    run:log(told.code .. " " .. told.output)
    local sum = run:phase("prefill", function() run:sleep(1) return 3 end)
    run:phase("total", function() run:exec { argv = { "sleep", 1 } } end)
    run:record { prefill_batches = sum, total_batches = 2, mean_ttft_s = 0.25 }
    print("done with " .. run.run_id)
    server:stop()"#,
        ),
    );
    desk.type_in("plan sweep.lua").done().prints("1 points, 1 runs");
    carried_out(&desk);
    let row = &runs(&desk)[0];
    assert_eq!((row.prefill_batches, row.total_batches, row.mean_ttft_s), (3, 2, Some(0.25)));
    assert!(row.prefill_duration_s.is_some_and(|d| (d - 1.0 / 3.0).abs() < 0.3));
    let log = desk.text(&format!("c/logs/{}.log", row.run_id));
    assert!(log.contains(&format!("7 4 {}", row.run_id)) && log.contains("done with"), "{log}");
    let found: Vec<_> = phases(&desk).rows.iter().map(|r| r.phase).collect();
    assert!(found.contains(&Phase::Prefill) && found.contains(&Phase::Total), "{found:?}");
}

#[test]
fn what_the_run_of_a_killed_sweep_has_started_is_ended_by_the_next() {
    let desk = Desk::new();
    let body = r#"    run:spawn { argv = { "sh", "-c", "echo $$ >> processes; sleep 1000" } }
    run:exec { argv = { "sh", "-c", "echo $$ >> processes; [ -e second ] || sleep 1000" } }
    for _, phase in ipairs { "prefill", "total" } do
      run:phase(phase, function() run:sleep(0.5) end)
    end"#;
    desk.put("sweep.lua", own_run(body)).put("processes", "");
    let mut child = under_way(&desk, 0, 0);
    let give_up = Instant::now() + Duration::from_secs(120);
    while desk.text("processes").lines().count() < 2 {
        assert!(Instant::now() < give_up, "it does not get on");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).expect("a process");
    child.wait().expect("an end");
    let left = desk.text("processes");
    desk.put("second", "");
    assert_eq!(carried_out(&desk).json()["carried_out"].as_u64(), Some(1));
    for id in left.lines() {
        // Init may take its time to reap what was killed.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    let notes = fs::read_dir(desk.path("c/logs")).expect("logs").flatten().map(|e| e.path());
    assert_eq!(
        notes.filter(|p| p.extension().is_some_and(|e| e == "running")).count(),
        0,
        "notes go with their processes"
    );
}

#[test]
fn a_script_that_goes_wrong_says_where() {
    for (body, expected) in [
        (
            r#"    run:phase("prefil", function() end)"#,
            "sweep.lua:10: run:phase has no phase `prefil`; did you mean `prefill`?",
        ),
        (
            "    run:phase('total', function()\n      run:phase('prefill', function() end)\n    end)",
            "sweep.lua:11: phase prefill begins inside of phase total",
        ),
        ("    run:phase('total', function() error('no luck') end)", "sweep.lua:10: no luck"),
        ("    run:record { prefil_batches = 1 }", "sweep.lua:10: run:record has no field `prefil_batches`"),
        ("    run:exec { argv = { 'no-such-program-at-all' } }", "sweep.lua:10: run:exec: `no-such-program-at-all`"),
        ("    run.sleep(1)", "sweep.lua:10: run.sleep is called with a dot; write run:sleep"),
        ("    run:sleep('long')", "sweep.lua:10: run:sleep takes seconds"),
        ("    local x = run.point.batch", "sweep.lua:10: run.point has no field `batch`"),
        ("    while true do end", "million instructions"),
        ("    run:log('nothing is marked')", "neither phase total nor phases prefill and decode were marked"),
        (
            "    local s = run:spawn { argv = { 'sh', '-c', 'echo out of memory; exit 1' } }\n    \
             s:wait_ready { url = 'http://127.0.0.1:9/health', timeout_s = 60 }",
            "out of memory",
        ),
    ] {
        let desk = Desk::new();
        desk.put("sweep.lua", own_run(body));
        // Without counters: what is looked at here are words.
        fs::create_dir(desk.path("sys")).expect("a directory");
        run(&desk, "--sources rapl --sysfs-root sys").ends_with(3);
        let error = runs(&desk)[0].error.clone().unwrap_or_default();
        assert!(error.contains(expected), "{body}:\n{error}");
    }
}

#[test]
fn a_sweep_repeats_until_it_is_as_precise_as_was_asked() {
    let desk = Desk::new();
    let of = |relative_std: f64| {
        sweep("1, 8", "16", "workload = el.simulated { gpus = 2, run_noise = 0.02 },")
            .replace("settle_s = 0 }", &format!("relative_std = {relative_std}, max_repeats = 5 }}"))
            .replace("repeats = 1", "repeats = 2")
    };
    desk.put("sweep.lua", of(0.9));
    let easy = run(&desk, "").done().json();
    assert_eq!((easy["carried_out"].as_u64(), easy["spared"].as_u64()), (Some(4), Some(6)), "two of each are enough");
    desk.put("sweep.lua", of(0.001).replace("\"real\"", "\"strict\""));
    let strict = desk.type_in("run sweep.lua -o strict --json").done().json();
    assert_eq!((strict["carried_out"].as_u64(), strict["spared"].as_u64()), (Some(10), Some(0)), "five are not");
}
