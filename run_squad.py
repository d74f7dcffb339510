"""Fine-tunes BERT on SQuAD 1.1 or 2.0, predicts answers and scores them."""

import sys

from bert_tf.config.finetuning import SquadConfig
from bert_tf.entry import run_script
from bert_tf.launch import leave, use_huge_pages


def main(arguments: list[str]) -> int:
    """Runs the script; see `run_script`.

    Args:
      arguments: The command line, program name first.

    Returns:
      The exit code.
    """
    return run_script(SquadConfig, "squad", arguments)


if __name__ == "__main__":
    use_huge_pages()
    leave(main(sys.argv))
