"""Logits of all examples, computed in batches and collected from all workers."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.evaluation.speed import BatchTimes


class PredictionTask(Protocol):
    """A model that predicts.

    Attributes:
      num_outputs: C, logits of each token or example.
    """

    num_outputs: int

    def logits(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """[B, N, C] float32, without dropout."""

    def step_scope(self) -> contextlib.AbstractContextManager[Any]:
        """A scope in which weights are prepacked once, for all batches inside."""


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


# A `tf.function`: features -> logits.
Logits = tf.types.experimental.PolymorphicFunction


@contextlib.contextmanager
def compiled(task: PredictionTask) -> Iterator[Logits]:
    """The model's logits as a graph, for weights that do not change inside."""
    with task.step_scope():
        # A partial, without warnings of TensorFlow: see `evaluation.metrics`.
        yield tf.function(functools.partial(task.logits), autograph=False)


def predict(
    task: PredictionTask,
    batches: Iterable[Batch],
    count: int,
    communicator: Communicator,
    *,
    of_tokens: bool,
    times: BatchTimes | None = None,
) -> np.ndarray:
    """The logits of all tokens, or of all examples, of a set.

    Args:
      task: The model.
      batches: This worker's share; all shares together hold each example once.
      count: T or n, the number of tokens or of examples.
      communicator: The workers.
      of_tokens: Whether the logits are per token; otherwise they are per example.
      times: Gets this worker's times of the batches.

    Returns:
      [T, C] or [n, C] float32, on every worker; bit-identical for any number of
      workers if all batches have the same shape.
    """
    shape = (count, task.num_outputs)
    with compiled(task) as graph:
        own = collect(graph, batches, shape, of_tokens=of_tokens, times=times)
    # Each logit comes from one worker; the others add zero, which changes no bit.
    [total] = communicator.sum([tf.constant(own)], "predictions")
    return total.numpy()


def collect(
    graph: Logits,
    batches: Iterable[Batch],
    shape: tuple[int, int],
    *,
    of_tokens: bool,
    times: BatchTimes | None = None,
) -> np.ndarray:
    """The logits of one worker's batches, float32 of `shape`, 0 where it has none."""
    logits = np.zeros(shape, np.float32)
    times = times or BatchTimes()
    for batch in batches:
        numbers = batch.tokens if of_tokens else batch.rows
        is_real = numbers >= 0
        if not is_real.any():
            continue
        num_sequences = int((batch.rows >= 0).sum())
        with times.measured(num_sequences, graph.experimental_get_tracing_count):
            tensors = {n: tf.convert_to_tensor(x) for n, x in batch.features.items()}
            found = graph(tensors).numpy()
        logits[numbers[is_real]] = found[is_real]
    return logits
