"""Entry point of `bert-tf` and `python -m bert_tf`."""

import sys
from typing import NoReturn

from bert_tf.cli import main


def run() -> NoReturn:
    """Runs the command line of this process."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
