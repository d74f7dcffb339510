"""What the workers of a Keras model sum: gradients, statistics, metrics, weights."""

import json
import zlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, shown
from bert_tf.training.optimizer_base import dense_gradient

Gradient = tf.Tensor | tf.IndexedSlices | None

# What is summed directly. Other numbers travel as a wider type: MPI knows no bfloat16.
_WIRE_TYPES = (tf.float32, tf.float64, tf.int64)


class KerasSums:
    """The sums over the workers of one model, and the flag that stops them together.

    Attributes:
      communicator: The workers.
      rows: Rows of this worker's batch, float32 scalar: its weight in means. None
        outside of a training step, where all workers weigh the same.
      stop: Set to 1 to ask all workers to stop; it travels with the gradients.
      stops: Above 0 once a worker has asked; equal on all of them.
    """

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator
        self.rows: tf.Tensor | None = None
        self.stop = tf.Variable(0.0, trainable=False)
        self.stops = tf.Variable(0.0, trainable=False)

    def mean_gradients(
        self,
        gradients: Sequence[Gradient],
        variables: Sequence[keras.Variable] | None,
        name: str,
    ) -> list[tf.Tensor | None]:
        """Takes the mean of each gradient over the workers, in one grouped sum.

        Args:
          gradients: This worker's; None for a variable without one.
          variables: One for each gradient; None if all of them are means of batches,
            which then weigh the same on every worker.
          name: Of the sum; the same on every worker.

        Returns:
          Dense gradients of the given types, equal on every worker to the last bit.

        Raises:
          tf.errors.InvalidArgumentError: on every worker, when the step runs, if a
            variable has a gradient on some workers only.
        """
        weight = tf.constant(1.0)
        if self.rows is not None and variables is not None:
            weight = self.rows
        pairs = zip(gradients, variables or gradients, strict=True)
        dense = [_dense(gradient, variable) for gradient, variable in pairs]
        exists = tf.constant([float(g is not None) for g in gradients])
        kinds = ["mean"] * len(dense) + ["sum"] * 2
        *means, numbers, stops = self._combine(
            [*map(_to_wire, dense), exists, tf.identity(self.stop)],
            kinds,
            weight,
            name,
        )
        tf.debugging.Assert(
            tf.reduce_all((numbers == 0) | (numbers == self.communicator.size)),
            [
                "A variable has a gradient on some workers only. Run the same model "
                "and training step on all of them. Workers with one, by variable:",
                numbers,
            ],
        )
        self.stops.assign(tf.maximum(self.stops, stops))
        return [
            None if g is None else tf.cast(mean, d.dtype)
            for g, d, mean in zip(gradients, dense, means, strict=True)
        ]

    def share_statistics(
        self, variables: Sequence[keras.Variable], before: Sequence[tf.Tensor]
    ) -> None:
        """Applies the mean change over the workers to variables such as moving means.

        By a variable's `aggregation`: "sum" applies the sum of the changes, and
        "only_first_replica", as an integer without one, the change of the first worker.

        Args:
          variables: Not trained, but changed by a step.
          before: Their values before it, equal on all workers.
        """
        old = [_to_wire(value) for value in before]
        now = [_to_wire(v.value) for v in variables]
        kinds = [_kind(v, "mean") for v in variables]
        weight = tf.constant(1.0) if self.rows is None else self.rows
        changes = [new - value for new, value in zip(now, old, strict=True)]
        changes = self._combine(changes, kinds, weight, "statistics")
        for variable, value, change in zip(variables, old, changes, strict=True):
            variable.assign(tf.cast(value + change, variable.value.dtype))

    def sum_metrics(self, variables: Sequence[keras.Variable]) -> None:
        """Adds up the states of metrics, by their `aggregation`."""
        self.require_same("metrics", [_shape(v) for v in variables])
        states = [_to_wire(v.value) for v in variables]
        kinds = [_kind(v, "sum") for v in variables]
        states = self._combine(states, kinds, tf.constant(1.0), "metrics")
        for variable, state in zip(variables, states, strict=True):
            variable.assign(tf.cast(state, variable.value.dtype))

    def broadcast(self, variables: Sequence[keras.Variable]) -> None:
        """Overwrites variables of any type by the first worker's values."""
        self.require_same("model and optimizer", [_shape(v) for v in variables])
        self.communicator.broadcast([v for v in variables if not _is_widened(v)])
        widened = [v for v in variables if _is_widened(v)]
        values = [_to_wire(v.value) for v in widened]
        values = self._combine(values, ["first"] * len(values), tf.constant(1.0), "all")
        for variable, value in zip(widened, values, strict=True):
            variable.assign(tf.cast(value, variable.value.dtype))

    def require_same(self, what: str, value: object) -> None:
        """Fails on every worker if it differs between them.

        Args:
          what: Names it in the message.
          value: Anything that JSON knows.

        Raises:
          RunError: if it differs.
        """
        texts = json.dumps(value).encode()
        codes = self.communicator.gather([zlib.crc32(texts)])[:, 0]
        if (others := np.flatnonzero(codes != codes[0])).size:
            raise RunError(
                f"Worker {others[0]} has another {what} than worker 0. Run the same "
                f"code on all workers. Received: {shown(value)} on worker "
                f"{self.communicator.rank}."
            )

    def require_same_values(self, variables: Sequence[keras.Variable]) -> None:
        """Fails on every worker if variables are not equal to the last bit.

        Raises:
          RunError: if one is not; it names the first.
        """
        codes = [zlib.crc32(v.numpy().tobytes()) for v in variables]
        table = self.communicator.gather(codes)
        if (where := np.flatnonzero((table != table[0]).any(0))).size:
            raise RunError(
                f"The weights of the workers differ, {variables[where[0]].path} first. "
                "Apply gradients by a Keras optimizer that is an attribute of the "
                "model, and let callbacks and other code that change weights or the "
                "learning rate run on all workers alike."
            )

    def _combine(
        self,
        values: Sequence[tf.Tensor],
        kinds: Sequence[str],
        weight: tf.Tensor,
        name: str,
    ) -> list[tf.Tensor]:
        """Combines values of a wire type: their sum, weighted mean, or the first."""
        factors = {"sum": 1.0, "mean": weight, "first": 1.0}
        scaled = [
            tf.zeros_like(x)
            if kind == "first" and self.communicator.rank
            else x * tf.cast(factors[kind], x.dtype)
            for x, kind in zip(values, kinds, strict=True)
        ]
        scaled += [weight] * ("mean" in kinds)
        sums: dict[int, tf.Tensor] = {}
        # A name that begins anew, whatever the name of the optimizer around it.
        with tf.name_scope("bert_tf/"):
            for dtype in _WIRE_TYPES:
                of_type = {i: x for i, x in enumerate(scaled) if x.dtype == dtype}
                if of_type:
                    summed = self.communicator.sum(
                        list(of_type.values()), f"keras.{name}.{dtype.name}"
                    )
                    sums |= zip(of_type, summed, strict=True)
        return [
            sums[i] / tf.cast(sums[len(values)], sums[i].dtype)
            if kind == "mean"
            else sums[i]
            for i, kind in enumerate(kinds)
        ]


