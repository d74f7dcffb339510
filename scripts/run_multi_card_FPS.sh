#!/usr/bin/env bash
# Iluvatar's training on IX_NUM_CUDA_VISIBLE_DEVICES (8) processes; further flags are
# those of run_pretraining.py.
set -euo pipefail
source "$(dirname "$0")/fps.sh"
workers=${IX_NUM_CUDA_VISIBLE_DEVICES:-8}
need_number IX_NUM_CUDA_VISIBLE_DEVICES "$workers"
fps "$workers" --num_train_steps=1000 --enable_device_warmup \
  --num_accumulation_steps=4 "$@"
