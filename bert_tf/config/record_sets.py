"""Weights of record sets on a command line: PATH:WEIGHT,PATH:WEIGHT."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

# How many records a block of all sets may have: their order is in memory.
MAX_PARTS = 1_000_000
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)"
_WEIGHTED = re.compile(rf"(.+):({_NUMBER})", re.ASCII | re.IGNORECASE | re.DOTALL)
_MAX_LENGTH = 24


def split_weight(text: str) -> tuple[str, str]:
    """A path and its weight; empty if the text does not end with a colon and a number.

    A path may itself end so: what exists as written has no weight.
    """
    match = _WEIGHTED.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def whole_parts(setting: str, weights: Sequence[str]) -> list[int]:
    """The smallest whole numbers in the proportion of weights.

    Args:
      setting: The value of `input_files_dir`, for messages.
      weights: Those of its sets, as written; empty for a set without one.

    Raises:
      ValueError: if a weight is missing, not positive and finite, or too precise.
    """
    if not all(weights):
        raise ValueError(
            "`input_files_dir` must have a weight for each set, or for none. Received: "
            f"input_files_dir={setting}. Add the missing ones (FOLDER:WEIGHT)."
        )
    for weight in weights:
        if len(weight) > _MAX_LENGTH or not 0 < float(weight) < math.inf:
            raise ValueError(
                "`input_files_dir` must have weights that are finite and greater than "
                f"0, of at most {_MAX_LENGTH} characters. Received: {weight} in "
                f"input_files_dir={setting}. Leave out a set to read nothing of it."
            )
    fractions = [Fraction(weight) for weight in weights]
    unit = math.lcm(*(each.denominator for each in fractions))
    parts = [int(each * unit) for each in fractions]
    parts = [each // math.gcd(*parts) for each in parts]
    if sum(parts) > MAX_PARTS:
        raise ValueError(
            "`input_files_dir` must have weights in a proportion of whole numbers with "
            f"a sum of at most {MAX_PARTS:,}. Received: input_files_dir={setting}, a "
            f"sum of {len(str(sum(parts)))} digits. Round them, to 0.12 for example."
        )
    return parts
