#!/usr/bin/env bash
# From a download of Wikipedia to records of 128 and of 512 tokens, as Habana's script:
#   create_datasets_from_start.sh [wiki_only|wiki_books] [folder]
# What is done already is not done again. wiki_books needs text files of books in
# <folder>/download/bookscorpus. VOCAB_FILE names a vocabulary instead of that of
# BERT-large, N_SHARDS another number of shards than 1472.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
take_arguments 2 "$@"
corpus=${1:-wiki_only} shards=${N_SHARDS:-1472}
export BERT_PREP_WORKING_DIR=${2:-/data/tensorflow/bert/books_wiki_en_corpus}
prepare() { "$python" "$root/scripts/bertPrep.py" "$@"; }

case $corpus in
  wiki_only) dataset=wikicorpus_en ;;
  wiki_books) dataset=books_wiki_en_corpus ;;
  *) refuse "the corpus must be wiki_only or wiki_books. Received: $corpus" ;;
esac
need_number N_SHARDS "$shards"
downloads=$BERT_PREP_WORKING_DIR/download
if [ "$corpus" = wiki_books ] && [ -z "$(ls -A "$downloads/bookscorpus" 2>/dev/null)" ]
then
  refuse "BookCorpus cannot be downloaded any more. Put text files of books into" \
    "$downloads/bookscorpus, or pass wiki_only."
fi
if [ -n "${VOCAB_FILE:-}" ] && [ ! -f "$VOCAB_FILE" ]; then
  refuse "VOCAB_FILE must be a vocabulary. Received: $VOCAB_FILE, which does not exist." \
    "Pass another, or unset it."
fi
# An earlier download, or a dump that somebody put there, is used.
if [ -z "$(ls -A "$downloads/wikicorpus_en" 2>/dev/null)" ]; then
  prepare --action download --dataset wikicorpus_en
fi
if [ -z "${VOCAB_FILE:-}" ]; then
  prepare --action download --dataset google_pretrained_weights
fi
split=(--n_training_shards "$shards" --n_test_shards "$shards")
prepare --action text_formatting --dataset "$dataset"
prepare --action sharding --dataset "$dataset" "${split[@]}"
for lengths in "128 20" "512 80"; do
  prepare --action create_tfrecord_files --dataset "$dataset" "${split[@]}" \
    --max_seq_length "${lengths% *}" --max_predictions_per_seq "${lengths#* }" \
    ${VOCAB_FILE:+--vocab_file "$VOCAB_FILE"}
done
