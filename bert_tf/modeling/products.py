"""The products of the fused path: bfloat16 by the library, float32 by TensorFlow.

bfloat16 has float32 sums, and float32 gradients of the weights; the kernels are packed
once for all micro-batches. `bert_tf.kernels` is the library.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf import kernels
from bert_tf.modeling import fused

_MULTIPLE = 32  # Of a product's depth, and of what stands side by side.


class Packed(NamedTuple):
    """One matrix [I, O] in the order that the library's products read.

    Attributes:
      forward: For products with it.
      backward: For products with its transpose.
      take_sums: Gives what its gradient is to be added to, once; see `adding_to`.
    """

    forward: tf.Tensor
    backward: tf.Tensor
    take_sums: Callable[[], Sequence[tf.Tensor]] = tuple


class PackedKernels:
    """The packed matrices of a model's layers; empty outside of `packed_once`.

    Attributes:
      by_path: By path of a layer.
    """

    def __init__(self) -> None:
        # In an object of our own: Keras would give each layer a copy of a dict.
        self.by_path: dict[str, Packed] = {}


def pack(matrices: Sequence[tf.Tensor]) -> Packed:
    """Packs float32 matrices of one shape [I, O], side by side."""
    return Packed(*kernels.library().bert_pack_kernels(kernels=matrices))


def _layers(model: keras.Model) -> list[Any]:
    """Those whose products may be the library's; not all of them are."""
    layers = model._flatten_layers(include_self=False)
    return [
        layer
        for layer in layers
        if hasattr(layer, "matrices") and layer.settings.fused_dtype == tf.bfloat16
    ]


@contextlib.contextmanager
def packed_once(model: keras.Model) -> Iterator[None]:
    """Packs the kernels of all layers of `model` for the calls inside.

    A step enters before its loop over micro-batches. Outside of it a layer packs its
    kernels at each call.
    """
    layers = _layers(model)
    for layer in layers:
        matrices = [tf.convert_to_tensor(v) for v in layer.matrices()]
        layer.settings.packed.by_path[layer.path] = pack(matrices)
    try:
        yield
    finally:
        for layer in layers:
            del layer.settings.packed.by_path[layer.path]


@contextlib.contextmanager
def adding_to(model: keras.Model, sums: dict[str, tf.Tensor]) -> Iterator[None]:
    """Makes gradients that are taken inside start from sums, inside `packed_once`.

    The sum is read and written by the product, where a gradient by itself is written,
    read again, and added: 12 bytes a weight less for each micro-batch.

    Args:
      model: Its layers' kernels, and the table that its heads multiply by.
      sums: By path of a variable, float32. Those that a gradient holds are taken out.
    """
    layers = _layers(model)
    for layer in layers:
        take = functools.partial(_take, sums, [v.path for v in layer.matrices()])
        _set_sums(layer, take)
    try:
        yield
    finally:
        for layer in layers:
            _set_sums(layer, tuple)  # None: `adding_to` is never nested.


def _set_sums(layer: Any, take_sums: Callable[[], Sequence[tf.Tensor]]) -> None:  # noqa: ANN401
    by_path = layer.settings.packed.by_path
    by_path[layer.path] = by_path[layer.path]._replace(take_sums=take_sums)


def _take(sums: dict[str, tf.Tensor], paths: Sequence[str]) -> list[tf.Tensor]:
    """All sums of one product, or none; out of `sums`, since the gradient holds them.

    Called where the operation is made: its gradient must reach the variable unchanged.
    """
    return [sums.pop(path) for path in paths] if sums.keys() >= set(paths) else []


def _kernel_gradients(
    packed: Packed | None, x: tf.Tensor, dy: tf.Tensor, count: int, height: int
) -> list[tf.Tensor]:
    """`x` transposed times `dy`, as `count` matrices, added to sums where wanted."""
    sums = packed.take_sums() if packed else ()
    return kernels.library().bert_kernel_gradients(
        x=x, dy=dy, sums=sums, count=count, height=height
    )


def _times(
    x: tf.Tensor, panels: tf.Tensor, width: int, added: Sequence[tf.Tensor] = ()
) -> tf.Tensor:
    """`x` times a packed matrix of that width, plus at most one matrix like it."""
    return kernels.library().bert_product(x=x, panels=panels, added=added, width=width)


