"""What the micro-batches of an optimizer step share under any backend."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import keras
import tensorflow as tf


class GradientSum:
    """The sum of a matrix's gradients, in memory that is written in place.

    The taker of the sum owns its memory until it puts the new sum back: TensorFlow
    would copy what a variable still holds.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        """An empty sum of gradients of that shape, [I, O]."""
        self._shape = tuple(shape)
        self._variable = tf.Variable(
            tf.zeros([0, 0]), shape=tf.TensorShape([None, None]), trainable=False
        )

    def clear(self) -> tf.Operation:
        """Makes it empty."""
        return self._variable.assign(tf.zeros([0, 0]), read_value=False)

    def take(self) -> tf.Tensor:
        """The sum, which is empty afterwards; [0, 0] if nothing was added."""
        total = self._variable.read_value()
        with tf.control_dependencies([total]):
            cleared = self.clear()
        with tf.control_dependencies([] if cleared is None else [cleared]):
            return tf.identity(total)

    def take_dense(self) -> tf.Tensor:
        """As `take`, but zeros [I, O] if nothing was added.

        A loss that does not use a head leaves the sums of its weights empty.
        """
        total = self.take()
        # Padded, not tf.zeros: TensorFlow would keep those as long as the graph. A pad
        # of nothing copies nothing, and is made faster than tf.cond: 74 for `base`.
        missing = tf.constant(self._shape) - tf.shape(total)
        total = tf.pad(total, tf.stack([tf.zeros_like(missing), missing], axis=1))
        return tf.ensure_shape(total, self._shape)

    def put(self, total: tf.Tensor) -> None:
        """Makes it `total`."""
        self._variable.assign(total, read_value=False)


class StepScope:
    """What a backend prepares for the calls of an optimizer step, or an evaluation.

    This one prepares nothing: TensorFlow's products take kernels as they are, and
    return gradients.

    Attributes:
      sums: By path of a variable: where its gradient is added up in place, instead of
        being returned.
    """

    def __init__(self) -> None:
        self.sums: Mapping[str, GradientSum] = {}

    def __enter__(self) -> Self:
        """Prepares the weights, and empties the sums."""
        return self

    def __exit__(self, *error: object) -> None:
        """Forgets the prepared weights."""


class _Lookup(NamedTuple):
    """Rows of a table that were looked up."""

    path: str
    indices: tf.Tensor
    rows: tf.Tensor


class MicroBatch:
    """The gradients of one forward-backward, with respect to all variables of a model.

    The gradient of the word table is that of the masked-LM product, which is dense,
    plus those of the rows that were looked up, which are added in place. TensorFlow
    would scatter the rows into a table of zeros, and add the two: 3% of a step of
    `small`.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        sums: Mapping[str, GradientSum],
    ) -> None:
        """See `ModelStep.micro_batch`."""
        self._variables = variables
        self._sums = sums
        self._lookups: list[_Lookup] = []
        self._tape = tf.GradientTape(watch_accessed_variables=False)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Records the forward pass inside."""
        with self._tape:
            self._tape.watch([variable.value for variable in self._variables])
            yield

    def look_up(self, table: keras.Variable, indices: tf.Tensor) -> tf.Tensor:
        """Rows of a table, with a gradient separate from the table's."""
        rows = tf.gather(tf.stop_gradient(tf.convert_to_tensor(table)), indices)
        self._tape.watch(rows)
        self._lookups.append(_Lookup(table.path, indices, rows))
        return rows

    def gradients(self, loss: tf.Tensor) -> list[tf.Tensor | None]:
        """Dense float32 gradients, None for those that are in their sums."""
        returned = [v for v in self._variables if v.path not in self._sums]
        *dense, drows = self._tape.gradient(
            loss,
            [*(v.value for v in returned), [lookup.rows for lookup in self._lookups]],
            unconnected_gradients="zero",
        )
        found = {
            v.path: tf.convert_to_tensor(gradient)
            for v, gradient in zip(returned, dense, strict=True)
        }
        for (path, indices, _), rows in zip(self._lookups, drows, strict=True):
            summed = self._sums.get(path)
            total = summed.take_dense() if summed else found[path]
            total = tf.tensor_scatter_nd_add(total, indices[..., None], rows)
            if summed:
                summed.put(total)
            else:
                found[path] = total
        return [found.get(variable.path) for variable in self._variables]


class Recorder:
    """The micro-batch that is being recorded, as the backends of one model see it.

    Attributes:
      micro_batch: None while none is being recorded.
      is_compiled: Whether XLA compiles the micro-batches of the step.
    """

    def __init__(self) -> None:
        self.is_compiled = False
        self.micro_batch: MicroBatch | None = None

    def look_up(self, table: keras.Variable, indices: tf.Tensor) -> tf.Tensor:
        """Rows of a table [V, H] by index [B, S] -> [B, S, H]."""
        if self.micro_batch is None:
            return tf.gather(tf.convert_to_tensor(table), indices)
        return self.micro_batch.look_up(table, indices)


class ModelStep:
    """The step scopes of a model's backends, entered and left together.

    Attributes:
      sums: Theirs, by path of a variable. They outlive the graph of a step, and are
        empty outside of one.
      is_compiled: Whether XLA compiles the micro-batches inside.
    """

    def __init__(self, recorder: Recorder, scopes: Sequence[StepScope]) -> None:
        """A scope that may be entered again and again.

        Args:
          recorder: Of the model's backends.
          scopes: Of the same backends.
        """
        self._recorder = recorder
        self._scopes = scopes
        self._entered = contextlib.ExitStack()
        self.is_compiled = False
        self.sums = {path: x for scope in scopes for path, x in scope.sums.items()}

    def __enter__(self) -> "ModelStep":
        """Enters the backends' scopes."""
        with contextlib.ExitStack() as stack:
            for scope in self._scopes:
                stack.enter_context(scope)
            self._entered = stack.pop_all()
        self._recorder.is_compiled = self.is_compiled
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves them."""
        self._recorder.is_compiled = False
        self._entered.close()

    @contextlib.contextmanager
    def micro_batch(self, variables: Sequence[keras.Variable]) -> Iterator[MicroBatch]:
        """Records the forward pass inside, for its gradients.

        Args:
          variables: Those of the model, which include all that have a sum.
        """
        micro_batch = MicroBatch(variables, self.sums)
        self._recorder.micro_batch = micro_batch
        try:
            with micro_batch.recorded():
                yield micro_batch
        finally:
            self._recorder.micro_batch = None

    def take_sum(self, path: str) -> tf.Tensor | None:
        """The sum of a variable's gradients; None if it has no sum."""
        return self.sums[path].take_dense() if path in self.sums else None
