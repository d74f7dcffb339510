"""`python -m bert_tf build`: compiles the fused operations where they are not built."""

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: What follows `build`.

    Raises:
      RunError: if there is no compiler, or it fails.
    """
    argparse.ArgumentParser(
        prog="python -m bert_tf build",
        description="Compile the fused operations for x86-64 processors.",
    ).parse_args(arguments)
    from bert_tf.kernels.build import build  # Loads TensorFlow.

    print(build())
