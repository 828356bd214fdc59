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

# Most targets write what they are given to a file: in memory, where the machine lets them.
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
scratch=$(mktemp -d -p "$memory")
trap 'rm -rf "$scratch"' EXIT
found=0
for target in "$@"; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    longest=65536
    [ "$target" != mark ] || longest=8192
    corpora=("$corpus" "fuzz/seeds/$target")
    [ "$target" != sweep ] || corpora+=(scripts/sweeps)
    # Few mutations of bytes make a word: those of the seeds are given. An empty list of words would be refused.
    words=$scratch/words
    echo '# words of the seeds' > "$words"
    find "${corpora[@]:1}" -type f -exec cat {} + | LC_ALL=C grep -aoE '[A-Za-z_][A-Za-z0-9_.:-]{1,30}' |
        LC_ALL=C sort -u | sed 's/.*/"&"/' >> "$words" || true
    log=$scratch/log
    # -timeout: longer than the program gives a decoder (store::footer).
    # -malloc_limit_mb: one allocation of more is a finding, whatever the machine has.
    if TMPDIR=$scratch nice -n 19 cargo fuzz run "$target" "${corpora[@]}" -- \
        -dict="$words" -max_total_time="$seconds" -timeout=90 -rss_limit_mb=3000 -malloc_limit_mb=1000 -max_len=$longest \
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
