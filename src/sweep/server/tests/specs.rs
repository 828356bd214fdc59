//! Templates, points that a server cannot tell apart, starts that fail.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::{ServerSpec, ServerWorkload, deployments};
use crate::sweep::workload::Trouble;
use crate::sweep::{Plan, Point, Surroundings, VisibleDevices};

/// The plan of a sweep over these axes.
fn plan(axes: &str) -> Plan {
    let script = format!(
        "local el = require 'energylens'\nreturn el.sweep {{ name = 's', design = el.factorial {{}},\n\
         workload = el.simulated {{ gpus = 8 }}, axes = {{ model = 'llama-2-7b', gpu_model = 'a100-80gb',\n\
         batch_size = el.choice {{ 1, 16 }}, input_tokens = el.choice {{ 64, 512 }}, output_tokens = 128, {axes} }} }}"
    );
    Plan::from_source("s.lua", &script, Path::new("."), &mut |_| {}).expect("a plan")
}

fn spec(argv: &[&str]) -> ServerSpec {
    ServerSpec { argv: Some(argv.iter().map(|w| (*w).to_owned()).collect()), ..ServerSpec::default() }
}

fn start(plan: &Plan, spec: &ServerSpec, dir: &Path) -> ServerWorkload {
    start_under(plan, spec, dir, false)
}

fn start_under(plan: &Plan, spec: &ServerSpec, dir: &Path, is_stopped: bool) -> ServerWorkload {
    let stop = Arc::new(AtomicBool::new(is_stopped));
    let (dir, devices) = (dir.to_owned(), VisibleDevices::default());
    let surroundings =
        Surroundings { dir, devices, marks: None, script: None, stop, slowest_refresh_ns: Arc::default() };
    ServerWorkload::start(plan, spec, surroundings).expect("a workload")
}

/// Why the point's server does not start.
fn refused(server: &mut ServerWorkload, point: &Point) -> String {
    server.deploy(point).expect_err("no server").to_string()
}

#[test]
fn words_get_the_points_values_and_the_largest_sizes_of_the_deployment() {
    let plan = plan("tensor_parallel = el.choice { 1, 2 }");
    let largest = deployments(&plan.points);
    assert_eq!(largest.len(), 2);
    let mut spec = spec(&[
        "serve",
        "{model_path}",
        "--tp={tensor_parallel}",
        "--len",
        "{context_tokens}",
        "{cache_tokens}",
        "{max_batch_size}",
    ]);
    spec.model_paths.insert("meta-llama/Llama-2-7b-hf".to_owned(), "/models/7b-{precision}".to_owned());
    spec.precision_argv.insert("bf16".to_owned(), vec!["--dtype".to_owned(), "bfloat16".to_owned()]);
    spec.env.insert("PORT".to_owned(), "{port}".to_owned());
    assert_eq!(spec.check_words(), Ok(()));
    assert_eq!(spec.check_points(&plan.points), Ok(()));
    let point = plan.points.iter().find(|p| p.tensor_parallel == 2 && p.batch_size == 1).expect("a point");
    let values = spec.values(point, &largest[1], Some(8001)).expect("values");
    let (argv, env) = spec.command(point, &values).expect("a command");
    // 512 + 128 + 16 tokens for each of 16 sequences.
    let expected = ["serve", "/models/7b-bf16", "--tp=2", "--len", "656", "10496", "16", "--dtype", "bfloat16"];
    assert_eq!(argv, expected);
    assert_eq!(env, [("PORT".to_owned(), "8001".to_owned())]);
}

