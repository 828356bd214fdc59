-- Fifty configurations of one model on a simulated node of eight A100: enough for a law that separates prefill from
-- decode and tensor from pipeline parallelism. `energylens demo` runs exactly this file.
local el = require "energylens"

return el.sweep {
  name = "demo",
  seed = 1,
  axes = {
    model = "llama-2-70b",
    gpu_model = "a100-80gb",
    tensor_parallel = el.choice { 1, 2, 4, 8 }, -- what does not fit in memory is left out
    pipeline_parallel = el.choice { 1, 2, 4 },
    batch_size = el.geometric { 1, 64 }, -- ranges are drawn from evenly in the logarithm
    input_tokens = el.geometric { 64, 4096 },
    output_tokens = el.geometric { 16, 512 },
  },
  -- One point in five stops at the first token: its energy is prefill alone.
  design = el.latin_hypercube { points = 4, prefill_share = 0.2 },
  -- Counters move every 20 to 100 ms, so each phase is repeated for at least five seconds.
  measure = { min_window_s = 5, idle_s = 0.5 },
  workload = el.simulated { gpus = 8 },
}
