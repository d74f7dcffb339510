"""The backend of the compiled operations: CPUs, bfloat16 or float32.

Each block is one function with its own gradient. The backward product that computes the
input's gradient also adds the residual's: one tensor [T, H] less to write and to read.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling.backends import fused_operations, fused_products
from bert_tf.modeling.backends.fused_layout import FusedScope, unpadded
from bert_tf.modeling.backends.fused_operations import Gradient
from bert_tf.modeling.backends.fused_products import Kernels, Prepacked, prepack
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    BlockWeights,
    Dropout,
    EncoderScope,
    FeedForwardWeights,
    MaskedLmWeights,
)
from bert_tf.modeling.backends.reference import Reference
from bert_tf.modeling.backends.step import GradientSum, Recorder, StepScope
from bert_tf.precision import PrecisionPolicy

# Activations of a config -> whether they are the tanh approximation.
GELUS = {
    "gelu": False,
    "gelu_tanh": True,
    "gelu_new": True,
    "gelu_pytorch_tanh": True,
}
_MULTIPLE = 32  # Widths must be multiples: a micro-kernel takes 32 numbers at a time.


def why_not(config: BertConfig) -> str:
    """Why this backend cannot compute a model's sizes or activation; empty if it can.

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


class FusedStepScope(StepScope):
    """Prepacks each kernel once for all micro-batches, and owns the gradient sums.

    A product adds its kernels' gradients to their sums in place. A separate gradient
    would be written, read again and added: 12 more bytes a weight for each micro-batch
    (5% of a step of `small`).

    Attributes:
      sums: By path of a kernel; each kernel belongs to one product.
      prepacked: By path of a product's first kernel; empty outside of the scope.
    """

    def __init__(
        self,
        backend: "Fused",
        products: Iterable[Sequence[keras.Variable]],
        *,
        accumulates: bool,
    ) -> None:
        """See `Reference.step_scope`.

        Args:
          backend: Uses the scope while it is entered.
          products: The kernels of each product that is computed once in each call.
          accumulates: Whether there are sums.
        """
        self._backend = backend
        self._products = list(products)
        kernels = [k for kernels in self._products for k in kernels if accumulates]
        self.sums = {kernel.path: GradientSum(kernel.shape) for kernel in kernels}
        self.prepacked: dict[str, Prepacked] = {}

    def __enter__(self) -> Self:
        self.prepacked = {
            kernels[0].path: prepack(_tensors(*kernels)) for kernels in self._products
        }
        for total in self.sums.values():
            total.clear()  # A step that failed may have left some.
        self._backend.step = self
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.step = None
        self.prepacked = {}


