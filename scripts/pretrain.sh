# Sourced by Intel's script names: one pre-training with their variables.
#   pretrain PHASE LENGTH BATCH STEPS WORKERS EXTRA_FLAGS...
# Variables: DATASET_DIR, OUTPUT_DIR, BERT_MODEL_CONFIG, CHECKPOINT_DIR or
# PRETRAINED_MODEL (the weights to start from), EVAL_DIR, BATCH_SIZE, NUM_STEPS, PRECISION
# or the first argument; NNODES and HOSTFILE for several hosts.
pretrain() {
  local phase=$1 length=$2 batch=${BATCH_SIZE:-${batch_size:-$3}} steps=${NUM_STEPS:-$4}
  local workers=$5 precision=${PRECISION:-fp32} python=${PYTHON:-python}
  shift 5
  case ${1:-} in
    fp32 | avx-fp32 | bf32 | bf16 | fp16) precision=$1; shift ;;
    fp8) echo "error: fp8 is not computed here. Pass bf16, fp16, bf32 or fp32." >&2
         exit 1 ;;
  esac
  : "${DATASET_DIR:?set it to the folder of 2048_shards_uncompressed_$length}"
  : "${OUTPUT_DIR:?set it to a folder for the results}"
  local output=$OUTPUT_DIR/model_save weights=${PRETRAINED_MODEL:-${CHECKPOINT_DIR:-}}
  if [ "$phase" = 2 ]; then
    output=$OUTPUT_DIR/model_save_phase2
    : "${weights:?set PRETRAINED_MODEL to the model_save folder of phase 1}"
  fi
  local flags=(--input_files_dir="$DATASET_DIR/2048_shards_uncompressed_$length"
    --output_dir="$output" --do_train --train_batch_size="$batch"
    --num_train_steps="$steps" --learning_rate="${LEARNING_RATE:-3.5e-4}"
    --poly_power=1.0 --noscale_learning_rate --precision="$precision")
  case " $*" in *\ --*warmup_*) ;; *) flags+=(--num_warmup_steps=0) ;; esac
  if [ -n "${BERT_MODEL_CONFIG:-}" ]; then
    flags+=(--bert_config_file="$BERT_MODEL_CONFIG")
  fi
  if [ -n "$weights" ]; then flags+=(--init_checkpoint="$weights"); fi
  if [ -n "${EVAL_DIR:-}" ]; then
    flags+=(--do_eval --eval_files_dir="$EVAL_DIR" --eval_batch_size=128)
  fi
  local start=("$python")
  if [ "$workers" -gt 1 ]; then
    start=("$python" -m bert_tf launch -- mpirun --bind-to none -np "$workers")
    if [ "$(id -u)" = 0 ]; then start+=(--allow-run-as-root); fi
    if [ -n "${HOSTFILE:-}" ]; then start+=(--hostfile "$HOSTFILE")
    else start+=(--oversubscribe); fi
    start+=("$python")
    flags+=(--horovod)
  fi
  mkdir -p "$OUTPUT_DIR"
  echo "${start[*]} run_pretraining.py ${flags[*]} $*"
  "${start[@]}" "$(dirname "${BASH_SOURCE[0]}")/../run_pretraining.py" "${flags[@]}" "$@"
  local speed
  speed=$(grep -o '"throughput_train": [0-9.]*' "$output/bert_dllog.json" | tail -1)
  echo "Throughput: ${speed##* } sentence/s" | tee -a "$OUTPUT_DIR/summary.log"
}

# One worker for each socket of each host.
sockets() {
  local count
  count=$(lscpu | sed -n 's/^Socket(s): *//p')
  echo $((${count:-1} * ${NNODES:-1}))
}
