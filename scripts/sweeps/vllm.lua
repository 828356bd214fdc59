-- Idea: a real server. vLLM is started once for each split of the model over up to eight GPUs, loaded with exactly so
-- many sequences of exactly so many tokens, and ended; joules come from this node's own counters.
local el = require "energylens"

return el.sweep {
  name = "vllm",
  seed = 1,
  repeats = 2,
  axes = {
    model = "llama-3.1-8b",
    gpu_model = "h100-80gb",
    tensor_parallel = el.choice { 1, 2, 4, 8 },
    pipeline_parallel = el.choice { 1, 2 },
    batch_size = el.geometric { 1, 256 },
    input_tokens = el.geometric { 64, 4096 },
    output_tokens = el.geometric { 16, 512 },
  },
  design = el.latin_hypercube { points = 50, prefill_share = 0.2 },
  measure = { min_window_s = 10, idle_s = 5 },
  workload = el.vllm {
    gpus = 8,
    -- Random weights cost the same joules as trained ones; leave it out to load them.
    args = { "--load-format", "dummy" },
  },
}