class Fused(Reference):
    """The sub-layers that the library has; the others are the reference's."""

    def __init__(
        self,
        config: BertConfig,
        policy: PrecisionPolicy,
        recorder: Recorder,
        *,
        dtype: tf.DType,
        unpads: bool,
    ) -> None:
        """A backend of one model.

        Args:
          config: The architecture, for which `why_not` must be empty.
          policy: See `Reference`.
          recorder: See `Reference`.
          dtype: See `Reference`; bfloat16 or float32, and always in use.
          unpads: Whether the encoder leaves out the padding after the tokens of a row,
            and the last layer the positions that are not read.
        """
        super().__init__(config, policy, recorder, dtype=dtype)
        self._unpads = unpads
        self.step: FusedStepScope | None = None  # While one is entered.

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        layout = unpadded(input_mask) if self._unpads else None
        return FusedScope(self.dtype, input_mask, layout)

    def attention_block(
        self,
        x: tf.Tensor,
        weights: AttentionWeights,
        scope: FusedScope,
        probabilities: Dropout,
        output: Dropout,
    ) -> tf.Tensor:
        # One product instead of three: their outputs stand side by side.
        parts = (weights.query, weights.key, weights.value)
        projection = self._kernels([part.kernel for part in parts])
        end = self._kernels([weights.output.kernel])
        bias = tf.concat([tf.convert_to_tensor(part.bias) for part in parts], axis=0)

        @tf.custom_gradient
        def block(
            x: tf.Tensor, bias: tf.Tensor, *vectors_and_kernels: tf.Tensor
        ) -> tuple[tf.Tensor, Gradient]:
            projected, d_projection = fused_products.product(x, projection)
            context, d_attention = fused_operations.attention(
                projected,
                bias,
                input_mask=scope.input_mask,
                queries=scope.queries,
                dropout=probabilities,
                heads=self.config.num_attention_heads,
            )
            y, d_end = fused_products.product(context, end)
            residual = x if scope.whole is None else scope.layout.take(x)
            y, d_norm = self._add_norm(
                y, residual, vectors_and_kernels[:3], scope, output
            )

            def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
                dy, dbias_end, dresidual, dgamma, dbeta = d_norm(dy)
                dcontext, dend = d_end(dy)
                dprojected, dbias = d_attention(dcontext)
                if scope.whole is not None:
                    dresidual = scope.layout.give_back(dresidual)
                dx, dprojection = d_projection(dprojected, [dresidual])
                return dx, dbias, dbias_end, dgamma, dbeta, *dprojection, *dend

            return y, gradient

        vectors = _tensors(weights.output.bias, *weights.norm)
        trained = (*projection.differentiated, *end.differentiated)
        return block(x, bias, *vectors, *trained)

    def feed_forward_block(
        self,
        x: tf.Tensor,
        weights: FeedForwardWeights,
        scope: FusedScope,
        output: Dropout,
    ) -> tf.Tensor:
        first = self._kernels([weights.inner.kernel])
        second = self._kernels([weights.outer.kernel])

        @tf.custom_gradient
        def block(
            x: tf.Tensor, bias: tf.Tensor, *vectors_and_kernels: tf.Tensor
        ) -> tuple[tf.Tensor, Gradient]:
            y, d_products = fused_products.feed_forward(
                x,
                bias,
                first,
                second,
                approximate=GELUS[self.config.hidden_act],
            )
            y, d_norm = self._add_norm(y, x, vectors_and_kernels[:3], scope, output)

            def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
                dy, dbias_end, dresidual, dgamma, dbeta = d_norm(dy)
                dx, dbias, dkernels = d_products(dy, [dresidual])
                return dx, dbias, dbias_end, dgamma, dbeta, *dkernels

            return y, gradient

        vectors = _tensors(weights.inner.bias, weights.outer.bias, *weights.norm)
        trained = (*first.differentiated, *second.differentiated)
        return block(x, *vectors, *trained)

    def masked_lm_losses(
        self, x: tf.Tensor, weights: MaskedLmWeights, labels: tf.Tensor
    ) -> tf.Tensor:
        rows = tf.reshape(self.transformed(x, weights), [-1, self.config.hidden_size])
        table = self._kernels([weights.words])

        @tf.custom_gradient
        def losses(
            x: tf.Tensor, bias: tf.Tensor, *_: tf.Tensor
        ) -> tuple[tf.Tensor, Gradient]:
            flat = tf.reshape(labels, [-1])
            return fused_products.cross_entropy(x, bias, table, flat)

        bias = tf.convert_to_tensor(weights.bias)
        found = losses(tf.cast(rows, self.dtype), bias, *table.differentiated)
        return tf.reshape(found, tf.shape(labels))

    def step_scope(
        self, blocks: Sequence[BlockWeights], *, accumulates: bool
    ) -> StepScope:
        # TensorFlow's float32 products take kernels as they are.
        used = blocks if self.dtype == tf.bfloat16 else ()
        products = [kernels for block in used for kernels in _products_of(block)]
        return FusedStepScope(self, products, accumulates=accumulates)

    def _kernels(self, variables: Sequence[keras.Variable]) -> Kernels:
        """The kernels of one product, with what the step scope prepared for it."""
        matrices = _tensors(*variables)
        if self.step is None:
            return Kernels(matrices)
        paths = [variable.path for variable in variables]
        sums = [self.step.sums[path] for path in paths if path in self.step.sums]
        return Kernels(matrices, self.step.prepacked.get(paths[0]), sums)

    def _add_norm(
        self,
        y: tf.Tensor,
        residual: tf.Tensor,
        vectors: Sequence[tf.Tensor],
        scope: FusedScope,
        dropout: Dropout,
    ) -> tuple[tf.Tensor, Gradient]:
        """The end of a block."""
        bias, gamma, beta = vectors
        return fused_operations.dropout_add_norm(
            y,
            bias,
            residual,
            gamma,
            beta,
            input_mask=scope.present,
            dropout=dropout,
            epsilon=self.config.layer_norm_eps,
        )


def _tensors(*variables: keras.Variable) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable) for variable in variables]


def _products_of(weights: BlockWeights) -> list[list[keras.Variable]]:
    """The kernels of each product of a block."""
    if isinstance(weights, AttentionWeights):
        projections = [weights.query, weights.key, weights.value]
        return [[dense.kernel for dense in projections], [weights.output.kernel]]
    if isinstance(weights, FeedForwardWeights):
        return [[weights.inner.kernel], [weights.outer.kernel]]
    return [[weights.words]]
