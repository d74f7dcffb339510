#!/usr/bin/env bash
# Intel's fast_bert fine-tuning on SQuAD 1.1: bfloat16, several sequences in a row.
# Variables: SQUAD_DIR, BERT_MODEL (see env.sh), OUTPUT_DIR. --use_tpp, --tpp_bf16 and
# --unpad are what happens anyway; other arguments are flags of run_squad.py.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
need_variable SQUAD_DIR "the folder of train-v1.1.json"
need_variable BERT_MODEL "the weights to start from"
flags=()
for flag in "$@"; do
  case $flag in
    --use_tpp | --tpp_bf16) ;;
    --tpp_bf8) refuse "bf8 is not computed here. Drop --tpp_bf8." ;;
    *) flags+=("$flag") ;;
  esac
done
exec "$python" "$root/run_squad.py" --do_train --do_predict \
  --do_eval --train_file="$SQUAD_DIR/train-v1.1.json" \
  --predict_file="$SQUAD_DIR/dev-v1.1.json" --init_checkpoint="$BERT_MODEL" \
  --precision=bf16 --pack_sequences --train_batch_size=24 --learning_rate=3e-5 \
  --num_train_epochs=2 --output_dir="${OUTPUT_DIR:-results/squad}" "${flags[@]}"
