"""Vectors of sentences: their model, and the contrastive loss of pairs."""

from typing import Any, Unpack

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.distribute import Communicator
from bert_tf.modeling import ops
from bert_tf.modeling.bert_model import BertModel
from bert_tf.modeling.encoder import Bert
from bert_tf.modeling.finetuning import FinetuningTask
from bert_tf.modeling.layers import BertLayer, LayerSettings
from bert_tf.modeling.models import ModelOptions, encoder_inputs

Features = dict[str, tf.Tensor]

# What `SentenceTask.whole_batch` adds to the features of a step.
_GRADIENTS, _LOSSES = "vector_gradients", "pair_losses"


@keras.saving.register_keras_serializable(package="bert_tf")
class SentencePooling(BertLayer):
    """One vector of length 1 for each sequence; without weights."""

    def __init__(self, settings: LayerSettings, pooling: str) -> None:
        super().__init__(settings, name="sentence_pooling")
        self.pooling = pooling

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"pooling": self.pooling}

    def call(
        self, sequence_output: tf.Tensor, input_mask: tf.Tensor, starts: tf.Tensor
    ) -> tf.Tensor:
        """[B, S, H], `input_mask` [B, S] and positions of [CLS] [B, K] -> [B, K, H].

        Sequences that a row does not have get any vector, or 0.
        """
        if self.pooling == "cls":
            pooled = ops.gather_rows(sequence_output, starts)
        else:
            numbers = tf.range(1, tf.shape(starts)[1] + 1)
            is_own = tf.equal(input_mask[:, None, :], numbers[None, :, None])
            is_own = tf.cast(is_own, tf.float32)  # [B, K, S]
            counts = tf.reduce_sum(is_own, axis=-1, keepdims=True)
            sums = tf.matmul(is_own, sequence_output)
            pooled = tf.math.divide_no_nan(sums, counts)
        return tf.math.l2_normalize(pooled, axis=-1, epsilon=1e-24)


@keras.saving.register_keras_serializable(package="bert_tf")
class SentenceModel(BertModel):
    """See `build_sentence_model`."""

    @staticmethod
    def build_from(**arguments: Any) -> keras.Model:  # noqa: ANN401
        return build_sentence_model(**arguments)

    @property
    def pooling(self) -> str:
        """The name of the pooling."""
        return self._arguments["pooling"]


def build_sentence_model(
    config: BertConfig,
    pooling: str = "mean",
    *,
    max_seq_length: int | None = None,
    **options: Unpack[ModelOptions],
) -> SentenceModel:
    """A BERT that gives each sequence a vector of length 1; it has no pooler.

    Args:
      config: The architecture.
      pooling: "mean" of the hidden states of all tokens, or "cls": that of [CLS].
      max_seq_length: S; None for any length.
      options: See `ModelOptions`.

    Returns:
      A model from the inputs of `BertModel` to `sentence_vectors` [B, K, H] float32.

    Raises:
      ValueError: if there is no such pooling.
    """
    if pooling not in ("mean", "cls"):
        raise ValueError(f"`pooling` must be mean or cls. Received: {pooling!r}.")
    settings = LayerSettings.make(config, **options)
    inputs = encoder_inputs(max_seq_length, seeded_dropout=True)
    starts = inputs["next_sentence_positions"]
    read = {"read_positions": starts} if pooling == "cls" else {}
    encoded = Bert(settings, has_pooler=False)(inputs | read)
    pool = SentencePooling(settings, pooling)
    vectors = pool(encoded["sequence_output"], inputs["input_mask"], starts)
    return SentenceModel(
        inputs,
        {"sentence_vectors": vectors},
        name="sentence_model",
        settings=settings,
        pooling=pooling,
        max_seq_length=max_seq_length,
    )


