"""The seam between BERT's layers and their arithmetic.

A layer holds variables and hands them to its backend; a backend computes a sub-layer.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf


class Dropout(NamedTuple):
    """One dropout of the model; see `ops.dropout`.

    Attributes:
      rate: 0 outside of training.
      seed: Seed, step, and place of each row in the global batch: [B, 3] int32.
      stream: Number of this dropout within the model.
    """

    rate: float
    seed: tf.Tensor
    stream: int


class DenseWeights(NamedTuple):
    """Of y = x W + b.

    Attributes:
      kernel: W, [I, O].
      bias: b, [O].
    """

    kernel: keras.Variable
    bias: keras.Variable


class NormWeights(NamedTuple):
    """Of a layer normalisation: scale and shift, [H]."""

    gamma: keras.Variable
    beta: keras.Variable


class EmbeddingTables(NamedTuple):
    """What is summed for each token, [V, H], and normalised."""

    words: keras.Variable
    segments: keras.Variable
    positions: keras.Variable
    norm: NormWeights


class AttentionWeights(NamedTuple):
    """Of self-attention, up to its normalisation: four matrices [H, H]."""

    query: DenseWeights
    key: DenseWeights
    value: DenseWeights
    output: DenseWeights
    norm: NormWeights


class FeedForwardWeights(NamedTuple):
    """Of the feed-forward sub-layer: [H, I] and [I, H], and its normalisation."""

    inner: DenseWeights
    outer: DenseWeights
    norm: NormWeights


class MaskedLmWeights(NamedTuple):
    """Of the masked-LM head.

    Attributes:
      transform: [H, H].
      norm: Of the transformed vectors.
      words: The table of the embeddings, [V, H].
      bias: [V].
    """

    transform: DenseWeights
    norm: NormWeights
    words: keras.Variable
    bias: keras.Variable


class Ids(NamedTuple):
    """What a token's embeddings are looked up by: [B, S] int32."""

    words: tf.Tensor
    segments: tf.Tensor
    positions: tf.Tensor


class EncoderScope(Protocol):
    """How one call of the encoder lays out its tokens, made from `input_mask`."""

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H] float32 -> what the blocks of the backend take."""

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        """What the blocks return -> [B, S, H] float32, 0 where nothing was computed."""

    def narrowed(self, positions: tf.Tensor) -> "EncoderScope":
        """Of the last layer, whose outputs are read at some positions only.

        Its attention takes what this scope lays out. A backend may compute the rest.

        Args:
          positions: [B, R] int32, in any order.
        """


class Backend(Protocol):
    """The arithmetic of BERT's sub-layers, each with its residual and normalisation."""

    def embeddings(
        self, tables: EmbeddingTables, ids: Ids, dropout: Dropout
    ) -> tf.Tensor:
        """The normalised sum of the embeddings: [B, S, H] float32."""

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        """What the blocks of one call of the encoder share.

        Args:
          input_mask: [B, S] int32: 0 is padding, any other number is the sequence that
            a token belongs to.
        """

    def attention_block(
        self,
        x: tf.Tensor,
        weights: AttentionWeights,
        scope: EncoderScope,
        probabilities: Dropout,
        output: Dropout,
    ) -> tf.Tensor:
        """norm(x + attention(x)), in the layout of `scope`, with both dropouts."""

    def feed_forward_block(
        self,
        x: tf.Tensor,
        weights: FeedForwardWeights,
        scope: EncoderScope,
        output: Dropout,
    ) -> tf.Tensor:
        """norm(x + feed_forward(x)), in the layout of `scope`."""

    def pooled(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """tanh(x W + b): [B, K, H] float32 -> the same shape."""

    def masked_lm_logits(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """[B, P, H] float32 -> [B, P, V] float32."""

    def masked_lm_losses(
        self, x: tf.Tensor, weights: MaskedLmWeights, labels: tf.Tensor
    ) -> tf.Tensor:
        """[B, P, H] float32 and [B, P] int32 -> cross entropy [B, P], in nats."""

    def products_of(
        self, weights: AttentionWeights | FeedForwardWeights | MaskedLmWeights
    ) -> list[Sequence[keras.Variable]]:
        """The kernels of each product that a step scope prepares; see `StepScope`."""
