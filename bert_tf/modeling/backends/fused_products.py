"""The products of the fused path: bfloat16 by the library, float32 by TensorFlow.

bfloat16 products are summed in float32, and the gradients of kernels are float32. As in
`fused_operations`, a function returns its value and the function of its gradient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.modeling.backends import fused_operations
from bert_tf.modeling.backends.fused_operations import Gradient
from bert_tf.modeling.backends.step import GradientSum

_MULTIPLE = 32  # The depth of a product must be one of these.
# Instruction set without products of bfloat16 -> the smallest side of a kernel whose
# gradient TensorFlow's float32 product computes faster than the micro-kernel: by 4 to
# 10% with AVX-512, by 26 to 44% with AVX2 (`benchmarks/products.py`). Where there are
# products of bfloat16, TensorFlow's would round the gradient of each micro-batch to
# bfloat16, so the library's are taken.
_TENSORFLOW_IS_FASTER_FROM = {"avx512": 512, "avx2": 128}


class Prepacked(NamedTuple):
    """A matrix [I, O] in the layout that the library's products read.

    Attributes:
      forward: For products with the matrix.
      backward: For products with its transpose.
    """

    forward: tf.Tensor
    backward: tf.Tensor


def is_tensorflow_faster(height: int, width: int) -> bool:
    """Whether TensorFlow computes the gradient of a kernel of that shape."""
    smallest = _TENSORFLOW_IS_FASTER_FROM.get(fused_ops.in_use())
    return smallest is not None and min(height, width) >= smallest


def prepack(matrices: Sequence[tf.Tensor]) -> Prepacked:
    """Prepacks float32 matrices of one shape [I, O], side by side."""
    return Prepacked(*fused_ops.library().bert_pack_kernels(kernels=matrices))


class Kernels(NamedTuple):
    """The kernels of one product, side by side.

    Attributes:
      matrices: n float32 matrices [I, O].
      prepacked: The same prepacked, if a step scope has done it.
      sums: One for each matrix, to add its gradient to; empty to return gradients.
    """

    matrices: Sequence[tf.Tensor]
    prepacked: Prepacked | None = None
    sums: Sequence[GradientSum] = ()

    @property
    def differentiated(self) -> Sequence[tf.Tensor]:
        """The matrices whose gradients a product returns."""
        return () if self.sums else self.matrices

    def as_prepacked(self) -> Prepacked:
        """The step scope's, or made for this call."""
        return self.prepacked or prepack(self.matrices)

    def gradients(
        self, x: tf.Tensor, dy: tf.Tensor, height: int
    ) -> Sequence[tf.Tensor]:
        """`x` transposed times `dy` (bfloat16): float32, one for each `differentiated`.

        Args:
          x: [..., I'], at least `height` wide.
          dy: [..., n O].
          height: I.
        """
        taken = [total.take() for total in self.sums]
        count = len(self.matrices)
        if is_tensorflow_faster(height, dy.shape[-1] // count):
            found = _gradients_of_tensorflow(x, dy, taken, count, height)
        else:
            found = fused_ops.library().bert_kernel_gradients(
                x=x, dy=dy, sums=taken, count=count, height=height
            )
        if not self.sums:
            return found
        for total, gradient in zip(self.sums, found, strict=True):
            total.put(gradient)
        return ()


def _gradients_of_tensorflow(
    x: tf.Tensor, dy: tf.Tensor, sums: Sequence[tf.Tensor], count: int, height: int
) -> Sequence[tf.Tensor]:
    """As the library's `bert_kernel_gradients`; a sum [0, 0] is none."""
    x = tf.reshape(tf.cast(x[..., :height], tf.float32), [-1, height])
    gradients = []
    for part in tf.split(dy, count, axis=-1):
        columns = tf.reshape(tf.cast(part, tf.float32), [-1, part.shape[-1]])
        gradients.append(tf.matmul(x, columns, transpose_a=True))
    if not sums:
        return gradients
    return [
        tf.cond(tf.size(total) == 0, lambda g=g: g, lambda t=total, g=g: t + g)
        for total, g in zip(sums, gradients, strict=True)
    ]


# Gradient of a product, and at most one tensor to add to the input's gradient before
# that is written -> gradients of the input and of the kernels.
ProductGradient = Callable[..., tuple[tf.Tensor, Sequence[tf.Tensor]]]


def product(x: tf.Tensor, kernels: Kernels) -> tuple[tf.Tensor, ProductGradient]:
    """The product with matrices side by side.

    Args:
      x: [..., I] bfloat16 or float32.
      kernels: n matrices [I, O].

    Returns:
      [..., n O] of the type of `x`; its gradient.
    """
    if x.dtype == tf.float32:
        return _float_product(x, kernels.matrices)
    forward, backward = kernels.as_prepacked()
    depth, width = kernels.matrices[0].shape
    width *= len(kernels.matrices)
    y = _times(x, forward, width)
    y.set_shape([*x.shape[:-1], width])

    def gradient(
        dy: tf.Tensor, added: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        return _times(dy, backward, depth, added), kernels.gradients(x, dy, depth)

    return y, gradient


def feed_forward(
    x: tf.Tensor,
    bias: tf.Tensor,
    first: Kernels,
    second: Kernels,
    *,
    approximate: bool,
) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
    """`gelu(x @ W1 + b1) @ W2`; the activation is applied while products are in cache.

    Args:
      x: [..., H] bfloat16 or float32.
      bias: b1, [I] float32.
      first: W1, [H, I].
      second: W2, [I, H].
      approximate: Whether the activation is `ops.gelu_tanh`, not `ops.gelu`.

    Returns:
      [..., H] of the type of `x`; its gradient, a product's, which returns that of the
      bias between those of the input and of the kernels.
    """
    if x.dtype == tf.float32:
        return _float_feed_forward(x, bias, first, second, approximate=approximate)
    library = fused_ops.library()
    (one, one_backward), (two, two_backward) = (
        first.as_prepacked(),
        second.as_prepacked(),
    )
    size, wide = first.matrices[0].shape
    inner, activated = library.bert_product_gelu(
        x=x, panels=one, bias=bias, width=wide, approximate=approximate
    )
    y = _times(activated, two, size)
    y.set_shape(x.shape)

    def gradient(
        dy: tf.Tensor, added: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, ...]:
        dactivated = _times(dy, two_backward, wide)
        # Not within the product above: reading `inner` by blocks of columns takes twice
        # as long.
        dinner, dbias = library.bert_bias_gelu_grad(
            x=inner, bias=bias, dy=dactivated, approximate=approximate
        )
        dsecond = second.gradients(activated, dy, wide)
        dfirst = first.gradients(x, dinner, size)
        dx = _times(dinner, one_backward, size, added)
        return dx, dbias, [*dfirst, *dsecond]

    return y, gradient


def cross_entropy(
    x: tf.Tensor, bias: tf.Tensor, table: Kernels, labels: tf.Tensor
) -> tuple[tf.Tensor, Gradient]:
    """Cross entropy of the softmax of `x @ table^T + bias`.

    Of the size [R, V], a step writes only the logits, in the type of `x`.

    Args:
      x: [R, H] bfloat16 or float32.
      bias: [V] float32.
      table: [V, H].
      labels: [R] int32 in [0, V).

    Returns:
      [R] float32, in nats; the gradients of `x`, of `bias` and, unless it has a sum, of
      the table.
    """
    library = fused_ops.library()
    [matrix] = table.matrices
    size, depth = matrix.shape
    # The gradient of the logits is multiplied by the table: V is that product's depth.
    width = -(-size // _MULTIPLE) * _MULTIPLE
    if x.dtype == tf.float32:
        logits = tf.matmul(x, matrix, transpose_b=True)
    else:
        forward, backward = table.as_prepacked()
        logits = _times(x, backward, width)
    losses, normalisers = library.bert_cross_entropy(
        logits=logits, bias=bias, labels=labels
    )
    losses.set_shape([x.shape[0]])

    def gradient(dlosses: tf.Tensor) -> tuple[tf.Tensor, ...]:
        dlogits, dbias = library.bert_cross_entropy_grad(
            logits=logits,
            bias=bias,
            labels=labels,
            normalisers=normalisers,
            dlosses=dlosses,
        )
        if x.dtype == tf.float32:
            dtable = tf.matmul(dlogits, x, transpose_a=True)
            return tf.matmul(dlogits, matrix), dbias, dtable
        dtable = table.gradients(dlogits, x, size)
        return _times(dlogits, forward, depth), dbias, *dtable

    return losses, gradient


def _times(
    x: tf.Tensor, panels: tf.Tensor, width: int, added: Sequence[tf.Tensor] = ()
) -> tf.Tensor:
    """`x` times a prepacked matrix of that width, plus at most one matrix `added`."""
    return fused_ops.library().bert_product(
        x=x, panels=panels, added=added, width=width
    )


def _float_product(
    x: tf.Tensor, matrices: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, ProductGradient]:
    """`product` in float32, as one product with the concatenated matrices."""
    matrix = tf.concat(matrices, axis=1)
    rows = tf.reshape(x, [-1, x.shape[-1]])
    y = _with_last(tf.matmul(rows, matrix), x)

    def gradient(
        dy: tf.Tensor, added: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        drows = tf.reshape(dy, [-1, dy.shape[-1]])
        dx = _with_last(tf.matmul(drows, matrix, transpose_b=True), x)
        for other in added:
            dx += other
        dmatrix = tf.matmul(rows, drows, transpose_a=True)
        return dx, tf.split(dmatrix, len(matrices), axis=1)

    return y, gradient


def _with_last(rows: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """[R, O] -> [..., O], with the leading axes of `like` [..., I]."""
    width = rows.shape[-1]
    y = tf.reshape(rows, tf.concat([tf.shape(like)[:-1], [width]], axis=0))
    y.set_shape([*like.shape[:-1], width])
    return y


def _float_feed_forward(
    x: tf.Tensor, bias: tf.Tensor, first: Kernels, second: Kernels, *, approximate: bool
) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
    """`feed_forward` in float32."""
    inner, d_first = _float_product(x, first.matrices)
    activated, d_gelu = fused_operations.bias_gelu(inner, bias, approximate=approximate)
    y, d_second = _float_product(activated, second.matrices)

    def gradient(
        dy: tf.Tensor, added: Sequence[tf.Tensor] = ()
    ) -> tuple[tf.Tensor, ...]:
        dactivated, dsecond = d_second(dy)
        dinner, dbias = d_gelu(dactivated)
        dx, dfirst = d_first(dinner, added)
        return dx, dbias, [*dfirst, *dsecond]

    return y, gradient
