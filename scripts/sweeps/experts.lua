-- Idea: a mixture of experts reads few experts for one sequence and nearly all for many, so the batch size matters more
-- than for a dense model of the same active size. A grid, because the question is about one axis.
local el = require "energylens"

return el.sweep {
  name = "experts",
  seed = 2,
  repeats = 2,
  axes = {
    model = el.choice { "mixtral-8x7b", "qwen2.5-14b" }, -- 12.9 and 14.8 billion parameters per token
    gpu_model = "h100-80gb",
    tensor_parallel = el.choice { 2, 4 },
    batch_size = el.geometric { 1, 64 }, -- in a grid: 1, 2, 4 ... 64
    input_tokens = 512,
    output_tokens = el.choice { 1, 128 },
  },
  design = el.factorial {},
  measure = { min_window_s = 1, idle_s = 0.5 },
  workload = el.simulated { gpus = 4 },
}
