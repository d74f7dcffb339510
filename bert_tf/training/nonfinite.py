"""Why a gradient was not finite: found afterwards, so that no step takes longer."""

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator

# Number of a micro-batch -> gradients, in the order of the variables, and losses.
PartGradients = Callable[[int], tuple[Sequence[tf.Tensor], tf.Tensor]]

_MAX_NAMED = 3


class Cause(NamedTuple):
    """Where values that are not finite come from; equal on all workers.

    Attributes:
      text: One or several sentences.
      is_in_weights: Whether the weights were not finite before the step: then no later
        step can be, either.
    """

    text: str
    is_in_weights: bool


def find_cause(
    part: PartGradients,
    num_parts: int,
    variables: Sequence[keras.Variable],
    loss_names: Sequence[str],
    communicator: Communicator,
    name_rows: Callable[[int], str],
) -> Cause:
    """Computes the micro-batches of a failed step again, one by one.

    The weights have not changed and dropout is a function of the step, so that all
    values are those of the step. To be called on all workers.

    Args:
      part: Computes a micro-batch of this worker alone.
      num_parts: Micro-batches per step on each worker.
      variables: The weights, in the order of the gradients.
      loss_names: Names of the losses.
      communicator: The workers.
      name_rows: Index of a micro-batch -> the records that it reads.
    """
    weights = [variable.path for variable in variables if not _is_finite(variable)]
    paths = [variable.path for variable in variables]
    own = {"host": socket.gethostname(), "found": "", "weights": weights}
    for index in range(0 if weights else num_parts):
        if found := _describe_part(*part(index), paths, loss_names):
            micro_batch = f"micro-batch {index + 1} of {num_parts}"
            own["found"] = f"{micro_batch}, {name_rows(index)}: {found}"
            break
    workers = communicator.gather_values(own)
    if of_some := [worker["weights"] for worker in workers if worker["weights"]]:
        found = _counted(of_some[0], len(variables), "weights")
        return Cause(f"Before the step, {found}.", True)
    lines = [
        f"Worker {rank} on {worker['host']}, {worker['found']}."
        for rank, worker in enumerate(workers)
        if worker["found"]
    ]
    if not lines:
        limit = "float32"
        if communicator.sends_fp16:
            limit = "float16 (--horovod_compression=fp16)"
        lines = [
            "Computed again, every micro-batch is finite: their sum over micro-batches "
            f"and workers, or its norm, is too large for {limit}."
        ]
    return Cause(" ".join(lines), False)


def _describe_part(
    gradients: Sequence[tf.Tensor],
    losses: tf.Tensor,
    paths: Sequence[str],
    loss_names: Sequence[str],
) -> str:
    """What is not finite in a micro-batch; empty if all of it is."""
    found = [
        f"{name} is {value:g}"
        for name, value in zip(loss_names, losses.numpy().tolist(), strict=True)
        if not np.isfinite(value)
    ]
    pairs = zip(paths, gradients, strict=True)
    if wrong := [path for path, gradient in pairs if not _is_finite(gradient)]:
        found.append(_counted(wrong, len(paths), "gradients"))
    return ", ".join(found)


def _is_finite(tensor: keras.Variable | tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(tensor))).numpy())


def _counted(names: Sequence[str], total: int, kind: str) -> str:
    listed = ", ".join(names[:_MAX_NAMED])
    more = ", ..." if len(names) > _MAX_NAMED else ""
    return f"{len(names)} of {total} {kind} are not finite ({listed}{more})"
