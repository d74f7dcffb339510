"""Loss and accuracy as sums and counts, so that they add up over any batches."""

import contextlib

import keras
import tensorflow as tf

from bert_tf.modeling import ops, products

LOSS_NAMES = ("mlm_loss", "nsp_loss")


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[B, P, C] float32 and [B, P] int32 -> [B, P] float32, in nats."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


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

    def __init__(self, model: keras.Model) -> None:
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
        if training and self.model.get_layer("cls").settings.is_fused:
            losses = self._fused_losses(features)
        else:
            pairs = zip(
                self._logits(features, training), _labels(features), strict=True
            )
            losses = [_cross_entropy(logits, labels) for logits, labels in pairs]
        pairs = zip(losses, _weights(features), strict=True)
        return tf.stack([tf.reduce_sum(loss * weights) for loss, weights in pairs])

    def prepared(self) -> contextlib.AbstractContextManager[None]:
        """Does what all micro-batches of a step share, for the calls inside."""
        return products.packed_once(self.model)

    def adding_to(
        self, sums: dict[str, tf.Tensor]
    ) -> contextlib.AbstractContextManager[None]:
        """Makes gradients start from sums where that is cheaper; inside `prepared`."""
        return products.adding_to(self.model, sums)

    def _fused_losses(
        self, features: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Both cross entropies [B, P] and [B, K], without masked-LM logits."""
        heads = self.model.get_layer("cls")
        inputs = {tensor.name: features[tensor.name] for tensor in self.model.inputs}
        positions = inputs.pop("masked_lm_positions")
        inputs["read_positions"] = positions
        encoded = self.model.get_layer("bert")(inputs, training=True)
        masked = ops.gather_rows(encoded["sequence_output"], positions)
        words, follows = _labels(features)
        logits = heads.seq_relationship(encoded["pooled_output"])
        return (
            heads.predictions.losses(masked, encoded["word_embeddings"], words),
            _cross_entropy(logits, follows),
        )

    def evaluation_sums(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Loss sum, hits and count of both predictions: [2, 3] float32."""
        logits = self._logits(features, training=False)
        rows = []
        for x, y, w in zip(logits, _labels(features), _weights(features), strict=True):
            loss = tf.reduce_sum(_cross_entropy(x, y) * w)
            rows.append([loss, tf.reduce_sum(_hits(x, y) * w), tf.reduce_sum(w)])
        return tf.convert_to_tensor(rows)

    def _logits(
        self, features: dict[str, tf.Tensor], training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model_outputs(self.model, features, training)
        return outputs["masked_lm_logits"], outputs["next_sentence_logits"]


def _labels(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels of both predictions, int32."""
    return features["masked_lm_ids"], features["next_sentence_labels"]


def _weights(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """1 for a real prediction, 0 for padding; packed records store other numbers."""
    weights = (features["masked_lm_weights"], features["next_sentence_weights"])
    return tuple(tf.cast(w > 0, tf.float32) for w in weights)
