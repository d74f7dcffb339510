"""The backend of TensorFlow's operations: the definition, for any device and XLA."""

import math
from collections.abc import Callable, Sequence

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

    def __init__(self, input_mask: tf.Tensor, dtype: tf.DType) -> None:
        self.bias = ops.attention_bias(input_mask)
        self._dtype = dtype

    def enter(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x, self._dtype)

    def leave(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(x, tf.float32)


class Reference:
    """The arithmetic of BERT's sub-layers, each with its residual and normalisation.

    Other backends derive from this one, and must agree with it. Results have the type
    of their input; in 16 bits they are rounded, and computed in float32.

    Attributes:
      dtype: The type of activations in the encoder, and of masked-LM logits.
    """

    def __init__(
        self,
        config: BertConfig,
        policy: PrecisionPolicy,
        recorder: Recorder,
        *,
        dtype: tf.DType = tf.float32,
    ) -> None:
        """A backend of one model.

        Args:
          config: The architecture.
          policy: Decides the type of each operation.
          recorder: Records lookups in the word table.
          dtype: See the class; this backend has float32 where XLA does not compile.
        """
        self.config = config
        self.dtype = dtype
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
        return ReferenceScope(input_mask, self._stored)

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
        query = ops.in_float32(lambda query: query * scale, query)
        scores = ops.matmul(query, key, dtype, transpose_b=True)  # [B, N, S, S]
        of_softmax = self._policy.compute_dtype("Softmax", name)

        def softmax(scores: tf.Tensor) -> tf.Tensor:
            seen = tf.nn.softmax(ops.rounded(scores + scope.bias, of_softmax))
            return ops.dropout(ops.rounded(seen, of_softmax), *probabilities)

        seen = ops.in_float32(softmax, scores)
        context = ops.matmul(seen, value, dtype)  # [B, N, S, D]
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(x))
        return self._dense_norm(context, x, weights.output, weights.norm, output)

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
        return self._dense_norm(inner, x, weights.outer, weights.norm, output)

    def pooled(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """tanh(x W + b): [B, K, H] float32 -> the same shape."""
        return tf.tanh(self._dense(x, weights))

    def masked_lm_logits(self, x: tf.Tensor, weights: MaskedLmWeights) -> tf.Tensor:
        """[B, P, H] float32 -> [B, P, V] float32."""
        return self._of_logits(x, weights, lambda logits: logits)

    def masked_lm_losses(
        self, x: tf.Tensor, weights: MaskedLmWeights, labels: tf.Tensor
    ) -> tf.Tensor:
        """[B, P, H] float32 and [B, P] int32 -> cross entropy [B, P], in nats."""
        dtype = self._policy.compute_dtype("LogSoftmax", _layer_of(weights.bias))

        def losses(logits: tf.Tensor) -> tf.Tensor:
            return ops.cross_entropy(ops.rounded(logits, dtype), labels)

        return self._of_logits(x, weights, losses)

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

    @property
    def _stored(self) -> tf.DType:
        """The type of activations in the graph that is traced now."""
        return self.dtype if self._recorder.is_compiled else tf.float32

    def _of_logits(
        self,
        x: tf.Tensor,
        weights: MaskedLmWeights,
        function: Callable[[tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        """A function of the masked-LM logits [B, P, V], float32."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.bias))
        table, bias = map(tf.convert_to_tensor, (weights.words, weights.bias))
        rows = tf.reshape(self.transformed(x, weights), [-1, self.config.hidden_size])
        logits = ops.matmul(
            *(tf.cast(rows, self._stored), table, dtype),
            transpose_b=True,
            is_compiled=self._recorder.is_compiled,
        )
        shape = tf.concat([tf.shape(x)[:2], [self.config.vocab_size]], axis=0)

        def end(logits: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
            return function(tf.reshape(tf.nn.bias_add(logits, bias), shape))

        return ops.in_float32(end, logits, bias, dtype=tf.float32)

    def _activated(self, x: tf.Tensor, weights: DenseWeights) -> tf.Tensor:
        """[..., I] -> [..., O], through the activation function."""
        name = _layer_of(weights.kernel).rpartition("/")[0]
        dtype = self._policy.compute_dtype(self._activation_type, name)

        def end(y: tf.Tensor) -> tf.Tensor:
            return ops.rounded(self._activation(ops.rounded(y, dtype)), dtype)

        return self._dense(x, weights, end)

    def _dense_norm(
        self,
        x: tf.Tensor,
        residual: tf.Tensor,
        weights: DenseWeights,
        norm: NormWeights,
        dropout: Dropout,
    ) -> tf.Tensor:
        """The end of a block: [..., I] and [..., H] -> [..., H]."""
        dtype = self._policy.compute_dtype("LayerNorm", _layer_of(norm.gamma))

        def end(
            y: tf.Tensor, residual: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
        ) -> tf.Tensor:
            y = ops.rounded(ops.dropout(y, *dropout) + residual, dtype)
            y = ops.layer_norm(y, gamma, beta, self.config.layer_norm_eps)
            return ops.rounded(y, dtype)

        y = self._dense(x, weights, end, residual, *norm)
        return y if y.dtype == tf.float32 else ops.stored(y)

    def _dense(
        self,
        x: tf.Tensor,
        weights: DenseWeights,
        end: Callable[..., tf.Tensor] = lambda y: y,
        *more: tf.Tensor | keras.Variable,
    ) -> tf.Tensor:
        """`end(x W + b, *more)`, where W maps [..., I] to [..., O]."""
        dtype = self._policy.compute_dtype("MatMul", _layer_of(weights.kernel))
        kernel, bias, *more = map(tf.convert_to_tensor, (*weights, *more))
        rows = tf.reshape(x, [-1, x.shape[-1]])
        is_compiled = self._recorder.is_compiled
        y = ops.matmul(rows, kernel, dtype, is_compiled=is_compiled)
        width = kernel.shape[-1]
        shape = tf.concat([tf.shape(x)[:-1], [width]], axis=0)

        def biased(y: tf.Tensor, bias: tf.Tensor, *more: tf.Tensor) -> tf.Tensor:
            y = tf.reshape(tf.nn.bias_add(y, bias), shape)
            y.set_shape([*x.shape[:-1], width])
            return end(y, *more)

        return ops.in_float32(biased, y, bias, *more)

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