def _kind(variable: keras.Variable, default: str) -> str:
    """How the values of the workers are combined."""
    if variable.aggregation == "only_first_replica":
        return "first"
    kind = variable.aggregation
    kind = kind if kind in ("sum", "mean") else default
    is_floating = tf.as_dtype(variable.value.dtype).is_floating
    return "first" if kind == "mean" and not is_floating else kind


def _shape(variable: keras.Variable) -> list[object]:
    # Without its path: a worker that built another model before has other numbers.
    return [list(variable.shape), variable.dtype]


def _is_widened(variable: keras.Variable) -> bool:
    return variable.value.dtype not in _WIRE_TYPES


def _to_wire(tensor: tf.Tensor | tf.Variable) -> tf.Tensor:
    """The tensor in a type that can be summed."""
    tensor = tf.convert_to_tensor(tensor)
    if tensor.dtype in _WIRE_TYPES:
        return tensor
    return tf.cast(tensor, tf.float32 if tensor.dtype.is_floating else tf.int64)


def _dense(gradient: Gradient, variable: keras.Variable) -> tf.Tensor:
    """The gradient as one tensor, zero if there is none."""
    if gradient is None:
        return tf.zeros(variable.shape, variable.value.dtype)
    return tf.convert_to_tensor(dense_gradient(gradient, variable))
