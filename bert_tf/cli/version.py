"""`bert-tf --version`: of the packages, and how this machine computes."""

import importlib.metadata
import platform
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Prints a line for each.

    Args:
      arguments: Unused.
    """
    del arguments
    print(f"bert_tf {_version('bert_tf')}, Python {platform.python_version()}")
    print(
        f"TensorFlow {_version('tensorflow')}, Keras {_version('keras')}, "
        f"Horovod {_version('horovod')}",
        flush=True,
    )
    import tensorflow as tf  # Takes seconds.

    from bert_tf import fused_ops

    if gpus := tf.config.get_visible_devices("GPU"):
        print(f"compute path: {len(gpus)} GPUs, operations of TensorFlow")
        return
    name = next(iter(fused_ops.paths()))
    path = f"{fused_ops.TITLES[name]} of {fused_ops.library_file()}"
    if name == fused_ops.REFERENCE:
        path = "operations of TensorFlow"
    reason = fused_ops.why_not_better()
    print(f"compute path: {path}{f', {reason}' if reason else ''}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
