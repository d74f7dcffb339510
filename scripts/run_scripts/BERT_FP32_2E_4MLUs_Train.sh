#!/usr/bin/env bash
# Cambricon's recipe: SQuAD 1.1, 2 epochs, float32, batch 4 on each of 4 workers.
# Variables: SQUAD_DIR, BERT_MODEL (see env.sh), WORKERS (4), OUTPUT_DIR.
set -euo pipefail
: "${SQUAD_DIR:?set it to the folder of train-v1.1.json, see env.sh}"
: "${BERT_MODEL:?set it to the weights to start from, see env.sh}"
exec bash "$(dirname "$0")/../run_squad.sh" "$BERT_MODEL" 2.0 4 3e-5 fp32 \
  "${WORKERS:-4}" 1 "$SQUAD_DIR" "${VOCAB_FILE:-$BERT_MODEL/vocab.txt}" \
  "${OUTPUT_DIR:-results/squad}" train-eval
