#!/usr/bin/env bash
# scripts/workloads/torch_llm.py on a real PyTorch, on the CPU: what scripts/check.sh leaves out, because PyTorch is 5 GB.
#   - the cached decode gives the logits of a whole recomputation, and two processes give those of one, for dense,
#     grouped-query, mixture-of-experts, state-space and hybrid cards
#   - a sweep over three of the cards, on one and two processes, through `energylens run`
#   EL_TORCH_PYTHON   a Python that has torch and numpy; without it an environment is made in target/torch-env (pip)
#   EL_PROGRAM        the program (target/debug/energylens)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${EL_TORCH_PYTHON:-target/torch-env/bin/python}
program=$(realpath "${EL_PROGRAM:-target/debug/energylens}")
workload=$PWD/scripts/workloads/torch_llm.py

[ -x "$program" ] || { echo "$program is missing: cargo build first" >&2; exit 1; }
if [ ! -x "$python" ]; then
    [ -z "${EL_TORCH_PYTHON:-}" ] || { echo "$python is no program" >&2; exit 1; }
    python3 -m venv target/torch-env
    target/torch-env/bin/pip install --quiet torch numpy
fi
# Its name as it was given: a virtual environment is known by its path.
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
"$python" -c 'import torch, numpy, platform
print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}")'

# name: layers, width, parameters, bytes of cache per token, the rest. Two heads of 128, or of the cache one.
cards=(
    'dense "n_layers": 4, "hidden_size": 256, "params": 4e6, "kv_bytes_per_token": 4096'
    'grouped "n_layers": 4, "hidden_size": 256, "params": 4e6, "kv_bytes_per_token": 2048'
    'experts "n_layers": 4, "hidden_size": 256, "params": 9e6, "kv_bytes_per_token": 4096, "num_experts": 8, "experts_per_token": 2'
    'state "n_layers": 4, "hidden_size": 256, "params": 2e6, "kv_bytes_per_token": 0, "ssm_share": 1'
    'hybrid "n_layers": 4, "hidden_size": 256, "params": 4e6, "kv_bytes_per_token": 2048, "ssm_share": 0.5'
)
for card in "${cards[@]}"; do
    for ways in 1 2; do
        printf '%s on %s: ' "${card%% *}" "$ways"
        "$python" "$workload" --check --device cpu --model-card "{${card#* }}" --vocabulary 512 --batch-size 3 \
            --input-tokens 70 --output-tokens 6 --tensor-parallel "$ways"
    done
done

desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
cat >"$desk/sweep.lua" <<END
local el = require "energylens"
local function card(name, fields)
  fields.model, fields.n_layers, fields.hidden_size = name, 4, 256
  return fields
end
return el.sweep {
  name = "torch-check",
  axes = {
    model = el.choice {
      card("lab/dense", { params = 4e6, kv_bytes_per_token = 4096 }),
      card("lab/experts", { params = 9e6, active_params = 4e6, kv_bytes_per_token = 4096, num_experts = 8, experts_per_token = 2 }),
      card("lab/state", { params = 2e6, kv_bytes_per_token = 0, ssm_share = 1 }),
    },
    gpu_model = "a100-80gb",
    tensor_parallel = el.choice { 1, 2 },
    batch_size = 2,
    input_tokens = 70,
    output_tokens = el.choice { 1, 8 },
  },
  design = el.factorial {},
  measure = { min_window_s = 0.3, idle_s = 0.1 },
  workload = el.command {
    argv = { "$python", "$workload", "--device", "cpu", "--vocabulary", "512" },
    engine = "torch",
    gpus = 2,
    timeout_s = 600,
  },
}
END
cd "$desk"
# Without an energy counter phases are timed and rejected (status 3); what counts here is that no run failed.
"$program" run sweep.lua -o campaign --json >summary.json || [ $? = 3 ]
"$python" - <<'END'
import json
with open("summary.json", encoding="utf-8") as file:
    summary = json.load(file)
runs = [json.loads(line) for line in open("campaign/runs.jsonl", encoding="utf-8")]
bad = [run for run in runs if run["status"] != "done" or not run["mean_ttft_s"] or run["prefill_batches"] < 1
       or (run["output_tokens"] > 1 and not (run["mean_tpot_s"] and run["decode_batches"] and run["total_batches"]))]
if len(runs) != 12 or summary["failed"] or bad:
    raise SystemExit(f"{len(runs)} runs, {summary['failed']} failed: {[(run['run_id'], run['error']) for run in bad]}")
print("12 runs through `energylens run`: all done, prefill, decode and total marked and timed")
END
