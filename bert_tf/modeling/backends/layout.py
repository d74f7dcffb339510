"""Which tokens of a batch are computed, and where their rows stand."""

from typing import Any

import tensorflow as tf


class Layout:
    """Which positions of a batch have a row in a matrix of tokens, [T, H].

    Attributes:
      mask: [B, S] int32, not 0 at those positions.
    """

    def __init__(self, is_present: tf.Tensor, whole: "Layout | None" = None) -> None:
        """The layout of some positions.

        Args:
          is_present: [B, S] bool.
          whole: Of the matrix that `take` takes rows of, with at least these
            positions; if None, `take` has [B, S, H].
        """
        self.mask = tf.cast(is_present, tf.int32)
        flat = tf.reshape(is_present, [-1])
        self._positions = tf.where(flat)[:, 0]
        # Of each position; where it has none, the row of zeros behind the last.
        count = tf.size(self._positions, out_type=tf.int32)
        self._rows = tf.where(flat, tf.cumsum(tf.cast(flat, tf.int32)) - 1, count)
        self._taken, self._given = self._positions, self._rows
        if whole is not None:
            self._taken = tf.gather(whole._rows, self._positions)
            self._given = tf.gather(self._rows, whole._positions)

    def take(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H], or [W, H] of `whole` -> [T, H]."""
        rows = tf.reshape(x, [-1, x.shape[-1]])
        return _gather(rows, self._taken, inverse=self._given)

    def give_back(self, dy: tf.Tensor) -> tf.Tensor:
        """The gradient of `take`: [T, H] -> [W, H]; with `whole` only."""
        return _rows_of(dy, self._given)

    def put_back(self, y: tf.Tensor) -> tf.Tensor:
        """[T, H] -> [B, S, H], 0 where there is no row."""
        x = _gather(y, self._rows, inverse=self._positions)
        return tf.reshape(x, [*tf.unstack(tf.shape(self.mask)), y.shape[-1]])


def unpadded(input_mask: tf.Tensor) -> Layout:
    """The positions up to the last token of each row.

    Args:
      input_mask: [B, S] int32, see `ops.attention_bias`.
    """
    return Layout(tf.cumsum(input_mask, axis=1, reverse=True) > 0)


def part_at(layout: Layout, positions: tf.Tensor) -> Layout:
    """The part of a layout at some positions.

    Args:
      layout: The whole.
      positions: [B, R] int32, in any order; those that are not in `layout` are left
        out.
    """
    length = tf.shape(layout.mask)[1]
    is_named = tf.one_hot(positions, length, True, False, dtype=tf.bool)  # [B, R, S]
    return Layout(tf.reduce_any(is_named, axis=1) & (layout.mask > 0), layout)


def _gather(x: tf.Tensor, rows: tf.Tensor, *, inverse: tf.Tensor) -> tf.Tensor:
    """Rows of `x` [N, H]; row N is 0.

    Args:
      x: [N, H].
      rows: [M], each row at most once, but for row N.
      inverse: [N], which row of the result each row of `x` is; M if none. By it the
        gradient is gathered too: TensorFlow would add up rows one after another.
    """

    @tf.custom_gradient
    def apply(x: tf.Tensor) -> Any:  # noqa: ANN401 - of tf.custom_gradient
        return _rows_of(x, rows), lambda dy: _rows_of(dy, inverse)

    return apply(x)


def _rows_of(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows of `x` [N, H] by number; row N is 0."""
    return tf.gather(tf.concat([x, tf.zeros([1, x.shape[-1]], x.dtype)], 0), rows)
