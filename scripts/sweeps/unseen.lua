-- Twelve workloads that demo.lua never measures, each in every configuration that fits the node: what the law fitted to
-- demo.lua is judged on. A choice can only be right or wrong where all alternatives were measured.
local el = require "energylens"

return el.sweep {
  name = "unseen",
  seed = 2,
  axes = {
    model = "llama-2-70b",
    gpu_model = "a100-80gb",
    tensor_parallel = el.choice { 1, 2, 4, 8 },
    pipeline_parallel = el.choice { 1, 2, 4 },
    batch_size = el.choice { 3, 12, 48 },
    input_tokens = el.choice { 200, 1500 },
    output_tokens = el.choice { 40, 350 },
  },
  design = el.factorial {},
  measure = { min_window_s = 2, idle_s = 0.5 },
  workload = el.simulated { gpus = 8 },
}
