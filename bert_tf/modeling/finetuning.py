"""Fine-tuning: heads for answers, classes, numbers, tags, choices; models and losses.

A new head is a layer, a function that builds its model, and a `FinetuningTask`, here.
"""

import abc
from typing import Any, Unpack

import keras
import numpy as np
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.step import ModelStep
from bert_tf.modeling.bert_model import BertModel, Tensors
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import BertLayer, LayerSettings, OutputLayer
from bert_tf.modeling.models import (
    ModelOptions,
    cross_entropy,
    encoder_inputs,
    loss_logits,
    model_outputs,
    step_scope,
)


@keras.saving.register_keras_serializable(package="bert_tf")
class SpanHead(BertLayer):
    """Logits of beginning and end, under the original scope `cls/squad`."""

    def __init__(self, settings: LayerSettings) -> None:
        super().__init__(settings, name="cls")
        self.squad = OutputLayer(settings, 2, "squad")

    def build(self, *_: object) -> None:
        self.squad.build()

    def call(self, sequence_output: tf.Tensor) -> tf.Tensor:
        """[B, S, H] -> [B, S, 2] float32."""
        return self.squad(sequence_output)


@keras.saving.register_keras_serializable(package="bert_tf")
class ClassifierHead(OutputLayer):
    """Dropout and logits of each sequence's pooled vector, or of each token."""

    def __init__(
        self, settings: LayerSettings, num_outputs: int, dropout_rate: float
    ) -> None:
        super().__init__(settings, num_outputs, "classifier")
        self.dropout_rate = dropout_rate

    def get_config(self) -> dict[str, Any]:
        own = {"num_outputs": self.num_outputs, "dropout_rate": self.dropout_rate}
        return super().get_config() | own

    def call(
        self,
        pooled_output: tf.Tensor,
        dropout_seed: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """[B, K, H] and [B, 3] -> [B, K, C] float32."""
        dropout = self.dropout(self.dropout_rate, dropout_seed, training)
        return super().call(pooled_output, dropout)


@keras.saving.register_keras_serializable(package="bert_tf")
class SpanModel(BertModel):
    """See `build_span_model`; labels of `fit` are those of `SpanTask`, or of K = 1."""

    labels = ("start_positions", "end_positions")

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        return build_span_model(**arguments)

    def targets(self, x: Tensors, y: Tensors, weights: Tensors) -> tuple[Any, Any]:
        if isinstance(y, tuple | list) and len(y) == 2:
            y = dict(zip(self.labels, y, strict=True))
        if y is None and isinstance(x, dict) and set(self.labels) <= x.keys():
            y = {name: x[name] for name in self.labels}
        return keras.tree.map_structure(_of_sequences, (y, weights))

    def task_loss(
        self, x: Tensors, y: Tensors, y_pred: dict[str, tf.Tensor], weights: Tensors
    ) -> tf.Tensor:
        if not isinstance(y, dict) or y.keys() != set(self.labels):
            raise ValueError(
                f"The labels must be a dict of {' and '.join(self.labels)}. Received: "
                f"{', '.join(y) if isinstance(y, dict) else type(y).__name__}. Pass "
                "them, or a loss to `compile`."
            )
        inputs = self.checked(x)
        mask = inputs.get("input_mask", tf.ones_like(inputs["input_ids"]))
        return _mean_loss(SpanTask(self), y_pred, y | {"input_mask": mask}, weights)


@keras.saving.register_keras_serializable(package="bert_tf")
class ClassifierModel(BertModel):
    """See `build_classifier_model`.

    Labels of `fit` are classes [B] or [B, K], or numbers of a model with one output; or
    of tokens classes [B, S], negative where there is none.
    """

    labels = ("labels",)

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        return build_classifier_model(**arguments)

    def targets(self, x: Tensors, y: Tensors, weights: Tensors) -> tuple[Any, Any]:
        if y is None and isinstance(x, dict):
            y = x.get("labels")
        return keras.tree.map_structure(_of_sequences, (y, weights))

    def task_loss(
        self, x: Tensors, y: Tensors, y_pred: dict[str, tf.Tensor], weights: Tensors
    ) -> tf.Tensor:
        del x
        y = y.get("class_logits", y.get("labels")) if isinstance(y, dict) else y
        of_tokens = self._arguments["of_tokens"]
        if y_pred["class_logits"].shape[-1] == 1 and not of_tokens:
            features = {"labels": tf.cast(y, tf.float32)}
            return _mean_loss(RegressionTask(self), y_pred, features, weights)
        if y is None or not y.dtype.is_integer:
            raise ValueError(
                "The labels must be numbers of classes. Received: "
                f"{'none' if y is None else f'type {y.dtype.name}'}. Cast them, or for "
                "probabilities of classes pass `loss` to `compile`."
            )
        if of_tokens:
            task, features = TagTask(self), {"tags": tf.cast(y, tf.int32)}
            tagged = task.weights(features)
            weights = (
                tagged if weights is None else tagged * tf.cast(weights, tf.float32)
            )
            total = _mean_loss(task, y_pred, features, weights)
            return tf.math.divide_no_nan(total, tf.reduce_mean(tagged))
        return _mean_loss(ClassTask(self), y_pred, {"labels": y}, weights)


def _of_sequences(x: tf.Tensor | None) -> tf.Tensor | None:
    """[B] -> [B, 1], of rows with one sequence."""
    return x[:, None] if x is not None and len(x.shape) == 1 else x


def _mean_loss(
    task: "FinetuningTask",
    y_pred: dict[str, tf.Tensor],
    features: dict[str, tf.Tensor],
    weights: tf.Tensor | None,
) -> tf.Tensor:
    """The mean over all examples, of each loss times its sample weight, as in Keras."""
    losses = task.losses(y_pred[task.output], features)
    if weights is not None:
        losses *= tf.cast(weights, losses.dtype)
    return tf.reduce_mean(losses)


def build_span_model(
    config: BertConfig,
    *,
    max_seq_length: int | None = None,
    **options: Unpack[ModelOptions],
) -> SpanModel:
    """A BERT that finds answers.

    Args:
      config: The architecture.
      max_seq_length: S; None for any length.
      options: See `ModelOptions`.

    Returns:
      A model from the inputs of `BertModel` to
      `span_logits` [B, S, 2] float32: of the answer's start and of its end.
    """
    settings = LayerSettings.make(config, **options)
    inputs = encoder_inputs(max_seq_length, seeded_dropout=True)
    encoded = Bert(settings)(inputs)
    logits = SpanHead(settings)(encoded["sequence_output"])
    return SpanModel(
        inputs,
        {"span_logits": logits},
        name="span_model",
        settings=settings,
        max_seq_length=max_seq_length,
    )


def build_classifier_model(
    config: BertConfig,
    num_outputs: int,
    dropout_before_logits: float = 0.1,
    *,
    of_tokens: bool = False,
    max_seq_length: int | None = None,
    **options: Unpack[ModelOptions],
) -> ClassifierModel:
    """A BERT that classifies sequences or tokens, or gives each sequence a number.

    Args:
      config: The architecture.
      num_outputs: C, the number of classes; 1 for a number.
      dropout_before_logits: Rate for the head's input, in training.
      of_tokens: Whether tokens are classified, without a pooler.
      max_seq_length: S; None for any length.
      options: See `ModelOptions`.

    Returns:
      A model from the inputs of `BertModel` to
      `class_logits` [B, K, C] float32, or [B, S, C] of tokens.

    Raises:
      ValueError: if `num_outputs` is no whole number above 0.
    """
    is_number = isinstance(num_outputs, int | np.integer)
    if isinstance(num_outputs, bool) or not is_number or num_outputs < 1:
        raise ValueError(
            "`num_outputs` must be a whole number of 1 or more. Received: "
            f"num_outputs={num_outputs!r}. Pass the number of classes."
        )
    num_outputs = int(num_outputs)
    settings = LayerSettings.make(config, **options)
    inputs = encoder_inputs(max_seq_length, seeded_dropout=True)
    if of_tokens:
        vectors = Bert(settings, has_pooler=False)(inputs)["sequence_output"]
    else:
        read = {"read_positions": inputs["next_sentence_positions"]}
        vectors = Bert(settings)(inputs | read)["pooled_output"]
    head = ClassifierHead(settings, num_outputs, dropout_before_logits)
    logits = head(vectors, inputs["dropout_seed"])
    return ClassifierModel(
        inputs,
        {"class_logits": logits},
        name="classifier_model",
        settings=settings,
        num_outputs=num_outputs,
        dropout_before_logits=dropout_before_logits,
        of_tokens=of_tokens,
        max_seq_length=max_seq_length,
    )


class FinetuningTask(abc.ABC):
    """A model and its loss, one for each example of a row; see `training.gradients`.

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

    def weights(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The weight of each loss in the mean, 0 where there is no example."""
        return features["example_weights"]

    def counts(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The sum of the weights that the loss is a mean with: [1] float32."""
        return tf.reduce_sum(self.weights(features))[None]

    def loss_sums(self, features: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        """Summed loss of one micro-batch: [1] float32.

        Args:
          features: Inputs of the model, labels and `example_weights` [B, K].
          training: Whether dropout is on.
        """
        logits = self.logits(features, training=training)
        losses = self.losses(logits, features)
        return tf.reduce_sum(losses * self.weights(features))[None]

    def logits(
        self, features: dict[str, tf.Tensor], *, training: bool = False
    ) -> tf.Tensor:
        """The model's output."""
        return model_outputs(self.model, features, training)[self.output]

    @abc.abstractmethod
    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """The loss of each example: [B, K] float32; any number where there is none."""

    def step_scope(self, *, accumulates: bool = False) -> ModelStep:
        """See `models.step_scope`."""
        return step_scope(self.model, accumulates=accumulates)


class SpanTask(FinetuningTask):
    """Start and end of an answer: labels `start_positions, end_positions` [B, K].

    The softmax of an example is over its own tokens. Departure from
    google-research/bert: its softmax includes the padding.
    """

    output = "span_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mean of both cross entropies in nats, from [B, S, 2]."""
        numbers = tf.range(1, tf.shape(features["start_positions"])[1] + 1)
        is_own = features["input_mask"][:, None, :] == numbers[:, None]  # [B, K, S]
        total = 0.0
        names = ("start_positions", "end_positions")
        for name, scores in zip(names, tf.unstack(logits, axis=-1), strict=True):
            own = tf.where(is_own, scores[:, None, :], ops.MASKED_SCORE)
            total += cross_entropy(self.model, "cls/squad", own, features[name])
        return total / 2.0


class ClassTask(FinetuningTask):
    """One of C classes: `labels` [B, K] int32."""

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Cross entropy in nats, from [B, K, C]."""
        return cross_entropy(self.model, "classifier", logits, features["labels"])


class RegressionTask(FinetuningTask):
    """A number: `labels` [B, K] float32."""

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Squared error, from [B, K, 1]."""
        return tf.square(logits[..., 0] - features["labels"])


class LabelTask(FinetuningTask):
    """Any number of C labels: `labels` [B, K, C] float32, 1 or 0 for each."""

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mean binary cross entropy of the labels in nats, from [B, K, C]."""
        logits = loss_logits(self.model, "classifier", logits)
        each = tf.nn.sigmoid_cross_entropy_with_logits(features["labels"], logits)
        return tf.reduce_mean(each, axis=-1)


class ChoiceTask(FinetuningTask):
    """One of N sequences of an example: `labels` [B, K] int32, its number.

    The sequences of an example are consecutive, in one row.
    """

    output = "class_logits"

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Cross entropy over the sequences in nats, from [B, K x N, 1]."""
        rows, examples = tf.unstack(tf.shape(features["labels"]))
        scores = tf.reshape(logits, [rows, examples, -1])
        return cross_entropy(self.model, "classifier", scores, features["labels"])


class TagTask(FinetuningTask):
    """A class for each tagged token: `tags` [B, S] int32, negative for no tag.

    The loss is a mean over all tagged tokens.
    """

    output = "class_logits"

    def weights(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """1 for each tagged token: [B, S]."""
        return tf.cast(features["tags"] >= 0, tf.float32)

    def losses(self, logits: tf.Tensor, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Cross entropy in nats, from [B, S, C]."""
        tags = tf.maximum(features["tags"], 0)
        return cross_entropy(self.model, "classifier", logits, tags)
