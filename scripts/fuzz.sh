#!/usr/bin/env bash
# Fuzzes every target, or those named, one after the other: bash scripts/fuzz.sh SECONDS [TARGET...]
# Needs `cargo install cargo-fuzz` and a C++ compiler; a stable toolchain will do (RUSTC_BOOTSTRAP). What is found lies in
# fuzz/artifacts/TARGET; once it is mended it belongs into fuzz/seeds/TARGET, which tests/fuzz_seeds.rs replays.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: fuzz.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] || set -- $(ls fuzz/seeds)
export RUSTC_BOOTSTRAP=1

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
found=0
for target in "$@"; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    longest=65536
    [ "$target" != mark ] || longest=8192
    log=$scratch/log
    # -malloc_limit_mb: one allocation of more is a finding, whatever the machine has.
    if TMPDIR=$scratch nice -n 19 cargo fuzz run "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=30 -rss_limit_mb=3000 -malloc_limit_mb=1000 -max_len=$longest \
        -print_final_stats=1 > "$log" 2>&1; then
        result='nothing found'
    else
        result="FOUND: $(grep -aoE 'fuzz/artifacts/[^ ]+' "$log" | tail -1)"
        found=1
        tail -n 40 "$log"
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: ${seconds} s, ${runs:-?} runs: $result"
done
exit $found
