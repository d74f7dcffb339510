"""Whole models: inputs to logits, as functional Keras models."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.choice import Backends, Block
from bert_tf.modeling.backends.interface import MaskedLmWeights
from bert_tf.modeling.backends.step import StepScope
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import (
    BertLayer,
    Dense,
    LayerNorm,
    LayerSettings,
    OutputLayer,
)
from bert_tf.precision import PrecisionPolicy

_DEFAULT_POLICY = PrecisionPolicy()
_SEQUENCE_INPUTS = ("input_ids", "input_mask", "segment_ids", "positions")


class Transform(BertLayer):
    """Variables of what stands before the tied output layer."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="transform")
        self.dense = Dense(settings, self.config.hidden_size, "dense")
        self.layer_norm = LayerNorm(settings)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes projection and normalisation."""
        self.dense.build(input_shape)
        self.layer_norm.build(input_shape)


class Predictions(BertLayer):
    """The masked-LM head, whose output layer is the transposed word table."""

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
        self.backend = self.settings.backends.choose_backend(self.path)

    @property
    def block(self) -> MaskedLmWeights:
        """For the backend."""
        transform = self.transform
        return MaskedLmWeights(
            transform.dense.pair,
            transform.layer_norm.pair,
            self.word_embeddings(),
            self.output_bias,
        )

    def call(self, inputs: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """[B, P, H] -> logits [B, P, V]; with labels [B, P] their losses [B, P]."""
        if labels is None:
            return self.backend.masked_lm_logits(inputs, self.block)
        return self.backend.masked_lm_losses(inputs, self.block, labels)


class PretrainingHeads(BertLayer):
    """Both heads of pre-training, under the original scope `cls`."""

    def __init__(self, settings: LayerSettings, bert: Bert) -> None:
        super().__init__(settings, name="cls")
        embeddings = bert.embeddings
        self.predictions = Predictions(settings, lambda: embeddings.word_embeddings)
        # Class 0 is "follows", class 1 is "random".
        self.seq_relationship = OutputLayer(settings, 2, "seq_relationship")

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes both heads."""
        self.predictions.build()
        self.seq_relationship.build()

    def blocks(self) -> list[Block]:
        """The masked-LM head."""
        return [(self.predictions.backend, self.predictions.block)]

    def call(
        self,
        encoded: dict[str, tf.Tensor],
        masked_lm_positions: tf.Tensor,
        masked_lm_ids: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The outputs of `Bert` and [B, P] -> what `build_pretraining_model` says.

        With `masked_lm_ids` [B, P] it is `masked_lm_losses` [B, P] instead of logits.
        """
        masked = ops.gather_rows(encoded["sequence_output"], masked_lm_positions)
        name = "masked_lm_logits" if masked_lm_ids is None else "masked_lm_losses"
        return {
            name: self.predictions(masked, masked_lm_ids),
            "next_sentence_logits": self.seq_relationship(encoded["pooled_output"]),
        }


class PretrainingModel(keras.Model):
    """A functional model from the inputs of pre-training to both heads' logits.

    Attributes:
      with_labels: The same graph for training: from these inputs and `masked_lm_ids`
        [B, P] to `masked_lm_losses` [B, P] in nats, and `next_sentence_logits`. No
        masked-LM logits need be kept for the backward pass.
    """

    def __init__(
        self,
        inputs: dict[str, Any],
        logits: dict[str, Any],
        with_labels: keras.Model,
    ) -> None:
        super().__init__(inputs=inputs, outputs=logits, name="pretraining")
        self.with_labels = with_labels


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
    backends = Backends(config, policy, allow_fused=allow_fused, unpads=unpad)
    return LayerSettings(config, backends, seed, recompute)


def backends_of(model: keras.Model) -> Backends:
    """The backends of a model's layers."""
    return _bert_layers(model)[0].settings.backends


def step_scope(model: keras.Model, *, accumulates: bool = False) -> StepScope:
    """What the calls of a step, or of an evaluation, share; see `StepScope`."""
    blocks = [block for layer in _bert_layers(model) for block in layer.blocks()]
    return backends_of(model).step_scope(blocks, accumulates=accumulates)


def _bert_layers(model: keras.Model) -> list[BertLayer]:
    return [layer for layer in model.layers if isinstance(layer, BertLayer)]


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
) -> PretrainingModel:
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
    heads = PretrainingHeads(settings, bert)
    inputs |= {"masked_lm_positions": positions}
    labels = keras.Input((None,), dtype="int32", name="masked_lm_ids")
    return PretrainingModel(
        inputs,
        heads(encoded, positions),
        keras.Model(
            {**inputs, "masked_lm_ids": labels},
            heads(encoded, positions, labels),
            name="pretraining_losses",
        ),
    )
