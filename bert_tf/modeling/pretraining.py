"""BERT's pre-training: both heads, the model, and its losses.

Losses and accuracies are sums and counts, so that they add up over any batches.
"""

from collections.abc import Callable
from typing import Any, Unpack

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.modeling import ops
from bert_tf.modeling.backends.choice import Block
from bert_tf.modeling.backends.interface import MaskedLmWeights
from bert_tf.modeling.backends.step import ModelStep
from bert_tf.modeling.bert_model import BertModel, Tensors
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.layers import (
    BertLayer,
    DenseNorm,
    LayerSettings,
    OutputLayer,
)
from bert_tf.modeling.models import (
    ModelOptions,
    cross_entropy,
    encoder_inputs,
    model_outputs,
    step_scope,
)

LOSS_NAMES = ("mlm_loss", "nsp_loss")


class Predictions(BertLayer):
    """The masked-LM head, whose output layer is the transposed word table."""

    def __init__(
        self, settings: LayerSettings, word_embeddings: Callable[[], keras.Variable]
    ) -> None:
        super().__init__(settings, name="predictions")
        self.transform = DenseNorm(settings, "transform")
        # A function, so that Keras does not count the variable as this layer's weight.
        self.word_embeddings = word_embeddings

    def build(self, *_: object) -> None:
        self.transform.build((None, None, self.config.hidden_size))
        self.output_bias = self.add_weight(
            name="output_bias", shape=(self.config.vocab_size,), initializer="zeros"
        )
        self.backend = self.settings.backends.choose_backend(self.path)

    @property
    def block(self) -> MaskedLmWeights:
        """The weights as the backend takes them."""
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


