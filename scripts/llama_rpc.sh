#!/usr/bin/env bash
# Serves a GGUF model with llama.cpp split over RPC workers on this machine, on loopback: by tensors, which is tensor
# parallelism, or by layers, which is pipeline parallelism. For trials of both on a machine without GPUs.
#
#   llama_rpc.sh MODEL.gguf PORT TENSOR_PARALLEL PIPELINE_PARALLEL [SLOTS [CACHE_TOKENS]]
#
# In a sweep (llama.cpp splits one way at a time; `where` leaves the rest out):
#
#   where = function(p) return p.tensor_parallel == 1 or p.pipeline_parallel == 1 end,
#   argv = { "scripts/llama_rpc.sh", "{model_path}", "{port}", "{tensor_parallel}", "{pipeline_parallel}",
#            "{max_batch_size}", "{cache_tokens}" }
#
# Needs llama.cpp's llama-server and its RPC worker (rpc-server or ggml-rpc-server, built with -DGGML_RPC=ON) on the PATH
# or in $LLAMA_BIN. RPC traffic is neither encrypted nor checked: the workers listen on loopback only.
set -euo pipefail

fail() { echo "llama_rpc: error: $*" >&2; exit 2; }

[ $# -ge 4 ] && [ $# -le 6 ] ||
    fail 'usage: llama_rpc.sh MODEL.gguf PORT TENSOR_PARALLEL PIPELINE_PARALLEL [SLOTS [CACHE_TOKENS]]'
model=$1 port=$2 tensor=$3 pipeline=$4 slots=${5:-4} cache=${6:-8192}
[ -r "$model" ] || fail "$model cannot be read"
for number in "${@:2}"; do
    case $number in '' | *[!0-9]* | 0*) fail "$number is no whole number above 0" ;; esac
done
split=layer count=$pipeline
if [ "$tensor" -gt 1 ]; then
    [ "$pipeline" -eq 1 ] || fail "llama.cpp splits by tensors or by layers; tensor $tensor and pipeline $pipeline are both"
    split=tensor count=$tensor
fi
threads=${LLAMA_THREADS:-1}

find_program() { # find_program NAME...: the first that is there
    local name
    for name in "$@"; do
        if [ -n "${LLAMA_BIN:-}" ] && [ -x "$LLAMA_BIN/$name" ]; then
            echo "$LLAMA_BIN/$name"
            return
        fi
        command -v "$name" && return
    done
    return 1
}
server=$(find_program llama-server) || fail 'llama-server is not found; set LLAMA_BIN to where llama.cpp was built'
worker=$(find_program ggml-rpc-server rpc-server) ||
    fail 'neither ggml-rpc-server nor rpc-server is found; build llama.cpp with -DGGML_RPC=ON'

# The server ends first: one that loses a worker aborts. Whoever ends this program may signal all of its processes at
# once: the workers are deaf to that, and the server, which would abort at a second signal, has a second for the first.
workers=()
serving=
stop() {
    trap - EXIT INT TERM
    for _ in $(seq 20); do
        [ -n "$serving" ] && kill -0 "$serving" 2>/dev/null || break
        sleep 0.05
    done
    [ -z "$serving" ] || { kill "$serving" && wait "$serving"; } 2>/dev/null || true
    [ ${#workers[@]} -eq 0 ] || kill -KILL "${workers[@]}" 2>/dev/null || true
    wait 2>/dev/null
}
trap stop EXIT
# The shell runs a trap only when its foreground child has ended, so that all of them run in the background.
trap 'exit 143' TERM
trap 'exit 130' INT

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

endpoints=()
next=$((port + 1))
for number in $(seq "$count"); do
    while is_open "$next"; do next=$((next + 1)); done
    (trap '' INT TERM && exec "$worker" --host 127.0.0.1 --port "$next" --threads "$threads") &
    workers+=($!)
    for _ in $(seq 200); do
        is_open "$next" && break
        kill -0 "${workers[-1]}" 2>/dev/null || fail "worker $number ended as it started"
        sleep 0.05
    done
    is_open "$next" || fail "worker $number does not listen on port $next after 10 s"
    endpoints+=("127.0.0.1:$next")
    next=$((next + 1))
done

"$server" --model "$model" --host 127.0.0.1 --port "$port" --parallel "$slots" --ctx-size "$cache" \
    --threads "$threads" --rpc "$(IFS=,; echo "${endpoints[*]}")" --n-gpu-layers 999 --split-mode "$split" \
    --cache-ram 0 --fit off &
serving=$!
# Whichever ends first ends the rest: a server without its worker answers nothing.
wait -n "$serving" "${workers[@]}"
