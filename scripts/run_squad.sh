#!/usr/bin/env bash
# SQuAD 1.1 with the positional arguments of NVIDIA's script, the first 13 or fewer, and
# of Cambricon's, all 17:
#   checkpoint epochs batch learning_rate precision workers seed squad_dir vocab output
#   mode config max_steps eval_iters horovod opt_level device
# mode: train, eval, prediction or "train eval" (train-eval too). precision: fp32, bf16,
# fp16. max_steps -1: by epochs. eval_iters, opt_level and device have no effect here.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
if [ $# -gt 13 ] && [ $# != 17 ]; then
  refuse "There must be 17 arguments, or the first 13 or fewer. Received: $#. They are:" \
    "$(sed -n 's/^#   //p' "$0" | paste -sd ' ')"
fi
take_arguments 17 "${@/#-1/}"  # max_steps may be -1.
checkpoint=${1:-${BERT_MODEL:-cased_L-12_H-768_A-12}}
epochs=${2:-2.0} batch=${3:-4} rate=${4:-3e-5} precision=${5:-fp32} workers=${6:-8}
seed=${7:-1} squad=${8:-${SQUAD_DIR:-squad-1.1}}
vocab=${9:-$(model_folder "$checkpoint")/vocab.txt}
output=${10:-results/squad} mode=${11:-train-eval} config=${12:-} max_steps=${13:--1}
need_number batch "$batch"
need_number workers "$workers"
if [ ! -f "$squad/dev-v1.1.json" ]; then
  refuse "squad_dir must be the folder of train-v1.1.json and dev-v1.1.json." \
    "Received: squad_dir=$squad, which holds none. squad_download.sh gets them."
fi
if [ ! -f "$vocab" ]; then
  refuse "vocab must be the file vocab.txt of the weights. Received: vocab=$vocab, which" \
    "does not exist. Pass it as the ninth argument, or VOCAB_FILE to the recipes."
fi

flags=(--init_checkpoint="$checkpoint" --vocab_file="$vocab" --output_dir="$output"
  --precision="$precision" --seed="$seed" --predict_file="$squad/dev-v1.1.json")
train=(--do_train --train_file="$squad/train-v1.1.json" --train_batch_size="$batch"
  --learning_rate="$rate" --num_train_epochs="$epochs")
if [ -n "$config" ]; then flags+=(--bert_config_file="$config"); fi
if [ "$max_steps" != -1 ]; then train+=(--num_train_steps="$max_steps"); fi
score=(--do_predict --do_eval)
case $mode in
  train) flags+=("${train[@]}") score=() ;;
  eval) flags+=("${score[@]}") ;;
  prediction) flags+=(--do_predict) score=() ;;
  train-eval | "train eval") flags+=("${train[@]}" "${score[@]}") ;;
  *) refuse "mode must be train, eval, prediction or train-eval. Received: mode=$mode" ;;
esac
set_start "$workers" --oversubscribe
flags+=("${horovod[@]}")
echo "${start[*]} run_squad.py ${flags[*]}"
"${start[@]}" "$root/run_squad.py" "${flags[@]}"
if [ ${#score[@]} != 0 ]; then
  awk '$1 == "f1" { printf "F1: %.2f\n", $3 }' "$output/eval_results.txt"
fi
