#!/usr/bin/env bash
# Intel's fast_bert recipe: bfloat16, padding left out, 2048 sequences a step.
# Variables: those of pretrain.sh, NPROCESS (32), GBS (2048).
set -euo pipefail
source "$(dirname "$0")/pretrain.sh"
workers=${NPROCESS:-32} batch=${GBS:-2048}
if [ $((batch % workers)) != 0 ]; then
  echo "error: GBS must be a multiple of NPROCESS. Received: GBS=$batch," \
    "NPROCESS=$workers." >&2
  exit 1
fi
export LEARNING_RATE=${LEARNING_RATE:-2e-3}
pretrain 1 512 $((batch / workers)) 1710 "$workers" bf16 --beta_1=0.66 --beta_2=0.998 "$@"
