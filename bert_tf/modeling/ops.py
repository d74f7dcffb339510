"""The arithmetic of BERT on tensors; stateless, float32 outside matrix products.

What a precision list has in 16 bits is `rounded` before and after; what is stored in 16
bits is computed `in_float32`.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

# The score of positions that a softmax must not see. Large and negative, not -inf: -inf
# makes the softmax of a row without any visible position NaN.
MASKED_SCORE = -1e9

_PHILOX = 1  # The number of the Philox algorithm in TensorFlow's raw operations.


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Gaussian error linear unit, x * Phi(x), through the error function.

    Source: Hendrycks and Gimpel 2016 (arXiv:1606.08415).
    """
    return 0.5 * x * (1.0 + tf.math.erf(x * (1.0 / math.sqrt(2.0))))


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """The tanh approximation of `gelu`, off by at most 5e-4.

    Source: Hendrycks and Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * tf.pow(x, 3))
    return 0.5 * x * (1.0 + tf.tanh(inner))


# By their names in `BertConfig.hidden_act`.
ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
}


def rounded(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`x` and its gradient, float32, with the precision of `dtype`."""
    return x if dtype == tf.float32 else tf.cast(tf.cast(x, dtype), tf.float32)


def in_float32(
    function: Callable[..., tf.Tensor],
    x: tf.Tensor,
    *more: tf.Tensor,
    dtype: tf.DType | None = None,
) -> tf.Tensor:
    """`function(x, *more)`, which computes in float32, for `x` of any float type.

    Unless all is float32, the backward pass computes again, from `x` and `more` as they
    are: nothing else is kept for it.

    Args:
      function: Of float32 tensors; what else it reads has no gradient.
      x: Its first argument.
      more: The other arguments, of any float types; a gradient has its argument's.
      dtype: The type of the result. Default: that of `x`.
    """
    dtype = dtype or x.dtype
    if x.dtype == dtype == tf.float32:
        return function(x, *more)

    def widened(*inputs: tf.Tensor) -> tf.Tensor:
        y = function(*(tf.cast(each, tf.float32) for each in inputs))
        return tf.cast(y, dtype)

    @tf.custom_gradient
    def apply(
        *inputs: tf.Tensor,
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
        def gradient(dy: tf.Tensor) -> list[tf.Tensor]:
            # Else XLA may find what follows equal to what was before, and keep that.
            # Each on its own: what the gradient does not read is not kept.
            again = [_barrier([each, dy])[0] for each in inputs]
            with tf.GradientTape() as tape:
                tape.watch(again)
                y = widened(*again)
            return tape.gradient(y, again, dy)

        return widened(*inputs), gradient

    return apply(x, *more)


@tf.custom_gradient
def stored(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """`x`, which XLA stores as it is, and its gradient likewise.

    XLA for GPUs drops casts from float32 to 16 bits and back, where it can, and would
    store the float32 tensor.
    """

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        return _barrier([dy])[0]

    return _barrier([x])[0], gradient


def _barrier(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The same tensors, which XLA does not look behind."""
    return gen_xla_ops.xla_optimization_barrier(tensors)


def layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts.

    Args:
      x: [..., H] float32.
      gamma: Scale, [H].
      beta: Shift, [H].
      epsilon: Added to the variance.

    Returns:
      [..., H] float32.

    Source: Ba et al. 2016 (arXiv:1607.06450), equation 4.
    """
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon) * gamma + beta


def matmul(
    a: tf.Tensor,
    b: tf.Tensor,
    dtype: tf.DType,
    *,
    transpose_b: bool = False,
    is_compiled: bool = False,
) -> tf.Tensor:
    """Matrix product computed in `dtype`.

    Args:
      a: [..., I, J] float32, or of 16 bits.
      b: [..., J, L], or [..., L, J] with `transpose_b`; with two axes float32.
      dtype: float32, or a type of 16 bits (whose products are summed in float32).
      transpose_b: Whether the last two axes of `b` are swapped.
      is_compiled: Whether XLA compiles the gradient.

    Returns:
      [..., I, L], of the type of `a`.
    """
    if len(a.shape) == len(b.shape) == 2 and dtype != tf.float32:
        return _times_weights(a, b, dtype, transpose_b, is_compiled)
    product = tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), transpose_b=transpose_b)
    return tf.cast(product, a.dtype)


