"""Writes instances to TFRecord files of `tf.train.Example`, without TensorFlow.

The features are those of google-research/bert, which other programs read too.
Sources: TFRecord framing as TensorFlow documents it (`tf.io.TFRecordWriter`), and
`tensorflow/core/example/{example,feature}.proto` in protocol buffer wire format.
"""

import functools
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bert_tf.data.output import FileWriter
from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.data.records.record_index import masked_crc

# Tags of the messages: field number and wire type 2 (length, then bytes).
_EXAMPLE_FEATURES = b"\x0a"
_FEATURES_ENTRY = b"\x0a"
_ENTRY_KEY = b"\x0a"
_ENTRY_FEATURE = b"\x12"
_FEATURE_FLOATS = b"\x12"
_FEATURE_INTS = b"\x1a"
_LIST_VALUES = b"\x0a"


class _Varints(dict):
    """Integers in base 128, low digits first, cached since ids recur."""

    def __missing__(self, number: int) -> bytes:
        rest = number & 0xFFFFFFFFFFFFFFFF  # negative ones: two's complement
        digits = bytearray()
        while rest > 0x7F:
            digits.append(rest & 0x7F | 0x80)
            rest >>= 7
        digits.append(rest)
        encoded = bytes(digits)
        if len(encoded) <= 3:
            self[number] = encoded
        return encoded


_VARINTS = _Varints()


def _message(tag: bytes, payload: bytes) -> bytes:
    return tag + _VARINTS[len(payload)] + payload


def serialize_example(
    ints: Mapping[str, Sequence[int]], floats: Mapping[str, Sequence[float]]
) -> bytes:
    """Writes a `tf.train.Example` in wire format.

    Args:
      ints: int64 features, plain Python integers.
      floats: float32 features.

    Returns:
      The bytes that `tf.train.Example.FromString` and `tf.io.parse_example` read.
    """
    entries = []
    for name, values in ints.items():
        packed = b"".join([_VARINTS[value] for value in values])
        entries.append(_entry(name, _FEATURE_INTS, packed))
    for name, values in floats.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        entries.append(_entry(name, _FEATURE_FLOATS, packed))
    return _message(_EXAMPLE_FEATURES, b"".join(entries))


def _entry(name: str, kind: bytes, packed: bytes) -> bytes:
    """One name with its values, as an entry of the map of features."""
    return _entry_header(name, kind, len(packed)) + packed


@functools.lru_cache(maxsize=1 << 14)
def _entry_header(name: str, kind: bytes, size: int) -> bytes:
    """The tags and lengths before values of `size` bytes."""
    values = _LIST_VALUES + _VARINTS[size]
    feature = kind + _VARINTS[len(values) + size] + values
    key = _message(_ENTRY_KEY, name.encode())
    entry = key + _ENTRY_FEATURE + _VARINTS[len(feature) + size] + feature
    return _FEATURES_ENTRY + _VARINTS[len(entry) + size] + entry


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
      R serialised examples, as `serialize_example` writes them.
    """
    columns = []
    for name, values in features.items():
        if values.dtype.kind == "f":
            rows = [row.tobytes() for row in values.astype("<f4")]
            columns.append([_entry(name, _FEATURE_FLOATS, row) for row in rows])
        else:
            rows = _varint_rows(values)
            columns.append([_entry(name, _FEATURE_INTS, row) for row in rows])
    return [
        _message(_EXAMPLE_FEATURES, b"".join(entries))
        for entries in zip(*columns, strict=True)
    ]


def serialize_instance(
    instance: TrainingInstance, max_seq_length: int, max_predictions_per_seq: int
) -> bytes:
    """Pads an instance and writes it as an example.

    Args:
      instance: At most S tokens and P masks.
      max_seq_length: S.
      max_predictions_per_seq: P.

    Returns:
      A serialised `tf.train.Example`; `next_sentence_labels` is 1 for a random next
      segment.
    """
    length = len(instance.input_ids)
    masks = len(instance.masked_lm_ids)
    padding = [0] * (max_seq_length - length)
    unused = [0] * (max_predictions_per_seq - masks)
    return serialize_example(
        {
            "input_ids": instance.input_ids + padding,
            "input_mask": [1] * length + padding,
            "segment_ids": instance.segment_ids + padding,
            "masked_lm_positions": instance.masked_lm_positions + unused,
            "masked_lm_ids": instance.masked_lm_ids + unused,
            "next_sentence_labels": [int(instance.is_random_next)],
        },
        {"masked_lm_weights": [1.0] * masks + unused},
    )


def frame_record(data: bytes) -> bytes:
    """A record in TFRecord framing: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (
            length,
            struct.pack("<I", masked_crc(length)),
            data,
            struct.pack("<I", masked_crc(data)),
        )
    )


def shard_name(number: int, num_shards: int) -> str:
    """Name of shard `number`, from 0, of `num_shards`."""
    return f"part-{number:05d}-of-{num_shards:05d}.tfrecord"


class RecordWriter(FileWriter):
    """Writes one TFRecord file, see `FileWriter`.

    Attributes:
      num_records: Records written.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the temporary file.

        Args:
          path: The final path.
        """
        super().__init__(path)
        self.num_records = 0

    def write(self, data: bytes) -> None:
        """Adds a serialised example."""
        self.write_framed(frame_record(data))

    def write_framed(self, frame: bytes) -> None:
        """Adds a record with the framing of `frame_record`."""
        self.append(frame)
        self.num_records += 1
