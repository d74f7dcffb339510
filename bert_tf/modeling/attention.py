"""Self-attention."""

import math

import keras
import tensorflow as tf

from bert_tf.modeling import fused, ops
from bert_tf.modeling.layers import BertLayer, Dense, LayerSettings


class SelfAttention(BertLayer):
    """Scaled dot-product attention with N heads of width D = H / N."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="self")
        width = self.config.hidden_size
        self.query, self.key, self.value = (
            Dense(settings, width, name) for name in ("query", "key", "value")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the three projections."""
        for projection in (self.query, self.key, self.value):
            projection.build(input_shape)

    def _heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, S, H] -> [B, N, S, D]."""
        heads, width = self.config.num_attention_heads, self.config.head_size
        shape = [tf.shape(x)[0], x.shape[1] or tf.shape(x)[1], heads, width]
        return tf.transpose(tf.reshape(x, shape), [0, 2, 1, 3])

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        queries: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, S, H] and a mask (see `LayerSettings`) -> [B, S, H], and the inputs.

        Fused, there may be `queries`, see `fused.attention`.
        """
        if self.settings.is_fused:
            return self._fused(inputs, mask, dropout_key, queries, training)
        dtype = self.settings.policy.compute_dtype("BatchMatMul", self.path)
        query = self._heads(self.query(inputs)) * (1 / math.sqrt(self.config.head_size))
        key = self._heads(self.key(inputs))
        value = self._heads(self.value(inputs))
        scores = ops.matmul(query, key, dtype, transpose_b=True) + mask  # [B, N, S, S]
        probabilities = tf.nn.softmax(scores)
        if training:
            rate = self.config.attention_probs_dropout_prob
            probabilities = ops.dropout(
                probabilities, rate, dropout_key, self.stream(0)
            )
        context = ops.matmul(probabilities, value, dtype)  # [B, N, S, D]
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(inputs))
        return context, inputs

    def _fused(
        self,
        inputs: tf.Tensor,
        input_mask: tf.Tensor,
        dropout_key: tf.Tensor,
        queries: tf.Tensor | None,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, S, H] or [T, H] -> the same shape or [Q, H], and the inputs."""
        projections = (self.query, self.key, self.value)
        self.settings.policy.compute_dtype("BatchMatMul", self.path)
        for projection in projections:
            self.settings.policy.compute_dtype("MatMul", projection.path)
        # One product instead of three: their outputs stand side by side.
        projected, inputs = self.multiply(inputs, self.matrices(), shares_inputs=True)
        bias = tf.concat([tf.convert_to_tensor(p.bias) for p in projections], axis=0)
        heads = self.config.num_attention_heads
        rate = self.config.attention_probs_dropout_prob if training else 0.0
        dropout = {"rate": rate, "stream": self.stream(0)}
        context = fused.attention(
            projected, bias, input_mask, dropout_key, queries, heads=heads, **dropout
        )
        return context, inputs

    def matrices(self) -> list[keras.Variable]:
        """What is prepacked: all projections."""
        return [p.kernel for p in (self.query, self.key, self.value)]