@keras.saving.register_keras_serializable(package="bert_tf")
class PretrainingHeads(BertLayer):
    """The heads of pre-training, under the original scope `cls`.

    That of next-sentence prediction needs the pooler: without one there is none.
    """

    def __init__(self, settings: LayerSettings, bert: Bert) -> None:
        super().__init__(settings, name="cls")
        self._bert = lambda: bert
        embeddings = bert.embeddings
        self.predictions = Predictions(settings, lambda: embeddings.word_embeddings)
        # Class 0 is "follows", class 1 is "random".
        self.seq_relationship = None
        if bert.pooler:
            self.seq_relationship = OutputLayer(settings, 2, "seq_relationship")

    def get_config(self) -> dict[str, Any]:
        bert = keras.saving.serialize_keras_object(self._bert())
        return super().get_config() | {"bert": bert}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PretrainingHeads":
        if "shared_object_id" not in config["bert"]:
            raise ValueError(
                "The masked-LM head shares the word embeddings, which `clone_model` "
                "cannot keep. Save and load the model, or build another."
            )
        # In a file of Keras this is the very layer of the graph.
        bert = keras.saving.deserialize_keras_object(config["bert"])
        return super().from_config(config | {"bert": bert})

    def build(self, *_: object) -> None:
        self.predictions.build()
        if self.seq_relationship:
            self.seq_relationship.build()

    def blocks(self) -> list[Block]:
        return [(self.predictions.backend, self.predictions.block)]

    def call(
        self,
        encoded: dict[str, tf.Tensor],
        masked_lm_positions: tf.Tensor,
        masked_lm_ids: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The outputs of `Bert` to those of `build_pretraining_model`.

        With `masked_lm_ids` [B, P], to `masked_lm_losses` [B, P] instead of logits.
        """
        masked = ops.gather_rows(encoded["sequence_output"], masked_lm_positions)
        name = "masked_lm_logits" if masked_lm_ids is None else "masked_lm_losses"
        outputs = {name: self.predictions(masked, masked_lm_ids)}
        if self.seq_relationship:
            pooled = encoded["pooled_output"]
            outputs["next_sentence_logits"] = self.seq_relationship(pooled)
        return outputs


@keras.saving.register_keras_serializable(package="bert_tf")
class PretrainingModel(BertModel):
    """A functional model from the inputs of pre-training to both heads' logits.

    `fit` takes batches of record features: labels may be among the inputs.
    """

    labels = (
        *("masked_lm_ids", "masked_lm_weights"),
        *("next_sentence_labels", "next_sentence_weights"),
    )

    def __init__(self, *graph: Any, with_labels: keras.Model, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*graph, **settings)
        # A function, so that Keras does not count its layers twice.
        self._with_labels = lambda: with_labels

    @property
    def with_labels(self) -> keras.Model:
        """The same graph for training.

        From these inputs and `masked_lm_ids` [B, P] to `masked_lm_losses` [B, P] in
        nats, and `next_sentence_logits`. The backward pass need not keep masked-LM
        logits in float32.
        """
        return self._with_labels()

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        return build_pretraining_model(**arguments)

    def targets(self, x: Tensors, y: Tensors, weights: Tensors) -> tuple[Any, Any]:
        """Labels and weights of each output, for those of record features."""
        features = (x if isinstance(x, dict) else {}) if y is None else y
        if not isinstance(features, dict) or "masked_lm_ids" not in features:
            return y, weights
        y = {"masked_lm_logits": features["masked_lm_ids"]}
        if "masked_lm_weights" not in features:
            raise ValueError(
                "The labels must have `masked_lm_weights`, 1 for each of "
                f"`masked_lm_ids` and 0 for padding. Received: {', '.join(features)}."
            )
        weights = {"masked_lm_logits": features["masked_lm_weights"]}
        if "next_sentence_labels" in features and "next_sentence_logits" in self.output:
            labels = features["next_sentence_labels"]
            y["next_sentence_logits"] = labels
            weights["next_sentence_logits"] = features.get(
                "next_sentence_weights", tf.ones_like(labels, tf.float32)
            )
        return y, weights

    def task_loss(
        self, x: Tensors, y: Tensors, y_pred: dict[str, tf.Tensor], weights: Tensors
    ) -> tf.Tensor:
        """The sum of the mean losses of both heads, or of the first one's alone."""
        del x
        if not isinstance(y, dict) or not isinstance(weights, dict):
            raise ValueError(
                "The labels must be a dict of record features: "
                f"{', '.join(self.labels)}. Received: {type(y).__name__}. Pass them, "
                "or a loss to `compile`."
            )
        total = 0.0
        for name, labels in y.items():
            losses = cross_entropy(self, _SCOPES[name], y_pred[name], labels)
            counted = tf.cast(weights[name] > 0, tf.float32)
            count = tf.reduce_sum(counted)
            total += tf.math.divide_no_nan(tf.reduce_sum(losses * counted), count)
        return total


_SCOPES = {
    "masked_lm_logits": "cls/predictions",
    "next_sentence_logits": "cls/seq_relationship",
}


def build_pretraining_model(
    config: BertConfig,
    *,
    max_seq_length: int | None = None,
    seeded_dropout: bool = False,
    do_nsp: bool = True,
    **options: Unpack[ModelOptions],
) -> PretrainingModel:
    """A BERT with masked-LM and next-sentence heads.

    Args:
      config: The architecture.
      max_seq_length: S; None for any length.
      seeded_dropout: Whether an input `dropout_seed` [B, 3] decides dropout (seed,
        step, number of the row in the global batch) instead of the model's own
        generator.
      do_nsp: Whether there is next-sentence prediction; without it the model has no
        pooler, either.
      options: See `ModelOptions`.

    Returns:
      A model from the inputs of `BertModel` and `masked_lm_positions`
      [B, P] to a dict of float32 `masked_lm_logits` [B, P, V] and, with `do_nsp`,
      `next_sentence_logits` [B, K, 2].
    """
    settings = LayerSettings.make(config, **options)
    inputs = encoder_inputs(max_seq_length, seeded_dropout=seeded_dropout)
    positions = keras.Input((None,), dtype="int32", name="masked_lm_positions")
    bert = Bert(settings, has_pooler=do_nsp)
    encoded = bert({**inputs, "read_positions": positions})
    heads = PretrainingHeads(settings, bert)
    inputs |= {"masked_lm_positions": positions}
    labels = keras.Input((None,), dtype="int32", name="masked_lm_ids")
    return PretrainingModel(
        inputs,
        heads(encoded, positions),
        with_labels=keras.Model(
            {**inputs, "masked_lm_ids": labels},
            heads(encoded, positions, labels),
            name="pretraining_losses",
        ),
        name="pretraining",
        settings=settings,
        max_seq_length=max_seq_length,
        seeded_dropout=seeded_dropout,
        do_nsp=do_nsp,
    )


class PretrainingTask:
    """Masked-LM and next-sentence losses of a pre-training model.

    Attributes:
      model: What `build_pretraining_model` returns.
      loss_names: Names of the L losses whose means are added up; the second one only
        of a model with next-sentence prediction.
    """

    def __init__(self, model: PretrainingModel, do_nsp: bool = True) -> None:
        self.model = model
        self.loss_names = LOSS_NAMES if do_nsp else LOSS_NAMES[:1]
        self._do_nsp = do_nsp

    def counts(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """How many predictions each loss is a mean of.

        Args:
          features: Record features with any leading axes.

        Returns:
          [L] float32: masked tokens, and sequences with a next-sentence label.
        """
        weights = _weights(features)[: len(self.loss_names)]
        return tf.stack([tf.reduce_sum(each) for each in weights])

    def loss_sums(self, features: dict[str, tf.Tensor], *, training: bool) -> tf.Tensor:
        """Summed losses of one micro-batch.

        Args:
          features: Inputs of the model, labels and weights; [B, ...].
          training: Whether dropout is on.

        Returns:
          [L] float32, in nats, in the order of `loss_names`.
        """
        outputs = model_outputs(self.model.with_labels, features, training)
        losses = [outputs["masked_lm_losses"]]
        if self._do_nsp:
            logits, (_, follows) = outputs["next_sentence_logits"], _labels(features)
            scope = "cls/seq_relationship"
            losses.append(cross_entropy(self.model, scope, logits, follows))
        pairs = zip(losses, _weights(features), strict=False)
        return tf.stack([tf.reduce_sum(loss * weights) for loss, weights in pairs])

    def step_scope(self, *, accumulates: bool = False) -> ModelStep:
        """See `models.step_scope`."""
        return step_scope(self.model, accumulates=accumulates)

    def evaluation_sums(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Loss sum, hits and count of both predictions: [2, 3] float32.

        Without next-sentence prediction the second row has only the count.
        """
        outputs = model_outputs(self.model, features, training=False)
        logits = (outputs["masked_lm_logits"], outputs.get("next_sentence_logits"))
        rows = []
        for x, y, w in zip(logits, _labels(features), _weights(features), strict=True):
            loss = hits = 0.0
            if x is not None:
                loss = tf.reduce_sum(ops.cross_entropy(x, y) * w)
                hits = tf.reduce_sum(_hits(x, y) * w)
            rows.append([loss, hits, tf.reduce_sum(w)])
        return tf.convert_to_tensor(rows)


def _hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1 where the largest logit is the label's: [B, P] float32."""
    guess = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.cast(tf.equal(guess, labels), tf.float32)


def _labels(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels of both predictions, int32."""
    return features["masked_lm_ids"], features["next_sentence_labels"]


def _weights(features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """1 for a real prediction, 0 for padding; packed records store other numbers."""
    weights = (features["masked_lm_weights"], features["next_sentence_weights"])
    return tuple(tf.cast(w > 0, tf.float32) for w in weights)
