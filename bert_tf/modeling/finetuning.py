"""BERT with a head of fine-tuning: answer spans, or classes and numbers."""

from typing import Any

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import BertLayer, LayerSettings, OutputLayer
from bert_tf.modeling.tasks import encoder_inputs, layer_settings
from bert_tf.precision import PrecisionPolicy


class SpanHead(BertLayer):
    """Logits of beginning and end, under the original scope `cls/squad`."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="cls")
        self.squad = OutputLayer(settings, 2, "squad")

    def build(self, *_: Any) -> None:  # noqa: ANN401
        """Makes the output layer."""
        self.squad.build()

    def call(self, sequence_output: tf.Tensor) -> tf.Tensor:
        """[B, S, H] -> [B, S, 2] float32."""
        return self.squad(sequence_output)


class ClassifierHead(OutputLayer):
    """Dropout and logits of each sequence's pooled vector."""

    def __init__(
        self, settings: LayerSettings, num_outputs: int, dropout_rate: float
    ) -> None:
        super().__init__(settings, num_outputs, "classifier")
        self.dropout_rate = dropout_rate

    def call(
        self,
        pooled_output: tf.Tensor,
        dropout_seed: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, K, H] and [B, 3] -> [B, K, C] float32."""
        dropout = self.dropout(self.dropout_rate, dropout_seed, training)
        return super().call(ops.dropout(pooled_output, *dropout))


def build_span_model(
    config: BertConfig,
    *,
    max_seq_length: int,
    policy: PrecisionPolicy,
    seed: int = 0,
    allow_fused: bool = False,
    recompute: bool = False,
    unpad: bool = True,
) -> keras.Model:
    """A BERT that points at answers; see `build_pretraining_model` for the arguments.

    Returns:
      A model from the inputs of `build_encoder_model` and `dropout_key` [B, 3] to
      `span_logits` [B, S, 2] float32: of beginning and of end.
    """
    settings = layer_settings(
        config,
        policy,
        seed,
        allow_fused=allow_fused,
        recompute=recompute,
        unpad=unpad,
    )
    inputs = encoder_inputs(max_seq_length, keyed_dropout=True)
    encoded = Bert(settings)(inputs)
    logits = SpanHead(settings)(encoded["sequence_output"])
    return keras.Model(inputs, {"span_logits": logits}, name="span_model")


def build_classifier_model(
    config: BertConfig,
    num_outputs: int,
    dropout_before_logits: float = 0.1,
    *,
    max_seq_length: int,
    policy: PrecisionPolicy,
    seed: int = 0,
    allow_fused: bool = False,
    recompute: bool = False,
    unpad: bool = True,
) -> keras.Model:
    """A BERT that sorts sequences into classes, or gives each a number.

    Args:
      config: The architecture.
      num_outputs: C, the number of classes; 1 for a number.
      dropout_before_logits: Of the pooled vector, in training.
      max_seq_length: See `build_pretraining_model`, also for the rest.
      policy: Decides compute types.
      seed: Decides the initial weights.
      allow_fused: Use the fused operations.
      recompute: Make activations again.
      unpad: Leave out padding.

    Returns:
      A model from the inputs of `build_encoder_model` and `dropout_key` [B, 3] to
      `class_logits` [B, K, C] float32.
    """
    settings = layer_settings(
        config,
        policy,
        seed,
        allow_fused=allow_fused,
        recompute=recompute,
        unpad=unpad,
    )
    inputs = encoder_inputs(max_seq_length, keyed_dropout=True)
    read = {"read_positions": inputs["next_sentence_positions"]}
    pooled = Bert(settings)(inputs | read)["pooled_output"]
    head = ClassifierHead(settings, num_outputs, dropout_before_logits)
    logits = head(pooled, inputs["dropout_key"])
    return keras.Model(inputs, {"class_logits": logits}, name="classifier_model")
