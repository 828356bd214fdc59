//! A real inference engine: llama.cpp's HTTP server on the CPU with three million random weights, started, driven and
//! ended by sweeps. Joules come from the stub of NVIDIA's library, and say so; times and tokens are real.
//!
//! Needs the Python environment that scripts/python_env.sh makes; without it the tests skip, and say so.

#[path = "support/mod.rs"]
mod support;

#[path = "engine/campaign.rs"]
mod campaign;
#[path = "engine/machine.rs"]
mod machine;

use std::time::Duration;

use energylens::schema::RunStatus;
use energylens::sweep::server::{Completion, Load, Target};
use serde_json::json;

use campaign::{Sweep, phases, runs};
use machine::Machine;

/// The median of some seconds.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn times_are_the_servers_own_and_tokens_are_exact() {
    let Some(machine) = Machine::ready() else { return };
    let server = machine.serve(&["--slots", "4", "--cache-tokens", "8192"]);
    let request = json!({ "cache_prompt": false });
    let request = request.as_object().expect("an object").clone();
    let target = Target { url: server.url.clone(), model: None, request, timeout: Duration::from_secs(120) };
    let mut load = Load::new(target, 5, "", Some(8192));
    let mut never = || None;
    load.batch((1, 1536, 16), &mut never).expect("a warm-up");
    let mut served: Vec<Completion> = Vec::new();
    for _ in 0..9 {
        served.extend(load.batch((1, 1536, 32), &mut never).expect("a batch").completions);
    }
    let own = |of: fn(&Completion) -> f64| median(served.iter().map(of));
    let timings = |c: &Completion| c.timings.expect("llama.cpp's timings");
    let (ttft_s, prompt_s) = (own(|c| c.ttft.as_secs_f64()), median(served.iter().map(|c| timings(c).prompt_ms / 1e3)));
    // The server's decode begins when the first token is there.
    let (tpot_s, decode_s) =
        (own(|c| c.tpot_s().unwrap_or(0.0)), median(served.iter().map(|c| timings(c).predicted_ms / 1e3 / 31.0)));
    println!("ttft {ttft_s:.4} s, the server's {prompt_s:.4} s; tpot {tpot_s:.5} s, the server's {decode_s:.5} s");
    // Five per cent, and what lies between the server's clock and ours on a busy machine: milliseconds for a request.
    assert!(ttft_s > prompt_s * 0.95 - 0.001 && ttft_s < prompt_s * 1.05 + 0.030, "{ttft_s} {prompt_s}");
    assert!((tpot_s - decode_s).abs() < decode_s * 0.05 + 0.001, "{tpot_s} {decode_s}");
    // Four at once: every one whole, or the batch would be refused.
    let four = load.batch((4, 64, 16), &mut never).expect("a batch");
    assert_eq!(four.completions.len(), 4);
    // The server says no where it must, and its words arrive.
    let long = load.batch((1, 2100, 16), &mut never).expect_err("a slot has 2048 tokens");
    assert!(long.contains("status 400") && long.contains("context"), "{long}");
}

#[test]
fn a_sweep_starts_drives_and_ends_its_servers() {
    let Some(machine) = Machine::ready() else { return };
    // A server that takes its time to get ready is waited for.
    let sweep = Sweep::new(&machine).server(&["--wait", "1.5"], "").axes("batch_size = el.choice { 1, 3 }");
    let json = sweep.run_whole();
    assert_eq!(
        (&json["carried_out"], &json["failed"], &json["simulated"]),
        (&json!(4), &json!(0), &json!(false)),
        "{json}"
    );
    let runs = runs(&sweep.campaign());
    assert_eq!(runs.len(), 4);
    for run in &runs {
        assert_eq!(
            (run.status, run.error.as_deref(), run.engine.as_deref()),
            (RunStatus::Done, None, Some("llama.cpp"))
        );
        // Three sequences of 96 + 12 + 16 tokens, in slots of whole blocks of 256.
        assert_eq!(run.kv_capacity_tokens, Some(768.0), "{:?}", run.serving);
        let serving = &run.serving;
        assert!(serving.engine_version.as_deref().is_some_and(|v| v.starts_with('b')), "{serving:?}");
        let batches = if run.output_tokens > 1.0 { run.total_batches } else { run.prefill_batches };
        assert!(batches > 0);
        assert_eq!(serving.completed_requests, Some(batches * run.batch_size as u32));
        assert!(serving.p50_ttft_s <= serving.p90_ttft_s && serving.p90_ttft_s <= serving.p99_ttft_s, "{serving:?}");
        assert!(serving.p50_ttft_s > Some(0.0) && serving.output_tokens_per_s > Some(0.0), "{serving:?}");
        assert_eq!(serving.p50_tpot_s.is_some(), run.output_tokens > 1.0);
        assert_eq!(serving.p99_itl_s.is_some(), run.output_tokens > 1.0);
        assert!(run.devices.len() == 1 && run.devices[0].starts_with("nvml:"), "{:?}", run.devices);
    }
    // The stub's GPU draws 100 W whatever happens.
    let phases = phases(&sweep.campaign());
    assert!(phases.iter().any(|p| p.phase == "decode") && phases.iter().any(|p| p.phase == "prefill"), "{phases:?}");
    let total = phases.iter().filter(|p| p.phase == "total");
    for phase in total {
        assert!((80.0..125.0).contains(&phase.mean_power_w), "{phase:?}");
    }
    // One server for all four, its log kept, nothing of it left.
    assert_eq!(sweep.logs().len(), 1, "{:?}", sweep.logs());
    assert!(!sweep.campaign().join("logs/server.running").exists());
    machine.assert_quiet();
    assert_eq!(sweep.run_whole()["resumed"], 4);
}

