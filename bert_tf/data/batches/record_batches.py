"""Batches of records: each worker reads its slice of every global batch, ahead."""

import abc
import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from bert_tf.data.batches.dynamic_masking import DynamicMasker
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.records.skipping import SkippingParser, name_records

Features = dict[str, np.ndarray]

# One batch being computed, one ready and one being read hide any reading that is
# faster than computing; more would only take memory.
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchShape:
    """How a global batch is divided among workers and micro-batches.

    Attributes:
      micro_batch_size: B, rows of a micro-batch.
      num_micro_batches: k, micro-batches per step on each worker.
      rank: This worker.
      size: Number of workers.
    """

    micro_batch_size: int
    num_micro_batches: int
    rank: int = 0
    size: int = 1

    @property
    def worker_batch_size(self) -> int:
        """Rows per step on each worker."""
        return self.micro_batch_size * self.num_micro_batches

    @property
    def global_batch_size(self) -> int:
        """Rows per step, over all workers."""
        return self.worker_batch_size * self.size

    @property
    def first_row(self) -> int:
        """Index of this worker's first row in the global batch."""
        return self.rank * self.worker_batch_size


class StepReader(abc.ABC):
    """The batches of a training run, by step.

    Attributes:
      rows_vary: Whether the number of rows differs between batches.
    """

    rows_vary = False

    def __init__(
        self, shape: BatchShape, *, first_step: int = 0, first_position: int = 0
    ) -> None:
        """Prepares reading from any step of the run.

        Args:
          shape: How a global batch is divided.
          first_step: Number of steps taken before.
          first_position: Number of records read before, over all workers.
        """
        self._shape = shape
        self._first_step = first_step
        self._first_position = first_position

    def position(self, step: int) -> int:
        """Number of records that the run has read after `step` steps."""
        steps = step - self._first_step
        return self._first_position + steps * self._shape.global_batch_size

    @abc.abstractmethod
    def batch(self, step: int) -> Features:
        """This worker's part of the batch of step `step`, counted from 0.

        Returns:
          Features of shape [k, B, ...].
        """

    @abc.abstractmethod
    def name_rows(self, step: int, micro_batch: int) -> str:
        """What this worker reads for a micro-batch of step `step`, for messages."""

    def batches(self, num_train_steps: int) -> Iterator[Features]:
        """The batches from the first step on, read in the background."""
        steps = range(self._first_step, num_train_steps)
        with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
            ahead: deque[Future[Features]] = deque()
            try:
                for step in steps:
                    ahead.append(pool.submit(self.batch, step))
                    if len(ahead) > _BATCHES_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()


class TrainingReader(StepReader):
    """The batches of a training run on records, by step."""

    def __init__(
        self,
        parser: SkippingParser,
        order: RecordOrder,
        shape: BatchShape,
        *,
        masker: DynamicMasker | None = None,
        first_step: int = 0,
        first_position: int = 0,
    ) -> None:
        """Prepares reading from any step of the run.

        Args:
          parser: Reads records.
          order: The order in which the run reads them.
          shape: How a global batch is divided.
          masker: Masks them anew in each epoch; None: their own masks are used.
          first_step: Number of steps taken before.
          first_position: Number of records read before, over all workers.
        """
        super().__init__(shape, first_step=first_step, first_position=first_position)
        self._parser = parser
        self._order = order
        self._masker = masker

    def _epochs_and_records(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's records of a step, and how often each was read before."""
        shape = self._shape
        position = self.position(step) + shape.first_row
        return self._order.epochs_and_records(position, shape.worker_batch_size)

    def batch(self, step: int) -> Features:
        """See `StepReader`."""
        shape = self._shape.num_micro_batches, self._shape.micro_batch_size
        epochs, numbers = self._epochs_and_records(step)
        features = self._parser(numbers)
        if self._masker:
            features = self._masker(features, self._order.seed, epochs, numbers)
        return {
            name: array.reshape(*shape, *array.shape[1:])
            for name, array in features.items()
        }

    def name_rows(self, step: int, micro_batch: int) -> str:
        """See `StepReader`."""
        _, numbers = self._epochs_and_records(step)
        numbers = np.split(numbers, self._shape.num_micro_batches)[micro_batch]
        return f"records {','.join(name_records(self._parser.index, numbers))}"


def evaluation_batches(
    parser: SkippingParser,
    order: RecordOrder,
    *,
    batch_size: int,
    max_batches: int,
    rank: int = 0,
    size: int = 1,
) -> Iterator[Features]:
    """This worker's share of an evaluation over the same records for any `size`.

    Batches go to the workers in turn; the last ones are padded with rows of weight
    zero, so that all shapes and all workers' numbers of batches are equal.

    Args:
      parser: Reads records.
      order: The order of the records, of which the first batch_size * max_batches are
        evaluated, or all if there are fewer.
      batch_size: Rows of a batch.
      max_batches: Maximum number of batches, over all workers.
      rank: This worker.
      size: Number of workers.

    Yields:
      Features of shape [batch_size, ...].
    """
    num_rows = min(order.num_records, batch_size * max_batches)
    numbers = order.records(0, num_rows)
    num_batches = -(-num_rows // batch_size)
    for first in range(0, num_batches, size):
        begin = (first + rank) * batch_size
        chosen = numbers[begin : begin + batch_size]
        padded = np.resize(chosen if chosen.size else numbers[:1], batch_size)
        features = parser(padded)
        for name in ("masked_lm_weights", "next_sentence_weights"):
            features[name][chosen.size :] = 0.0
        yield features
