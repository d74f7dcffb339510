#!/usr/bin/env bash
# Cambricon's recipe: answers and scores of a trained model on SQuAD 1.1.
# Variables: SQUAD_DIR, BERT_INFER_MODEL (see env.sh), OUTPUT_DIR.
set -euo pipefail
: "${SQUAD_DIR:?set it to the folder of dev-v1.1.json, see env.sh}"
: "${BERT_INFER_MODEL:?set it to the trained weights, see env.sh}"
exec bash "$(dirname "$0")/../run_squad.sh" "$BERT_INFER_MODEL" 1 4 3e-5 fp32 1 1 \
  "$SQUAD_DIR" "$BERT_INFER_MODEL/vocab.txt" "${OUTPUT_DIR:-results/squad-answers}" eval
