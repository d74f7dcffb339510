#!/usr/bin/env bash
# Intel's fast_bert recipe: bfloat16, padding left out, 2048 sequences a step.
# Variables: those of pretrain.sh, NPROCESS (32), GBS (2048); GBS / NPROCESS is
# the batch of each process.
set -euo pipefail
source "$(dirname "$0")/pretrain.sh"
workers=${NPROCESS:-32} batch=${GBS:-2048}
need_number NPROCESS "$workers"
need_number GBS "$batch"
if [ $((batch % workers)) != 0 ]; then
  refuse "GBS must be a multiple of NPROCESS. Received: GBS=$batch NPROCESS=$workers"
fi
if [ -n "${PROCESS_PER_NODE:-}" ]; then
  need_number PROCESS_PER_NODE "$PROCESS_PER_NODE"
  NNODES=${NNODES:-$(((workers + PROCESS_PER_NODE - 1) / PROCESS_PER_NODE))}
fi
count_hosts
unset BATCH_SIZE batch_size
export LEARNING_RATE=${LEARNING_RATE:-2e-3}
pretrain 1 512 $((batch / workers)) 1710 "$workers" bf16 --beta_1=0.66 --beta_2=0.998 "$@"