#[test]
fn points_that_would_share_a_server_by_mistake_are_refused() {
    let several = plan("tensor_parallel = el.choice { 1, 2 }").points;
    let refused = |spec: &ServerSpec, points: &[Point]| spec.check_points(points).expect_err("a refusal");
    let deaf = refused(&spec(&["serve", "{model}"]), &several);
    assert!(deaf.contains("tensor_parallel up to 2") && deaf.contains("{tensor_parallel}"), "{deaf}");
    let running = refused(&ServerSpec { url: "http://127.0.0.1:1".to_owned(), ..ServerSpec::default() }, &several);
    assert!(running.contains("running already") && running.contains("tensor_parallel 2"), "{running}");
    let replicas = refused(&spec(&["serve"]), &plan("data_parallel = el.choice { 1, 4 }, batch_size = 16").points);
    assert!(replicas.contains("data_parallel up to 4"), "{replicas}");
    let precisions = plan("precision = el.choice { 'bf16', 'fp8' }").points;
    let precision = refused(&spec(&["serve"]), &precisions);
    assert!(precision.contains("several precisions"), "{precision}");
    let mut told = spec(&["serve"]);
    told.precision_argv.insert("fp8".to_owned(), vec!["--quantization".to_owned(), "fp8".to_owned()]);
    assert!(refused(&told, &precisions).contains("bf16"));
    told.precision_argv.insert("bf16".to_owned(), Vec::new());
    assert_eq!(told.check_points(&precisions), Ok(()));
    told.model_paths.insert("meta-llama/Llama-2-7b".to_owned(), "/x".to_owned());
    assert!(refused(&told, &precisions).contains("did you mean `meta-llama/Llama-2-7b-hf`?"));
}

#[test]
fn words_and_addresses_are_checked_before_anything_starts() {
    let wrong = |spec: ServerSpec| spec.check_words().expect_err("a refusal");
    assert!(wrong(spec(&["--port={prot}"])).contains("{port}"));
    assert!(wrong(ServerSpec { url: "https://x:1".to_owned(), ..spec(&["x"]) }).contains("https"));
    assert!(wrong(ServerSpec { argv: None, ..ServerSpec::default() }).contains("running server"));
}

#[test]
fn a_start_that_fails_is_told_with_the_logs_cause_and_a_log_for_each_try() {
    let (plan, dir) = (plan(""), tempfile::tempdir().expect("a directory"));
    let script = "echo loading; echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB' >&2; exit 3";
    let mut server = start(&plan, &spec(&["sh", "-c", script]), dir.path());
    for number in 1..3 {
        let why = refused(&mut server, &plan.points[0]);
        assert!(why.starts_with("the server ended with status 3 before it was ready: out of memory: "), "{why}");
        let log = dir.path().join(format!("logs/server-000{number}-server-tp1-pp1-dp1.log"));
        assert!(why.contains(&log.display().to_string()) && log.exists(), "{why}");
    }
    assert!(server.batch(&plan.points[0], 1).is_err_and(|e| e == "no server is up"));
    let mut missing = start(&plan, &spec(&["no-such-engine-at-all"]), dir.path());
    let Err(Trouble::Sweep(why)) = missing.deploy(&plan.points[0]) else { panic!("the next run would try again") };
    assert!(why.contains("`no-such-engine-at-all` is not found"), "{why}");
    assert!(!dir.path().join("logs/server.running").exists(), "nothing runs");
}

#[test]
fn a_port_that_is_taken_is_refused_before_the_start_and_a_lost_race_is_run_again() {
    let (plan, dir) = (plan(""), tempfile::tempdir().expect("a directory"));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let taken = ServerSpec { url: url.clone(), ..spec(&["sh", "-c", "exit 0"]) };
    let why = refused(&mut start(&plan, &taken, dir.path()), &plan.points[0]);
    assert!(why.contains("listens") && why.contains(&url), "{why}");
    let late = spec(&["sh", "-c", "echo 'OSError: [Errno 98] Address already in use'; exit 1", "{port}"]);
    let why = refused(&mut start(&plan, &late, dir.path()), &plan.points[0]);
    assert!(why.contains("the port is taken"), "{why}");
    let logs = std::fs::read_dir(dir.path().join("logs")).expect("logs").count();
    assert_eq!(logs, 2, "a second port was tried");
}

#[test]
fn a_server_that_never_gets_ready_is_ended_after_its_time() {
    let (plan, dir) = (plan(""), tempfile::tempdir().expect("a directory"));
    let patient = ServerSpec { ready_timeout_s: 0.3, ..spec(&["sleep", "1000"]) };
    let mut server = start(&plan, &patient, dir.path());
    let why = refused(&mut server, &plan.points[0]);
    assert!(why.starts_with("the server is not ready after 0.3 s: http://127.0.0.1:"), "{why}");
    let mut server = start_under(&plan, &spec(&["sleep", "1000"]), dir.path(), true);
    assert!(refused(&mut server, &plan.points[0]).contains("asked to stop"));
}
