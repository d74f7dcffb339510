"""`python -m bert_tf build`: compiles the fused operations if none can be loaded."""

from collections.abc import Sequence

from bert_tf.cli.arguments import Parser


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: What follows `build`.

    Raises:
      RunError: see `bert_tf.fused_ops.build.build`.
    """
    Parser(
        prog="python -m bert_tf build",
        description="Compile the fused operations for x86-64 processors where they are "
        "missing or cannot be loaded, and print the library's path. CXX: the compiler.",
    ).parse_args(arguments)
    from bert_tf.fused_ops.build import build  # Loads TensorFlow.

    print(build())
