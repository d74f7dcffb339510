"""BERT up to its hidden states and pooled vectors."""

import functools
from typing import Any

import keras
import tensorflow as tf

from bert_tf.modeling import fused, ops, products
from bert_tf.modeling.attention import SelfAttention
from bert_tf.modeling.layers import (
    BertLayer,
    Dense,
    Embeddings,
    LayerSettings,
    ResidualOutput,
)


class Attention(BertLayer):
    """Self-attention and its residual output."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="attention")
        self.self_attention = SelfAttention(settings)
        self.residual_output = ResidualOutput(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes both parts."""
        self.self_attention.build(input_shape)
        self.residual_output.build(input_shape)

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        read: fused.Layout | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, S, H] and a mask (see `LayerSettings`) -> [B, S, H].

        Fused, [T, H] -> the rows of a part of its layout if there is `read`.
        """
        queries = None if read is None else read.mask
        context, x = self.self_attention(
            inputs, mask, dropout_key, queries=queries, training=training
        )
        if read is not None:
            x, mask = read.take(x), read.mask
        return self.residual_output(context, x, mask, dropout_key, training=training)


class Intermediate(BertLayer):
    """The widening half of the feed-forward sub-layer."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="intermediate")
        self.dense = Dense(settings, self.config.intermediate_size, "dense")
        self.activation = ops.activation(self.config.hidden_act)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the projection to intermediate_size."""
        self.dense.build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, S, H] -> [B, S, I]."""
        return self.activation(self.dense(inputs))


class EncoderLayer(BertLayer):
    """One layer of the encoder: attention, then feed-forward, each normalised after.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.1 (post-LayerNorm).
    """

    def __init__(self, settings: LayerSettings, name: str) -> None:
        super().__init__(settings, name=name)
        self.attention = Attention(settings)
        self.intermediate = Intermediate(settings)
        self.residual_output = ResidualOutput(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the three parts."""
        self.attention.build(input_shape)
        self.intermediate.build(input_shape)
        self.residual_output.build((*input_shape[:-1], self.config.intermediate_size))

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        read: fused.Layout | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """As `Attention`: of the same shape, or the rows of `read`."""
        x = self.attention(inputs, mask, dropout_key, read=read, training=training)
        if self.settings.is_fused:
            product, x = self._feed_forward(x)
            mask = mask if read is None else read.mask
            return self.residual_output.finish(product, x, mask, dropout_key, training)
        wide = self.intermediate(x)
        return self.residual_output(wide, x, mask, dropout_key, training=training)

    def _feed_forward(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Both dense layers and the activation, without the last bias; and `x`."""
        dense_layers = (self.intermediate.dense, self.residual_output.dense)
        packed = self.settings.packed.by_path
        for dense in dense_layers:
            self.settings.policy.compute_dtype("MatMul", dense.path)  # For the record.
        return products.feed_forward(
            x,
            tf.convert_to_tensor(self.intermediate.dense.bias),
            [tf.convert_to_tensor(dense.kernel) for dense in dense_layers],
            [packed.get(dense.path) for dense in dense_layers],
            approximate=fused.GELUS[self.config.hidden_act],
        )


class Encoder(BertLayer):
    """The stack of encoder layers."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="encoder")
        self.encoder_layers = [
            EncoderLayer(settings, f"layer_{number}")
            for number in range(self.config.num_hidden_layers)
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes every layer."""
        for layer in self.encoder_layers:
            layer.build(input_shape)

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor,
        dropout_key: tf.Tensor,
        read: fused.Layout | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, S, H] and a mask (see `LayerSettings`) -> [B, S, H].

        Fused, [T, H] -> the rows of `read` if there is one: the last layer computes no
        others, since only its attention needs the rest.
        """
        x = inputs
        for layer in self.encoder_layers:
            is_last = layer is self.encoder_layers[-1]
            call = functools.partial(
                layer, read=read if is_last else None, training=training
            )
            if training and self.settings.recomputes:
                # Source: Chen et al. 2016 (arXiv:1604.06174).
                call = tf.recompute_grad(call)
            x = call(x, mask, dropout_key)
        return x


class Pooler(BertLayer):
    """tanh projection of the first vector of each sequence."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="pooler")
        self.dense = Dense(settings, self.config.hidden_size, "dense")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the projection."""
        self.dense.build(input_shape)

    def call(self, inputs: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """[B, S, H] and positions of [CLS], [B, K] -> [B, K, H]."""
        return tf.tanh(self.dense(ops.gather_rows(inputs, positions)))


class Bert(BertLayer):
    """Embeddings, encoder and pooler, under the original scope `bert`."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="bert")
        self.embeddings = Embeddings(settings)
        self.encoder = Encoder(settings)
        self.pooler = Pooler(settings)
        # Used only where the caller passes no dropout key (`model.fit`).
        self.seed_generator = keras.random.SeedGenerator(settings.seed)

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes the three parts."""
        shape = (None, None, self.config.hidden_size)
        self.embeddings.build()
        self.encoder.build(shape)
        self.pooler.build(shape)

    def _drawn_key(self, input_ids: tf.Tensor) -> tf.Tensor:
        """A new dropout key [B, 3] for each call, from the layer's own generator."""
        batch_size = tf.shape(input_ids)[0]
        drawn = tf.cast(self.seed_generator.next(), tf.int64) % 2**31
        seed_and_step = tf.repeat(tf.cast(drawn, tf.int32)[None], batch_size, axis=0)
        rows = tf.range(batch_size, dtype=tf.int32)[:, None]
        return tf.concat([seed_and_step, rows], axis=1)

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Hidden states, pooled vectors, and the word table for a tied output layer.

        Args:
          inputs: `input_ids, input_mask, segment_ids, positions` [B, S],
            `next_sentence_positions` [B, K] and, if the caller decides dropout,
            `dropout_key` [B, 3]; all int32. Where the caller reads few of the hidden
            states, `read_positions` [B, R] beside those of the pooled vectors: the
            last layer need not compute the others.
          training: Whether dropout is on.

        Returns:
          `sequence_output` [B, S, H] (0 where padding is left out or nothing reads),
          `pooled_output` [B, K, H] and `word_embeddings` [V, H], float32.
        """
        key = inputs.get("dropout_key")
        if key is None:
            key = self._drawn_key(inputs["input_ids"])
        x, table = self.embeddings(
            inputs["input_ids"],
            inputs["segment_ids"],
            inputs["positions"],
            key,
            training=training,
        )
        if self.settings.is_fused:
            x = tf.cast(x, self.settings.fused_dtype)
            x = tf.cast(self._encode(x, inputs, key, training), tf.float32)
        else:
            bias = ops.attention_bias(inputs["input_mask"])
            x = self.encoder(x, bias, key, training=training)
        return {
            "sequence_output": x,
            "pooled_output": self.pooler(x, inputs["next_sentence_positions"]),
            "word_embeddings": table,
        }

    def _encode(
        self,
        x: tf.Tensor,
        inputs: dict[str, tf.Tensor],
        key: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        """The encoder without padding and without what nothing reads, fused."""
        mask = inputs["input_mask"]
        if not self.settings.unpads:
            return self.encoder(x, mask, key, training=training)
        whole = fused.unpadded(mask)
        read, result = None, whole
        if "read_positions" in inputs:
            pooled = inputs["next_sentence_positions"]
            positions = tf.concat([pooled, inputs["read_positions"]], axis=1)
            read = result = fused.part_at(whole, positions)
        y = self.encoder(whole.take(x), mask, key, read=read, training=training)
        return result.put_back(y)
