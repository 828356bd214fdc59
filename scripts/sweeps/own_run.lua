-- The script's own `run`: any server and any client, here llama.cpp's with its own benchmark as the load.
local el = require "energylens"

-- Requests of `tokens` output tokens, as many at once as the point has sequences.
local function ask(run, tokens)
  local p = run.point
  local answer = run:exec {
    argv = {
      "llama-batched-bench", "--model", "model.gguf", "-npp", p.input_tokens, "-ntg", tokens, "-npl", p.batch_size,
    },
    timeout_s = 600,
  }
  assert(answer.code == 0, answer.output)
end

return el.sweep {
  name = "own-run",
  axes = {
    model = "llama-2-7b",
    gpu_model = "a100-80gb",
    batch_size = el.choice { 1, 8 },
    input_tokens = 512,
    output_tokens = el.choice { 1, 64 },
  },
  design = el.factorial {},
  engine = "llama.cpp",
  gpus = 1,
  run = function(run)
    run:phase("warmup", function() ask(run, 1) end)
    -- Loading the weights is inside of these windows: good for comparing two builds, not for fitting a law.
    run:phase("prefill", function() for _ = 1, 5 do ask(run, 1) end end)
    if run.point.output_tokens > 1 then
      run:phase("total", function() for _ = 1, 5 do ask(run, run.point.output_tokens) end end)
      run:record { prefill_batches = 5, total_batches = 5 }
    else
      run:record { prefill_batches = 5 }
    end
  end,
}
