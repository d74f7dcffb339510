#!/usr/bin/env python
"""Downloads GLUE: python scripts/download_glue_data.py --data_dir=DIR --tasks=all.

Tasks are separated by commas; their names are those of `python -m bert_tf data
download`, or SST, STS as in GLUE's own script.
"""

import sys

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser
from bert_tf.download.catalogue import GLUE_TASKS

_ALIASES = {"sst": "sst-2", "sts": "sts-b"}


def command(arguments: list[str]) -> list[str]:
    """Translates the arguments into those of `python -m bert_tf`."""
    parser = Parser(prog="download_glue_data.py", description=__doc__)
    parser.add_argument("--data_dir", default="glue_data")
    parser.add_argument("--tasks", default="all")
    options = parser.parse_args(arguments)
    tasks = [task.strip().lower() for task in options.tasks.split(",")]
    if tasks == ["all"]:
        tasks = list(GLUE_TASKS)
    names = ",".join(_ALIASES.get(task, task) for task in tasks)
    return ["data", "download", f"--name={names}", f"--output_dir={options.data_dir}"]


if __name__ == "__main__":
    try:
        sys.exit(main(command(sys.argv[1:])))
    except ValueError as error:
        sys.exit(f"error: {error}")
