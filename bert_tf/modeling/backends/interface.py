"""The seam between BERT's layers and their arithmetic.

A layer holds variables and hands them to its backend; a backend computes a sub-layer.
`reference.Reference` has the methods of a backend.
"""

from typing import NamedTuple

import keras
import tensorflow as tf


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


class EncoderScope:
    """The layout of the tokens in one call of the encoder.

    This one is whole rows, [B, S, H] float32, in every layer.
    """

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H] float32 -> the layout of the backend's blocks."""
        return x

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        """The reverse; [B, S, H] is 0 at positions that were not computed."""
        return x

    def narrowed(self, positions: tf.Tensor) -> "EncoderScope":
        """The scope of the last layer, where only some of its outputs are read.

        Its attention block takes this scope's layout, and returns the narrowed one. A
        backend may compute the other positions too.

        Args:
          positions: Those that are read, [B, R] int32, in any order.
        """
        del positions
        return self
