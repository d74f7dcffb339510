"""Parses serialised examples into arrays, and checks their shapes and values."""

import abc
import dataclasses
import math
import os
import types
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bert_tf.data.records.record_index import RecordIndex
from bert_tf.data.records.tfrecord import TfrecordIndex
from bert_tf.errors import CorruptRecordError
from bert_tf.stages import loading_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

# Features of every record: values per token, per masked token and per record.
PER_TOKEN = ("input_ids", "input_mask", "segment_ids")
PER_PREDICTION = ("masked_lm_positions", "masked_lm_ids")
LABEL = "next_sentence_labels"
_WEIGHTS = "masked_lm_weights"  # HDF5 files do without.
# Those of an unpacked record, in the order of `serialize_instances`.
FEATURES = (*PER_TOKEN, *PER_PREDICTION, LABEL, _WEIGHTS)
_PER_SEQUENCE = (LABEL, "next_sentence_positions", "next_sentence_weights")
_ONLY_PACKED = ("positions", "next_sentence_positions", "next_sentence_weights")


def _tensorflow() -> types.ModuleType:
    """TensorFlow, which parses examples; the first call loads it."""
    with loading_tensorflow():
        import tensorflow
    return tensorflow


def _parse_errors() -> tuple[type[Exception], ...]:
    # TensorFlow's message has the record's bytes, which may be no text.
    return _tensorflow().errors.InvalidArgumentError, UnicodeDecodeError


@dataclasses.dataclass(frozen=True)
class RecordShape:
    """The lengths that every record of a set has.

    Attributes:
      max_seq_length: S, tokens per record.
      max_predictions: P, masked tokens per record.
      max_sequences: K, sequences per record; 1 if not packed.
      is_packed: Whether a record holds several sequences, with their positions.
    """

    max_seq_length: int
    max_predictions: int
    max_sequences: int = 1
    is_packed: bool = False

    def __str__(self) -> str:
        """The lengths, for messages."""
        packed = f" max_sequences={self.max_sequences}" if self.is_packed else ""
        return (
            f"max_seq_length={self.max_seq_length} "
            f"max_predictions={self.max_predictions}{packed}"
        )

    @property
    def lengths(self) -> dict[str, int]:
        """Feature -> values per record, those of packed records included."""
        lengths = dict.fromkeys(PER_TOKEN, self.max_seq_length)
        lengths |= dict.fromkeys((*PER_PREDICTION, _WEIGHTS), self.max_predictions)
        lengths |= dict.fromkeys(_PER_SEQUENCE, self.max_sequences)
        return lengths | {"positions": self.max_seq_length}

    def specification(self) -> "dict[str, tf.io.FixedLenFeature]":
        """The features of google-research/bert's records, or of packed ones."""
        tf = _tensorflow()
        return {
            name: tf.io.FixedLenFeature(
                [length], tf.float32 if name.endswith("_weights") else tf.int64
            )
            for name, length in self.lengths.items()
            if self.is_packed or name not in _ONLY_PACKED
        }


def _shape_of(data: bytes, location: object) -> RecordShape:
    """Reads the lengths of one serialised example."""
    try:
        feature = _tensorflow().train.Example.FromString(data).features.feature
    except Exception as error:
        raise CorruptRecordError(
            f"{location}: the record must be a tf.train.Example. Make the file again, "
            "or move it out of the folder if it holds other data."
        ) from error
    is_packed = "next_sentence_positions" in feature
    wanted = {*FEATURES, *(_ONLY_PACKED if is_packed else ())}
    missing = wanted - set(feature)
    if missing:
        raise CorruptRecordError(
            f"{location}: the record lacks {', '.join(sorted(missing))}. It must hold "
            "the features of BERT pre-training; `python -m bert_tf data create` makes "
            "them."
        )
    names = ("input_ids", "masked_lm_ids", LABEL)
    lengths = [len(feature[name].int64_list.value) for name in names]
    if not all(lengths):
        raise CorruptRecordError(
            f"{location}: the record must have values of {', '.join(names)}. Received: "
            f"{', '.join(map(str, lengths))} values. Make the records again with "
            "`python -m bert_tf data create`."
        )
    return RecordShape(*lengths, is_packed)


def _first_shape(
    index: TfrecordIndex, shard: int, skipped: Container[int], max_corrupt_records: int
) -> tuple[RecordShape, int] | None:
    """The lengths of a file's first record that can be read, and its number."""
    num_corrupt = 0
    for number in range(*index.starts[shard : shard + 2].tolist()):
        if number in skipped:
            continue
        try:
            [data] = index.read(np.asarray([number]))
            return _shape_of(data, index.location(number)), number
        except CorruptRecordError as error:
            num_corrupt += 1
            if num_corrupt > max_corrupt_records:
                raise CorruptRecordError(str(error), number) from error
    return None


