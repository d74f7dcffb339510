"""BERT up to its hidden states and pooled vectors."""

import functools
import itertools
from typing import Any

import keras
import tensorflow as tf

from bert_tf.modeling import ops
from bert_tf.modeling.backends.choice import Block
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    EncoderScope,
    FeedForwardWeights,
)
from bert_tf.modeling.layers import (
    BertLayer,
    Dense,
    DenseNorm,
    Embeddings,
    LayerSettings,
)

_DROPOUT = "dropout_state"


class SelfAttention(BertLayer):
    """Variables of the query, key and value projections."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="self")
        width = self.config.hidden_size
        self.query, self.key, self.value = (
            Dense(settings, width, name) for name in ("query", "key", "value")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for projection in (self.query, self.key, self.value):
            projection.build(input_shape)


class Attention(BertLayer):
    """Self-attention with N heads of width D = H / N, and its residual output."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="attention")
        self.self_attention = SelfAttention(settings)
        self.residual_output = DenseNorm(settings, "output")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.self_attention.build(input_shape)
        self.residual_output.build(input_shape)
        self.backend = self.settings.backends.choose_backend(self.path)

    @property
    def block(self) -> AttentionWeights:
        """The weights as the backend takes them."""
        projections, output = self.self_attention, self.residual_output
        return AttentionWeights(
            projections.query.pair,
            projections.key.pair,
            projections.value.pair,
            output.dense.pair,
            output.layer_norm.pair,
        )

    def call(
        self,
        inputs: tf.Tensor,
        scope: EncoderScope,
        dropout_seed: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Tokens in the layout of `scope` -> the same; fewer if it is narrowed."""
        config = self.config
        probabilities = self.self_attention.dropout(
            config.attention_probs_dropout_prob, dropout_seed, training
        )
        output = self.residual_output.dropout(
            config.hidden_dropout_prob, dropout_seed, training
        )
        return self.backend.attention_block(
            inputs, self.block, scope, probabilities, output
        )


class Intermediate(BertLayer):
    """Variables of the first half of the feed-forward block."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="intermediate")
        self.dense = Dense(settings, self.config.intermediate_size, "dense")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense.build(input_shape)


class EncoderLayer(BertLayer):
    """One layer of the encoder: attention, then feed-forward, each normalised after.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.1 (post-LayerNorm).
    """

    def __init__(self, settings: LayerSettings, name: str) -> None:
        super().__init__(settings, name=name)
        self.attention = Attention(settings)
        self.intermediate = Intermediate(settings)
        self.residual_output = DenseNorm(settings, "output")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.attention.build(input_shape)
        self.intermediate.build(input_shape)
        self.residual_output.build((*input_shape[:-1], self.config.intermediate_size))
        self.backend = self.settings.backends.choose_backend(self.path)

    @property
    def block(self) -> FeedForwardWeights:
        """The weights as the backend takes them."""
        output = self.residual_output
        return FeedForwardWeights(
            self.intermediate.dense.pair, output.dense.pair, output.layer_norm.pair
        )

    def blocks(self) -> list[Block]:
        return [(self.backend, self.attention.block), (self.backend, self.block)]

    def call(
        self,
        inputs: tf.Tensor,
        scope: EncoderScope,
        dropout_seed: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """See `Attention.call`."""
        x = self.attention(
            inputs, scope=scope, dropout_seed=dropout_seed, training=training
        )
        rate = self.config.hidden_dropout_prob
        output = self.residual_output.dropout(rate, dropout_seed, training)
        return self.backend.feed_forward_block(x, self.block, scope, output)


class Encoder(BertLayer):
    """The stack of encoder layers."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="encoder")
        self.encoder_layers = [
            EncoderLayer(settings, f"layer_{number}")
            for number in range(self.config.num_hidden_layers)
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.encoder_layers:
            layer.build(input_shape)

    def blocks(self) -> list[Block]:
        return [block for layer in self.encoder_layers for block in layer.blocks()]

    def call(
        self,
        inputs: tf.Tensor,
        input_mask: tf.Tensor,
        dropout_seed: tf.Tensor,
        read_positions: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, S, H] float32 and `input_mask` [B, S] -> [B, S, H] float32.

        Consecutive layers with the same backend share one encoder scope. With
        `read_positions` [B, R], the last layer need not compute other positions.
        """
        x, frozen = inputs, self.settings.frozen_layers
        top = None if frozen is None else self.encoder_layers[frozen:][:1]
        groups = itertools.groupby(self.encoder_layers, lambda layer: layer.backend)
        for backend, layers in groups:
            scope = backend.encoder_scope(input_mask)
            x = scope.enter(x)
            for layer in layers:
                if top == [layer]:
                    x = tf.stop_gradient(x)
                if layer is self.encoder_layers[-1] and read_positions is not None:
                    scope = scope.narrowed(read_positions)
                x = self._layer_call(layer, x, scope, dropout_seed, training)
            x = scope.leave(x)
        return tf.stop_gradient(x) if top == [] else x

    def hidden_states(
        self, inputs: tf.Tensor, input_mask: tf.Tensor, dropout_seed: tf.Tensor
    ) -> list[tf.Tensor]:
        """The output of each layer, [B, S, H] float32, without dropout."""
        states = [inputs]
        for layer in self.encoder_layers:
            scope = layer.backend.encoder_scope(input_mask)
            x = self._layer_call(
                layer, scope.enter(states[-1]), scope, dropout_seed, False
            )
            states.append(scope.leave(x))
        return states[1:]

    def _layer_call(
        self,
        layer: EncoderLayer,
        x: tf.Tensor,
        scope: EncoderScope,
        dropout_seed: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        call = functools.partial(
            layer, scope=scope, dropout_seed=dropout_seed, training=training
        )
        if training and self.settings.recomputes:
            # Source: Chen et al. 2016 (arXiv:1604.06174).
            call = tf.recompute_grad(call)
        return call(x)


class Pooler(BertLayer):
    """tanh projection of the first vector of each sequence."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="pooler")
        self.dense = Dense(settings, self.config.hidden_size, "dense")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense.build(input_shape)
        self.backend = self.settings.backends.choose_backend(self.path)

    def call(self, inputs: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """[B, S, H] and positions of [CLS], [B, K] -> [B, K, H]."""
        return self.backend.pooled(ops.gather_rows(inputs, positions), self.dense.pair)


@keras.saving.register_keras_serializable(package="bert_tf")
class Bert(BertLayer):
    """Embeddings, encoder and pooler, under the original scope `bert`."""

    def __init__(self, settings: LayerSettings, has_pooler: bool = True) -> None:
        super().__init__(settings, name="bert")
        self.embeddings = Embeddings(settings)
        self.encoder = Encoder(settings)
        self.pooler = Pooler(settings) if has_pooler else None
        # Used only where the caller passes no seed (`model.fit`).
        self.seed_generator = keras.random.SeedGenerator(settings.seed)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"has_pooler": self.pooler is not None}

    def build(self, *_: object) -> None:
        shape = (None, None, self.config.hidden_size)
        self.embeddings.build()
        self.encoder.build(shape)
        if self.pooler:
            self.pooler.build(shape)

    def blocks(self) -> list[Block]:
        return self.encoder.blocks()

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Keras's method, for the state of dropout: all weights are in inner layers."""
        store[_DROPOUT] = self.seed_generator.state.numpy()

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """The reverse of `save_own_variables`."""
        if _DROPOUT in store.keys():
            self.seed_generator.state.assign(store[_DROPOUT])

    def drawn_seed(self, input_ids: tf.Tensor) -> tf.Tensor:
        """A new dropout seed [B, 3] for each call, from the layer's own generator."""
        batch_size = tf.shape(input_ids)[0]
        drawn = tf.cast(self.seed_generator.next(), tf.int64) % 2**31
        seed_and_step = tf.repeat(tf.cast(drawn, tf.int32)[None], batch_size, axis=0)
        rows = tf.range(batch_size, dtype=tf.int32)[:, None]
        return tf.concat([seed_and_step, rows], axis=1)

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Hidden states and pooled vectors.

        Args:
          inputs: `input_ids, input_mask, segment_ids, positions` [B, S],
            `next_sentence_positions` [B, K]; optionally `dropout_seed` [B, 3], to
            decide dropout, and `read_positions` [B, R]: the only hidden states that
            the caller reads, besides those of the pooled vectors. All int32.
          training: Whether dropout is on.

        Returns:
          `sequence_output` [B, S, H] (0 where nothing was computed) and, with a
          pooler, `pooled_output` [B, K, H], float32.
        """
        seed = inputs.get("dropout_seed")
        if seed is None:
            seed = self.drawn_seed(inputs["input_ids"])
        read, pooled = inputs.get("read_positions"), inputs["next_sentence_positions"]
        if read is not None and self.pooler:
            read = tf.concat([pooled, read], axis=1)
        x = self.embeddings(
            inputs["input_ids"],
            inputs["segment_ids"],
            inputs["positions"],
            seed,
            training=training,
        )
        x = self.encoder(
            x, inputs["input_mask"], seed, read_positions=read, training=training
        )
        outputs = {"sequence_output": x}
        if self.pooler:
            outputs["pooled_output"] = self.pooler(x, pooled)
        return outputs
