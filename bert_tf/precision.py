"""Which number type an operation computes in."""

import dataclasses
import logging
import os

import tensorflow as tf

ENVIRONMENT_VARIABLE = "TF_BF16_CONVERSION"
_OFF = ("", "0", "false")

# Operations of two large operands: all the arithmetic, and safe in bfloat16 with
# float32 accumulation. Everything else stays in float32.
_MATRIX_PRODUCTS = frozenset({"MatMul", "BatchMatMul"})


@dataclasses.dataclass(frozen=True)
class PrecisionPolicy:
    """Decides the compute type of each operation; variables are always float32.

    Attributes:
      name: fp32 or bf16.
    """

    name: str = "fp32"

    def compute_dtype(self, operation: str, name: str = "") -> tf.DType:
        """The type that an operation computes in, asked once per trace.

        Args:
          operation: TensorFlow's name of the operation's type, such as MatMul.
          name: Where in the model it stands, as a variable path; unused until
            precision files name single operations.

        Returns:
          float32 or bfloat16.
        """
        del name
        if self.name == "bf16" and operation in _MATRIX_PRODUCTS:
            return tf.bfloat16
        return tf.float32


def choose_policy(precision: str, bf16_config_path: str) -> PrecisionPolicy:
    """Explicit flag, then config path, then environment variable, then float32.

    Args:
      precision: fp32, bf16 or empty.
      bf16_config_path: Path of a precision file, or empty.

    Returns:
      The policy.

    Raises:
      FileNotFoundError: if a path is given and is not a file.
    """
    if precision:
        return PrecisionPolicy(precision)
    variable = os.environ.get(ENVIRONMENT_VARIABLE, "")
    path = bf16_config_path
    source = "--bf16_config_path"
    if not path and variable.lower() not in _OFF:
        source = ENVIRONMENT_VARIABLE
        path = "" if variable.lower() in ("1", "true") else variable
        if not path:
            logging.warning("%s=%s means --precision=bf16.", source, variable)
            return PrecisionPolicy("bf16")
    if not path:
        return PrecisionPolicy()
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The precision file must exist. Received: {source}={path}. "
            "Use --precision=bf16 for bfloat16 matrix products without a file."
        )
    logging.warning(
        "%s=%s means --precision=bf16: its lists of operations are not read yet.",
        source,
        path,
    )
    return PrecisionPolicy("bf16")
