"""The tokens that the fused path computes, as rows of one matrix."""

import dataclasses

import tensorflow as tf

from bert_tf.modeling.backends.fused_operations import Gradient
from bert_tf.modeling.backends.interface import EncoderScope


class Layout:
    """The positions of a batch that have a row in a matrix of tokens, [T, H].

    Attributes:
      mask: [B, S] int32, not 0 at those positions.
    """

    def __init__(self, is_present: tf.Tensor, whole: "Layout | None" = None) -> None:
        """The layout of some positions.

        Args:
          is_present: [B, S] bool.
          whole: The layout of the input of `take`, with at least these positions; None
            for [B, S, H].
        """
        self.mask = tf.cast(is_present, tf.int32)
        flat = tf.reshape(is_present, [-1])
        self._positions = tf.where(flat)[:, 0]
        # The row of each position; T, a row of zeros after the last, if it has none.
        count = tf.size(self._positions, out_type=tf.int32)
        self._rows = tf.where(flat, tf.cumsum(tf.cast(flat, tf.int32)) - 1, count)
        self._taken, self._given = self._positions, self._rows
        if whole is not None:
            self._taken = tf.gather(whole._rows, self._positions)
            self._given = tf.gather(self._rows, whole._positions)

    def take(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H], or [W, H] in the layout `whole` -> [T, H]."""
        rows = tf.reshape(x, [-1, x.shape[-1]])
        return _gather(rows, self._taken, inverse=self._given)

    def give_back(self, dy: tf.Tensor) -> tf.Tensor:
        """The gradient of `take` of a layout with `whole`: [T, H] -> [W, H]."""
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


@dataclasses.dataclass(frozen=True)
class FusedScope(EncoderScope):
    """The tokens of one call of the encoder, [T, H], or whole rows [B, S, H].

    Attributes:
      dtype: The type of activations.
      input_mask: [B, S] int32.
      layout: The layout of the blocks' outputs; None for whole rows.
      whole: In a narrowed scope, the layout of the attention block's input.
    """

    dtype: tf.DType
    input_mask: tf.Tensor
    layout: Layout | None
    whole: Layout | None = None

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.cast(x, self.dtype)
        return x if self.layout is None else self.layout.take(x)

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        x = x if self.layout is None else self.layout.put_back(x)
        return tf.cast(x, tf.float32)

    def narrowed(self, positions: tf.Tensor) -> EncoderScope:
        if self.layout is None:
            return self
        length = tf.shape(self.input_mask)[1]
        is_read = tf.one_hot(positions, length, True, False, dtype=tf.bool)  # [B, R, S]
        is_present = tf.reduce_any(is_read, axis=1) & (self.layout.mask > 0)
        narrow = Layout(is_present, self.layout)
        return dataclasses.replace(self, layout=narrow, whole=self.layout)

    @property
    def queries(self) -> tf.Tensor | None:
        """The positions of attention's outputs, if not all: [B, S] int32."""
        return self.layout.mask if self.whole is not None else None

    @property
    def present(self) -> tf.Tensor:
        """Not 0 at the positions of the blocks' outputs: [B, S] int32."""
        return self.input_mask if self.layout is None else self.layout.mask


def _gather(x: tf.Tensor, rows: tf.Tensor, *, inverse: tf.Tensor) -> tf.Tensor:
    """Rows of `x` [N, H]; row N is 0.

    Args:
      x: [N, H].
      rows: [M], each row at most once, except for row N.
      inverse: [N], the row of the result that each row of `x` is; M if none. With it
        the gradient is a gather too: TensorFlow would scatter rows one by one.
    """

    @tf.custom_gradient
    def apply(x: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
        return _rows_of(x, rows), lambda dy: _rows_of(dy, inverse)

    return apply(x)


def _rows_of(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows of `x` [N, H] by index; row N is 0."""
    return tf.gather(tf.concat([x, tf.zeros([1, x.shape[-1]], x.dtype)], 0), rows)
