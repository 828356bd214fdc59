//! Texts as servers print and answer them.

use serde_json::json;

use super::*;

/// vLLM 0.11 with two tensor-parallel workers.
const VLLM: &str = "\
(APIServer pid=1284584) INFO 10-02 09:12:01 [api_server.py:1839] vLLM API server version 0.11.0
(EngineCore_DP0 pid=1285015) INFO 10-02 09:12:15 [core.py:644] Waiting for init message from front-end.
(Worker_TP0 pid=1285101) INFO 10-02 09:13:03 [gpu_worker.py:298] Available KV cache memory: 58.93 GiB
(EngineCore_DP0 pid=1285015) INFO 10-02 09:13:04 [kv_cache_utils.py:1087] GPU KV cache size: 965,568 tokens
(EngineCore_DP0 pid=1285015) INFO 10-02 09:13:04 [kv_cache_utils.py:1091] Maximum concurrency for 8,192 tokens per request: 117.87x
(EngineCore_DP0 pid=1285015) INFO 10-02 09:13:04 [kv_cache_utils.py:1087] GPU KV cache size: 965,456 tokens
(EngineCore_DP0 pid=1285015) INFO 10-02 09:13:04 [kv_cache_utils.py:1091] Maximum concurrency for 8,192 tokens per request: 117.85x
(APIServer pid=1284584) INFO:     Application startup complete.
";

/// SGLang 0.5.
const SGLANG: &str = "\
[2026-02-22 17:24:51 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=62.92 GB, mem usage=15.01 GB.
[2026-02-22 17:24:51 TP0] KV Cache is allocated. #tokens: 407234, K size: 24.86 GB, V size: 24.86 GB
[2026-02-22 17:25:03 TP0] max_total_num_tokens=407234, chunked_prefill_size=8192, max_prefill_tokens=16384, max_running_requests=4096, context_len=8208, available_gpu_mem=11.05 GB
[2026-02-22 17:25:04] INFO:     Uvicorn running on http://127.0.0.1:30000 (Press CTRL+C to quit)
";

/// TensorRT-LLM: a small cache to find out what is left, then the real one.
const TENSORRT_LLM: &str = "\
[TensorRT-LLM][INFO] Max KV cache blocks per sequence: 257 [window size=8208], tokens per block=32, primary blocks=260, secondary blocks=0
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 1.02 GiB for max tokens in paged KV cache (8320).
[TensorRT-LLM][INFO] Number of tokens per block: 32.
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 57.20 GiB for max tokens in paged KV cache (468640).
";

#[test]
fn each_engine_tells_the_size_of_its_cache_in_its_log() {
    assert_eq!(log_capacity(VLLM), Some(965_456.0));
    assert_eq!(log_capacity(SGLANG), Some(407_234.0));
    assert_eq!(log_capacity(TENSORRT_LLM), Some(468_640.0));
    // vLLM since 0.26: one line with both.
    let joined = "INFO 09-01 [x.py:1] GPU KV cache size: 1,262,567 tokens, Maximum concurrency for 262,144 tokens";
    assert_eq!(log_capacity(joined), Some(1_262_567.0));
    // llama.cpp: two streams; a sliding window's smaller cache beside it; one cache for all slots, or one for each.
    let cells = "llama_kv_cache: size =   16.00 MiB (  4096 cells,   4 layers,  2/2 seqs), K (f16):    8.00 MiB\n\
                 llama_kv_cache: size =    2.00 MiB (   512 cells,   4 layers,  2/2 seqs), K (f16):    1.00 MiB\n";
    assert_eq!(log_capacity(cells), Some(8192.0));
    let slots =
        |unified| format!("I srv load_model: initializing, n_slots = 4, n_ctx_slot = 1024, kv_unified = '{unified}'");
    assert_eq!((log_capacity(&slots(false)), log_capacity(&slots(true))), (Some(4096.0), Some(1024.0)));
}

#[test]
fn logs_that_say_nothing_or_nonsense_give_nothing() {
    for log in ["", "GPU KV cache size: many tokens", "max_total_num_tokens=", "n_slots = x, n_ctx_slot = 3", "\u{0}"] {
        assert_eq!(log_capacity(log), None, "{log}");
    }
}

#[test]
fn metrics_tell_the_cache_too() {
    let vllm = "# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n\
                # TYPE vllm:cache_config_info gauge\n\
                vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",enable_prefix_caching=\"False\",engine=\"0\",\
                gpu_memory_utilization=\"0.9\",num_cpu_blocks=\"None\",num_gpu_blocks=\"60341\",num_gpu_blocks_override=\"None\"} 1.0\n";
    assert_eq!(metrics_capacity(vllm), Some(965_456.0));
    let newer = "vllm:cache_config_info{block_size=\"256\",kv_cache_size_tokens=\"123433\",num_gpu_blocks=\"9\"} 1\n";
    assert_eq!(metrics_capacity(newer), Some(123_433.0));
    assert_eq!(metrics_capacity("vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n"), None);
    assert_eq!(metrics_capacity("sglang:max_total_num_tokens{model_name=\"m\"} 407234.0\n"), Some(407_234.0));
    assert_eq!(metrics_capacity("llamacpp:prompt_tokens_total 8\n"), None);
}

#[test]
fn answers_become_facts() {
    let vllm = Answers {
        models: Some(
            json!({ "object": "list", "data": [{ "id": "meta-llama/Llama-2-7b-hf", "max_model_len": 4096 }] }),
        ),
        version: Some(json!({ "version": "0.11.0" })),
        ..Answers::default()
    };
    let expected = Facts {
        engine_version: Some("0.11.0".to_owned()),
        kv_capacity_tokens: Some(965_456.0),
        served_model: Some("meta-llama/Llama-2-7b-hf".to_owned()),
        vocab_size: None,
        max_context_tokens: Some(4096),
    };
    assert_eq!(vllm.facts(VLLM), expected);
    let sglang = Answers {
        server_info: Some(json!({
            "version": "0.5.6", "tp_size": 2, "internal_states": [{ "memory_usage": { "token_capacity": 1 }, "max_total_num_tokens": 407_234 }],
        })),
        ..Answers::default()
    };
    let facts = sglang.facts("");
    assert_eq!((facts.engine_version.as_deref(), facts.kv_capacity_tokens), (Some("0.5.6"), Some(407_234.0)));
    let llama = Answers {
        models: Some(json!({ "data": [{ "id": "m.gguf", "meta": { "n_vocab": 8192, "n_ctx_train": 8192 } }] })),
        props: Some(
            json!({ "default_generation_settings": { "n_ctx": 1024 }, "total_slots": 4, "build_info": "b6700-3a" }),
        ),
        ..Answers::default()
    };
    let facts = llama.facts("");
    assert_eq!((facts.engine_version.as_deref(), facts.kv_capacity_tokens), (Some("b6700-3a"), Some(4096.0)));
    assert_eq!((facts.vocab_size, facts.max_context_tokens), (Some(8192), Some(1024)));
    assert_eq!(Answers::default().facts(""), Facts::default());
}
