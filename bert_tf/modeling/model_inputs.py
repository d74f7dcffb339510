"""What a caller gives a model -> all inputs of its graph, int32.

Names of transformers are taken, and what most callers leave out has a default.
"""

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Names of the transformers library -> those of google-research/bert.
OTHER_NAMES = {
    "attention_mask": "input_mask",
    "token_type_ids": "segment_ids",
    "position_ids": "positions",
}
HAS_DEFAULT = (
    *("input_mask", "segment_ids", "positions"),
    *("next_sentence_positions", "dropout_seed"),
)


def name_inputs(
    inputs: object, names: Collection[str], labels: Collection[str]
) -> dict[str, Any]:
    """The inputs by their names in the graph, without labels.

    Args:
      inputs: A mapping, or `input_ids` alone.
      names: The inputs of the graph.
      labels: Names that may be in the mapping too.

    Raises:
      ValueError: if a name is unknown, given twice under two names, or missing.
    """
    if not isinstance(inputs, Mapping):
        inputs = {"input_ids": inputs}
    found: dict[str, Any] = {}
    for given, value in inputs.items():
        name = OTHER_NAMES.get(given, given)
        if name in found:
            raise ValueError(
                f"`{name}` must be given once. Received: {name} under two names "
                f"({', '.join(n for n in inputs if OTHER_NAMES.get(n, n) == name)}). "
                "Leave one out."
            )
        if name in names:
            found[name] = value
        elif name not in labels and name not in HAS_DEFAULT:
            others = ", ".join(n for n in OTHER_NAMES if OTHER_NAMES[n] in names)
            raise ValueError(
                f"The inputs must be among {', '.join(names)} (or {others}). Received: "
                f"{given}. Remove or correct it."
            )
    missing = [n for n in names if n not in found and n not in HAS_DEFAULT]
    if missing:
        raise ValueError(
            f"The inputs must have {', '.join(missing)}. Received: "
            f"{', '.join(inputs) or 'none'}. Add what is missing."
        )
    return found


def as_integers(name: str, values: object) -> tf.Tensor | keras.KerasTensor:
    """A matrix of integers as an int32 tensor.

    Raises:
      ValueError: if it is ragged, sparse, of another type or of another rank.
    """
    rule = f"`{name}` must be a matrix [B, S] of integers"
    if isinstance(values, tf.RaggedTensor | tf.SparseTensor):
        raise ValueError(
            f"{rule}. Received: a {type(values).__name__}. Call `.to_tensor()` on a "
            "ragged tensor, `tf.sparse.to_dense` on a sparse one, and pass "
            "`input_mask` with 0 for the padding."
        )
    if not (tf.is_tensor(values) or isinstance(values, keras.KerasTensor)):
        try:
            values = np.asarray(values)
        except ValueError:
            raise ValueError(
                f"{rule}. Received: rows of unequal length. Pad them: a call of the "
                "tokenizer does."
            ) from None
    kind = getattr(values.dtype, "name", values.dtype)
    if not kind.startswith(("int", "uint", "bool")):
        raise ValueError(
            f"{rule}. Received: type {kind}. Cast it, or pass texts to a tokenizer."
        )
    if len(values.shape) != 2:
        raise ValueError(
            f"{rule}. Received: shape {tuple(values.shape)}. A single sequence needs a "
            "batch axis: `ids[None]`."
        )
    if isinstance(values, keras.KerasTensor):
        return values
    return tf.cast(values, tf.int32)


def checked_segments(segment_ids: tf.Tensor, type_vocab_size: int) -> tf.Tensor:
    """The segment ids: others than 0 .. `type_vocab_size` - 1 are an error.

    It is one when it runs (XLA leaves it out).
    """
    is_known = (segment_ids >= 0) & (segment_ids < type_vocab_size)
    check = tf.debugging.assert_equal(
        is_known,
        True,
        message=f"`segment_ids` must be below the model's {type_vocab_size=}, and not "
        "negative.",
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(segment_ids)


def default_positions(input_mask: tf.Tensor) -> tf.Tensor:
    """0, 1, 2 ... for each sequence of a row: [B, S] int32.

    Args:
      input_mask: [B, S]; the numbers of the sequences if rows are packed. All tokens
        before the second sequence count from the row's first one, as in transformers.
    """
    rows, width = tf.unstack(tf.shape(input_mask))
    index = tf.tile(tf.range(width)[None], [rows, 1])
    changes = tf.cast(input_mask[:, 1:] != input_mask[:, :-1], tf.int32)
    part = tf.pad(tf.cumsum(changes, axis=1), [[0, 0], [1, 0]])
    part += tf.range(rows)[:, None] * width
    begins = tf.math.unsorted_segment_min(index, part, rows * width)
    begin = tf.gather(begins, part)
    return index - tf.where(input_mask > 1, begin, 0)


def default_starts(input_mask: tf.Tensor) -> tf.Tensor:
    """The position of [CLS] in rows of one sequence: 0, [B, 1] int32.

    Rows of several sequences are an error when it runs (XLA leaves it out).
    """
    check = tf.debugging.assert_less(
        input_mask,
        2,
        message="`next_sentence_positions` must be given for packed rows, those with "
        "numbers above 1 in `input_mask`: the position of each sequence's [CLS].",
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.zeros([tf.shape(input_mask)[0], 1], tf.int32)
