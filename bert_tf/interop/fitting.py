"""Tensors of nearly the right shape: padded vocabularies, more positions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bert_tf.data.text.vocabulary import is_padding

# Trainers pad the vocabulary so that products fill whole tiles: 30522 becomes 30528.
_MULTIPLE = 8
_OF_VOCABULARY = ("bert/embeddings/word_embeddings", "cls/predictions/output_bias")
_POSITIONS = "bert/embeddings/position_embeddings"


class Fitted(NamedTuple):
    """A tensor that has the shape it should have.

    Attributes:
      values: The tensor.
      note: What was done to it, or empty.
    """

    values: np.ndarray
    note: str = ""


def padded_size(vocab_size: int) -> int:
    """The size of a vocabulary that is padded to a multiple of 8."""
    return -(-vocab_size // _MULTIPLE) * _MULTIPLE


def require_float(name: str, values: np.ndarray) -> None:
    """Refuses integers as weights: a quantised file says elsewhere what they mean.

    Raises:
      ValueError: naming the tensor.
    """
    if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
        raise ValueError(
            f"{name} must be of a floating type. Received: {values.dtype}, as in "
            "quantised models. Save the weights as float32, float16 or bfloat16."
        )


def require_finite(name: str, values: np.ndarray, source: str) -> None:
    """Refuses weights that a training has ruined.

    Raises:
      ValueError: naming the tensor.
    """
    count = values.size - np.count_nonzero(np.isfinite(values))
    if count:
        raise ValueError(
            f"{source}: {count} of the {values.size} values of {name} are not finite "
            "numbers. The training that wrote them went wrong: take an earlier "
            "checkpoint."
        )


def fit(
    name: str,
    values: np.ndarray,
    shape: tuple[int, ...],
    initial: Callable[[], np.ndarray] | None = None,
) -> Fitted | None:
    """Gives a tensor another number of rows, where that has a meaning.

    A vocabulary is padded to a multiple of 8 or a higher power of 2 with rows of 0, for
    tokens that no text has, and such rows are cut off again. Positions that the file
    does not know keep their initial values.

    Args:
      name: The tensor, as google-research/bert names it.
      values: The tensor of the file, [R, ...].
      shape: The shape it should have.
      initial: Gives the initial values of that shape; without them positions do not
        grow.

    Returns:
      The tensor, or None if it does not fit.
    """
    if values.shape == shape:
        return Fitted(values)
    if not shape or values.ndim != len(shape) or values.shape[1:] != shape[1:]:
        return None
    have, want = values.shape[0], shape[0]
    if name in _OF_VOCABULARY and is_padding(want, have):
        padding = np.zeros((want - have, *shape[1:]), np.float32)
        return Fitted(
            np.concatenate([values, padding]),
            f"{name}: {have} rows padded to {want} with 0",
        )
    if name in _OF_VOCABULARY and is_padding(have, want):
        return Fitted(values[:want], f"{name}: {have} rows, the padding cut, {want}")
    if name == _POSITIONS and want > have and initial:
        return Fitted(
            np.concatenate([values, initial()[have:]]),
            f"{name}: {have} positions grown to {want}, the new ones untrained",
        )
    return None
