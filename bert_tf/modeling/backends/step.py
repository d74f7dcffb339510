"""What the micro-batches of an optimizer step share: prepacked weights, and sums."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import keras
import tensorflow as tf

from bert_tf.modeling.backends.fused_products import (
    GradientSum,
    Kernels,
    Prepacked,
    prepack,
)


class _Lookup(NamedTuple):
    """Rows that were taken of a table: its path, their numbers and themselves."""

    path: str
    numbers: tf.Tensor
    rows: tf.Tensor


class MicroBatch:
    """The gradients of one forward-backward, with respect to all variables of a model.

    The gradient of a table is that of its products, which fills it, plus those of the
    rows that were looked up, which are added where they belong. TensorFlow would write
    the rows' into a table of zeros, and add the two: 3% of a step of `small`.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        sums: Mapping[str, GradientSum],
    ) -> None:
        """See `StepScope.micro_batch`."""
        self._variables = variables
        self._sums = sums
        self._lookups: list[_Lookup] = []
        self._tape = tf.GradientTape(watch_accessed_variables=False)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Records the forward pass that is inside."""
        with self._tape:
            self._tape.watch([variable.value for variable in self._variables])
            yield

    def look_up(self, table: keras.Variable, numbers: tf.Tensor) -> tf.Tensor:
        """Rows of a table, whose gradient is made apart from the table's."""
        rows = tf.gather(tf.stop_gradient(tf.convert_to_tensor(table)), numbers)
        self._tape.watch(rows)
        self._lookups.append(_Lookup(table.path, numbers, rows))
        return rows

    def gradients(self, loss: tf.Tensor) -> list[tf.Tensor | None]:
        """Dense float32 gradients, None for those that are in their sums."""
        paths = [v.path for v in self._variables if v.path not in self._sums]
        variables = [v.value for v in self._variables if v.path not in self._sums]
        *dense, drows = self._tape.gradient(
            loss,
            [*variables, [lookup.rows for lookup in self._lookups]],
            unconnected_gradients="zero",
        )
        found = dict(zip(paths, map(tf.convert_to_tensor, dense), strict=True))
        for (path, numbers, _), taken in zip(self._lookups, drows, strict=True):
            indices = numbers[..., None]
            if path in self._sums:
                total = self._sums[path].take()
                total = tf.tensor_scatter_nd_add(total, indices, taken)
                self._sums[path].put(total)
            else:
                found[path] = tf.tensor_scatter_nd_add(found[path], indices, taken)
        return [found.get(variable.path) for variable in self._variables]


class CurrentStep:
    """The step that the layers of one model take part in, as their backends see it.

    Attributes:
      scope: The step; None outside of one.
    """

    def __init__(self) -> None:
        self.scope: StepScope | None = None

    def kernels(self, variables: Sequence[keras.Variable]) -> Kernels:
        """The matrices of one product, with what the step has prepared for them."""
        matrices = [tf.convert_to_tensor(variable) for variable in variables]
        if self.scope is None:
            return Kernels(matrices)
        paths = [variable.path for variable in variables]
        sums = self.scope.sums
        return Kernels(
            matrices,
            self.scope.prepacked.get(paths[0]),
            [sums[path] for path in paths if path in sums],
        )

    def look_up(self, table: keras.Variable, numbers: tf.Tensor) -> tf.Tensor:
        """Rows of a table [V, H] by number [B, S] -> [B, S, H]."""
        if self.scope is None or self.scope.part is None:
            return tf.gather(tf.convert_to_tensor(table), numbers)
        return self.scope.part.look_up(table, numbers)


class StepScope:
    """Holds what the calls inside share: those of a step, or of an evaluation.

    The sums are variables that outlive the graph of a step, and are empty outside of
    one. A product adds its kernels' gradients to them in place: a gradient by itself
    would be written, read again, and added, 12 bytes a weight more for each
    micro-batch (5% of a step of `small`).

    Attributes:
      prepacked: By path of a product's first kernel.
      sums: By path of a kernel; each is the kernel of one product.
      part: The micro-batch whose forward pass is being recorded, if any.
    """

    def __init__(
        self,
        current: CurrentStep,
        products: Sequence[Sequence[keras.Variable]],
        *,
        accumulates: bool,
    ) -> None:
        """Prepares a scope that can be entered again and again.

        Args:
          current: Tells the backends of the model.
          products: The kernels of each product that is made once in each call.
          accumulates: Whether the gradients of these kernels are added up over all
            micro-batches inside.
        """
        self._current = current
        self._products = products
        kernels = [kernel for kernels in products for kernel in kernels]
        self.prepacked: dict[str, Prepacked] = {}
        self.sums = {k.path: GradientSum() for k in kernels} if accumulates else {}
        self.part: MicroBatch | None = None

    def __enter__(self) -> "StepScope":
        """Packs the kernels, and empties the sums."""
        self.prepacked = {
            kernels[0].path: prepack([tf.convert_to_tensor(k) for k in kernels])
            for kernels in self._products
        }
        for total in self.sums.values():
            total.clear()  # Of a step that failed.
        self._current.scope = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Forgets the packed kernels."""
        self._current.scope = None
        self.prepacked = {}

    @contextlib.contextmanager
    def micro_batch(self, variables: Sequence[keras.Variable]) -> Iterator[MicroBatch]:
        """Records the forward pass inside, for its gradients.

        Args:
          variables: Of the model, all that the sums are of among them.
        """
        self.part = MicroBatch(variables, self.sums)
        try:
            with self.part.recorded():
                yield self.part
        finally:
            self.part = None

    def take_sum(self, path: str) -> tf.Tensor | None:
        """The sum of a variable's gradients, None if the scope does not make it."""
        return self.sums[path].take() if path in self.sums else None
