#!/bin/bash
# Written by `energylens submit`.
#SBATCH --array=0-11
#SBATCH --chdir=/data/c
#SBATCH --job-name=arrays
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=slurm/logs/003-%a.log
#SBATCH --signal=B:USR1@120

# Array 003: 12 tasks for runs on 1 GPUs each.
program='/usr/bin/energylens'
campaign='/data/c'
directory='/home/u'
array=3
requeue=no

# Slurm writes the log in the campaign; commands and servers start where the sweep was submitted.
cd "$directory" || echo "commands start in $PWD: this node does not see the directory in which the sweep was submitted" >&2

signal=
interrupted=
child=
stop() {
    signal=$1
    interrupted=yes
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

"$program" task "$campaign" --array "$array" --task "$SLURM_ARRAY_TASK_ID" &
child=$!
# A signal that came before the child was known.
if [ -n "$signal" ]; then kill -TERM "$child" 2>/dev/null; fi
code=0
while :; do
    interrupted=
    wait "$child"
    status=$?
    # 127: the status had been taken already.
    if [ "$status" -ne 127 ]; then code=$status; fi
    if [ -z "$interrupted" ]; then break; fi
done

# Stopped by the time limit with something done, or with time left: this task goes on later, where it stopped.
if [ "$signal" = USR1 ] && [ "$code" -eq 75 ] && [ "$requeue" = yes ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
