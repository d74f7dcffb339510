"""Writes `tf.train.Example` messages in wire format, many at once, without TensorFlow.

The features are those of google-research/bert, which other programs read too.
Source: `tensorflow/core/example/{example,feature}.proto`, in protocol buffer wire
format. Only TensorFlow has the classes, which write one value at a time.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.files import varint

# Tags of the messages: field number and wire type 2 (length, then bytes).
_EXAMPLE_FEATURES = b"\x0a"
_FEATURES_ENTRY = b"\x0a"
_ENTRY_KEY = b"\x0a"
_ENTRY_FEATURE = b"\x12"
_FEATURE_FLOATS = b"\x12"
_FEATURE_INTS = b"\x1a"
_LIST_VALUES = b"\x0a"


def _message(tag: bytes, payload: bytes) -> bytes:
    return tag + varint(len(payload)) + payload


@functools.lru_cache(maxsize=1 << 14)
def _entry_header(name: str, kind: bytes, size: int) -> bytes:
    """The tags and lengths of an entry of the map, before values of `size` bytes."""
    values = _LIST_VALUES + varint(size)
    feature = kind + varint(len(values) + size) + values
    key = _message(_ENTRY_KEY, name.encode())
    entry = key + _ENTRY_FEATURE + varint(len(feature) + size) + feature
    return _FEATURES_ENTRY + varint(len(entry) + size) + entry


def _varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers below 2**28 in base 128: [n, 4] digits, low ones first, and counts."""
    shifts = np.arange(4, dtype=np.uint32) * 7
    digits = ((values[:, None] >> shifts) & 0x7F).astype(np.uint8)
    sizes = 1 + (values[:, None] >= np.uint32(1) << shifts[1:]).sum(axis=1)
    digits |= (np.arange(4) < (sizes - 1)[:, None]).astype(np.uint8) << 7
    return digits, sizes.astype(np.uint8)


# Look-up tables for ids of a vocabulary and for positions.
_KNOWN_DIGITS, _KNOWN_SIZES = _varints(np.arange(1 << 16, dtype=np.uint32))


def _varint_rows(values: np.ndarray) -> list[bytes]:
    """Each row of [R, n] integers below 2**28, in base 128, low digits first."""
    largest = int(values.max(initial=0))
    if largest >= 1 << 28 or values.min(initial=0) < 0:
        raise ValueError(f"Values must be in [0, 2**28). Received: up to {largest}.")
    if largest < 1 << 7:  # Masks and segments.
        return [row.tobytes() for row in values.astype(np.uint8)]
    flat = values.astype(np.uint32).ravel()
    if largest < len(_KNOWN_SIZES):
        digits, sizes = _KNOWN_DIGITS[flat], _KNOWN_SIZES[flat]
    else:
        digits, sizes = _varints(flat)
    # Only as many columns as the largest number has digits.
    width = -(-largest.bit_length() // 7)
    is_digit = np.arange(width, dtype=np.uint8) < sizes[:, None]
    data = digits[:, :width][is_digit].tobytes()
    ends = np.cumsum(sizes.reshape(values.shape).sum(axis=1, dtype=np.int64)).tolist()
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def serialize_examples(features: Mapping[str, np.ndarray]) -> list[bytes]:
    """Writes many `tf.train.Example`s of the same shape in wire format.

    Args:
      features: Name -> [R, n], non-negative integers below 2**28, or float32.

    Returns:
      R messages that `tf.train.Example.FromString` and `tf.io.parse_example` read.
    """
    columns = []
    for name, values in features.items():
        if values.dtype.kind == "f":
            kind, rows = _FEATURE_FLOATS, [r.tobytes() for r in values.astype("<f4")]
        else:
            kind, rows = _FEATURE_INTS, _varint_rows(values)
        columns.append([_entry_header(name, kind, len(row)) + row for row in rows])
    return [
        _message(_EXAMPLE_FEATURES, b"".join(entries))
        for entries in zip(*columns, strict=True)
    ]


def serialize_instances(
    instances: Sequence[TrainingInstance],
    max_seq_length: int,
    max_predictions_per_seq: int,
) -> list[bytes]:
    """Pads instances and writes them as examples.

    Args:
      instances: Each of at most S tokens and P masks.
      max_seq_length: S.
      max_predictions_per_seq: P.

    Returns:
      Serialised examples; `next_sentence_labels` is 1 for a random next segment.
    """
    ids, is_token = _padded([one.input_ids for one in instances], max_seq_length)
    segment_ids, _ = _padded([one.segment_ids for one in instances], max_seq_length)
    width = max_predictions_per_seq
    masked_ids, is_masked = _padded([one.masked_lm_ids for one in instances], width)
    positions, _ = _padded([one.masked_lm_positions for one in instances], width)
    labels = np.asarray([one.is_random_next for one in instances], np.uint8)
    return serialize_examples(
        {
            "input_ids": ids,
            "input_mask": is_token.astype(np.uint8),
            "segment_ids": segment_ids,
            "masked_lm_positions": positions,
            "masked_lm_ids": masked_ids,
            "next_sentence_labels": labels[:, None],
            "masked_lm_weights": is_masked.astype(np.float32),
        }
    )


def _padded(rows: Sequence[Sequence[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal lengths as [n, width] with zeros, and where the values are."""
    lengths = np.asarray([len(row) for row in rows])
    is_value = np.arange(width) < lengths[:, None]
    padded = np.zeros(is_value.shape, np.int64)
    padded[is_value] = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
    return padded, is_value
