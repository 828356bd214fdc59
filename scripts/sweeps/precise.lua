-- Repeats where they are needed: each point runs until its mean energies are known to 1 %, ten times at most.
local el = require "energylens"

return el.sweep {
  name = "precise",
  repeats = 2,
  axes = {
    model = "llama-2-7b",
    gpu_model = "a100-80gb",
    tensor_parallel = el.choice { 1, 2 },
    batch_size = el.choice { 1, 16 },
    input_tokens = 256,
    output_tokens = 64,
  },
  design = el.factorial {},
  measure = { relative_std = 0.01, max_repeats = 10, min_window_s = 2, idle_s = 0.5 },
  workload = el.simulated { gpus = 2, run_noise = 0.02 },
}
