-- Idea: the same work on GPUs of three makers. Each model of GPU gets its own eight in the simulated node.
local el = require "energylens"

return el.sweep {
  name = "gpus",
  seed = 4,
  axes = {
    model = el.choice { "llama-3.1-8b", "llama-3.1-70b" },
    gpu_model = el.choice { "a100-80gb", "h100-80gb", "mi300x", "max-1550" },
    precision = el.choice { "bf16", "fp8" },
    tensor_parallel = el.choice { 1, 2, 4, 8 },
    batch_size = el.geometric { 1, 64 },
    input_tokens = el.geometric { 128, 2048 },
    output_tokens = el.geometric { 16, 256 },
  },
  -- A small model gains nothing from many GPUs: measure those where they may pay.
  where = function(p) return p.num_gpus <= 2 or p.params > 2e10 end,
  design = el.latin_hypercube { points = 60, prefill_share = 0.2 },
  measure = { min_window_s = 1, idle_s = 0.5 },
  workload = el.simulated { gpus = 8 },
}
