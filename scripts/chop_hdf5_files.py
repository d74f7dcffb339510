#!/usr/bin/env python
"""Divides the records of parallel_create_hdf5.sh into shards, as Intel's script.

Variables: SEQ_LEN (512), SHARD_NUM (2048), HDF5_DIR (hdf5_seq_<SEQ_LEN>), SHARDS_DIR
(2048_shards_uncompressed_<SEQ_LEN>, whatever SHARD_NUM is). Sizes of the shards differ
by at most one record; the original's first shard is one short, and its last one may be
lost.
"""

import os
import sys

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser


def command(variables: dict[str, str]) -> list[str]:
    """What `python -m bert_tf` is called with."""
    length = variables.get("SEQ_LEN", "512")
    count = variables.get("SHARD_NUM", "2048")
    source = variables.get("HDF5_DIR", f"hdf5_seq_{length}")
    target = variables.get("SHARDS_DIR", f"2048_shards_uncompressed_{length}")
    return [
        *("data", "chop", f"--input_dir={source}", f"--output_dir={target}"),
        f"--num_shards={count}",
    ]


if __name__ == "__main__":
    try:
        Parser(prog="chop_hdf5_files.py", description=__doc__).parse_args()
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(main(command(dict(os.environ))))
