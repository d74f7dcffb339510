# Variables of run_squad.sh and its two recipes; edit them, then: source env.sh

if [ "${BASH_SOURCE:-}" = "$0" ]; then
  case ${1:-} in -h | --help) sed -n '1s/^# //p' "$0"; exit 0 ;; esac
  echo "error: Variables stay set only if the file is sourced: source $0" >&2
  exit 1
fi
# The folder of train-v1.1.json and dev-v1.1.json:
export SQUAD_DIR=${SQUAD_DIR:-squad-1.1}
# The published weights that training starts from: a folder, with vocab.txt:
export BERT_MODEL=${BERT_MODEL:-cased_L-12_H-768_A-12}
# The trained weights that BERT_Infer.sh reads:
export BERT_INFER_MODEL=${BERT_INFER_MODEL:-results/squad}
