"""The fused operations between BERT's products, with their gradients.

bfloat16 or float32 in and out, float32 inside; `bert_tf.kernels` is the library. Each
function computes what the operations of `ops` named in it compute, and drops the same
numbers.
"""

from typing import Any

import tensorflow as tf

from bert_tf import kernels
from bert_tf.config import BertConfig
from bert_tf.modeling import ops

Gradients = tuple[tf.Tensor | None, ...]

# Activations of a config -> whether they are the tanh approximation.
GELUS = {
    "gelu": False,
    "gelu_tanh": True,
    "gelu_new": True,
    "gelu_pytorch_tanh": True,
}


_MULTIPLE = 32  # Of widths: the depth of a product's step.


def why_not(config: BertConfig) -> str:
    """Why a model does not use the fused operations; empty if it does.

    Args:
      config: The architecture.
    """
    if config.hidden_act not in GELUS:
        return f"hidden_act is {config.hidden_act} (they have {', '.join(GELUS)})"
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "the width of a head": config.head_size,
    }
    for name, width in widths.items():
        if width % _MULTIPLE:
            return f"{name} is {width}, not a multiple of {_MULTIPLE}"
    return ""


def bias_gelu(x: tf.Tensor, bias: tf.Tensor, *, approximate: bool) -> tf.Tensor:
    """`ops.gelu(x + bias)`, or `ops.gelu_tanh`.

    Args:
      x: [..., I] bfloat16 or float32.
      bias: [I] float32.
      approximate: Whether it is the tanh approximation.

    Returns:
      The shape and type of `x`.
    """
    library = kernels.library()

    @tf.custom_gradient
    def apply(x: tf.Tensor, bias: tf.Tensor) -> Any:  # noqa: ANN401
        y = library.bert_bias_gelu(x=x, bias=bias, approximate=approximate)

        def gradient(dy: tf.Tensor) -> Gradients:
            return library.bert_bias_gelu_grad(
                x=x, bias=bias, dy=dy, approximate=approximate
            )

        return y, gradient

    y = apply(x, bias)
    y.set_shape(x.shape)
    return y


def dropout_add_norm(
    x: tf.Tensor,
    bias: tf.Tensor,
    residual: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    input_mask: tf.Tensor,
    key: tf.Tensor,
    *,
    rate: float,
    stream: int,
    epsilon: float,
) -> tf.Tensor:
    """`ops.layer_norm(ops.dropout(x + bias) + residual)`.

    Args:
      x: [B, S, H] bfloat16 or float32, or [T, H] in a `Layout`.
      bias: [H] float32.
      residual: The shape and type of `x`.
      gamma: Scale of the normalisation, [H] float32.
      beta: Its shift, [H] float32.
      input_mask: [B, S] int32, of which the library knows the positions of [T, H]: of
        `unpadded`, or the layout's own mask.
      key: See `ops.dropout`.
      rate: See `ops.dropout`; 0 for none.
      stream: See `ops.dropout`.
      epsilon: Added to the variance.

    Returns:
      The shape and type of `x`.
    """
    library = kernels.library()
    dropout = {"stream": stream, "kept": ops.num_kept(rate)}

    @tf.custom_gradient
    def apply(*inputs: tf.Tensor) -> Any:  # noqa: ANN401
        y, total, statistics = library.bert_dropout_add_norm(
            *inputs, input_mask, key, epsilon=epsilon, **dropout
        )

        def gradient(dy: tf.Tensor) -> Gradients:
            dx, dresidual, *dweights = library.bert_dropout_add_norm_grad(
                dy, total, statistics, inputs[3], input_mask, key, **dropout
            )
            dbias, dgamma, dbeta = dweights
            return dx, dbias, dresidual, dgamma, dbeta

        return y, gradient

    y = apply(x, bias, residual, gamma, beta)
    y.set_shape(residual.shape)
    return y


def attention(
    x: tf.Tensor,
    bias: tf.Tensor,
    input_mask: tf.Tensor,
    key: tf.Tensor,
    queries: tf.Tensor | None = None,
    *,
    heads: int,
    rate: float,
    stream: int,
) -> tf.Tensor:
    """All of self-attention after the projections.

    Scores and probabilities are never written to memory; the backward pass makes them
    again.

    Args:
      x: [B, S, 3 H] bfloat16 or float32: query, key, value side by side; or [T, 3 H]
        in the layout of `unpadded`.
      bias: [3 H] float32.
      input_mask: [B, S] int32, see `ops.attention_bias`.
      key: See `ops.dropout`.
      queries: [B, S] int32, not 0 at the Q positions whose outputs are wanted; all if
        None.
      heads: N; D = H / N is a multiple of 32.
      rate: See `ops.dropout`; 0 for none.
      stream: See `ops.dropout`.

    Returns:
      [B, S, H], [T, H], or [Q, H] if there are `queries`; of the type of `x`, 0 at
      padding.
    """
    library = kernels.library()
    shared = {"heads": heads, "stream": stream, "kept": ops.num_kept(rate)}

    @tf.custom_gradient
    def apply(x: tf.Tensor, bias: tf.Tensor) -> Any:  # noqa: ANN401
        inputs = {
            "x": x,
            "bias": bias,
            "input_mask": input_mask,
            "key": key,
            "queries": tf.zeros([0, 0], tf.int32) if queries is None else queries,
        }
        y, normalisers = library.bert_attention(**inputs, **shared)

        def gradient(dy: tf.Tensor) -> Gradients:
            return library.bert_attention_grad(
                **inputs, normalisers=normalisers, dy=dy, **shared
            )

        return y, gradient

    y = apply(x, bias)
    leading = x.shape[:-1] if queries is None else [None]
    y.set_shape([*leading, x.shape[-1] // 3])
    return y


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

    def gather(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.concat([x, tf.zeros([1, x.shape[-1]], x.dtype)], 0), rows)

    apply = tf.custom_gradient(
        lambda x: (gather(x, rows), lambda dy: gather(dy, inverse))
    )
    return apply(x)