def record_shapes(
    index: TfrecordIndex,
    skipped: Container[int] = (),
    max_corrupt_records: int = 0,
) -> list[RecordShape]:
    """The lengths of the records of each file, read from its first one.

    Packed records of different folders may have room for different numbers of
    predictions and sequences; everything else must be the same in all files.

    Args:
      index: The records.
      skipped: Numbers of records that are not read.
      max_corrupt_records: How many others may be passed over in a file.

    Raises:
      CorruptRecordError: if two files differ, or a first record is not valid.
    """
    shapes: dict[RecordShape, int] = {}
    of_folders: dict[str, set[RecordShape]] = {}
    for shard, path in enumerate(index.files):
        if found := _first_shape(index, shard, skipped, max_corrupt_records):
            shapes.setdefault(*found)
            of_folders.setdefault(os.path.dirname(path), set()).add(found[0])
    if not shapes:
        raise CorruptRecordError(
            f"{index.files[0]}: no record is left, all of the set are skipped. Skip "
            "fewer records, or make the files again."
        )
    kinds = {shape.is_packed: number for shape, number in shapes.items()}
    if len(kinds) > 1:
        one, other = (index.location(number).path for number in kinds.values())
        raise CorruptRecordError(
            f"Packed and unpacked records cannot be mixed. Received: {one} and "
            f"{other}. Pack all of them, or none."
        )
    first = next(iter(shapes))
    is_mixture = first.is_packed and max(map(len, of_folders.values())) == 1
    if len({s.max_seq_length if is_mixture else s for s in shapes}) > 1:
        lines = [f"{index.location(n)} has {shape}" for shape, n in shapes.items()]
        raise CorruptRecordError(
            "All records of a set must have the same lengths. Received: "
            + "; ".join(lines)
            + ". Make them again with the same lengths, or use one kind alone."
        )
    folders = map(os.path.dirname, index.files)
    return [next(iter(of_folders.get(folder, [first]))) for folder in folders]


@dataclasses.dataclass(frozen=True)
class ValueLimits:
    """The sizes of the model's embedding tables, which bound ids in the records.

    Attributes:
      vocab_size: V.
      type_vocab_size: Number of segment ids.
    """

    vocab_size: int
    type_vocab_size: int

    def of(self, shape: RecordShape) -> dict[str, int]:
        """Feature -> the exclusive upper bound of its values, which are at least 0."""
        return {
            # The number of a sequence within its record, from 1; 0 is padding.
            "input_mask": shape.max_sequences + 1,
            _WEIGHTS: math.inf,
            "next_sentence_weights": math.inf,
            "input_ids": self.vocab_size,
            "masked_lm_ids": self.vocab_size,
            "segment_ids": self.type_vocab_size,
            "masked_lm_positions": shape.max_seq_length,
            "positions": shape.max_seq_length,
            "next_sentence_positions": shape.max_seq_length,
            LABEL: 2,
        }


