"""The compiled operations between BERT's products, each with its gradient.

bfloat16 or float32 in and out, float32 inside; `bert_tf.fused_ops` is the library. Each
function computes the same as the operations of `ops` that its docstring names, with the
same dropout masks. It returns its value and the function of its gradient, the pair that
`tf.custom_gradient` takes, so that a block can be composed of several.
"""

from collections.abc import Callable

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.modeling import ops
from bert_tf.modeling.backends.interface import Dropout

# Gradient of the value -> gradients of the float arguments, in their order.
Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def bias_gelu(
    x: tf.Tensor, bias: tf.Tensor, *, approximate: bool
) -> tuple[tf.Tensor, Gradient]:
    """`ops.gelu(x + bias)`, or `ops.gelu_tanh`.

    Args:
      x: [..., I] bfloat16 or float32.
      bias: [I] float32.
      approximate: Whether it is the tanh approximation.

    Returns:
      The shape and type of `x`; the gradients of `x` and `bias`.
    """
    library = fused_ops.library()
    y = library.bert_bias_gelu(x=x, bias=bias, approximate=approximate)
    y.set_shape(x.shape)

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return library.bert_bias_gelu_grad(
            x=x, bias=bias, dy=dy, approximate=approximate
        )

    return y, gradient


def dropout_add_norm(
    x: tf.Tensor,
    bias: tf.Tensor,
    residual: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    input_mask: tf.Tensor,
    dropout: Dropout,
    epsilon: float,
) -> tuple[tf.Tensor, Gradient]:
    """`ops.layer_norm(ops.dropout(x + bias) + residual)`.

    Args:
      x: [B, S, H] bfloat16 or float32, or [T, H] in a `Layout`.
      bias: [H] float32.
      residual: The shape and type of `x`.
      gamma: Scale of the normalisation, [H] float32.
      beta: Its shift, [H] float32.
      input_mask: [B, S] int32, not 0 at the positions of the T rows; whole rows may
        have 0 anywhere.
      dropout: Applied to `x + bias`.
      epsilon: Added to the variance.

    Returns:
      The shape and type of `x`; the gradients of the first five arguments.
    """
    library = fused_ops.library()
    kept = {"stream": dropout.stream, "kept": ops.num_kept(dropout.rate)}
    y, total, statistics = library.bert_dropout_add_norm(
        x,
        bias,
        residual,
        gamma,
        beta,
        input_mask,
        dropout.seed,
        epsilon=epsilon,
        **kept,
    )
    y.set_shape(residual.shape)

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        dx, dresidual, *dweights = library.bert_dropout_add_norm_grad(
            dy, total, statistics, gamma, input_mask, dropout.seed, **kept
        )
        dbias, dgamma, dbeta = dweights
        return dx, dbias, dresidual, dgamma, dbeta

    return y, gradient


def attention(
    x: tf.Tensor,
    bias: tf.Tensor,
    *,
    input_mask: tf.Tensor,
    queries: tf.Tensor | None,
    dropout: Dropout,
    heads: int,
) -> tuple[tf.Tensor, Gradient]:
    """All of self-attention after the projections.

    Scores and probabilities are never written to memory; the backward pass recomputes
    them.

    Args:
      x: [B, S, 3 H] bfloat16 or float32: query, key, value side by side; or [T, 3 H]
        in the layout of `unpadded`.
      bias: [3 H] float32.
      input_mask: [B, S] int32, see `ops.attention_bias`.
      queries: [B, S] int32, not 0 at the Q positions whose outputs are computed; None
        for all.
      dropout: Applied to the probabilities.
      heads: N; D = H / N is a multiple of 32.

    Returns:
      [B, S, H], [T, H], or [Q, H] with `queries`; of the type of `x`, 0 at padding. The
      gradients of `x` and `bias`.
    """
    library = fused_ops.library()
    shared = {"heads": heads, "stream": dropout.stream}
    shared["kept"] = ops.num_kept(dropout.rate)
    inputs = {
        "x": x,
        "bias": bias,
        "input_mask": input_mask,
        "seed": dropout.seed,
        "queries": tf.zeros([0, 0], tf.int32) if queries is None else queries,
    }
    y, normalisers = library.bert_attention(**inputs, **shared)
    leading = x.shape[:-1] if queries is None else [None]
    y.set_shape([*leading, x.shape[-1] // 3])

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return library.bert_attention_grad(
            **inputs, normalisers=normalisers, dy=dy, **shared
        )

    return y, gradient
