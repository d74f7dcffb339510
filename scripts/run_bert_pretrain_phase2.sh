#!/usr/bin/env bash
# Phase 2 of Intel's recipe on this host, sequences of 512 tokens:
#   run_bert_pretrain_phase2.sh [fp32|avx-fp32|bf32|bf16|fp16] [flags of run_pretraining.py]
# The variables are those of pretrain.sh.
set -euo pipefail
source "$(dirname "$0")/pretrain.sh"
pretrain 2 512 28 1563 1 "$@"
