"""The seam between BERT's layers and their arithmetic.

A layer holds variables and hands them to its backend; a backend computes a sub-layer.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from bert_tf.modeling.backends.step import StepScope


class Dropout(NamedTuple):
    """One dropout of the model; see `ops.dropout`.

    Attributes:
      rate: 0 outside of training.
      seed: Seed, step, and the row's number in the global batch: [B, 3] int32.
      stream: Number of this dropout within the model.
    """

    rate: float
    seed: tf.Tensor
    stream: int


class DenseWeights(NamedTuple):
    """A dense layer, y = x W + b.

    Attributes:
      kernel: W, [I, O].
      bias: b, [O].
    """

    kernel: keras.Variable
    bias: keras.Variable


class NormWeights(NamedTuple):
    """Scale and shift of a layer normalisation, [H]."""

    gamma: keras.Variable
    beta: keras.Variable


class EmbeddingTables(NamedTuple):
    """The three tables [V, H] whose rows are summed, and the normalisation."""

    words: keras.Variable
    segments: keras.Variable
    positions: keras.Variable
    norm: NormWeights


class AttentionWeights(NamedTuple):
    """Self-attention: four kernels [H, H], and the normalisation of the sub-layer."""

    query: DenseWeights
    key: DenseWeights
    value: DenseWeights
    output: DenseWeights
    norm: NormWeights


class FeedForwardWeights(NamedTuple):
    """Feed-forward: kernels [H, I] and [I, H], and the normalisation."""

    inner: DenseWeights
    outer: DenseWeights
    norm: NormWeights


class MaskedLmWeights(NamedTuple):
    """The masked-LM head.

    Attributes:
      transform: Kernel [H, H] and bias.
      norm: Normalises the transformed vectors.
      words: The word embeddings, [V, H].
      bias: [V].
    """

    transform: DenseWeights
    norm: NormWeights
    words: keras.Variable
    bias: keras.Variable


class OutputWeights(NamedTuple):
    """The output layer of a head with few outputs.

    Attributes:
      kernel: [C, H], transposed as in google-research/bert.
      bias: [C].
    """

    kernel: keras.Variable
    bias: keras.Variable


BlockWeights = AttentionWeights | FeedForwardWeights | MaskedLmWeights


class Ids(NamedTuple):
    """Rows of the three embedding tables, for each token: [B, S] int32."""

    words: tf.Tensor
    segments: tf.Tensor
    positions: tf.Tensor


class EncoderScope(Protocol):
    """The layout of the tokens in one call of the encoder, made from `input_mask`."""

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H] float32 -> the layout of the backend's blocks."""

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        """The reverse; [B, S, H] is 0 at positions that were not computed."""

    def narrowed(self, positions: tf.Tensor) -> "EncoderScope":
        """The scope of the last layer, where only some of its outputs are read.

        Its attention block takes this scope's layout, and returns the narrowed one. A
        backend may compute the other positions too.

        Args:
          positions: Those that are read, [B, R] int32, in any order.
        """


class Backend(Protocol):
    """The arithmetic of BERT's sub-layers, each with its residual and normalisation."""

    def embeddings(
        self, tables: EmbeddingTables, ids: Ids, dropout: Dropout
    ) -> tf.Tensor:
        """The normalised sum of the embeddings: [B, S, H] float32."""

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        """The layout that the blocks of one call of the encoder share.

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

    def output_logits(
        self, x: tf.Tensor, weights: OutputWeights, dropout: Dropout | None
    ) -> tf.Tensor:
        """[B, N, H] float32 -> logits [B, N, C] float32, with dropout of the input."""

    def step_scope(
        self, blocks: Sequence[BlockWeights], *, accumulates: bool
    ) -> StepScope:
        """A scope that may be entered again and again.

        Args:
          blocks: Those of the model that this backend computes once in each call.
          accumulates: Whether their gradients may be added up over the calls inside.
        """
