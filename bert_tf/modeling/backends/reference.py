"""The backend of TensorFlow's operations: the definition, for any device and XLA."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    BlockWeights,
    DenseWeights,
    Dropout,
    EmbeddingTables,
    EncoderScope,
    FeedForwardWeights,
    Ids,
    MaskedLmWeights,
    NormWeights,
    OutputWeights,
)
from bert_tf.modeling.backends.step import Recorder, StepScope
from bert_tf.precision import PrecisionPolicy


class ReferenceScope(EncoderScope):
    """Whole rows, and which of their tokens see each other.

    Attributes:
      bias: Added to attention scores, see `ops.attention_bias`.
    """

    def __init__(self, input_mask: tf.Tensor) -> None:
        self.bias = ops.attention_bias(input_mask)


class Reference:
    """The arithmetic of BERT's sub-layers, each with its residual and normalisation.

    Other backends derive from this one, and must agree with it.
    """

    def __init__(
        self, config: BertConfig, policy: PrecisionPolicy, recorder: Recorder
    ) -> None:
        """A backend of one model.

        Args:
          config: The architecture.
          policy: Decides the type of each operation.
          recorder: Records lookups in the word table.
        """
        self.config = config
        self._policy = policy
        self._recorder = recorder
        self._activation = ops.ACTIVATIONS[config.hidden_act]
        self._activation_type = activation_type(config)

    def embeddings(
        self, tables: EmbeddingTables, ids: Ids, dropout: Dropout
    ) -> tf.Tensor:
        """The normalised sum of the embeddings: [B, S, H] float32."""
        words = self._recorder.look_up(tables.words, ids.words)
        # A product with one-hot rows: its gradient is a product too, where that of
        # a gather would add B * S rows into a table of two, one after another.
        one_hot = tf.one_hot(ids.segments, self.config.type_vocab_size)
        segments = one_hot @ tf.convert_to_tensor(tables.segments)
        positions = tf.gather(tf.convert_to_tensor(tables.positions), ids.positions)
        summed = words + segments + positions
        return ops.dropout(self._norm(summed, tables.norm), *dropout)

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        """The layout that the blocks of one call of the encoder share.

        Args:
          input_mask: [B, S] int32: 0 is padding, any other number is the sequence that
            a token belongs to.
        """
        return ReferenceScope(input_mask)

    def attention_block(
        self,
        x: tf.Tensor,
        weights: AttentionWeights,
        scope: ReferenceScope,
        probabilities: Dropout,
        output: Dropout,
    ) -> tf.Tensor:
        """norm(x + attention(x)), in the layout of `scope`, with both dropouts.

        Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.
        """
        name = _layer_of(weights.query.kernel).rpartition("/")[0]
        dtype = self._policy.compute_dtype("BatchMatMul", name)
        scale = 1 / math.sqrt(self.config.head_size)
        # Of x, not its product: tf2onnx merges this reshape with that of `_dense`.
        shape = self._heads_shape(x)
        query, key, value = (
            tf.transpose(tf.reshape(self._dense(x, each), shape), [0, 2, 1, 3])
            for each in (weights.query, weights.key, weights.value)
        )
        query *= scale
        scores = ops.matmul(query, key, dtype, transpose_b=True)  # [B, N, S, S]
        of_softmax = self._policy.compute_dtype("Softmax", name)
        seen = tf.nn.softmax(ops.rounded(scores + scope.bias, of_softmax))
        seen = ops.dropout(ops.rounded(seen, of_softmax), *probabilities)
        context = ops.matmul(seen, value, dtype)  # [B, N, S, D]
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(x))
        y = ops.dropout(self._dense(context, weights.output), *output)
        return self._norm(y + x, weights.norm)

    def feed_forward_block(
        self,
        x: tf.Tensor,
        weights: FeedForwardWeights,
        scope: ReferenceScope,
        output: Dropout,
    ) -> tf.Tensor:
        """norm(x + feed_forward(x)), in the layout of `scope`.

        Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.3.
        """
        del scope
        inner = self._activated(x, weights.inner)
        y = ops.dropout(self._dense(inner, weights.outer), *output)
        return self._norm(y + x, weights.norm)

    def pooled(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """tanh(x W + b): [B, K, H] float32 -> the same shape."""
        return tf.tanh(self._dense(x, weights))

    def masked_lm_logits(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """[B, P, H] float32 -> [B, P, V] float32."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.bias))
        table = tf.convert_to_tensor(weights.words)
        rows = tf.reshape(self.transformed(x, weights), [-1, self.config.hidden_size])
        logits = ops.matmul(
            *(rows, table, dtype),
            transpose_b=True,
            is_compiled=self._recorder.is_compiled,
        )
        logits = tf.nn.bias_add(logits, tf.convert_to_tensor(weights.bias))
        shape = tf.concat([tf.shape(x)[:2], [self.config.vocab_size]], axis=0)
        return tf.reshape(logits, shape)

    def masked_lm_losses(
        self, x: tf.Tensor, weights: MaskedLmWeights, labels: tf.Tensor
    ) -> tf.Tensor:
        """[B, P, H] float32 and [B, P] int32 -> cross entropy [B, P], in nats."""
        logits = self.masked_lm_logits(x, weights)
        dtype = self._policy.compute_dtype("LogSoftmax", _layer_of(weights.bias))
        return ops.cross_entropy(ops.rounded(logits, dtype), labels)

    def output_logits(
        self, x: tf.Tensor, weights: OutputWeights, dropout: Dropout | None
    ) -> tf.Tensor:
        """[B, N, H] float32 -> logits [B, N, C] float32, with dropout of the input."""
        kernel, bias = map(tf.convert_to_tensor, weights)
        if dropout is not None:
            x = ops.dropout(x, *dropout)
        # In float32 under every policy: few numbers, which go into a loss.
        return tf.einsum("bnh,ch->bnc", x, kernel) + bias

    def step_scope(
        self, blocks: Sequence[BlockWeights], *, accumulates: bool
    ) -> StepScope:
        """A scope that may be entered again and again.

        Args:
          blocks: Those of the model that this backend computes once in each call.
          accumulates: Whether their gradients may be added up over the calls inside.
        """
        del blocks, accumulates
        return StepScope()

    def transformed(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """The input of the masked-LM head's product: [B, P, H] float32."""
        return self._norm(self._activated(x, weights.transform), weights.norm)

    def _activated(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """[..., I] float32 -> [..., O] float32, through the activation function."""
        name = _layer_of(weights.kernel).rpartition("/")[0]
        dtype = self._policy.compute_dtype(self._activation_type, name)
        y = self._activation(ops.rounded(self._dense(x, weights), dtype))
        return ops.rounded(y, dtype)

    def _dense(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """[..., I] float32 -> [..., O] float32."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.kernel))
        kernel, bias = map(tf.convert_to_tensor, weights)
        rows = tf.reshape(x, [-1, x.shape[-1]])
        is_compiled = self._recorder.is_compiled
        y = ops.matmul(rows, kernel, dtype, is_compiled=is_compiled)
        y = tf.nn.bias_add(y, bias)
        width = kernel.shape[-1]
        y = tf.reshape(y, tf.concat([tf.shape(x)[:-1], [width]], axis=0))
        y.set_shape([*x.shape[:-1], width])
        return y

    def _norm(self, x: tf.Tensor, weights: NormWeights) -> tf.Tensor:
        """[..., H] -> [..., H], float32."""
        dtype = self._policy.compute_dtype("LayerNorm", _layer_of(weights.gamma))
        gamma, beta = map(tf.convert_to_tensor, weights)
        x = ops.rounded(x, dtype)
        y = ops.layer_norm(x, gamma, beta, self.config.layer_norm_eps)
        return ops.rounded(y, dtype)

    def _heads_shape(self, x: tf.Tensor) -> list[int | tf.Tensor]:
        """[B, S, N, D] of x [B, S, H]."""
        heads, width = self.config.num_attention_heads, self.config.head_size
        return [tf.shape(x)[0], x.shape[1] or tf.shape(x)[1], heads, width]


def activation_type(config: BertConfig) -> str:
    """What precision lists call the activation function of a model."""
    return {"relu": "Relu", "tanh": "Tanh"}.get(config.hidden_act, "Gelu")


def _layer_of(variable: keras.Variable) -> str:
    """The path of a variable's layer: the layer's name in precision lists."""
    return variable.path.rpartition("/")[0]
