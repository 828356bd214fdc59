#!/usr/bin/env bash
# Takes down what scripts/slurm_up.sh brought up in $EL_SLURM_DIR: its jobs first, then its daemons, by their pid files.
set -uo pipefail

dir=${EL_SLURM_DIR:?name the directory of the cluster}
export SLURM_CONF=$dir/etc/slurm.conf
if [ -s "$dir/pid/slurmctld.pid" ] && kill -0 "$(cat "$dir/pid/slurmctld.pid")" 2>/dev/null; then
    timeout 10 squeue --noheader --format=%A 2>/dev/null | sort -u | xargs -r timeout 10 scancel --signal=KILL --full 2>/dev/null
    timeout 10 squeue --noheader --format=%A 2>/dev/null | sort -u | xargs -r timeout 10 scancel 2>/dev/null
fi

pids=()
for file in "$dir"/pid/slurmd.*.pid "$dir"/pid/slurmctld.pid "$dir"/pid/munged.pid; do
    if [ -s "$file" ]; then pids+=("$(cat "$file")"); fi
done
for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
for pid in "${pids[@]}"; do
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
done
exit 0
