"""The optimizer's state, divided among the workers.

All weights behind one another are cut into ranges of equal length, one for each worker.
A worker gets the sums of its range's gradients, keeps the moments of its range alone,
updates these weights, and collects those of the others. Tensors within a range are
updated as without division; of a tensor that a border cuts, LAMB's two norms are added
up over the workers.

Source: Rajbhandari et al. 2020 (arXiv:1910.02054), section 5.1, P_os.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.training.clipping import global_norm
from bert_tf.training.optimizer_base import BertOptimizer
from bert_tf.training.update_formulas import direction, trust_ratio

# Numbers of each worker that are collected at once for a checkpoint.
_COLLECTED_AT_ONCE = 4 << 20


class Piece(NamedTuple):
    """What a worker's range has of a tensor.

    Attributes:
      index: Of the tensor.
      begin: The first number of it.
      end: The number after the last one.
      is_whole: Whether this is all of it.
    """

    index: int
    begin: int
    end: int
    is_whole: bool


def pieces_of(sizes: Sequence[int], begin: int, end: int) -> list[Piece]:
    """What lies within a range of all numbers.

    Args:
      sizes: Of the tensors, in numbers.
      begin: The first number of the range.
      end: The number after the last one.
    """
    pieces, offset = [], 0
    for index, size in enumerate(sizes):
        first, last = max(begin, offset), min(end, offset + size)
        if first < last:
            part = (first - offset, last - offset)
            pieces.append(Piece(index, *part, is_whole=part == (0, size)))
        offset += size
    return pieces


class OptimizerShards:
    """The moments of one worker's range, and the update of all weights.

    Attributes:
      gathered: The moments of all weights by name, after `gather`: on the first worker,
        and on the others an empty dictionary. None before, and after `forget`.
    """

    def __init__(
        self,
        optimizer: BertOptimizer,
        variables: Sequence[keras.Variable],
        communicator: Communicator,
    ) -> None:
        """Takes the moments out of an optimizer, and keeps those of this worker.

        Args:
          optimizer: Built, with equal moments on all workers.
          variables: The model's trainable variables, which it updates.
          communicator: The workers.
        """
        self._optimizer = optimizer
        self._variables = variables
        self._workers = communicator
        self._sizes = [math.prod(variable.shape) for variable in variables]
        self._length = -(-sum(self._sizes) // communicator.size)
        ranges = [
            pieces_of(self._sizes, rank * self._length, (rank + 1) * self._length)
            for rank in range(communicator.size)
        ]
        self._pieces = ranges[communicator.rank]
        self._padding = self._length - sum(p.end - p.begin for p in self._pieces)
        # Tensors that a border cuts, of all workers.
        self._cut = sorted({p.index for each in ranges for p in each if not p.is_whole})
        self._names = list(optimizer.slots())
        self.gathered: dict[str, np.ndarray] | None = None
        self._moments: list[tuple[tf.Variable, ...]] = []
        own = {piece.index: piece for piece in self._pieces}
        for index, pair in enumerate(optimizer.release_slots()):
            if index in own:
                parts = [_taken(moment, own[index]) for moment in pair]
                moments = (tf.Variable(part, trainable=False) for part in parts)
                self._moments.append(tuple(moments))

    @property
    def variables(self) -> list[tf.Variable]:
        """The moments of this worker."""
        return [moment for pair in self._moments for moment in pair]

    def describe(self) -> str:
        """A line for the log about the division, and how the update is computed."""
        size, whole = self._workers.size, 8 * sum(self._sizes)
        line = (
            f"--shard_optimizer: each of {size} workers keeps {8 * self._length:,} of "
            f"the {whole:,} bytes of both moments. Borders cut {len(self._cut)} of "
            f"{len(self._sizes)} tensors"
        )
        if fused_ops.are_in_use():
            line += ", which TensorFlow's operations update; fused ones the others"
        return f"{line}."

    def reduce(
        self, gradients: Sequence[tf.Tensor], exact: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Adds up gradients over the workers.

        Args:
          gradients: This worker's sums, float32, of all variables.
          exact: A vector, whose sum over the workers is never rounded to float16.

        Returns:
          The sums of this worker's range, for `update`; the sum of `exact`; and the
          global norm of all gradients. The last two are equal on every worker.
        """
        flat = [tf.reshape(gradient, [-1]) for gradient in gradients]
        rest = self._length * self._workers.size - sum(self._sizes)
        own = self._workers.scatter_sum(
            tf.concat([*flat, tf.zeros([rest])], axis=0), "gradients"
        )
        squares = tf.square(global_norm([own]))
        [sums] = self._workers.sum([tf.concat([exact, squares[None]], 0)], "norm")
        return self._split(own), sums[:-1], tf.sqrt(sums[-1])

    def update(self, gradients: Sequence[tf.Tensor], scale: tf.Tensor) -> None:
        """Updates all weights, and counts the step; all workers must call it.

        Args:
          gradients: The first result of `reduce`.
          scale: What the gradients are multiplied by, float32 scalar, for clipping.
        """
        optimizer, divided = self._optimizer, []
        rate = tf.cast(optimizer.learning_rate, tf.float32)
        rows = zip(self._pieces, self._moments, gradients, strict=True)
        for piece, moments, gradient in rows:
            variable = self._variables[piece.index]
            if piece.is_whole:
                gradient = tf.reshape(gradient, variable.shape)
                optimizer.update_variable(
                    *(variable.path, variable.value, moments, gradient, scale, rate)
                )
            else:
                w = tf.reshape(variable.value, [-1])[piece.begin : piece.end]
                u = self._update_moments(piece, w, moments, gradient * scale)
                divided.append((piece.index, w, u))
        ratios = self._ratios(divided)
        factors = {i: optimizer.rate_factor(self._variables[i].path) for i in self._cut}
        updates = {i: w - factors[i] * rate * ratios[i] * u for i, w, u in divided}
        parts = [
            updates[p.index]
            if p.index in updates
            else tf.reshape(self._variables[p.index].value, [-1])
            for p in self._pieces
        ]
        own = tf.concat([*parts, tf.zeros([self._padding])], axis=0)
        weights = self._workers.collect(own, "weights")
        found = tf.split(weights[: sum(self._sizes)], self._sizes)
        for variable, values in zip(self._variables, found, strict=True):
            variable.value.assign(tf.reshape(values, variable.shape))
        optimizer.iterations.assign_add(1)

    def _update_moments(
        self,
        piece: Piece,
        w: tf.Tensor,
        moments: Sequence[tf.Variable],
        gradient: tf.Tensor,
    ) -> tf.Tensor:
        """Assigns the new moments of a piece; returns the direction of its update."""
        optimizer, path = self._optimizer, self._variables[piece.index].path
        if not optimizer.rate_factor(path):
            return tf.zeros_like(w)
        u, *updated = direction(
            w,
            *(moment.read_value() for moment in moments),
            gradient,
            tf.cast(optimizer.iterations + 1, tf.float32),
            **optimizer.hyperparameters_of(path),
        )
        for moment, values in zip(moments, updated, strict=True):
            moment.assign(values)
        return u

    def _ratios(
        self, divided: Sequence[tuple[int, tf.Tensor, tf.Tensor]]
    ) -> dict[int, tf.Tensor | float]:
        """LAMB's trust ratios of the tensors that are divided, by index.

        Args:
          divided: Index, weights and directions of this worker's parts of them.
        """
        adapts = self._optimizer.adapts
        adapted = [i for i in self._cut if adapts(self._variables[i].path)]
        ratios: dict[int, tf.Tensor | float] = dict.fromkeys(self._cut, 1.0)
        if not adapted:
            return ratios
        own = {i: [_square_sum(w), _square_sum(u)] for i, w, u in divided}
        table = tf.stack([own.get(i, [0.0, 0.0]) for i in adapted])
        [sums] = self._workers.sum([table], "norms")
        norms = tf.sqrt(sums)
        found = trust_ratio(norms[:, 0], norms[:, 1])
        return ratios | dict(zip(adapted, tf.unstack(found), strict=True))

    def _split(self, own: tf.Tensor) -> list[tf.Tensor]:
        """The pieces of this worker's range."""
        sizes = [piece.end - piece.begin for piece in self._pieces]
        return tf.split(own, [*sizes, self._padding])[:-1]

    def gather(self) -> None:
        """Collects the moments of all workers on the first one, for a checkpoint.

        All workers must call it. They travel in parts, so that only the first one needs
        memory for all.
        """
        is_first = self._workers.rank == 0
        tables = [np.zeros((self._workers.size, self._length), np.float32)]
        tables = tables + [np.zeros_like(tables[0])] if is_first else [None, None]
        for kind, table in enumerate(tables):
            own = np.zeros(self._length, np.float32)
            flat = [pair[kind].numpy().reshape(-1) for pair in self._moments]
            if flat:
                own[: self._length - self._padding] = np.concatenate(flat)
            for begin in range(0, self._length, _COLLECTED_AT_ONCE):
                part = tf.constant(own[begin : begin + _COLLECTED_AT_ONCE])
                found = self._workers.collect(part, "moments").numpy()
                if is_first:
                    table[:, begin : begin + len(part)] = found.reshape(-1, len(part))
        self.gathered = self._by_name(tables) if is_first else {}

    def _by_name(self, tables: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Both moments of each variable, in the order and by the names of `slots`."""
        ends = np.cumsum(self._sizes)[:-1]
        columns = [
            np.split(table.reshape(-1)[: sum(self._sizes)], ends) for table in tables
        ]
        arrays = [
            values.reshape(variable.shape)
            for variable, *pair in zip(self._variables, *columns, strict=True)
            for values in pair
        ]
        return dict(zip(self._names, arrays, strict=True))

    def forget(self) -> None:
        """Frees what was gathered; to be called on all workers."""
        self.gathered = None


def _taken(moment: np.ndarray, piece: Piece) -> np.ndarray:
    """A piece of a tensor: in its shape if that is all of it, else a vector."""
    return moment if piece.is_whole else moment.reshape(-1)[piece.begin : piece.end]


def _square_sum(values: tf.Tensor) -> tf.Tensor:
    """The sum of squares, float32 scalar."""
    if fused_ops.are_in_use():
        return fused_ops.library().bert_square_sum(tensors=[values])
    return tf.reduce_sum(tf.square(values))
