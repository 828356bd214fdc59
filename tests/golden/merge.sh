#!/bin/bash
# Written by `energylens submit`.
#SBATCH --chdir="/data/it's c"
#SBATCH --job-name=arrays
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=slurm/logs/merge-000.log
#SBATCH --partition=cpu
#SBATCH --time=30

exec '/opt/el'\''s/energylens' status '/data/it'\''s c' --merge
