#!/usr/bin/env bash
# Makes HDF5 records of the text in results4/ with the settings of Intel's and MLPerf's
# script. Variables: SEQ_LEN (512), TEXT_DIR (results4), VOCAB_FILE (vocab.txt),
# HDF5_DIR (hdf5_seq_<SEQ_LEN>), NUM_SHARDS (500).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
take_arguments 0 "$@"
length=${SEQ_LEN:-512}
exec "$python" -m bert_tf data create --format=hdf5 \
  --input="${TEXT_DIR:-results4}" --vocab_file="${VOCAB_FILE:-vocab.txt}" \
  --output_dir="${HDF5_DIR:-hdf5_seq_$length}" --max_seq_length="$length" \
  --max_predictions_per_seq=76 --masked_lm_prob=0.15 --seed=12345 --dupe_factor=10 \
  --num_shards="${NUM_SHARDS:-500}"
