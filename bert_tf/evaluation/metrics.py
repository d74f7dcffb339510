"""The metrics of pre-training, from sums over batches; writes eval_results."""

import contextlib
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.files import write_whole

Features = dict[str, np.ndarray]


class EvaluationTask(Protocol):
    """A model that can be evaluated.

    Attributes:
      loss_names: Has nsp_loss, if there is next-sentence prediction.
    """

    loss_names: Sequence[str]

    def evaluation_sums(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Loss sum, hits and count of both predictions: [2, 3] float32."""

    def step_scope(self) -> contextlib.AbstractContextManager[Any]:
        """A scope in which weights are prepacked once, for all batches inside."""


def evaluate_pretraining(
    task: EvaluationTask, batches: Iterable[Features], communicator: Communicator
) -> dict[str, float]:
    """Losses and accuracies over batches that are spread over the workers.

    Args:
      task: The model; dropout is off.
      batches: This worker's share; the same number of batches on every worker.
      communicator: The workers.

    Returns:
      masked_lm_loss and next_sentence_loss (mean, nats), masked_lm_accuracy and
      next_sentence_accuracy (in [0, 1]), loss (sum of both), and the numbers of
      predictions that they average, masked_lm_count and next_sentence_count. Without
      next-sentence prediction, sequence_count instead of its three.
    """
    # Traced for each evaluation, with its prepacked weights. TensorFlow counts tracings
    # by the code of a function, which a partial does not have, and warns of many.
    sums = functools.partial(task.evaluation_sums)
    graph = tf.function(sums, autograph=False)
    total = np.zeros((2, 3))
    with task.step_scope():
        for features in batches:
            tensors = {name: tf.convert_to_tensor(x) for name, x in features.items()}
            total += graph(tensors).numpy().astype(np.float64)
    [summed] = communicator.sum([tf.constant(total)], "evaluation")
    (mlm_loss, mlm_hits, mlm_count), (nsp_loss, nsp_hits, nsp_count) = summed.numpy()
    results = {
        "masked_lm_loss": mlm_loss / max(mlm_count, 1.0),
        "masked_lm_accuracy": mlm_hits / max(mlm_count, 1.0),
        "masked_lm_count": mlm_count,
    }
    results["loss"] = results["masked_lm_loss"]
    if "nsp_loss" in task.loss_names:
        results["next_sentence_loss"] = nsp_loss / max(nsp_count, 1.0)
        results["next_sentence_accuracy"] = nsp_hits / max(nsp_count, 1.0)
        results["next_sentence_count"] = nsp_count
        results["loss"] += results["next_sentence_loss"]
    else:
        results["sequence_count"] = nsp_count
    return {name: float(value) for name, value in results.items()}


def write_results(path: str, results: Mapping[str, float | int]) -> None:
    """Writes results in alphabetical order, each file atomically.

    Args:
      path: A .txt, of `name = value` lines; beside it a .json, an object, with the
        exact values; null where one is not finite.
      results: By name.
    """
    lines = [f"{name} = {results[name]:.8g}\n" for name in sorted(results)]
    write_whole(path, "".join(lines))
    values = {n: x if math.isfinite(x) else None for n, x in results.items()}
    text = json.dumps(values, indent=2, sort_keys=True)
    write_whole(f"{path.removesuffix('.txt')}.json", f"{text}\n")
