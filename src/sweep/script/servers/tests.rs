//! What scripts say of servers, and what comes of it.

use std::path::Path;

use serde_json::json;

use crate::sweep::{Plan, ServerSpec, WorkloadSpec};

/// A sweep of four points on `workload`.
fn plan(workload: &str) -> Result<Plan, String> {
    let source = format!(
        "local el = require \"energylens\"\n\
         return el.sweep {{ name = \"s\", design = el.factorial {{}},\n\
           axes = {{ model = \"llama-2-7b\", gpu_model = \"a100-80gb\", tensor_parallel = el.choice {{ 1, 2 }},\n\
                    batch_size = el.choice {{ 4, 8 }}, input_tokens = 500, output_tokens = 100 }},\n\
           workload = {workload} }}\n"
    );
    Plan::from_source("t.lua", &source, Path::new("."), &mut |_| ()).map_err(|e| e.to_string())
}

fn spec(workload: &str) -> (Plan, ServerSpec) {
    let plan = plan(workload).expect("a plan");
    let WorkloadSpec::Server(spec) = plan.workload.clone() else { panic!("{workload} is no server") };
    (plan, spec)
}

fn first_command(workload: &str) -> String {
    let (plan, spec) = spec(workload);
    spec.commands(&plan.points).expect("commands").last().expect("a command").join(" ")
}

#[test]
fn ready_made_servers_know_their_flags_and_cache_no_prompts() {
    let vllm = first_command("el.vllm {}");
    assert_eq!(
        vllm,
        "vllm serve meta-llama/Llama-2-7b-hf --host 127.0.0.1 --port PORT --tensor-parallel-size 2 \
         --pipeline-parallel-size 1 --data-parallel-size 1 --max-model-len 616 --max-num-seqs 8 \
         --no-enable-prefix-caching --dtype bfloat16"
    );
    let sglang = first_command(
        "el.sglang { args = { '--mem-fraction-static', 0.8 }, model_paths = { ['meta-llama/Llama-2-7b-hf'] = '/m/7b' } }",
    );
    assert_eq!(
        sglang,
        "python3 -m sglang.launch_server --model-path /m/7b --host 127.0.0.1 --port PORT --tp-size 2 --pp-size 1 \
         --dp-size 1 --context-length 616 --max-running-requests 8 --disable-radix-cache --mem-fraction-static 0.8 \
         --dtype bfloat16"
    );
    let llama = "el.llama_server { program = { '/opt/llama-server' }, args = { '--split-mode', 'row', '--tensor-split', 'x{tensor_parallel}' } }";
    assert_eq!(
        first_command(llama),
        "/opt/llama-server --model meta-llama/Llama-2-7b-hf --host 127.0.0.1 --port PORT --parallel 8 --ctx-size 4928 \
         --n-gpu-layers 999 --cache-ram 0 --split-mode row --tensor-split x2"
    );
    let (plan, spec) = spec(llama);
    assert_eq!((spec.engine.as_str(), spec.request.get("cache_prompt")), ("llama.cpp", Some(&json!(false))));
    assert!(plan.points.iter().all(|p| p.engine == "llama.cpp"));
}

#[test]
fn every_option_arrives() {
    let (_, spec) = spec(
        "el.server { argv = { 'serve', '{model}', '-t', '{tensor_parallel}', '-p', '{port}' }, engine = 'mine', gpus = 4,\n\
         port = 8123, env = { HF_HOME = '/hf' }, health_path = '/ready', ready_timeout_s = 5, batch_timeout_s = 60,\n\
         served_model = 'm', vocab_size = 50000, precision_args = { fp8 = { '--q' } },\n\
         request = { temperature = 0, logit_bias = { ['7'] = -100 } } }",
    );
    let expected = ServerSpec {
        engine: "mine".to_owned(),
        gpus: 4,
        argv: Some(["serve", "{model}", "-t", "{tensor_parallel}", "-p", "{port}"].map(str::to_owned).to_vec()),
        precision_argv: [("fp8".to_owned(), vec!["--q".to_owned()])].into(),
        env: [("HF_HOME".to_owned(), "/hf".to_owned())].into(),
        url: "http://127.0.0.1:8123".to_owned(),
        health_path: "/ready".to_owned(),
        ready_timeout_s: 5.0,
        batch_timeout_s: 60.0,
        model_paths: [].into(),
        served_model: Some("m".to_owned()),
        vocab_size: Some(50_000),
        request: [("temperature".to_owned(), json!(0)), ("logit_bias".to_owned(), json!({ "7": -100 }))].into(),
    };
    assert_eq!(spec, expected);
    // The plan keeps all of it.
    let kept = serde_json::to_string(&WorkloadSpec::Server(spec.clone())).expect("JSON");
    assert_eq!(serde_json::from_str::<WorkloadSpec>(&kept).expect("a workload"), WorkloadSpec::Server(spec));
}

