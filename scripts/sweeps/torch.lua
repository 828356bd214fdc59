-- A command that marks its own phases: a PyTorch decoder with random weights, on GPUs of this node.
local el = require "energylens"

return el.sweep {
  name = "torch",
  seed = 1,
  axes = {
    model = "llama-2-7b",
    gpu_model = "h100-80gb",
    tensor_parallel = el.choice { 1, 2, 4 },
    batch_size = el.geometric { 1, 64 },
    input_tokens = el.geometric { 64, 4096 },
    output_tokens = el.geometric { 16, 256 },
  },
  design = el.latin_hypercube { points = 24, prefill_share = 0.25 },
  measure = { min_window_s = 10, idle_s = 5, settle_s = 0 },
  workload = el.command {
    argv = { "python3", "scripts/workloads/torch_llm.py" },
    engine = "torch",
    gpus = 4,
    timeout_s = 1800,
  },
}
