#!/usr/bin/env python
"""Downloads MRPC: python scripts/download_dataset.py [FOLDER].

`--dataset_path=FOLDER` is the same. It is `python -m bert_tf data download`.
"""

import sys

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser


def command(arguments: list[str]) -> list[str]:
    """Translates the arguments into those of `python -m bert_tf`."""
    parser = Parser(prog="download_dataset.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", default="dataset")
    parser.add_argument("--dataset_path")
    options = parser.parse_args(arguments)
    folder = options.dataset_path or options.folder
    return ["data", "download", "--name=mrpc", f"--output_dir={folder}"]


if __name__ == "__main__":
    try:
        sys.exit(main(command(sys.argv[1:])))
    except ValueError as error:
        sys.exit(f"error: {error}")
