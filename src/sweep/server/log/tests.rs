//! Logs as servers leave them behind when they do not start.

use super::*;

#[test]
fn the_cause_is_found_and_not_what_follows_from_it() {
    let vllm = "\
(EngineCore_DP0 pid=17374) INFO 09-28 15:47:20 [core.py:77] Initializing a V1 LLM engine (v0.10.2) with config: model='m'
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] EngineCore failed to start.
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] Traceback (most recent call last):
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718]     raise ValueError(
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization (0.9, 3.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.
(APIServer pid=17001)   File \"/usr/lib/python3.10/vllm/v1/engine/utils.py\", line 750, in wait_for_engine_startup
(APIServer pid=17001) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
";
    let told = telling(vllm).expect("something to tell");
    assert!(told.starts_with("out of memory: \"ValueError: Free memory on device (3.22/4.0 GiB)"), "{told}");
    let torch = "\
[rank0]: Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total capacity of 79.15 GiB
RuntimeError: Engine core initialization failed. See root cause above.
";
    assert!(telling(torch).is_some_and(|t| t.starts_with("out of memory: \"torch.OutOfMemoryError")), "{torch}");
    let sglang = "\
[2025-03-29 18:13:01 TP0] Scheduler hit an exception: Traceback (most recent call last):
RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.
[2025-03-29 18:13:01] Received sigquit from a child process. It usually means the child failed.
";
    assert!(telling(sglang).is_some_and(|t| t.starts_with("out of memory: \"RuntimeError: Not enough memory")));
}

#[test]
fn a_taken_port_and_a_misspelt_option_have_names() {
    let taken = "INFO:     Started server process [7]\nOSError: [Errno 98] Address already in use\n";
    assert!(telling(taken).is_some_and(|t| t.starts_with("the port is taken: ")));
    let option =
        "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --tensor-paralel-size 2\n";
    let told = telling(option).expect("something to tell");
    assert!(told.starts_with("it does not know an option: ") && told.contains("--tensor-paralel-size"), "{told}");
    let llama = "error: invalid argument: --cache-ram\n";
    assert!(telling(llama).is_some_and(|t| t.starts_with("it does not know an option: ")));
}

#[test]
fn an_ordinary_exception_is_told_and_else_the_last_lines() {
    let missing = "INFO loading\nOSError: meta/none is not a local folder and is not a valid model identifier\nbye\n";
    assert!(telling(missing).is_some_and(|t| t.starts_with("\"OSError: meta/none")));
    assert_eq!(telling("one\ntwo\n\nthree\n").as_deref(), Some("\"two\" \"three\""));
    assert_eq!(telling("\n \n"), None);
    // What would colour or clear a terminal does not reach one.
    assert!(telling("\u{1b}[31mValueError: x\u{7}\n").is_some_and(|t| !t.contains('\u{1b}') && !t.contains('\u{7}')));
}

#[test]
fn a_log_is_named_even_where_it_says_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("server.log");
    assert!(why(&log).contains("printed nothing") && why(&log).contains("server.log"));
    std::fs::write(&log, "[Errno 98] error while attempting to bind on address: address already in use\n")
        .expect("a log");
    assert!(says_port_is_taken(&log));
}
