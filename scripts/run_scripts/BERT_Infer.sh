#!/usr/bin/env bash
# Cambricon's recipe: answers and scores of a trained model on SQuAD 1.1.
# Variables: SQUAD_DIR, BERT_INFER_MODEL (see env.sh), OUTPUT_DIR. BERT_INFER_MODEL is a
# folder or a file; pytorch_model.bin of a training here stands for its folder.
set -euo pipefail
source "$(dirname "$0")/../launch.sh"
take_arguments 0 "$@"
need_variable SQUAD_DIR "the folder of dev-v1.1.json (see env.sh)"
need_variable BERT_INFER_MODEL "the trained weights (see env.sh)"
model=$BERT_INFER_MODEL
if [ ! -e "$model" ] && [ -e "$(model_folder "$model")/checkpoint" ]; then
  model=$(model_folder "$model")
  echo "There is no $BERT_INFER_MODEL: taking the checkpoint in $model."
fi
exec bash "$root/scripts/run_squad.sh" "$model" 1 4 3e-5 fp32 1 1 "$SQUAD_DIR" \
  "$(model_folder "$model")/vocab.txt" "${OUTPUT_DIR:-results/squad-answers}" eval
