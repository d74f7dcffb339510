"""Entry point of `python -m bert_tf`."""

import os
import sys

from bert_tf.cli import main

if __name__ == "__main__":
    # Commands that load TensorFlow would print its notes on missing GPUs and more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
