#!/usr/bin/env bash
# Phase 1 of Intel's recipe on NNODES hosts of HOSTFILE, a worker for each socket:
#   run_ddp_bert_pretrain_phase1.sh [fp32|avx-fp32|bf32|bf16|fp16] [flags]
# The variables are those of pretrain.sh, and NPROCESS for another number of workers.
set -euo pipefail
source "$(dirname "$0")/pretrain.sh"
pretrain_on_sockets 1 128 224 13700 "$@"
