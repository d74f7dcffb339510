"""The backend of the compiled operations: CPUs, bfloat16 or float32.

Each block is one function with a gradient of its own, which adds the residual's
gradient inside of the product that makes its input's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling.backends import fused_operations, fused_products
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    Dropout,
    EncoderScope,
    FeedForwardWeights,
    MaskedLmWeights,
)
from bert_tf.modeling.backends.layout import Layout, part_at, unpadded
from bert_tf.modeling.backends.reference import Reference
from bert_tf.modeling.backends.step import CurrentStep
from bert_tf.precision import PrecisionPolicy

# Activations of a config -> whether they are the tanh approximation.
GELUS = {
    "gelu": False,
    "gelu_tanh": True,
    "gelu_new": True,
    "gelu_pytorch_tanh": True,
}
_MULTIPLE = 32  # Of widths: the depth of a product's step.


def why_not(config: BertConfig) -> str:
    """Why this backend does not have a model's widths and activation; empty if it has.

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


@dataclasses.dataclass(frozen=True)
class FusedScope:
    """The tokens of one call of the encoder, [T, H], or whole rows [B, S, H].

    Attributes:
      dtype: Of activations.
      input_mask: [B, S] int32.
      layout: Of what `leave` gets; None for whole rows.
      whole: Of what a narrowed scope's attention takes; None if it is `layout`.
    """

    dtype: tf.DType
    input_mask: tf.Tensor
    layout: Layout | None
    whole: Layout | None = None

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """See `interface.EncoderScope`."""
        x = tf.cast(x, self.dtype)
        return x if self.layout is None else self.layout.take(x)

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        """See `interface.EncoderScope`."""
        x = x if self.layout is None else self.layout.put_back(x)
        return tf.cast(x, tf.float32)

    def narrowed(self, positions: tf.Tensor) -> EncoderScope:
        """See `interface.EncoderScope`."""
        if self.layout is None:
            return self
        part = part_at(self.layout, positions)
        return dataclasses.replace(self, layout=part, whole=self.layout)

    @property
    def queries(self) -> tf.Tensor | None:
        """Where the outputs of attention are, if not everywhere: [B, S] int32."""
        return self.layout.mask if self.whole is not None else None

    @property
    def mask(self) -> tf.Tensor:
        """Where the tokens that `leave` gets are: [B, S] int32."""
        return self.input_mask if self.whole is None else self.layout.mask


class Fused(Reference):
    """See `interface.Backend`; what the library does not have is the reference's."""

    def __init__(
        self,
        config: BertConfig,
        policy: PrecisionPolicy,
        current: CurrentStep,
        *,
        dtype: tf.DType,
        unpads: bool,
    ) -> None:
        """A backend of one model.

        Args:
          config: The architecture; `why_not` must have nothing against it.
          policy: See `Reference`.
          current: See `Reference`.
          dtype: Of activations in the encoder, bfloat16 or float32.
          unpads: Whether the encoder leaves out the padding behind the tokens of a row,
            and of the last layer what is not read.
        """
        super().__init__(config, policy, current)
        self.dtype = dtype
        self._unpads = unpads

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        """See `interface.Backend`."""
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
        """See `interface.Backend`."""
        # One product instead of three: their outputs stand side by side.
        parts = (weights.query, weights.key, weights.value)
        projection = self._current.kernels([part.kernel for part in parts])
        end = self._current.kernels([weights.output.kernel])
        bias = tf.concat([tf.convert_to_tensor(part.bias) for part in parts], axis=0)

        @tf.custom_gradient
        def block(
            x: tf.Tensor, bias: tf.Tensor, *vectors_and_kernels: tf.Tensor
        ) -> Any:  # noqa: ANN401 - of tf.custom_gradient
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
        """See `interface.Backend`."""
        first = self._current.kernels([weights.inner.kernel])
        second = self._current.kernels([weights.outer.kernel])

        @tf.custom_gradient
        def block(
            x: tf.Tensor, bias: tf.Tensor, *vectors_and_kernels: tf.Tensor
        ) -> Any:  # noqa: ANN401 - of tf.custom_gradient
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
        """See `interface.Backend`."""
        rows = tf.reshape(self.transformed(x, weights), [-1, self.config.hidden_size])
        table = self._current.kernels([weights.words])

        @tf.custom_gradient
        def losses(x: tf.Tensor, bias: tf.Tensor, *_: tf.Tensor) -> Any:  # noqa: ANN401
            flat = tf.reshape(labels, [-1])
            return fused_products.cross_entropy(x, bias, table, flat)

        bias = tf.convert_to_tensor(weights.bias)
        found = losses(tf.cast(rows, self.dtype), bias, *table.differentiated)
        return tf.reshape(found, tf.shape(labels))

    def products_of(
        self, weights: AttentionWeights | FeedForwardWeights | MaskedLmWeights
    ) -> list[Sequence[keras.Variable]]:
        """See `interface.Backend`; products of float32 take kernels as they are."""
        if self.dtype != tf.bfloat16:
            return []
        if isinstance(weights, AttentionWeights):
            parts = (weights.query, weights.key, weights.value)
            return [[part.kernel for part in parts], [weights.output.kernel]]
        if isinstance(weights, FeedForwardWeights):
            return [[weights.inner.kernel], [weights.outer.kernel]]
        return [[weights.words]]

    def _add_norm(
        self,
        y: tf.Tensor,
        residual: tf.Tensor,
        vectors: Sequence[tf.Tensor],
        scope: FusedScope,
        dropout: Dropout,
    ) -> tuple[tf.Tensor, fused_operations.Gradient]:
        """The end of a block."""
        bias, gamma, beta = vectors
        return fused_operations.dropout_add_norm(
            y,
            bias,
            residual,
            gamma,
            beta,
            input_mask=scope.mask,
            dropout=dropout,
            epsilon=self.config.layer_norm_eps,
        )


def _tensors(*variables: keras.Variable) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable) for variable in variables]
