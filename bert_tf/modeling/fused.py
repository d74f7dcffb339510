"""The fused operations between BERT's products, with their gradients.

bfloat16 or float32 in and out, float32 inside; `bert_tf.kernels` is the library. Each
function computes what the operations of `ops` named in it compute, and drops the same
numbers.
"""

from collections.abc import Callable
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
      x: [B, S, H] bfloat16 or float32, or [T, H] as of `without_padding`.
      bias: [H] float32.
      residual: The shape and type of `x`.
      gamma: Scale of the normalisation, [H] float32.
      beta: Its shift, [H] float32.
      input_mask: [B, S] int32: by it the library knows the places of [T, H].
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
        as of `without_padding`.
      bias: [3 H] float32.
      input_mask: [B, S] int32, see `ops.attention_bias`.
      key: See `ops.dropout`.
      heads: N; D = H / N is a multiple of 32.
      rate: See `ops.dropout`; 0 for none.
      stream: See `ops.dropout`.

    Returns:
      [B, S, H] or [T, H], of the type of `x`; 0 at padding.
    """
    library = kernels.library()
    shared = {"heads": heads, "stream": stream, "kept": ops.num_kept(rate)}

    @tf.custom_gradient
    def apply(x: tf.Tensor, bias: tf.Tensor) -> Any:  # noqa: ANN401
        inputs = {"x": x, "bias": bias, "input_mask": input_mask, "key": key}
        y, normalisers = library.bert_attention(**inputs, **shared)

        def gradient(dy: tf.Tensor) -> Gradients:
            return library.bert_attention_grad(
                **inputs, normalisers=normalisers, dy=dy, **shared
            )

        return y, gradient

    y = apply(x, bias)
    y.set_shape([*x.shape[:-1], x.shape[-1] // 3])
    return y


def without_padding(
    x: tf.Tensor, input_mask: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Leaves out what stands behind the last token of each row.

    Args:
      x: [B, S, H].
      input_mask: [B, S] int32, see `ops.attention_bias`.

    Returns:
      The T places that are left, [T, H], and what makes [B, S, H] of such: with 0 for
      those that are not.
    """
    shape, width = tf.shape(x), x.shape[-1]
    stays = tf.reshape(tf.cumsum(input_mask, axis=1, reverse=True) > 0, [-1])
    places = tf.where(stays)[:, 0]
    # Where each of all places stands among those that stay: the zeros behind them.
    count = tf.size(places, out_type=tf.int32)
    numbers = tf.where(stays, tf.cumsum(tf.cast(stays, tf.int32)) - 1, count)

    def take(x: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.reshape(x, [-1, width]), places)

    def put_back(y: tf.Tensor) -> tf.Tensor:
        zeros = tf.zeros([1, width], y.dtype)
        return tf.reshape(tf.gather(tf.concat([y, zeros], axis=0), numbers), shape)

    # Each is the other's gradient; TensorFlow would add up rows one after another.
    taking = tf.custom_gradient(lambda x: (take(x), put_back))
    putting_back = tf.custom_gradient(lambda y: (put_back(y), take))
    return taking(x), putting_back
