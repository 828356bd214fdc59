-- Idea: state-space layers keep a state of constant size instead of a cache that grows with the context. The second model
-- is described here, the way one describes a model that has no config.json yet.
local el = require "energylens"

local half_and_half = {
  model = "my/hybrid-8b",
  params = 8e9,
  n_layers = 32,
  hidden_size = 4096,
  kv_bytes_per_token = 16 * 2 * 1024 * 2, -- 16 attention layers, keys and values, 8 heads of 128, 2 bytes
  ssm_share = 0.5,
}

return el.sweep {
  name = "hybrid",
  seed = 3,
  axes = {
    model = el.choice { half_and_half, "bamba-9b", "llama-3.1-8b" },
    gpu_model = "mi300x",
    tensor_parallel = el.choice { 1, 2 },
    batch_size = el.geometric { 1, 32 },
    input_tokens = el.geometric { 512, 32768 },
    output_tokens = el.choice { 64, 256 },
  },
  where = function(p) return p.batch_size * p.input_tokens <= 262144 end,
  design = el.latin_hypercube { points = 40, prefill_share = 0.25 },
  measure = { min_window_s = 1, idle_s = 0.5 },
  workload = el.simulated { gpus = 2 },
}
