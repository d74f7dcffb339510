"""Whole models: inputs to logits, as functional Keras models."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bert_tf import kernels
from bert_tf.config import BertConfig
from bert_tf.modeling import fused, ops, products
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import BertLayer, Dense, LayerNorm, LayerSettings
from bert_tf.precision import PrecisionPolicy

_DEFAULT_POLICY = PrecisionPolicy()
_SEQUENCE_INPUTS = ("input_ids", "input_mask", "segment_ids", "positions")


class Transform(BertLayer):
    """Dense, activation and layer normalisation before the tied output layer."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="transform")
        self.dense = Dense(settings, self.config.hidden_size, "dense")
        self.activation = ops.activation(self.config.hidden_act)
        self.layer_norm = LayerNorm(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes projection and normalisation."""
        self.dense.build(input_shape)
        self.layer_norm.build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, P, H] -> [B, P, H]."""
        return self.layer_norm(self.activation(self.dense(inputs)))


class Predictions(BertLayer):
    """Masked-LM logits by the transposed word table."""

    def __init__(
        self, settings: LayerSettings, word_embeddings: Callable[[], keras.Variable]
    ) -> None:
        super().__init__(settings, name="predictions")
        self.transform = Transform(settings)
        # As a function: the variable is not a weight of this layer.
        self.word_embeddings = word_embeddings

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes the transform and one bias per word."""
        self.transform.build((None, None, self.config.hidden_size))
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.config.vocab_size,), initializer="zeros"
        )

    def call(self, inputs: tf.Tensor, word_embeddings: tf.Tensor) -> tf.Tensor:
        """[B, P, H] and [V, H] -> [B, P, V] float32."""
        dtype = self.settings.policy.compute_dtype("MatMul", self.path)
        x = self.transform(inputs)
        rows = tf.reshape(x, [-1, self.config.hidden_size])
        logits = ops.matmul(rows, word_embeddings, dtype, transpose_b=True)
        logits = tf.nn.bias_add(logits, tf.convert_to_tensor(self.output_bias))
        shape = tf.concat([tf.shape(inputs)[:2], [self.config.vocab_size]], axis=0)
        return tf.reshape(logits, shape)

    def matrices(self) -> list[keras.Variable]:
        """What is prepacked."""
        return [self.word_embeddings()]

    def losses(
        self, inputs: tf.Tensor, word_embeddings: tf.Tensor, labels: tf.Tensor
    ) -> tf.Tensor:
        """[B, P, H], [V, H], [B, P] int32 -> cross entropy [B, P]."""
        self.settings.policy.compute_dtype("MatMul", self.path)  # For the record.
        rows = tf.reshape(self.transform(inputs), [-1, self.config.hidden_size])
        losses = products.cross_entropy(
            tf.cast(rows, self.settings.fused_dtype),
            word_embeddings,
            tf.convert_to_tensor(self.output_bias),
            tf.reshape(labels, [-1]),
            self.settings.packed.by_path.get(self.path),
        )
        return tf.reshape(losses, tf.shape(labels))


class SeqRelationship(BertLayer):
    """Next-sentence logits: class 0 is "follows", class 1 is "random"."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="seq_relationship")

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes weights [2, H], in the original's layout, and bias [2]."""
        shape = (2, self.config.hidden_size)
        self.output_weights = self.add_normal("output_weights", shape)
        self.output_bias = self.add_weight(
            name="output_bias", shape=(2,), initializer="zeros"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, K, H] -> [B, K, 2] float32."""
        weights = tf.convert_to_tensor(self.output_weights)
        logits = tf.einsum("bkh,ch->bkc", inputs, weights)
        return logits + tf.convert_to_tensor(self.output_bias)


class PretrainingHeads(BertLayer):
    """Both heads of pre-training, under the original scope `cls`."""

    def __init__(self, settings: LayerSettings, bert: Bert) -> None:
        super().__init__(settings, name="cls")
        embeddings = bert.embeddings
        self.predictions = Predictions(settings, lambda: embeddings.word_embeddings)
        self.seq_relationship = SeqRelationship(settings)

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes both heads."""
        self.predictions.build()
        self.seq_relationship.build()

    def call(
        self, encoded: dict[str, tf.Tensor], masked_lm_positions: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The outputs of `Bert` and [B, P] -> logits, as `build_pretraining_model`."""
        masked = ops.gather_rows(encoded["sequence_output"], masked_lm_positions)
        return {
            "masked_lm_logits": self.predictions(masked, encoded["word_embeddings"]),
            "next_sentence_logits": self.seq_relationship(encoded["pooled_output"]),
        }


def encoder_inputs(
    max_seq_length: int | None, *, keyed_dropout: bool
) -> dict[str, Any]:
    """Symbolic inputs of the encoder, and where asked for the key of its dropout."""
    widths = dict.fromkeys(_SEQUENCE_INPUTS, max_seq_length)
    widths["next_sentence_positions"] = None
    if keyed_dropout:
        widths["dropout_key"] = 3
    return {
        name: keras.Input((width,), dtype="int32", name=name)
        for name, width in widths.items()
    }


def layer_settings(
    config: BertConfig,
    policy: PrecisionPolicy,
    seed: int,
    *,
    allow_fused: bool,
    recompute: bool = False,
    unpad: bool = True,
) -> LayerSettings:
    """What the layers of a model share; see `build_pretraining_model`."""
    is_fused = allow_fused and kernels.are_in_use() and not fused.why_not(config)
    return LayerSettings(
        config=config,
        policy=policy,
        seed=seed,
        fused_dtype=policy.fused_dtype if is_fused else None,
        unpads=unpad,
        packed=products.PackedKernels(),
        recomputes=recompute,
    )


def build_encoder_model(
    config: BertConfig,
    *,
    max_seq_length: int | None = None,
    policy: PrecisionPolicy = _DEFAULT_POLICY,
    seed: int = 0,
    allow_fused: bool = False,
) -> keras.Model:
    """A BERT without heads.

    Args:
      config: The architecture.
      max_seq_length: S, where it is known; any length otherwise.
      policy: Decides compute types.
      seed: Decides the initial weights.
      allow_fused: See `build_pretraining_model`.

    Returns:
      A model from a dict of int32 `input_ids, input_mask, segment_ids, positions`
      [B, S] and `next_sentence_positions` [B, K] to a dict of float32
      `sequence_output` [B, S, H] and `pooled_output` [B, K, H].
    """
    inputs = encoder_inputs(max_seq_length, keyed_dropout=False)
    outputs = Bert(layer_settings(config, policy, seed, allow_fused=allow_fused))(
        inputs
    )
    names = ("sequence_output", "pooled_output")
    return keras.Model(inputs, {name: outputs[name] for name in names}, name="encoder")


def build_pretraining_model(
    config: BertConfig,
    *,
    max_seq_length: int | None = None,
    policy: PrecisionPolicy = _DEFAULT_POLICY,
    seed: int = 0,
    keyed_dropout: bool = False,
    allow_fused: bool = False,
    recompute: bool = False,
    unpad: bool = True,
) -> keras.Model:
    """A BERT with masked-LM and next-sentence heads.

    Args:
      config: The architecture.
      max_seq_length: S, where it is known; any length otherwise.
      policy: Decides compute types.
      seed: Decides the initial weights.
      keyed_dropout: Whether dropout is decided by an input `dropout_key` [B, 3] (seed,
        step, place in the global batch) instead of the model's own generator.
      allow_fused: Use the fused operations where they are built and the policy allows
        them; XLA cannot compile them.
      recompute: Keep only each encoder layer's input for the backward pass, which
        makes the rest again: less memory, a third more products.
      unpad: Leave out of the encoder what stands behind the tokens of each row, and of
        its last layer what no head reads, where it computes by the fused operations.

    Returns:
      A model from the inputs of `build_encoder_model` and `masked_lm_positions`
      [B, P] to a dict of float32 `masked_lm_logits` [B, P, V] and
      `next_sentence_logits` [B, K, 2].
    """
    settings = layer_settings(
        config,
        policy,
        seed,
        allow_fused=allow_fused,
        recompute=recompute,
        unpad=unpad,
    )
    inputs = encoder_inputs(max_seq_length, keyed_dropout=keyed_dropout)
    positions = keras.Input((None,), dtype="int32", name="masked_lm_positions")
    bert = Bert(settings)
    encoded = bert({**inputs, "read_positions": positions})
    logits = PretrainingHeads(settings, bert)(encoded, positions)
    every_input = {**inputs, "masked_lm_positions": positions}
    return keras.Model(every_input, logits, name="pretraining")
