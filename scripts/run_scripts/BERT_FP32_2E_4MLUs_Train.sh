#!/usr/bin/env bash
# Cambricon's recipe: SQuAD 1.1, 2 epochs, float32, batch 4 on each of 4 workers.
# Variables: SQUAD_DIR, BERT_MODEL (see env.sh), WORKERS (4), OUTPUT_DIR; VOCAB_FILE where
# vocab.txt is not beside the weights.
set -euo pipefail
source "$(dirname "$0")/../launch.sh"
take_arguments 0 "$@"
need_variable SQUAD_DIR "the folder of train-v1.1.json (see env.sh)"
need_variable BERT_MODEL "the weights to start from (see env.sh)"
exec bash "$root/scripts/run_squad.sh" "$BERT_MODEL" 2.0 4 3e-5 fp32 \
  "${WORKERS:-4}" 1 "$SQUAD_DIR" "${VOCAB_FILE:-}" "${OUTPUT_DIR:-results/squad}" train-eval
