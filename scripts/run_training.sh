#!/usr/bin/env bash
# Time to train with the options of Iluvatar's PyTorch trainer:
#   run_training.sh --name default|iluvatar --config V100x1x8 --data_dir FOLDER
#     [--max_steps N] [--train_batch_size N] [--target_mlm_accuracy A]
#     [--init_checkpoint FILE] [--master_port N] [flags of run_pretraining.py]
# FOLDER holds 2048_shards_uncompressed, eval_set_uncompressed, bert_config.json and the
# first weights. The last number of --config is that of workers; the variable WORKERS
# changes it. --name and --master_port have no effect. Results are in OUTPUT_DIR.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
output=${OUTPUT_DIR:-results/training}
config='' data='' weights='' steps=7100 name='' value='' more=()
while [ $# -gt 0 ]; do
  case $1 in
    --*=*) name=${1%%=*} value=${1#*=}; shift ;;
    --name | --config | --data_dir | --init_checkpoint | --master_port | --max_steps | \
      --output_dir)
      if [ $# -lt 2 ]; then refuse "$1 needs a value."; fi
      name=$1 value=$2; shift 2 ;;
    *) more+=("$1"); shift; continue ;;
  esac
  case $name in
    --name)
      case $value in
        default | iluvatar) ;;
        *) refuse "--name must be default or iluvatar. Received: $value" ;;
      esac ;;
    --master_port) ;;
    --config) config=$value ;;
    --data_dir) data=$value ;;
    --init_checkpoint) weights=$value ;;
    --max_steps) steps=$value ;;
    --output_dir) output=$value ;;
    *) more+=("$name=$value") ;;
  esac
done
data=${data%/}
if [ -z "$data" ]; then refuse "pass --data_dir."; fi
for name in 2048_shards_uncompressed eval_set_uncompressed bert_config.json; do
  if [ ! -e "$data/$name" ]; then
    refuse "--data_dir must hold 2048_shards_uncompressed, eval_set_uncompressed and" \
      "bert_config.json. Received: $data, which has no $name."
  fi
done
workers=${WORKERS:-${config##*x}}
workers=${workers:-1}
case $workers in
  *[!0-9]* | 0*) refuse "--config must end with a number of workers, as V100x1x8 does." \
    "Received: ${WORKERS:-$config}" ;;
esac
if [ -z "$weights" ]; then
  for weights in "$data"/model.ckpt-28252*.pt ''; do
    if [ -e "$weights" ]; then break; fi
  done
  if [ -n "$weights" ]; then echo "No --init_checkpoint: starting from $weights."
  else echo "No --init_checkpoint, and no $data/model.ckpt-28252*.pt: random weights."
  fi
fi

flags=(--input_files_dir="$data/2048_shards_uncompressed" --do_train
  --eval_files_dir="$data/eval_set_uncompressed" --eval_batch_size=128
  --max_eval_steps=79 --bert_config_file="$data/bert_config.json"
  --num_train_steps="$steps" --eval_steps=1000 --max_samples=4500000
  --target_mlm_accuracy=0.72 --train_batch_size=27 --learning_rate=3.5e-4
  --noscale_learning_rate --num_warmup_steps=0 --poly_power=1.0 --output_dir="$output")
if [ -n "$weights" ]; then flags+=(--init_checkpoint="$weights"); fi
set_start "$workers" --oversubscribe
flags+=("${horovod[@]}" "${more[@]}")
echo "${start[*]} run_pretraining.py ${flags[*]}"
code=0
"${start[@]}" "$root/run_pretraining.py" "${flags[@]}" || code=$?
if [ "$code" = 0 ] || [ "$code" = 3 ]; then  # 3: the target has not been reached.
  "$python" - "$output/training_result.json" <<'PYTHON'
import json
import sys

result = json.load(open(sys.argv[1]))
rounded = {name: "none" if x is None else f"{x:.3f}" for name, x in result.items()}
print(f"E2E {result['e2e_time']:.2f}s")
print(f"MLM Accuracy {rounded.get('final_mlm_accuracy', 'none')}")
for name in ("training_sequences_per_second", "final_loss"):
    print(name, rounded[name])
PYTHON
fi
exit "$code"
