"""Pre-trains BERT on one process, or on several: mpirun -np 8 ... --horovod."""

import sys

from bert_tf.config import PretrainingConfig
from bert_tf.entry import run_script
from bert_tf.launch import leave, use_huge_pages


def main(arguments: list[str]) -> int:
    """Runs the script; see `run_script`.

    Args:
      arguments: The command line, program name first.

    Returns:
      The exit code.
    """
    return run_script(PretrainingConfig, "pretraining", arguments)


if __name__ == "__main__":
    use_huge_pages()
    leave(main(sys.argv))
