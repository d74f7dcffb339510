# Sourced by Iluvatar's script names: a pre-training, and their table of acc and fps.
#   fps WORKERS DEFAULT_FLAGS... -- FLAGS_OF_THE_USER...
# acc is masked_lm_accuracy of the evaluation, fps sequences per second of the training.
fps() {
  local workers=$1 output=results/fps code=0 log flags=() python=${PYTHON:-python}
  shift
  local start=("$python")
  if [ "$workers" -gt 1 ]; then
    start=("$python" -m bert_tf launch -- mpirun --bind-to none --oversubscribe)
    if [ "$(id -u)" = 0 ]; then start+=(--allow-run-as-root); fi
    start+=(-np "$workers" "$python")
    flags+=(--horovod)
  fi
  for flag in "$@"; do
    case $flag in
      --) continue ;;
      --output_dir=*) output=${flag#*=} ;;
    esac
    flags+=("$flag")
  done
  "${start[@]}" "$(dirname "${BASH_SOURCE[0]}")/../run_pretraining.py" \
    --do_train --do_eval --max_seq_length=512 --max_predictions_per_seq=76 \
    --num_warmup_steps=0 --learning_rate=5e-5 --output_dir="$output" "${flags[@]}" || code=$?
  # 3: --stop_threshold is missed; there are figures, too.
  if [ "$code" != 0 ] && [ "$code" != 3 ]; then return "$code"; fi
  log=$(grep -o '"throughput_train": [0-9.]*' "$output/bert_dllog.json" | tail -1)
  awk -v fps="${log##* }" '$1 == "masked_lm_accuracy" { print "acc " $3; print "fps " fps }' \
    "$output/eval_results.txt"
  return "$code"
}
