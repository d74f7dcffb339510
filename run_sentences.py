"""Trains a BERT that gives texts of one meaning vectors of one direction."""

import sys

from bert_tf.config.sentences import SentencesConfig
from bert_tf.entry import run_script
from bert_tf.launch import leave, use_huge_pages


def main(arguments: list[str]) -> int:
    """Runs the script; see `run_script`.

    Args:
      arguments: The command line, program name first.

    Returns:
      The exit code.
    """
    return run_script(SentencesConfig, "sentences", arguments)


if __name__ == "__main__":
    use_huge_pages()
    leave(main(sys.argv))
