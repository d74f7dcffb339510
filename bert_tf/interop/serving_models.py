"""A BERT with the inputs and outputs that serving programs expect, for any runtime.

Inputs and outputs have transformers' names, so that what a tokenizer returns is what
the exported model takes: `input_ids, attention_mask, token_type_ids` [B, S].
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_tf.interop.classifier_labels import TAG
from bert_tf.interop.model_kind import ENCODER, FILL_MASK, SQUAD
from bert_tf.interop.pretrained import build_with
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.weights import Weights
from bert_tf.modeling.layers import BertLayer
from bert_tf.precision import choose_policy

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_TASKS = {
    ENCODER: "encoder",
    EMBED: "encoder",
    FILL_MASK: "pretraining",
    SQUAD: "squad",
}
_POOLER = "bert/pooler/dense/kernel"


class Served(keras.layers.Layer):
    """The layers of a model, called with transformers' inputs.

    A row gives NaN if it is packed, with numbers above 1 in `attention_mask`: positions
    and the places of [CLS] are no inputs here. So does one with a token, segment or
    position that the model does not have, for which some runtimes read zeros.
    """

    def __init__(
        self, model: keras.Model, kind: str, pooling: str, has_pooler: bool
    ) -> None:
        super().__init__(name="served", dtype="float32")
        self._model, self._kind, self._has_pooler = model, kind, has_pooler
        self._pooling = pooling

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """[B, S] of each input -> the outputs of `serving_model`."""
        ids, mask, segments = (tf.cast(inputs[name], tf.int32) for name in INPUTS)
        rows, width = tf.shape(ids)[0], tf.shape(ids)[1]
        positions = tf.expand_dims(tf.range(width), 0) + tf.zeros_like(ids)
        encoded = self._layer("bert")(
            {
                "input_ids": ids,
                "input_mask": mask,
                "segment_ids": segments,
                "positions": positions,
                "next_sentence_positions": tf.zeros([rows, 1], tf.int32),
                "dropout_seed": tf.zeros([rows, 3], tf.int32),
            }
        )
        config = self._layer("bert").config
        is_unknown = (
            ((ids < 0) | (ids >= config.vocab_size))
            | ((segments < 0) | (segments >= config.type_vocab_size))
            | (positions >= config.max_position_embeddings)
        )
        is_spoilt = tf.reduce_any((mask > 1) | (is_unknown & (mask > 0)), axis=1)
        spoilt = tf.where(is_spoilt, np.float32("nan"), np.float32(0))
        return {
            name: x + tf.reshape(spoilt, [-1] + [1] * (len(x.shape) - 1))
            for name, x in self._outputs(encoded, mask).items()
        }

    def _layer(self, name: str) -> BertLayer:
        return self._model.get_layer(name)

    def _outputs(
        self, encoded: Mapping[str, tf.Tensor], mask: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        hidden = encoded["sequence_output"]
        if self._kind == FILL_MASK:
            return {"logits": self._layer("cls").predictions(hidden)}
        if self._kind == SQUAD:
            logits = self._layer("cls")(hidden)
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        if self._kind == EMBED:
            if self._pooling == "cls":
                return {"sentence_embedding": hidden[:, 0]}
            seen = tf.expand_dims(tf.cast(mask > 0, tf.float32), 2)
            count = tf.maximum(tf.reduce_sum(seen, axis=1), 1.0)
            return {"sentence_embedding": tf.reduce_sum(hidden * seen, axis=1) / count}
        if self._kind == ENCODER:
            outputs = {"last_hidden_state": hidden}
            if self._has_pooler:
                outputs["pooler_output"] = encoded["pooled_output"][:, 0]
            return outputs
        seed = tf.zeros([tf.shape(mask)[0], 3], tf.int32)
        classifier = self._layer("classifier")
        if self._kind == TAG:
            return {"logits": classifier(hidden, seed)}
        return {"logits": classifier(encoded["pooled_output"], seed)[:, 0]}


def serving_model(
    weights: Weights, kind: str, dtype: str = "int32", pooling: str = "mean"
) -> keras.Model:
    """Builds a model for serving, in float32 and by TensorFlow's operations alone.

    Args:
      weights: Those of a model with the head for `kind`, and its config.
      kind: What it is for. The outputs are, float32: of an encoder `last_hidden_state`
        [B, S, H] and, if it has a pooler, `pooler_output` [B, H]; to embed
        `sentence_embedding` [B, H], not scaled to length 1; to classify `logits`
        [B, C], to choose [B, 1] with a row for each ending, to tag [B, S, C]; of squad
        `start_logits` and `end_logits` [B, S]; of fill-mask `logits` [B, S, V].
      dtype: Type of the inputs.
      pooling: How vectors are made: mean, over the tokens, or cls.

    Returns:
      A model from a dict of `INPUTS` [B, S] to a dict of these outputs.
    """
    settings: dict[str, Any] = {"policy": choose_policy("fp32", "")}
    if kind == FILL_MASK:
        settings["do_nsp"] = False
    task = _TASKS.get(kind, "classifier")
    if kind == TAG:
        settings["of_tokens"] = True
    model = build_with(
        weights, task, new=("bert/pooler/*",) * (task == "encoder"), **settings
    )
    inputs = {n: keras.Input((None,), dtype=dtype, name=n) for n in INPUTS}
    served = Served(model, kind, pooling, _POOLER in weights.tensors)
    model = keras.Model(inputs, served(inputs), name="bert")
    model({name: np.ones((1, 2), dtype) for name in INPUTS})  # Keras exports no other.
    return model
