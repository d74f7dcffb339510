"""A model's outputs for all examples of a set, however they are spread."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from bert_tf.evaluation.metrics import Reduction


class PredictionTask(Protocol):
    """A model that predicts.

    Attributes:
      num_outputs: C, logits of each token or example.
    """

    num_outputs: int

    def logits(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """[B, N, C] float32, without dropout."""

    def prepared(self) -> contextlib.AbstractContextManager[None]:
        """Does what all batches share, for the calls inside."""


class Batch(Protocol):
    """Rows of examples.

    Attributes:
      features: Inputs of the model, [B, ...].
      rows: [B, K] numbers of the examples, -1 for none.
      tokens: [B, S] numbers of the tokens, -1 for none.
    """

    features: dict[str, np.ndarray]
    rows: np.ndarray
    tokens: np.ndarray


Logits = Callable[[dict[str, tf.Tensor]], tf.Tensor]


@contextlib.contextmanager
def compiled(task: PredictionTask) -> Iterator[Logits]:
    """The model's logits as a graph, for weights that do not change inside."""
    with task.prepared():
        yield tf.function(lambda features: task.logits(features))


def predict(
    task: PredictionTask,
    batches: Iterable[Batch],
    count: int,
    reduction: Reduction,
    *,
    of_tokens: bool,
) -> np.ndarray:
    """The logits of all tokens, or of all examples, of a set.

    Args:
      task: The model.
      batches: This worker's share; the shares of all workers hold everything once.
      count: T or n: how many tokens or examples there are.
      reduction: The workers.
      of_tokens: Whether the model's logits are those of tokens.

    Returns:
      [T, C] or [n, C] float32, on every worker; equal to the last bit for any number
      of workers, where batches have one shape.
    """
    shape = (count, task.num_outputs)
    with compiled(task) as graph:
        own = collect(graph, batches, shape, of_tokens=of_tokens)
    # Each number comes from one worker; the others add zero.
    [total] = reduction.sum([tf.constant(own)], "predictions")
    return total.numpy()


def collect(
    graph: Logits, batches: Iterable[Batch], shape: tuple[int, int], *, of_tokens: bool
) -> np.ndarray:
    """The logits of one worker's batches, float32 of `shape`, 0 where it has none."""
    logits = np.zeros(shape, np.float32)
    for batch in batches:
        numbers = batch.tokens if of_tokens else batch.rows
        is_real = numbers >= 0
        if not is_real.any():
            continue
        tensors = {n: tf.convert_to_tensor(x) for n, x in batch.features.items()}
        logits[numbers[is_real]] = graph(tensors).numpy()[is_real]
    return logits
