#!/usr/bin/env bash
# Serves a GGUF model with llama.cpp split over two RPC workers on this machine, on loopback: by layers, which is pipeline
# parallelism, or by tensors, which is tensor parallelism. For trials of both on a machine without GPUs.
#
#   llama_rpc.sh layer|tensor MODEL.gguf PORT [SLOTS [CACHE_TOKENS]]
#
# In a sweep:  argv = { "scripts/llama_rpc.sh", "tensor", "{model_path}", "{port}", "{max_batch_size}", "{cache_tokens}" }
#
# Needs llama.cpp's llama-server and its RPC worker (rpc-server or ggml-rpc-server, built with -DGGML_RPC=ON) on the PATH
# or in $LLAMA_BIN. RPC traffic is neither encrypted nor checked: the workers listen on loopback only.
set -euo pipefail

fail() { echo "llama_rpc: error: $*" >&2; exit 2; }

[ $# -ge 3 ] && [ $# -le 5 ] || fail 'usage: llama_rpc.sh layer|tensor MODEL.gguf PORT [SLOTS [CACHE_TOKENS]]'
split=$1 model=$2 port=$3 slots=${4:-4} cache=${5:-8192}
case $split in
    layer | tensor) ;;
    *) fail "the split is $split; expected layer or tensor" ;;
esac
[ -r "$model" ] || fail "$model cannot be read"
for number in "$port" "$slots" "$cache"; do
    case $number in '' | *[!0-9]*) fail "$number is no number" ;; esac
done
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

workers=()
stop() {
    trap - EXIT INT TERM
    [ ${#workers[@]} -eq 0 ] || kill "${workers[@]}" 2>/dev/null || true
    wait
}
trap stop EXIT
# The shell runs a trap only when its foreground child has ended, so that all of them run in the background.
trap 'exit 143' TERM
trap 'exit 130' INT

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

endpoints=()
next=$((port + 1))
for number in 1 2; do
    while is_open "$next"; do next=$((next + 1)); done
    "$worker" --host 127.0.0.1 --port "$next" --threads "$threads" &
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
workers+=($!)
# Whichever ends first ends the rest: a server without its worker answers nothing.
wait -n "${workers[@]}"
