local el = require "energylens"
print(el)
return el.sweep {
  name = "w", seed = 3,
  axes = { model = el.choice { "llama-2-7b", "llama-2-13b" }, gpu_model = "a100", tensor_parallel = el.choice { 1, 2 },
    batch_size = el.geometric { 1, 8, points = 3 }, input_tokens = el.linear { 16, 64, points = 3 }, output_tokens = 1 },
  where = function(p) return p.tensor_parallel * p.batch_size < 9 end,
  design = el.factorial {}, repeats = 2, workload = el.simulated { gpus = 2 },
}
