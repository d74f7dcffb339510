"""Losses and predictions of fine-tuning, each example of a row by itself."""

import abc

import keras
import tensorflow as tf

from bert_tf.modeling.backends.step import StepScope
from bert_tf.modeling.losses import model_outputs
from bert_tf.modeling.tasks import step_scope

# What a place of another sequence gets before a softmax.
_NEVER = -1e9


class FinetuningTask(abc.ABC):
    """What both kinds of fine-tuning share; a task for `training.gradients`.

    Attributes:
      model: A model of `finetuning`.
      loss_names: One loss.
      output: Name of the model's output.
      num_outputs: Logits of each token, or of each example.
    """

    loss_names = ("loss",)
    output: str

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.num_outputs = model.output[self.output].shape[-1]

    def counts(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """How many examples the loss is a mean of: [1] float32."""
        return tf.reduce_sum(features["example_weights"])[None]

    def loss_sums(self, features: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        """Summed loss of one micro-batch: [1] float32.

        Args:
          features: Inputs of the model, labels and `example_weights` [B, K].
          training: Whether dropout is on.
        """
        logits = self.logits(features, training=training)
        losses = self.losses(logits, features)
        return tf.reduce_sum(losses * features["example_weights"])[None]

    def logits(
        self, features: dict[str, tf.Tensor], *, training: bool = False
    ) -> tf.Tensor:
        """The model's only output."""
        return model_outputs(self.model, features, training)[self.output]

    @abc.abstractmethod
    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The loss of each example: [B, K] float32; anything where there is none."""

    def step_scope(self, *, accumulates: bool = False) -> StepScope:
        """What the calls of a step, or of an evaluation, share."""
        return step_scope(self.model, accumulates=accumulates)


class SpanTask(FinetuningTask):
    """Beginning and end of an answer: labels `start_positions, end_positions` [B, K].

    The softmax of an example is over its own tokens. Departure from the original: there
    it is over the padding too.
    """

    output = "span_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mean of both cross entropies in nats, from [B, S, 2]."""
        slots = tf.range(1, tf.shape(features["start_positions"])[1] + 1)
        is_own = features["input_mask"][:, None, :] == slots[:, None]  # [B, K, S]
        total = 0.0
        names = ("start_positions", "end_positions")
        for name, scores in zip(names, tf.unstack(logits, axis=-1), strict=True):
            own = tf.where(is_own, scores[:, None, :], _NEVER)
            total += tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=features[name], logits=own
            )
        return total / 2.0


class ClassTask(FinetuningTask):
    """One of C classes: `labels` [B, K] int32."""

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Cross entropy in nats, from [B, K, C]."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=features["labels"], logits=logits
        )


class RegressionTask(FinetuningTask):
    """A number: `labels` [B, K] float32."""

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Squared error, from [B, K, 1]."""
        return tf.square(logits[..., 0] - features["labels"])