class RecordParser(abc.ABC):
    """Records of some format to the model's inputs, labels and weights.

    Attributes:
      index: Where the records are.
      shape: The lengths of the records.
      limits: Exclusive upper bounds of the ids.
    """

    def __init__(
        self, index: RecordIndex, shape: RecordShape, limits: ValueLimits
    ) -> None:
        """Prepares for one set of records.

        Args:
          index: The numbered records, which also locates them for messages.
          shape: The lengths of the records.
          limits: Exclusive upper bounds of the ids.
        """
        self.index = index
        self.shape = shape
        self.limits = limits
        self._upper_bounds = limits.of(shape)

    def __call__(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Reads, parses and checks records.

        Args:
          numbers: [n] int64 record numbers.

        Returns:
          The record features, with `positions` [n, S], `next_sentence_positions`,
          `next_sentence_labels` and `next_sentence_weights` [n, K] whether the records
          are packed or not; int32, and float32 for weights.

        Raises:
          CorruptRecordError: naming file and record, the first that is wrong.
        """
        try:
            arrays = self._parse(numbers)
            self._check(arrays, numbers)
        except CorruptRecordError as error:
            raise self._first_corrupt(numbers) or error from None
        features = {
            name: array if array.dtype == np.float32 else array.astype(np.int32)
            for name, array in arrays.items()
        }
        if self.shape.is_packed:
            return features
        positions = np.arange(self.shape.max_seq_length, dtype=np.int32)
        features["positions"] = np.tile(positions, (len(numbers), 1))
        features["next_sentence_positions"] = np.zeros((len(numbers), 1), np.int32)
        features["next_sentence_weights"] = np.ones((len(numbers), 1), np.float32)
        return features

    def shape_of(self, path: str) -> RecordShape:
        """The lengths of the records of a file, before any padding."""
        return self.shape

    def _first_corrupt(self, numbers: np.ndarray) -> CorruptRecordError | None:
        """The error of the first record that cannot be read alone."""
        for number in numbers[:, None]:
            try:
                self._check(self._parse(number), number)
            except CorruptRecordError as error:
                [one] = number.tolist()
                message, location = str(error), str(self.index.location(one))
                if location not in message:  # The HDF5 library names a dataset.
                    message = f"{location}: {message}"
                return CorruptRecordError(message, one)
        return None

    def padded_to(
        self, max_seq_length: int | None, max_predictions: int | None
    ) -> "RecordParser":
        """A parser that pads records to these lengths, if it can; otherwise this one.

        Args:
          max_seq_length: The S to pad to; None for that of the records.
          max_predictions: The P to pad to; None for that of the records.
        """
        return self

    @abc.abstractmethod
    def _parse(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the features that the records hold: integers and float32."""

    def _check(self, arrays: dict[str, np.ndarray], numbers: np.ndarray) -> None:
        for name, limit in self._upper_bounds.items():
            if name not in arrays:
                continue
            values = arrays[name]
            # NaN is in no range.
            if values.min() >= 0 and values.max() < limit:
                continue
            is_wrong = ~((values >= 0) & (values < limit))
            row = int(np.argmax(is_wrong.any(axis=1)))
            wrong = values[row][is_wrong[row]][0]
            remedy = ""
            if name in ("input_ids", "masked_lm_ids") and wrong >= limit:
                remedy = (
                    " Check the vocabulary first: the records were made with one that "
                    f"is larger than the model's vocab_size={limit}. Use the model "
                    "that belongs to it, or make the records again."
                )
            raise CorruptRecordError(
                f"{self.index.location(int(numbers[row]))}: `{name}` must be in "
                f"[0, {limit}). Received: {wrong}.{remedy}"
            )


class ExampleParser(RecordParser):
    """Serialised examples to the model's inputs, labels and weights."""

    def __init__(
        self, index: TfrecordIndex, shapes: Sequence[RecordShape], limits: ValueLimits
    ) -> None:
        """Prepares for one set of records; see `RecordParser`.

        Args:
          index: The numbered records.
          shapes: The lengths of the records of each file; those of packed records are
            padded to the longest.
          limits: Exclusive upper bounds of the ids.
        """
        widest = dataclasses.replace(
            shapes[0],
            max_predictions=max(shape.max_predictions for shape in shapes),
            max_sequences=max(shape.max_sequences for shape in shapes),
        )
        super().__init__(index, widest, limits)
        self._shapes = shapes
        self._specifications = {shape: shape.specification() for shape in shapes}

    def shape_of(self, path: str) -> RecordShape:
        """See `RecordParser`."""
        return self._shapes[self.index.files.index(path)]

    def _parse(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        if len(self._specifications) == 1:
            return self._parse_alike(numbers, self.shape)
        shards, _ = self.index.locate(numbers)
        found: dict[str, np.ndarray] = {}
        widest = self.shape.lengths
        for shape in self._specifications:
            is_alike = np.asarray([self._shapes[shard] == shape for shard in shards])
            if not is_alike.any():
                continue
            for name, values in self._parse_alike(numbers[is_alike], shape).items():
                rows = np.zeros((len(numbers), widest[name]), values.dtype)
                found.setdefault(name, rows)[is_alike, : values.shape[1]] = values
        return found

    def _parse_alike(
        self, numbers: np.ndarray, shape: RecordShape
    ) -> dict[str, np.ndarray]:
        """Parses records of the same lengths."""
        records = self.index.read(numbers)
        try:
            parsed = _tensorflow().io.parse_example(
                records, self._specifications[shape]
            )
        except _parse_errors():
            for number, record in zip(numbers, records, strict=True):
                self._check_alone(record, self.index.location(int(number)), shape)
            raise
        return {name: tensor.numpy() for name, tensor in parsed.items()}

    def _check_alone(
        self, record: bytes, location: object, expected: RecordShape
    ) -> None:
        """Parses a single record, to name the one that is wrong and the reason."""
        shape = _shape_of(record, location)
        if shape != expected:
            raise CorruptRecordError(
                f"{location}: all records of a set must have the same lengths. "
                f"Received: {shape}, but the first record has {expected}. Make the "
                "file again."
            )
        try:
            _tensorflow().io.parse_single_example(
                record, self._specifications[expected]
            )
        except _parse_errors() as error:
            reason = " ".join(str(getattr(error, "message", error)).split())
            raise CorruptRecordError(f"{location}: {reason}") from error
