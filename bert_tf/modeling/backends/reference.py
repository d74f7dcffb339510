"""The backend of TensorFlow's operations: the definition, for any device and XLA."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    DenseWeights,
    Dropout,
    EmbeddingTables,
    EncoderScope,
    FeedForwardWeights,
    Ids,
    MaskedLmWeights,
    NormWeights,
)
from bert_tf.modeling.backends.step import CurrentStep
from bert_tf.precision import PrecisionPolicy


class ReferenceScope:
    """Whole rows, [B, S, H] float32.

    Attributes:
      bias: What is added to attention scores: see `ops.attention_bias`.
    """

    def __init__(self, input_mask: tf.Tensor) -> None:
        self.bias = ops.attention_bias(input_mask)

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        """The same."""
        return x

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        """The same."""
        return x

    def narrowed(self, positions: tf.Tensor) -> EncoderScope:
        """The same: all positions are computed."""
        del positions
        return self


class Reference:
    """See `interface.Backend`."""

    def __init__(
        self, config: BertConfig, policy: PrecisionPolicy, current: CurrentStep
    ) -> None:
        """A backend of one model.

        Args:
          config: The architecture.
          policy: Decides in which type each product is computed.
          current: The step that is being made, if any.
        """
        self.config = config
        self._policy = policy
        self._current = current
        self._activation = ops.activation(config.hidden_act)

    def embeddings(
        self, tables: EmbeddingTables, ids: Ids, dropout: Dropout
    ) -> tf.Tensor:
        """See `interface.Backend`."""
        words = self._current.look_up(tables.words, ids.words)
        # A product with one-hot rows: its gradient is a product too, where that of
        # a gather would add B * S rows into a table of two, one after another.
        one_hot = tf.one_hot(ids.segments, self.config.type_vocab_size)
        segments = one_hot @ tf.convert_to_tensor(tables.segments)
        places = tf.gather(tf.convert_to_tensor(tables.positions), ids.positions)
        return ops.dropout(self._norm(words + segments + places, tables.norm), *dropout)

    def encoder_scope(self, input_mask: tf.Tensor) -> EncoderScope:
        """See `interface.Backend`."""
        return ReferenceScope(input_mask)

    def attention_block(
        self,
        x: tf.Tensor,
        weights: AttentionWeights,
        scope: ReferenceScope,
        probabilities: Dropout,
        output: Dropout,
    ) -> tf.Tensor:
        """See `interface.Backend`.

        Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.
        """
        name = _layer_of(weights.query.kernel).rpartition("/")[0]
        dtype = self._policy.compute_dtype("BatchMatMul", name)
        scale = 1 / math.sqrt(self.config.head_size)
        query = self._heads(self._dense(x, weights.query)) * scale
        key = self._heads(self._dense(x, weights.key))
        value = self._heads(self._dense(x, weights.value))
        scores = ops.matmul(query, key, dtype, transpose_b=True)  # [B, N, S, S]
        seen = ops.dropout(tf.nn.softmax(scores + scope.bias), *probabilities)
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
        """See `interface.Backend`.

        Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.3.
        """
        del scope
        inner = self._activation(self._dense(x, weights.inner))
        y = ops.dropout(self._dense(inner, weights.outer), *output)
        return self._norm(y + x, weights.norm)

    def pooled(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """See `interface.Backend`."""
        return tf.tanh(self._dense(x, weights))

    def masked_lm_logits(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """See `interface.Backend`."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.bias))
        table = tf.convert_to_tensor(weights.words)
        rows = tf.reshape(self.transformed(x, weights), [-1, self.config.hidden_size])
        logits = ops.matmul(rows, table, dtype, transpose_b=True)
        logits = tf.nn.bias_add(logits, tf.convert_to_tensor(weights.bias))
        shape = tf.concat([tf.shape(x)[:2], [self.config.vocab_size]], axis=0)
        return tf.reshape(logits, shape)

    def masked_lm_losses(
        self, x: tf.Tensor, weights: MaskedLmWeights, labels: tf.Tensor
    ) -> tf.Tensor:
        """See `interface.Backend`."""
        logits = self.masked_lm_logits(x, weights)
        return ops.cross_entropy(logits, labels)

    def products_of(
        self, weights: AttentionWeights | FeedForwardWeights | MaskedLmWeights
    ) -> list[Sequence[keras.Variable]]:
        """None: TensorFlow's products take kernels as they are."""
        del weights
        return []

    def transformed(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """What stands before the masked-LM head's product: [B, P, H] float32."""
        return self._norm(
            self._activation(self._dense(x, weights.transform)), weights.norm
        )

    def _dense(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """[..., I] float32 -> [..., O] float32."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.kernel))
        kernel, bias = map(tf.convert_to_tensor, weights)
        rows = tf.reshape(x, [-1, x.shape[-1]])
        y = tf.nn.bias_add(ops.matmul(rows, kernel, dtype), bias)
        width = kernel.shape[-1]
        y = tf.reshape(y, tf.concat([tf.shape(x)[:-1], [width]], axis=0))
        y.set_shape([*x.shape[:-1], width])
        return y

    def _norm(self, x: tf.Tensor, weights: NormWeights) -> tf.Tensor:
        """[..., H] -> [..., H], float32."""
        gamma, beta = map(tf.convert_to_tensor, weights)
        return ops.layer_norm(x, gamma, beta, self.config.layer_norm_eps)

    def _heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H] -> [B, N, S, D]."""
        heads, width = self.config.num_attention_heads, self.config.head_size
        shape = [tf.shape(x)[0], x.shape[1] or tf.shape(x)[1], heads, width]
        return tf.transpose(tf.reshape(x, shape), [0, 2, 1, 3])


def _layer_of(variable: keras.Variable) -> str:
    """The path of the layer that holds a variable: its name in precision lists."""
    return variable.path.rpartition("/")[0]
