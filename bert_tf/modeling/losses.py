"""Loss and accuracy as sums and counts, so that they add up over any batches."""

import keras
import tensorflow as tf

from bert_tf.modeling import ops
from bert_tf.modeling.backends.step import StepScope
from bert_tf.modeling.tasks import PretrainingModel, step_scope

LOSS_NAMES = ("mlm_loss", "nsp_loss")


def _hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1 where the largest logit is the label's: [B, P] float32."""
    guess = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.cast(tf.equal(guess, labels), tf.float32)


def model_outputs(
    model: keras.Model, features: dict[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """The outputs of a model with keyed dropout, for features that hold its inputs."""
    features = dict(features)
    if not training:  # A key has no effect then, but is an input.
        rows = tf.shape(features["input_ids"])[0]
        features["dropout_key"] = tf.zeros([rows, 3], tf.int32)
    inputs = {tensor.name: features[tensor.name] for tensor in model.inputs}
    return model(inputs, training=training)


class PretrainingTask:
    """Masked-LM and next-sentence losses of a pre-training model.

    Attributes:
      model: What `build_pretraining_model` returns.
      loss_names: Names of the losses whose means are added up.
    """

    loss_names = LOSS_NAMES

    def __init__(self, model: PretrainingModel) -> None:
        self.model = model

    def counts(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """How many predictions each loss is a mean of.

        Args:
          features: Record features with any leading axes.

        Returns:
          [2] float32: masked tokens, and sequences with a next-sentence label.
        """
        return tf.stack([tf.reduce_sum(weights) for weights in _weights(features)])

    def loss_sums(self, features: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        """Summed losses of one micro-batch.

        Args:
          features: Inputs of the model, labels and weights; [B, ...].
          training: Whether dropout is on.

        Returns:
          [2] float32, in nats, in the order of `loss_names`.
        """
        outputs = model_outputs(self.model.with_labels, features, training)
        _, follows = _labels(features)
        losses = (
            outputs["masked_lm_losses"],
            ops.cross_entropy(outputs["next_sentence_logits"], follows),
        )
        pairs = zip(losses, _weights(features), strict=True)
        return tf.stack([tf.reduce_sum(loss * weights) for loss, weights in pairs])

    def step_scope(self, *, accumulates: bool = False) -> StepScope:
        """What the calls of a step, or of an evaluation, share."""
        return step_scope(self.model, accumulates=accumulates)

    def evaluation_sums(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Loss sum, hits and count of both predictions: [2, 3] float32."""
        outputs = model_outputs(self.model, features, training=False)
        logits = (outputs["masked_lm_logits"], outputs["next_sentence_logits"])
        rows = []
        for x, y, w in zip(logits, _labels(features), _weights(features), strict=True):
            loss = tf.reduce_sum(ops.cross_entropy(x, y) * w)
            rows.append([loss, tf.reduce_sum(_hits(x, y) * w), tf.reduce_sum(w)])
        return tf.convert_to_tensor(rows)


def _labels(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels of both predictions, int32."""
    return features["masked_lm_ids"], features["next_sentence_labels"]


def _weights(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """1 for a real prediction, 0 for padding; packed records store other numbers."""
    weights = (features["masked_lm_weights"], features["next_sentence_weights"])
    return tuple(tf.cast(w > 0, tf.float32) for w in weights)