/// Every run used to fail with "`{port}` has no value here", long after the plan had been shown.
#[test]
fn a_fixed_port_is_known_to_every_word_of_the_command() {
    let words = "argv = { 'serve', '{model}', '{tensor_parallel}', '-p', '{port}' }, engine = 'mine',\n\
                 env = { PORT = '{port}' }, precision_args = { bf16 = { '--listen={port}' } }";
    for place in ["port = 8123", "url = 'http://127.0.0.1:8123'"] {
        let (plan, spec) = spec(&format!("el.server {{ {words}, {place} }}"));
        let point = &plan.points[0];
        let values = spec.values(point, point, None).expect("values");
        let (argv, env) = spec.command(point, &values).expect("a command");
        assert_eq!(argv, ["serve", "meta-llama/Llama-2-7b-hf", "1", "-p", "8123", "--listen=8123"], "{place}");
        assert_eq!(env, [("PORT".to_owned(), "8123".to_owned())], "{place}");
        let shown = spec.commands(&plan.points).expect("commands");
        assert_eq!(shown[0].last().map(String::as_str), Some("--listen=8123"), "{place}");
    }
}

/// The axis was accepted, and each run failed after its server had been started.
#[test]
fn more_requests_than_are_sent_at_once_are_refused_before_anything_starts() {
    let of_4096 = "el.vllm {}";
    let batch = |size: &str| {
        let source = format!(
            "local el = require \"energylens\"\n\
             return el.sweep {{ name = \"s\", design = el.factorial {{}},\n\
               axes = {{ model = \"llama-2-7b\", gpu_model = \"a100-80gb\",\n\
                        batch_size = {size}, input_tokens = 1, output_tokens = 1 }},\n\
               workload = {of_4096} }}\n"
        );
        Plan::from_source("t.lua", &source, Path::new("."), &mut |_| ()).map_err(|e| e.to_string())
    };
    assert!(batch("4096").is_ok());
    assert_eq!(
        batch("el.choice { 1, 8192 }").expect_err("too many"),
        "t.lua:5: workload: points have batch_size up to 8192; a server is sent at most 4096 requests at once: give the \
         axis smaller values"
    );
}

#[test]
fn mistakes_are_errors_that_name_the_place_and_the_cure() {
    let cases = [
        ("el.vllm { gpu = 8 }", "t.lua:5: el.vllm has no option `gpu`; did you mean `gpus`?"),
        (
            "el.server { engine = 'x' }",
            "t.lua:5: el.server needs `argv`, how it is started, or the `url` of one that runs",
        ),
        (
            "el.server { argv = { 'x', '{prot}' }, engine = 'x' }",
            "t.lua:5: `{prot}` has the unknown name `{prot}`; did you mean `{port}`?",
        ),
        (
            "el.server { url = 'https://127.0.0.1:1', engine = 'x' }",
            "t.lua:5: `https://127.0.0.1:1` asks for https, which this program does not speak; expected http://HOST:PORT without a path",
        ),
        (
            "el.vllm { url = 'http://127.0.0.1:1', args = { 'x' } }",
            "t.lua:5: `args` is for a server that is started; `url` is one that runs already",
        ),
        (
            "el.vllm { precision_args = { bf15 = {} } }",
            "t.lua:5: `precision_args` has `bf15`; expected one of fp32, tf32, bf16, fp16, fp8, int8, int4, fp4",
        ),
        ("el.vllm { request = { stream = false } }", "t.lua:5: `request` has `stream`, which the load decides itself"),
        ("el.vllm { request = 7 }", "t.lua:5: `request` is no table of a request's fields: it is 7"),
        ("el.vllm { model_paths = { 'x' } }", "t.lua:5: `model_paths` is a table; expected a table of texts by name"),
        ("el.vllm { args = { true } }", "t.lua:5: `args` has true at 1; expected a text or a number"),
        (
            "el.vllm { health_path = 'health' }",
            "t.lua:5: `health_path` is `health`; expected a path such as \"/health\"",
        ),
        // Only the plan can see these: they depend on the axes.
        (
            "el.server { argv = { 'serve' }, engine = 'x' }",
            "t.lua:5: workload: points have tensor_parallel up to 2, and no word of the server's command has {tensor_parallel}: all of them would be measured on the same server",
        ),
        (
            "el.vllm { model_paths = { ['llama-2-7b'] = '/m' } }",
            "t.lua:5: workload: `model_paths` has `llama-2-7b`, which is no model of the sweep",
        ),
    ];
    for (workload, expected) in cases {
        let found = plan(workload).expect_err(workload);
        assert!(found.starts_with(expected), "{workload}\n{found}\n{expected}");
    }
}
