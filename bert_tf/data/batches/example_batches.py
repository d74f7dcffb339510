"""Batches of labelled sequences: rows of a step, divided among the workers."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from bert_tf.data.batches.record_batches import BatchShape, Features, StepReader
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.packing.layout import (
    RowSettings,
    lay_out,
    padded_rows,
    token_indices,
)
from bert_tf.data.text.token_sequences import TokenSequences


@dataclasses.dataclass(frozen=True)
class LabelledSequences:
    """The n examples of a task.

    Attributes:
      sequences: Their token sequences.
      labels: Name -> [n] or [n, C], the values to predict; int32 or float32.
      position_labels: Names of the labels that are token positions in the sequence:
        where the sequence begins later in a row, they are shifted with it.
      weights: [n] float32, of the examples in the mean loss; None: all are 1.
      tags: [T] int32, the class of each token, -1 for none; None without any.
      choices: K consecutive sequences make an example; they share a row.
      per_example: Consecutive sequences that are one example, each in any row.
    """

    sequences: TokenSequences
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    position_labels: tuple[str, ...] = ()
    weights: np.ndarray | None = None
    tags: np.ndarray | None = None
    choices: int = 1
    per_example: int = 1

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.sequences) // (self.choices * self.per_example)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of what shares a row: of each sequence, or of all choices."""
        return self.sequences.lengths.reshape(-1, self.choices).sum(axis=1)

    def sequence_rows(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of examples [R, K], -1 for none -> those of their sequences."""
        numbers = rows[..., None] * self.choices + np.arange(self.choices)
        numbers = np.where(rows[..., None] >= 0, numbers, -1)
        return numbers.reshape(len(rows), -1)

    def sha256(self) -> str:
        """Checksum of all tokens and labels, in order."""
        parts = dataclasses.asdict(self.sequences) | self.labels
        parts |= {} if self.tags is None else {"tags": self.tags}
        digest = hashlib.sha256()
        for name, values in sorted(parts.items()):
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values))
        return digest.hexdigest()

    def features(self, rows: np.ndarray, max_seq_length: int) -> Features:
        """The result of `lay_out`, and the labels.

        Args:
          rows: [R, K] numbers of the examples in each row, -1 for none.
          max_seq_length: S, of a row.

        Returns:
          Also each label as [R, K] or [R, K, C], 0 for no example, and `tags` [R, S];
          `example_weights` are [R, K].
        """
        sequence_rows = self.sequence_rows(rows)
        features = lay_out(self.sequences, sequence_rows, max_seq_length)
        features["example_weights"] = (rows >= 0).astype(np.float32)
        if self.tags is not None:
            indices = token_indices(self.sequences, sequence_rows, features)
            chosen = np.where(indices >= 0, self.tags[indices], -1)
            features["tags"] = chosen.astype(np.int32)
        for name, values in self.labels.items():
            chosen = values[rows].copy()
            chosen[rows < 0] = 0
            if name in self.position_labels:
                chosen = chosen + features["next_sentence_positions"]
            features[name] = chosen
        if self.weights is not None:
            chosen = np.where(rows >= 0, self.weights[rows], 0)
            features["example_weights"] = chosen.astype(np.float32)
        return features


class ExampleReader(StepReader):
    """The batches of fine-tuning, by step.

    The examples of a step are a function of seed and step alone. They are packed into
    rows first, and then the rows are divided among workers and micro-batches; each
    worker packing its own examples would make other rows for another number of workers.
    So the loss of a step is the same for any number of workers, packed or not.
    """

    def __init__(
        self,
        examples: LabelledSequences,
        order: RecordOrder,
        shape: BatchShape,
        settings: RowSettings,
        *,
        max_row_counts: int = 0,
        first_step: int = 0,
        first_position: int = 0,
    ) -> None:
        """Prepares reading from any step of the run.

        Args:
          examples: All examples.
          order: The order in which the run reads them.
          shape: How a global batch of examples is divided.
          settings: Length of the rows, and whether they are packed.
          max_row_counts: Micro-batches have at most this many different numbers of
            rows, by empty rows at the end of the global batch; 0: any number.
          first_step: Number of steps taken before.
          first_position: Number of examples read before, over all workers.
        """
        super().__init__(shape, first_step=first_step, first_position=first_position)
        self._examples = examples
        self._order = order
        self._settings = settings
        self._max_row_counts = max_row_counts
        self.rows_vary = settings.is_packed

    def _rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sequences in this worker's rows, -1 for none: [k, B, K].

        Their numbers in the global batch, the slots, follow.
        """
        shape, per_example = self._shape, self._examples.per_example
        count = shape.global_batch_size
        numbers = self._order.records(self.position(step), count)
        numbers = (numbers[:, None] * per_example + np.arange(per_example)).ravel()
        slots = self._settings.assign_rows(self._examples.lengths[numbers])
        parts = shape.size * shape.num_micro_batches
        per_part = -(-len(slots) // parts)
        if self._max_row_counts:
            most = shape.micro_batch_size * per_example
            multiple = -(-most // self._max_row_counts)
            per_part = min(-(-per_part // multiple) * multiple, most)
        slots = padded_rows(slots, per_part * parts)
        own = np.split(slots, shape.size)[shape.rank]
        own = own.reshape(shape.num_micro_batches, per_part, -1)
        return np.where(own >= 0, numbers[own], own), own

    def batch(self, step: int) -> Features:
        """See `StepReader`."""
        rows, slots = self._rows(step)
        own = rows.reshape(-1, rows.shape[-1])
        features = self._examples.features(own, self._settings.max_seq_length)
        if self._examples.per_example > 1:
            features["batch_slots"] = slots.reshape(own.shape).astype(np.int32)
        cut = rows.shape[:2]
        return {name: x.reshape(*cut, *x.shape[1:]) for name, x in features.items()}

    def name_rows(self, step: int, micro_batch: int) -> str:
        """See `StepReader`."""
        rows = self._rows(step)[0][micro_batch]
        numbers = np.unique(rows[rows >= 0] // self._examples.per_example)
        return f"examples {', '.join(map(str, numbers))} (from 0)"


@dataclasses.dataclass(frozen=True)
class PredictionBatch:
    """A batch to predict.

    Attributes:
      features: Of shape [B, ...].
      rows: [B, K] numbers of the sequences in each row, -1 for none.
      tokens: [B, S] index of each token in these sequences, -1 for padding.
    """

    features: Features
    rows: np.ndarray
    tokens: np.ndarray


def prediction_batches(
    examples: LabelledSequences,
    settings: RowSettings,
    *,
    batch_size: int,
    rank: int = 0,
    size: int = 1,
) -> Iterator[PredictionBatch]:
    """This worker's share of all examples, in batches of one shape.

    Args:
      examples: The examples to predict, with labels for an evaluation.
      settings: Length of the rows, and whether they are packed.
      batch_size: Rows of a batch.
      rank: This worker.
      size: Number of workers.

    Yields:
      Batches; every worker gets the same number of them, so some may be empty.
    """
    rows = settings.assign_rows(examples.lengths)
    stride = batch_size * size
    rows = padded_rows(rows, -(-len(rows) // stride) * stride)
    for first in range(rank * batch_size, len(rows), stride):
        chosen = rows[first : first + batch_size]
        features = examples.features(chosen, settings.max_seq_length)
        chosen = examples.sequence_rows(chosen)
        tokens = token_indices(examples.sequences, chosen, features)
        yield PredictionBatch(features, chosen, tokens)