class SentenceTask(FinetuningTask):
    """The contrastive loss of examples: an anchor, its positive, and negatives.

    Each anchor chooses its positive among the positives and negatives of the whole
    global batch, by the softmax of their cosines times a scale. So the loss of an
    example depends on all micro-batches of all workers. `whole_batch` collects the
    vectors, and computes the gradient with respect to each of them; the backward pass
    of a micro-batch then needs its own sequences alone.

    Source: Henderson et al. 2017 (arXiv:1705.00652), section 4; for micro-batches Gao
    et al. 2021 (arXiv:2101.06983), section 3.
    """

    output = "sentence_vectors"

    def __init__(
        self,
        model: SentenceModel,
        *,
        scale: float = 20.0,
        texts_per_example: int = 2,
        communicator: Communicator | None = None,
    ) -> None:
        """Prepares for one model.

        Args:
          model: The model.
          scale: Factor of the cosines; the inverse of a temperature.
          texts_per_example: Sequences of an example, the anchor and the positive first.
          communicator: The workers.
        """
        super().__init__(model)
        self._scale = scale
        self._texts = texts_per_example
        self._workers = communicator or Communicator()

    def counts(self, features: Features) -> tf.Tensor:
        """How many examples the loss is a mean of: [1] float32."""
        return super().counts(features) / self._texts

    def losses(self, logits: tf.Tensor, features: Features) -> tf.Tensor:
        """[B, K]: the loss of an example at its anchor, 0 elsewhere.

        Its gradient is that of the whole batch's loss. Features without the result of
        `whole_batch` are the only micro-batch of this worker.
        """
        if _GRADIENTS not in features:
            features = features | self.whole_batch(logits, features["batch_slots"])
        slope = tf.reduce_sum(logits * features[_GRADIENTS], axis=-1)
        return features[_LOSSES] + slope - tf.stop_gradient(slope)

    def whole_batch(self, vectors: tf.Tensor, slots: tf.Tensor) -> Features:
        """What the loss of each micro-batch needs to know of all others.

        Args:
          vectors: [..., H], of all sequences of this worker.
          slots: [...] int32: sequence j of example i of the global batch has the number
            i * texts_per_example + j; -1 for none.

        Returns:
          The gradient of the sum of all losses with respect to each vector [..., H],
          and the losses [...] of the examples at their anchors.
        """
        table = tf.stop_gradient(self._collected(vectors, slots))
        with tf.GradientTape() as tape:
            tape.watch(table)
            losses = self._pair_losses(table)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, table)
        at_anchors = tf.pad(losses[:, None], [[0, 0], [0, self._texts - 1]])
        own, is_real = tf.maximum(slots, 0), tf.cast(slots >= 0, tf.float32)
        found = {
            _GRADIENTS: tf.gather(gradients, own) * is_real[..., None],
            _LOSSES: tf.gather(tf.reshape(at_anchors, [-1]), own) * is_real,
        }
        return {name: tf.stop_gradient(x) for name, x in found.items()}

    def _collected(self, vectors: tf.Tensor, slots: tf.Tensor) -> tf.Tensor:
        """The vectors of all workers, in the order of their slots: [N * texts, H]."""
        numbers = tf.cast(tf.reshape(slots, [-1, 1]), tf.float32)
        rows = tf.reshape(vectors, [-1, self.num_outputs])
        table = tf.concat([numbers, rows], axis=1)
        table = self._workers.collect(tf.reshape(table, [-1]), "sentence_vectors")
        table = tf.reshape(table, [-1, 1 + self.num_outputs])
        table = tf.boolean_mask(table, table[:, 0] >= 0.0)
        return tf.gather(table[:, 1:], tf.argsort(table[:, 0]))

    def _pair_losses(self, table: tf.Tensor) -> tf.Tensor:
        """The loss of each example of the batch, in nats: [N]."""
        texts = tf.reshape(table, [-1, self._texts, self.num_outputs])
        others = tf.transpose(texts[:, 1:], [1, 0, 2])  # Positives before negatives.
        others = tf.reshape(others, [-1, self.num_outputs])
        scores = self._scale * tf.matmul(texts[:, 0], others, transpose_b=True)
        return ops.cross_entropy(scores, tf.range(tf.shape(texts)[0]))
