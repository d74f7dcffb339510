#!/usr/bin/env bash
# Iluvatar's training on one process; further flags are those of run_pretraining.py.
set -euo pipefail
source "$(dirname "$0")/fps.sh"
fps 1 --num_train_steps=13206 --num_accumulation_steps=1 "$@"