def _times_weights(
    a: tf.Tensor, b: tf.Tensor, dtype: tf.DType, transpose_b: bool, is_compiled: bool
) -> tf.Tensor:
    """`matmul` of two matrices, with a float32 gradient of the second one.

    The gradient of `tf.matmul` is rounded to 16 bits before it is summed over
    micro-batches and workers, so that the sum would depend on their number.
    """

    @tf.custom_gradient
    def apply(
        a: tf.Tensor, b: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        x, weights = tf.cast(a, dtype), tf.cast(b, dtype)

        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dy = tf.cast(dy, dtype)
            da = tf.matmul(dy, weights, transpose_b=not transpose_b)
            left, right = (dy, x) if transpose_b else (x, dy)
            if is_compiled:
                # Of 16 bits to float32, which TensorFlow's own kernels cannot do.
                db = tf.raw_ops.BatchMatMulV3(
                    x=left, y=right, Tout=tf.float32, adj_x=True
                )
            else:
                left, right = tf.cast(left, tf.float32), tf.cast(right, tf.float32)
                db = tf.matmul(left, right, transpose_a=True)
            return tf.cast(da, a.dtype), db

        product = tf.matmul(x, weights, transpose_b=transpose_b)
        return tf.cast(product, a.dtype), gradient

    return apply(a, b)


def attention_bias(input_mask: tf.Tensor) -> tf.Tensor:
    """The term of attention scores by which each sequence sees only itself.

    Args:
      input_mask: [B, S] int32: 0 is padding, any other number is the sequence that a
        token belongs to (1 everywhere in a record that is not packed).

    Returns:
      [B, 1, S, S] float32: 0 where the query (third axis) sees the key (last axis).
    """
    # Not by `None` among indices, which LiteRT's interpreter does not have.
    keys = tf.expand_dims(input_mask, 1)
    same = tf.equal(tf.expand_dims(input_mask, 2), keys)
    hidden = tf.logical_not(tf.logical_and(same, keys > 0))
    return tf.expand_dims(tf.cast(hidden, tf.float32), 1) * MASKED_SCORE


def gather_rows(x: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """The vectors at `positions` of each row.

    Args:
      x: [B, S, H].
      positions: [B, P] int32, each in [0, S).

    Returns:
      [B, P, H].
    """
    return tf.gather(x, positions, batch_dims=1)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross entropy in nats of logits [..., C] float32 and labels [...] int32."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def num_kept(rate: float) -> int:
    """How many of the 256 values of a random byte keep a number: 1 .. 256."""
    return max(1, round((1.0 - rate) * 256))


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor, stream: int) -> tf.Tensor:
    """Sets a share of `x` to zero and scales the rest, with reproducible masks.

    The bits come from one Philox stream for each (seed, stream, step), with an offset
    that is the row's number in the global batch. So the same rows draw the same bits
    however the batch is split into micro-batches and workers. One byte decides one
    number, hence the true rate is the nearest multiple of 1/256, and the scale is exact
    for it.

    Args:
      x: [B, ...] float32, consecutive rows of the global batch.
      rate: Share to drop, in [0, 1).
      seed: [B, 3] int32: seed, step, and the row's number in the global batch.
      stream: Number of this dropout within the model.

    Returns:
      The shape and type of `x`.

    Source: Srivastava et al. 2014; Salmon et al. 2011 for Philox.
    """
    kept = num_kept(rate)
    if kept >= 256:
        return x
    if x.shape[1:].is_fully_defined():
        row_size = math.prod(x.shape[1:])
    else:
        row_size = tf.reduce_prod(tf.shape(x)[1:])
    blocks = -(-row_size // 16)  # Philox makes 16 bytes at a time.
    batch_size = tf.shape(x)[0]
    run, step, first_row = tf.unstack(tf.cast(seed[0], tf.uint64))
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([batch_size, blocks * 4]),
        key=(run * tf.constant(2**32, tf.uint64) + stream)[None],
        counter=tf.stack([first_row * tf.cast(blocks, tf.uint64), step]),
        alg=_PHILOX,
        dtype=tf.uint32,
    )
    lanes = tf.reshape(tf.bitcast(bits, tf.uint8), [batch_size, blocks * 16])
    mask = tf.cast(lanes[:, :row_size] < kept, x.dtype) * (256.0 / kept)
    return x * tf.reshape(mask, tf.shape(x))
