"""Matrix products on the tiles of AMX, with kernels packed once for all micro-batches.

bfloat16 in, float32 sums, float32 gradients of the weights; `bert_tf.kernels` is the
library. Measured for base, B=32, S=128, on two cores against TensorFlow's products: 1.4
times as fast over all products of a step.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bert_tf import kernels
from bert_tf.config import BertConfig

_MULTIPLE = 32  # Of a product's depth, and of what stands side by side.


class Packed(NamedTuple):
    """One matrix [I, O] in the order that the tiles read.

    Attributes:
      forward: For products with it.
      backward: For products with its transpose.
    """

    forward: tf.Tensor
    backward: tf.Tensor


class PackedKernels:
    """The packed matrices of a model's layers; empty outside of `packed_once`.

    Attributes:
      by_path: By path of a layer.
    """

    def __init__(self) -> None:
        # In an object of our own: Keras would give each layer a copy of a dict.
        self.by_path: dict[str, Packed] = {}


def are_available(config: BertConfig) -> bool:
    """Whether this machine has tiles, and the widths of the model fit them."""
    widths = (config.hidden_size, config.intermediate_size, config.head_size)
    return kernels.has_tiles() and not any(width % _MULTIPLE for width in widths)


def pack(matrices: Sequence[tf.Tensor]) -> Packed:
    """Packs float32 matrices of one shape [I, O], side by side."""
    return Packed(*kernels.library().bert_pack_kernels(kernels=matrices))


@contextlib.contextmanager
def packed_once(model: keras.Model) -> Iterator[None]:
    """Packs the kernels of all layers of `model` for the calls inside.

    A step enters before its loop over micro-batches. Outside of it a layer packs its
    kernels at each call.
    """
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "matrices", None) and layer.settings.uses_tiles
    ]
    for layer in layers:
        layer.settings.packed.by_path[layer.path] = pack(layer.matrices())
    try:
        yield
    finally:
        for layer in layers:
            del layer.settings.packed.by_path[layer.path]


def product(
    x: tf.Tensor, matrices: Sequence[tf.Tensor], packed: Packed | None
) -> tf.Tensor:
    """The product with matrices that stand side by side.

    Args:
      x: [..., I] bfloat16.
      matrices: n float32 matrices [I, O].
      packed: What `pack` makes of them, where it is there already.

    Returns:
      [..., n O] bfloat16.
    """
    library = kernels.library()
    forward, backward = packed or pack(matrices)
    depth, width = matrices[0].shape
    count = len(matrices)

    @tf.custom_gradient
    def apply(x: tf.Tensor, *_: tf.Tensor) -> Any:  # noqa: ANN401
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dx = library.bert_product(x=dy, panels=backward, width=depth)
            dmatrices = library.bert_kernel_gradients(
                x=x, dy=dy, count=count, height=depth
            )
            return dx, *dmatrices

        return library.bert_product(x=x, panels=forward, width=count * width), gradient

    y = apply(x, *matrices)
    y.set_shape([*x.shape[:-1], count * width])
    return y


def feed_forward(
    x: tf.Tensor,
    bias: tf.Tensor,
    matrices: Sequence[tf.Tensor],
    packed: Sequence[Packed | None],
    *,
    approximate: bool,
) -> tf.Tensor:
    """`gelu(x @ W1 + b1) @ W2`, the activation while the products are in the cache.

    Args:
      x: [..., H] bfloat16.
      bias: b1, [I] float32.
      matrices: W1 [H, I] and W2 [I, H], float32.
      packed: What `pack` makes of each, where it is there already.
      approximate: Whether the activation is `ops.gelu_tanh`, not `ops.gelu`.

    Returns:
      [..., H] bfloat16.
    """
    library = kernels.library()
    pairs = zip(packed, matrices, strict=True)
    first, second = (one or pack([matrix]) for one, matrix in pairs)
    size, wide = matrices[0].shape

    @tf.custom_gradient
    def apply(x: tf.Tensor, bias: tf.Tensor, *_: tf.Tensor) -> Any:  # noqa: ANN401
        inner, activated = library.bert_product_gelu(
            x=x, panels=first.forward, bias=bias, width=wide, approximate=approximate
        )

        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dactivated = library.bert_product(x=dy, panels=second.backward, width=wide)
            # On its own: to read `inner` by blocks of columns takes twice as long.
            dinner, dbias = library.bert_bias_gelu_grad(
                x=inner, bias=bias, dy=dactivated, approximate=approximate
            )
            [dsecond] = library.bert_kernel_gradients(
                x=activated, dy=dy, count=1, height=wide
            )
            [dfirst] = library.bert_kernel_gradients(
                x=x, dy=dinner, count=1, height=size
            )
            dx = library.bert_product(x=dinner, panels=first.backward, width=size)
            return dx, dbias, dfirst, dsecond

        y = library.bert_product(x=activated, panels=second.forward, width=size)
        return y, gradient

    y = apply(x, bias, *matrices)
    y.set_shape(x.shape)
    return y


def cross_entropy(
    x: tf.Tensor,
    table: tf.Tensor,
    bias: tf.Tensor,
    labels: tf.Tensor,
    packed: Packed | None,
) -> tf.Tensor:
    """Cross entropy of the softmax of `x @ table^T + bias`.

    The logits are kept as bfloat16 alone: of all [R, V] this is what a step writes.

    Args:
      x: [R, H] bfloat16.
      table: [V, H] float32.
      bias: [V] float32.
      labels: [R] int32 in [0, V).
      packed: What `pack` makes of `table`, where it is there already.

    Returns:
      [R] float32, in nats.
    """
    library = kernels.library()
    forward, backward = packed or pack([table])
    size, depth = table.shape
    width = -(-size // _MULTIPLE) * _MULTIPLE  # Its gradient is a product's depth.

    @tf.custom_gradient
    def apply(x: tf.Tensor, table: tf.Tensor, bias: tf.Tensor) -> Any:  # noqa: ANN401
        del table  # Packed.
        logits = library.bert_product(x=x, panels=backward, width=width)
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
            dx = library.bert_product(x=dlogits, panels=forward, width=depth)
            [dtable] = library.bert_kernel_gradients(
                x=dlogits, dy=x, count=1, height=size
            )
            return dx, dtable, dbias

        return losses, gradient

    losses = apply(x, table, bias)
    losses.set_shape([x.shape[0]])
    return losses
