"""The commands of `python -m bert_tf data`, each of which makes a folder."""