#[test]
fn a_server_that_cannot_start_fails_its_runs_and_no_others() {
    let Some(machine) = Machine::ready() else { return };
    let more = "precision_args = { bf16 = {}, fp8 = { '--threads', 'many' } },";
    let sweep = Sweep::new(&machine).server(&[], more).axes("batch_size = 1, precision = el.choice { 'bf16', 'fp8' }");
    let ran = sweep.run().ends_with(3);
    assert_eq!((&ran.json()["carried_out"], &ran.json()["failed"]), (&json!(4), &json!(2)), "{}", ran.stderr);
    let runs = runs(&sweep.campaign());
    for run in &runs {
        let good = run.precision.as_deref() == Some("bf16");
        assert_eq!(run.status == RunStatus::Done, good, "{:?}", run.error);
        if !good {
            let error = run.error.as_deref().expect("a reason");
            assert!(error.starts_with("the server ended with status 2 before it was ready: "), "{error}");
            assert!(error.contains("invalid int value: 'many'") && error.contains("logs/server-"), "{error}");
        }
    }
    // A failed start is tried again for the next run: what failed may have been somebody else's fault.
    assert_eq!(sweep.logs().len(), 3, "{:?}", sweep.logs());
    machine.assert_quiet();
}

#[test]
fn a_server_that_dies_costs_its_run_and_the_next_gets_a_new_one() {
    let Some(machine) = Machine::ready() else { return };
    let sweep = Sweep::new(&machine).server(&[], "").axes("batch_size = el.choice { 1, 2 }");
    let ran = std::thread::scope(|scope| {
        let running = scope.spawn(|| sweep.run());
        sweep.kill_first_server();
        running.join().expect("a sweep")
    });
    let ran = ran.ends_with(3);
    assert_eq!((&ran.json()["carried_out"], &ran.json()["failed"]), (&json!(4), &json!(1)), "{}", ran.stderr);
    let failed: Vec<_> = runs(&sweep.campaign()).into_iter().filter(|r| r.status == RunStatus::Failed).collect();
    let error = failed[0].error.as_deref().expect("a reason");
    assert!(error.starts_with("the server was ended by signal 9 during the run"), "{error}");
    assert_eq!(sweep.logs().len(), 2, "{:?}", sweep.logs());
    machine.assert_quiet();
}

#[test]
fn a_server_that_runs_already_is_measured_and_left_running() {
    let Some(machine) = Machine::ready() else { return };
    let server = machine.serve(&["--slots", "2", "--cache-tokens", "1024"]);
    let sweep = Sweep::new(&machine).running(&server.url).axes("batch_size = 2");
    sweep.run_whole();
    let runs = runs(&sweep.campaign());
    assert!(runs.len() == 2 && runs.iter().all(|r| r.status == RunStatus::Done), "{runs:?}");
    assert_eq!(sweep.logs().len(), 0);
    assert!(server.answers(), "the server was not ours to end");
}

#[test]
fn a_sweep_that_is_stopped_ends_its_server_and_one_that_is_killed_finds_it_later() {
    let Some(machine) = Machine::ready() else { return };
    let sweep = Sweep::new(&machine).server(&[], "").axes("batch_size = el.choice { 1, 2 }");
    let mut stopped = sweep.start();
    sweep.await_served();
    machine::signal("-INT", &stopped.id().to_string());
    assert_eq!(stopped.wait().expect("an end").code(), Some(1), "it says that runs are left");
    machine.assert_quiet();
    let done_before = runs(&sweep.campaign()).len();
    let mut killed = sweep.start();
    sweep.await_served();
    let left_behind = sweep.server_id().expect("a server");
    machine::signal("-KILL", &killed.id().to_string());
    killed.wait().expect("an end");
    assert!(std::path::Path::new(&format!("/proc/{left_behind}")).exists(), "nobody has ended it");
    let json = sweep.run_whole();
    assert!(json["resumed"].as_u64() >= Some(done_before as u64), "{json}");
    assert_eq!(runs(&sweep.campaign()).len(), 4);
    machine.assert_quiet();
}
