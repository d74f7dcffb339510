# Sourced by Intel's script names: one pre-training with their variables.
#   pretrain PHASE LENGTH BATCH STEPS WORKERS [PRECISION] [FLAGS...]
# Variables: DATASET_DIR, OUTPUT_DIR, BERT_MODEL_CONFIG, CHECKPOINT_DIR or
# PRETRAINED_MODEL (the weights to start from), EVAL_DIR, BATCH_SIZE, NUM_STEPS, PRECISION
# or the first argument; NNODES, HOSTFILE and PROCESS_PER_NODE for several hosts.
# TRAIN_SCRIPT and TORCH_INDUCTOR have no effect.
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

pretrain() {
  local phase=$1 length=$2 batch=${BATCH_SIZE:-${batch_size:-$3}} steps=${NUM_STEPS:-$4}
  local workers=$5 precision=${PRECISION:-fp32} name
  shift 5
  case ${1:-} in '' | -*) ;; *) precision=$1; shift ;; esac
  case $precision in
    fp32 | avx-fp32 | bf32 | bf16 | fp16) ;;
    *) refuse "The precision, the first argument or the variable PRECISION, must be" \
      "fp32, avx-fp32, bf32, bf16 or fp16. Received: $precision" ;;
  esac
  need_variable DATASET_DIR "the folder of 2048_shards_uncompressed_$length"
  need_variable OUTPUT_DIR "a folder for the results"
  if [ ! -e "$DATASET_DIR/2048_shards_uncompressed_$length" ]; then
    refuse "DATASET_DIR must be the folder of 2048_shards_uncompressed_$length." \
      "Received: DATASET_DIR=$DATASET_DIR, which holds none. Make it with" \
      "parallel_create_hdf5.sh and chop_hdf5_files.py."
  fi
  local output=$OUTPUT_DIR/model_save weights=${PRETRAINED_MODEL:-${CHECKPOINT_DIR:-}}
  if [ "$phase" = 2 ]; then
    output=$OUTPUT_DIR/model_save_phase2
    if [ -z "$weights" ]; then
      need_variable PRETRAINED_MODEL "the folder model_save of phase 1"
    fi
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
  set_start "$workers" --oversubscribe
  if [ "$workers" -gt 1 ] && [ -n "${HOSTFILE:-}" ]; then
    # mpirun takes a host without a number of slots for one that has a slot per core.
    set_start "$workers" --hostfile "$HOSTFILE" --map-by \
      "ppr:${PROCESS_PER_NODE:-$(((workers + hosts - 1) / hosts))}:node:oversubscribe"
  fi
  flags+=("${horovod[@]}" "$@")
  mkdir -p "$OUTPUT_DIR"
  echo "${start[*]} run_pretraining.py ${flags[*]}"
  "${start[@]}" "$root/run_pretraining.py" "${flags[@]}"
  echo "Throughput: $(throughput "${flags[@]}") sentence/s" |
    tee -a "$OUTPUT_DIR/summary.log"
}

# Sets `hosts`, after a look at NNODES and HOSTFILE.
count_hosts() {
  hosts=${NNODES:-1}
  need_number NNODES "$hosts"
  if [ -n "${HOSTFILE:-}" ]; then
    if [ ! -f "$HOSTFILE" ]; then
      refuse "HOSTFILE must be a file with an address in each line. Received: $HOSTFILE"
    fi
    hosts=${NNODES:-$(grep -cv '^[[:space:]]*\(#\|$\)' "$HOSTFILE" || true)}
    if [ "$hosts" = 0 ]; then refuse "HOSTFILE names no host. Received: $HOSTFILE"; fi
  elif [ "$hosts" -gt 1 ]; then
    refuse "HOSTFILE is not set, and NNODES is $hosts. Set it to a file with the" \
      "address of a host in each line: export HOSTFILE=..."
  fi
}

# pretrain_on_sockets PHASE LENGTH BATCH STEPS [PRECISION] [FLAGS...]: with NPROCESS
# workers, or one for each socket of each host, which share the batch.
pretrain_on_sockets() {
  count_hosts
  local sockets workers batch=${BATCH_SIZE:-${batch_size:-$3}}
  sockets=$(lscpu | sed -n 's/^Socket(s): *//p')
  case $sockets in '' | *[!0-9]*) sockets=1 ;; esac
  workers=${NPROCESS:-$((sockets * hosts))}
  need_number NPROCESS "$workers"
  need_number BATCH_SIZE "$batch"
  if [ $((batch % workers)) != 0 ]; then
    refuse "BATCH_SIZE, which the workers share, must be a multiple of their number." \
      "Received: BATCH_SIZE=$batch, $workers workers"
  fi
  BATCH_SIZE=$((batch / workers))
  pretrain "$1" "$2" "$3" "$4" "$workers" "${@:5}"
}
