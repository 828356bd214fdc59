-- Idea: does one structure of the law hold across architectures and hardware? Dense models of two sizes and two mixtures
-- of experts on GPUs of two makers, spread evenly, for `energylens discover structure --pool models --stability`.
local el = require "energylens"

return el.sweep {
  name = "structure",
  seed = 5,
  axes = {
    model = el.choice { "llama-3.1-8b", "llama-3.1-70b", "mixtral-8x7b", "qwen3-30b-a3b" },
    gpu_model = el.choice { "a100-80gb", "h100-80gb", "mi300x" },
    tensor_parallel = el.choice { 1, 2, 4, 8 },
    pipeline_parallel = el.choice { 1, 2 },
    batch_size = el.geometric { 1, 64 },
    input_tokens = el.geometric { 128, 2048 },
    output_tokens = el.geometric { 16, 256 },
  },
  design = el.latin_hypercube { points = 150, prefill_share = 0.2 },
  measure = { min_window_s = 1, idle_s = 0.5 },
  workload = el.simulated { gpus = 8 },
}
