# Variables of run_squad.sh and its two recipes; edit them, then: source env.sh
# The folder of train-v1.1.json and dev-v1.1.json:
export SQUAD_DIR=${SQUAD_DIR:-squad-1.1}
# The published weights that training starts from: a folder, with vocab.txt:
export BERT_MODEL=${BERT_MODEL:-cased_L-12_H-768_A-12}
# The trained weights that BERT_Infer.sh reads:
export BERT_INFER_MODEL=${BERT_INFER_MODEL:-results/squad}
