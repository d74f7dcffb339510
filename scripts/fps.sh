# Sourced by Iluvatar's script names: a pre-training, and their table of acc and fps.
#   fps WORKERS FLAGS...
# acc is masked_lm_accuracy of the evaluation, fps sequences per second of the training.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

fps() {
  local workers=$1 code=0 output speed
  shift
  set_start "$workers" --oversubscribe
  local flags=(--do_train --do_eval --max_seq_length=512 --max_predictions_per_seq=76
    --num_warmup_steps=0 --learning_rate=5e-5 --output_dir=results/fps
    "${horovod[@]}" "$@")
  "${start[@]}" "$root/run_pretraining.py" "${flags[@]}" || code=$?
  # 3: --stop_threshold is missed; there are figures, too.
  if [ "$code" != 0 ] && [ "$code" != 3 ]; then return "$code"; fi
  output=$(flag_value output_dir '' "${flags[@]}") speed=$(throughput "${flags[@]}")
  local results=$output/eval_results.txt  # Not there with --nodo_eval.
  [ ! -e "$results" ] || awk '$1 == "masked_lm_accuracy" { print "acc " $3 }' "$results"
  echo "fps $speed"
  return "$code"
}
