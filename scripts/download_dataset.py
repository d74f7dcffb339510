#!/usr/bin/env python
"""Downloads MRPC: python scripts/download_dataset.py FOLDER; see `data download`."""

import sys

from bert_tf.cli import main

if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) == 2 else ""
    sys.exit(main(["data", "download", "--name=mrpc", f"--output_dir={folder}"]))
