"""Entry point of `python -m bert_tf`."""

import os
import sys

from bert_tf.cli import main

if __name__ == "__main__":
    # TensorFlow, where a command loads it, tells of missing GPUs and more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))
