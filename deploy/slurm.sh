#!/bin/bash
#SBATCH --job-name=bert
#SBATCH --nodes=2 --ntasks-per-node=1 --exclusive --time=12:00:00
#SBATCH --signal=B:USR1@120 --requeue --open-mode=append
# sbatch deploy/slurm.sh --input_files_dir=... and more flags of run_pretraining.py.
# Run it in the checkout, which all nodes see at the same path. Two minutes before the end
# Slurm sends SIGUSR1 to this script alone (without B: also to the workers, as a second
# signal). Code 75 means that the last step is saved: the job is queued again, and resumes.
.venv/bin/python -m bert_tf launch --restarts 3 -- \
    .venv/bin/mpirun -np "${SLURM_NTASKS:-2}" --bind-to none \
    .venv/bin/python run_pretraining.py --horovod --do_train \
    --output_dir="results/slurm-${SLURM_JOB_ID:-0}" "$@" &
launcher=$!
trap 'kill -USR1 "$launcher"' USR1 TERM
wait "$launcher"             # Returns early, at the signal;
wait "$launcher"; code=$?    # this one waits for the save.
test "$code" -ne 75 || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