def _float_product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[..., I] times [I, O] in float32, as one product of two matrices."""
    rows = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    shape = tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], axis=0)
    y = tf.reshape(rows, shape)
    y.set_shape([*x.shape[:-1], kernel.shape[-1]])
    return y


def product(
    x: tf.Tensor,
    matrices: Sequence[tf.Tensor],
    packed: Packed | None,
    *,
    shares_x: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The product with matrices that stand side by side.

    Args:
      x: [..., I] bfloat16 or float32.
      matrices: n float32 matrices [I, O].
      packed: What `pack` makes of them, where it is there already.
      shares_x: Whether the `x` that is returned has other uses. Their gradient is
        added to the product's before that is written, not by a separate operation:
        4% of a step of `small`.

    Returns:
      [..., n O] of the type of `x`, and `x`.
    """
    if x.dtype == tf.float32:
        return _float_product(x, tf.concat(matrices, axis=1)), x
    forward, backward, _ = packed or pack(matrices)
    depth, width = matrices[0].shape
    count = len(matrices)

    @tf.custom_gradient
    def apply(x: tf.Tensor, *_: tf.Tensor) -> Any:  # noqa: ANN401
        def gradient(dy: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dx = _times(dy, backward, depth, others)
            dmatrices = _kernel_gradients(packed, x, dy, count, depth)
            return dx, *dmatrices

        y = _times(x, forward, count * width)
        return ((y, tf.identity(x)) if shares_x else (y,)), gradient

    y, *shared = apply(x, *matrices)
    y.set_shape([*x.shape[:-1], count * width])
    return y, shared[0] if shared else x


def feed_forward(
    x: tf.Tensor,
    bias: tf.Tensor,
    matrices: Sequence[tf.Tensor],
    packed: Sequence[Packed | None],
    *,
    approximate: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`gelu(x @ W1 + b1) @ W2`, the activation while the products are in the cache.

    Args:
      x: [..., H] bfloat16 or float32.
      bias: b1, [I] float32.
      matrices: W1 [H, I] and W2 [I, H], float32.
      packed: What `pack` makes of each, where it is there already.
      approximate: Whether the activation is `ops.gelu_tanh`, not `ops.gelu`.

    Returns:
      [..., H] of the type of `x`, and `x` for its other uses as `product` shares it.
    """
    if x.dtype == tf.float32:
        inner = _float_product(x, matrices[0])
        activated = fused.bias_gelu(inner, bias, approximate=approximate)
        return _float_product(activated, matrices[1]), x
    library = kernels.library()
    pairs = zip(packed, matrices, strict=True)
    first, second = (one or pack([matrix]) for one, matrix in pairs)
    size, wide = matrices[0].shape

    @tf.custom_gradient
    def apply(x: tf.Tensor, bias: tf.Tensor, *_: tf.Tensor) -> Any:  # noqa: ANN401
        inner, activated = library.bert_product_gelu(
            x=x, panels=first.forward, bias=bias, width=wide, approximate=approximate
        )

        def gradient(dy: tf.Tensor, other: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dactivated = _times(dy, second.backward, wide)
            # On its own: to read `inner` by blocks of columns takes twice as long.
            dinner, dbias = library.bert_bias_gelu_grad(
                x=inner, bias=bias, dy=dactivated, approximate=approximate
            )
            [dsecond] = _kernel_gradients(packed[1], activated, dy, 1, wide)
            [dfirst] = _kernel_gradients(packed[0], x, dinner, 1, size)
            dx = _times(dinner, first.backward, size, [other])
            return dx, dbias, dfirst, dsecond

        y = _times(activated, second.forward, size)
        return (y, tf.identity(x)), gradient

    y, x = apply(x, bias, *matrices)
    y.set_shape(x.shape)
    return y, x


def cross_entropy(
    x: tf.Tensor,
    table: tf.Tensor,
    bias: tf.Tensor,
    labels: tf.Tensor,
    packed: Packed | None,
) -> tf.Tensor:
    """Cross entropy of the softmax of `x @ table^T + bias`.

    The logits, of the type of `x`, are all that a step writes of [R, V].

    Args:
      x: [R, H] bfloat16 or float32.
      table: [V, H] float32.
      bias: [V] float32.
      labels: [R] int32 in [0, V).
      packed: What `pack` makes of `table`, where it is there already.

    Returns:
      [R] float32, in nats.
    """
    library = kernels.library()
    size, depth = table.shape
    width = -(-size // _MULTIPLE) * _MULTIPLE  # Its gradient is a product's depth.
    if x.dtype == tf.bfloat16:
        forward, backward, _ = packed or pack([table])

    @tf.custom_gradient
    def apply(x: tf.Tensor, table: tf.Tensor, bias: tf.Tensor) -> Any:  # noqa: ANN401
        if x.dtype == tf.float32:
            logits = tf.matmul(x, table, transpose_b=True)
        else:
            logits = _times(x, backward, width)
        losses, normalisers = library.bert_cross_entropy(
            logits=logits, bias=bias, labels=labels
        )

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
                return tf.matmul(dlogits, table), dtable, dbias
            [dtable] = _kernel_gradients(packed, dlogits, x, 1, size)
            return _times(dlogits, forward, depth), dtable, dbias

        return losses, gradient

    losses = apply(x, table, bias)
    losses.set_shape([x.shape[0]])
    return losses
