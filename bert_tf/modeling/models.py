"""What all models share: settings, inputs, calls and step scopes; and the encoder."""

from typing import Any, TypedDict, Unpack

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.choice import Backends
from bert_tf.modeling.backends.step import ModelStep
from bert_tf.modeling.bert_model import BertModel
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import BertLayer, LayerSettings
from bert_tf.precision import PrecisionPolicy

_SEQUENCE_INPUTS = ("input_ids", "input_mask", "segment_ids", "positions")


class ModelOptions(TypedDict, total=False):
    """Keyword arguments of every function that builds a model.

    Attributes:
      policy: Decides compute types. Default: as Keras's global dtype policy says, see
        `precision.policy_of_keras`.
      seed: Decides the initial weights. Default: 0.
      allow_fused: Use the fused operations where they are built and the policy allows
        them; XLA cannot compile them. Default: False.
      recompute: Keep only each encoder layer's input for the backward pass, which
        computes the rest again: less memory, a third more products. Default: False.
      unpad: In fused layers, leave out the padding after the tokens of each row, and in
        the last one the positions that no head reads. Default: True.
      frozen_layers: Compute no gradient of the embeddings and of so many of the lowest
        encoder layers. Default: None, of all.
    """

    policy: PrecisionPolicy
    seed: int
    allow_fused: bool
    recompute: bool
    unpad: bool
    frozen_layers: int | None


def encoder_inputs(
    max_seq_length: int | None, *, seeded_dropout: bool
) -> dict[str, Any]:
    """Symbolic inputs of the encoder, with `dropout_seed` if it is `seeded_dropout`."""
    widths = dict.fromkeys(_SEQUENCE_INPUTS, max_seq_length)
    widths["next_sentence_positions"] = None
    if seeded_dropout:
        widths["dropout_seed"] = 3
    return {
        name: keras.Input((width,), dtype="int32", name=name)
        for name, width in widths.items()
    }


@keras.saving.register_keras_serializable(package="bert_tf")
class EncoderModel(BertModel):
    """See `build_encoder_model`."""

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        return build_encoder_model(**arguments)


def build_encoder_model(
    config: BertConfig,
    *,
    max_seq_length: int | None = None,
    **options: Unpack[ModelOptions],
) -> EncoderModel:
    """A BERT without heads.

    Args:
      config: The architecture.
      max_seq_length: S; None for any length.
      options: See `ModelOptions`.

    Returns:
      A model from the inputs of `BertModel` to a dict of float32 `sequence_output`
      [B, S, H] and `pooled_output` [B, K, H].
    """
    settings = LayerSettings.make(config, **options)
    inputs = encoder_inputs(max_seq_length, seeded_dropout=False)
    outputs = Bert(settings)(inputs)
    names = ("sequence_output", "pooled_output")
    return EncoderModel(
        inputs,
        {name: outputs[name] for name in names},
        name="encoder",
        settings=settings,
        max_seq_length=max_seq_length,
    )


def model_outputs(
    model: keras.Model, features: dict[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """The outputs of a model with seeded dropout, for features that hold its inputs."""
    features = dict(features)
    if not training:  # Without effect, but an input.
        rows = tf.shape(features["input_ids"])[0]
        features["dropout_seed"] = tf.zeros([rows, 3], tf.int32)
    inputs = {tensor.name: features[tensor.name] for tensor in model.inputs}
    return model(inputs, training=training)


def cross_entropy(
    model: keras.Model, head: str, logits: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """`ops.cross_entropy` of the logits of a head, in the type that its policy says."""
    return ops.cross_entropy(loss_logits(model, head, logits), labels)


def loss_logits(model: keras.Model, head: str, logits: tf.Tensor) -> tf.Tensor:
    """The logits of a head, rounded to the type that its policy says for the loss."""
    if settings := settings_of(model):
        logits = ops.rounded(logits, settings.backends.loss_dtype(head))
    return logits


def settings_of(model: keras.Model) -> LayerSettings | None:
    """The settings of a model's layers; None if it has no BERT in it."""
    layers = _bert_layers(model)
    return layers[0].settings if layers else None


def backends_of(model: keras.Model) -> Backends:
    """The backends of a model's layers."""
    return settings_of(model).backends


def step_scope(model: keras.Model, *, accumulates: bool = False) -> ModelStep:
    """A scope for the calls of an optimizer step, or of an evaluation.

    Args:
      model: The model.
      accumulates: Whether the gradients of some kernels are added up over the calls
        inside, see `ModelStep.sums`.
    """
    blocks = [block for layer in _bert_layers(model) for block in layer.blocks()]
    return backends_of(model).step_scope(blocks, accumulates=accumulates)


def _bert_layers(model: keras.Model) -> list[BertLayer]:
    return [layer for layer in model.layers if isinstance(layer, BertLayer)]
