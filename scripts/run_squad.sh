#!/usr/bin/env bash
# SQuAD 1.1 with the 17 positional arguments of NVIDIA's and Cambricon's script:
#   checkpoint epochs batch learning_rate precision workers seed squad_dir vocab output
#   mode config max_steps eval_iters horovod opt_level device
# mode: train, eval, prediction or "train eval" (train-eval too). precision: fp32, bf16,
# fp16. max_steps -1: by epochs. eval_iters, opt_level and device have no effect here.
set -euo pipefail
checkpoint=${1:-${BERT_MODEL:-cased_L-12_H-768_A-12}}
epochs=${2:-2.0} batch=${3:-4} rate=${4:-3e-5} precision=${5:-fp32} workers=${6:-8}
seed=${7:-1} squad=${8:-${SQUAD_DIR:-squad-1.1}} vocab=${9:-$checkpoint/vocab.txt}
output=${10:-results/squad} mode=${11:-train-eval} config=${12:-} max_steps=${13:--1}
python=${PYTHON:-python}

flags=(--init_checkpoint="$checkpoint" --vocab_file="$vocab" --output_dir="$output"
  --precision="$precision" --seed="$seed" --predict_file="$squad/dev-v1.1.json")
train=(--do_train --train_file="$squad/train-v1.1.json" --train_batch_size="$batch"
  --learning_rate="$rate" --num_train_epochs="$epochs")
if [ -n "$config" ]; then flags+=(--bert_config_file="$config"); fi
if [ "$max_steps" != -1 ]; then train+=(--num_train_steps="$max_steps"); fi
case $mode in
  train) flags+=("${train[@]}") ;;
  eval) flags+=(--do_predict --do_eval) ;;
  prediction) flags+=(--do_predict) ;;
  train-eval | "train eval") flags+=("${train[@]}" --do_predict --do_eval) ;;
  *) echo "error: mode must be train, eval, prediction or train-eval. Received: $mode" >&2
     exit 1 ;;
esac
start=("$python")
if [ "$workers" -gt 1 ]; then
  start=("$python" -m bert_tf launch -- mpirun --bind-to none --oversubscribe
    -np "$workers" "$python")
  if [ "$(id -u)" = 0 ]; then
    start=("${start[@]:0:6}" --allow-run-as-root "${start[@]:6}")
  fi
  flags+=(--horovod)
fi
echo "${start[*]} run_squad.py ${flags[*]}"
"${start[@]}" "$(dirname "$0")/../run_squad.py" "${flags[@]}"
if [ -f "$output/eval_results.txt" ]; then
  awk '$1 == "f1" { printf "F1: %.2f\n", $3 }' "$output/eval_results.txt"
fi
