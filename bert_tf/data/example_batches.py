"""Labelled sequences to batches: the rows of a step, shared out to the workers."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from bert_tf.data.pipeline import BatchShape, Features, StepReader
from bert_tf.data.rows import RowSettings, padded_rows, row_features
from bert_tf.data.sampling import RecordOrder
from bert_tf.data.sequences import TokenSequences


@dataclasses.dataclass(frozen=True)
class LabelledSequences:
    """The examples of a task.

    Attributes:
      sequences: Their n token sequences.
      labels: Name -> [n], what is to be predicted of each; int32 or float32.
      places: Names of those labels that are places in the sequence, and so move with
        it in a row.
    """

    sequences: TokenSequences
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    places: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Of all tokens and labels, in their order."""
        parts = dataclasses.asdict(self.sequences) | self.labels
        digest = hashlib.sha256()
        for name, values in sorted(parts.items()):
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values))
        return digest.hexdigest()

    def features(self, rows: np.ndarray, max_seq_length: int) -> Features:
        """`row_features`, and each label as [R, K], 0 where there is no sequence."""
        features = row_features(self.sequences, rows, max_seq_length)
        for name, values in self.labels.items():
            chosen = np.where(rows >= 0, values[rows], 0).astype(values.dtype)
            if name in self.places:
                chosen = chosen + features["next_sentence_positions"]
            features[name] = chosen
        return features


class ExampleReader(StepReader):
    """The batches of fine-tuning, by step.

    A step's examples are a function of seed and step alone. They are dealt out to rows
    for all workers together, and each worker takes its share of the rows: so the loss
    of a step is the same for any number of workers, packed or not.
    """

    def __init__(
        self,
        examples: LabelledSequences,
        order: RecordOrder,
        shape: BatchShape,
        settings: RowSettings,
        *,
        first_step: int = 0,
        first_position: int = 0,
    ) -> None:
        """Prepares reading from a point of the run.

        Args:
          examples: All of them.
          order: In which order.
          shape: How a global batch of examples is cut up.
          settings: What rows are like.
          first_step: Steps taken before.
          first_position: Examples read before, over all workers.
        """
        super().__init__(shape, first_step=first_step, first_position=first_position)
        self._examples = examples
        self._order = order
        self._settings = settings
        self.rows_vary = settings.is_packed

    def batch(self, step: int) -> Features:
        """See `StepReader`."""
        shape, settings = self._shape, self._settings
        count = shape.global_batch_size
        numbers = self._order.records(self.position(step), count)
        dealt = settings.deal(self._examples.sequences.lengths[numbers])
        rows = np.where(dealt >= 0, numbers[dealt], dealt)
        parts = shape.size * shape.num_micro_batches
        per_part = -(-len(rows) // parts)
        rows = padded_rows(rows, per_part * parts)
        own = np.split(rows, shape.size)[shape.rank]
        features = self._examples.features(own, settings.max_seq_length)
        del features["tokens"]
        cut = (shape.num_micro_batches, per_part)
        return {name: x.reshape(*cut, *x.shape[1:]) for name, x in features.items()}


@dataclasses.dataclass(frozen=True)
class PredictionBatch:
    """A batch to predict.

    Attributes:
      features: Of shape [B, ...].
      rows: [B, K] numbers of the examples in it, -1 for none.
      tokens: [B, S] where each token is in the examples' sequences, -1 for padding.
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
      examples: What is predicted, and for an evaluation its labels.
      settings: What rows are like.
      batch_size: Rows of a batch.
      rank: This worker.
      size: Number of workers.

    Yields:
      Batches; every worker gets the same number of them, empty ones if need be.
    """
    rows = settings.deal(examples.sequences.lengths)
    stride = batch_size * size
    rows = padded_rows(rows, -(-len(rows) // stride) * stride)
    for first in range(rank * batch_size, len(rows), stride):
        chosen = rows[first : first + batch_size]
        features = examples.features(chosen, settings.max_seq_length)
        tokens = features.pop("tokens")
        yield PredictionBatch(features, chosen, tokens)
