-- The script's own `run`: any server and any client, here llama.cpp's with curl as the load.
local el = require "energylens"

-- One batch: as many requests at once as the point has sequences, of `tokens` output tokens each. curl starts in
-- milliseconds; a client that takes seconds would have the GPU's idle joules counted as the batch's.
local function ask(run, tokens)
  local p = run.point
  local answer = run:exec {
    argv = {
      "curl", "--silent", "--fail", "--fail-early", "--parallel", "--parallel-immediate",
      "--parallel-max", p.batch_size,
      "--json", ('{"prompt":[%s1],"n_predict":%d,"ignore_eos":true,"cache_prompt":false}')
        :format(("1,"):rep(p.input_tokens - 1), tokens),
      "--output", "/dev/null", ("http://127.0.0.1:8080/completion?sequence=[1-%d]"):format(p.batch_size),
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
    local p = run.point
    -- The weights are loaded outside of the windows: their joules belong to no batch.
    local server = run:spawn {
      argv = {
        "llama-server", "--model", "model.gguf", "--port", 8080, "--n-gpu-layers", 99, "--parallel", p.batch_size,
        "--ctx-size", p.batch_size * (p.input_tokens + p.output_tokens + 16),
      },
    }
    server:wait_ready { url = "http://127.0.0.1:8080/health", timeout_s = 300 }
    local batches = 20
    local function window(phase, tokens)
      run:phase(phase, function() for _ = 1, batches do ask(run, tokens) end end)
    end
    window("warmup", 1)
    window("prefill", 1)
    if p.output_tokens > 1 then
      window("total", p.output_tokens)
      run:record { prefill_batches = batches, total_batches = batches }
    else
      run:record { prefill_batches = batches }
    end
    server:stop()
  end,
}
