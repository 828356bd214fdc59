-- Idea: measure where the law is least sure, and no more than that takes. Twelve points begin; then the law is fitted to
-- what came out, and four more are taken where its own value is most in doubt, until it is sure to 5 % on nearly all of
-- the candidates.
local el = require "energylens"

return el.sweep {
  name = "adaptive",
  seed = 1,
  axes = {
    model = "llama-2-70b",
    gpu_model = "a100-80gb",
    tensor_parallel = el.choice { 1, 2, 4, 8 },
    pipeline_parallel = el.choice { 1, 2, 4 },
    batch_size = el.geometric { 1, 64 }, -- candidates are an even sample of what ranges hold
    input_tokens = el.geometric { 64, 4096 },
    output_tokens = el.geometric { 16, 512 },
  },
  design = el.adaptive { start = 12, batch = 4, precision = 0.05, max_points = 60 },
  measure = { min_window_s = 2, idle_s = 0.5 },
  workload = el.simulated { gpus = 8 },
}
