"""Vectors: text in, a vector of it out, or the hidden states of chosen layers.

embed = Embedder("output_dir")
vectors = embed(["a fine film", "and another"])  # [2, H], of length 1

extract = FeatureExtractor("output_dir", layers=[-1])
for tokens, vectors in extract(["a fine film", ("one sentence", "and another")]):
    ...
"""

import functools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Unpack

import numpy as np
import tensorflow as tf

from bert_tf.data.packing.layout import lay_out
from bert_tf.data.tasks.classification import encode_examples
from bert_tf.interop.sentence_files import describe_prompts, read_settings
from bert_tf.interop.weight_files import find_source
from bert_tf.launch import require_no_fork
from bert_tf.modeling.sentences import SentenceTask
from bert_tf.predictors.base import Predictor, PredictorSettings, text_examples

_LOGGER = logging.getLogger(__name__)

# Rows of texts that are not longer; those of longer ones have `max_seq_length`.
_WIDTH = 128


class Embedder(Predictor):
    """Computes a vector of length 1 for each text."""

    def __init__(
        self,
        model_dir: str,
        *,
        pooling: str = "",
        max_seq_length: int | None = None,
        **settings: Unpack[PredictorSettings],
    ) -> None:
        """See `Predictor`.

        Args:
          model_dir: See `Predictor`; the encoder of any model.
          pooling: mean of the hidden states of all tokens, or cls, that of [CLS].
            Default: as the model was trained, else mean.
          max_seq_length: Longer texts are cut. Default: as the model was trained, else
            the number of its positions.
          settings: See `Predictor`.

        Raises:
          ValueError: if the model has fewer positions, or another pooling.
        """
        super().__init__(model_dir, **settings)
        folder = os.path.dirname(find_source(model_dir).path)
        known = read_settings(folder, self.description, is_pooling_given=bool(pooling))
        for note in describe_prompts(folder):
            _LOGGER.warning(note)
        self.pooling = pooling or known.pooling or "mean"
        model = self._load("sentences", pooling=self.pooling)
        most = self._files.config.max_position_embeddings
        if max_seq_length is None:
            max_seq_length = min(known.max_seq_length or most, most)
        self.max_seq_length = self._files.require_length(max_seq_length)
        self._compile(SentenceTask(model))

    def __call__(self, texts: str | Iterable[str | tuple[str, str]]) -> np.ndarray:
        """The vectors of texts or pairs, or of one text: [n, H] float32.

        Raises:
          NonFiniteError: if a vector is not finite.
        """
        sequences = encode_examples(
            text_examples(texts), self._tokenizer, self.max_seq_length
        )
        longest = int(sequences.lengths.max(initial=0))
        if longest == self.max_seq_length:
            _LOGGER.warning(
                f"warning: a text has max_seq_length={longest} tokens or more: longer "
                "ones are cut."
            )
        width = _WIDTH if longest <= _WIDTH < self.max_seq_length else 0
        return self._logits(sequences, of_tokens=False, width=width)


class FeatureExtractor(Predictor):
    """Computes the vectors of all tokens, layer by layer."""

    def __init__(
        self,
        model_dir: str,
        *,
        layers: Sequence[int] = (-1, -2, -3, -4),
        max_seq_length: int = 128,
        **settings: Unpack[PredictorSettings],
    ) -> None:
        """See `Predictor`.

        Args:
          model_dir: See `Predictor`.
          layers: Which ones, -1 is the last.
          max_seq_length: Longer texts are cut.
          settings: See `Predictor`.

        Raises:
          ValueError: if the model has no such layer, or fewer positions.
        """
        super().__init__(model_dir, **settings)
        self._files.require_layers(layers)
        self.layers = tuple(layers)
        self.max_seq_length = self._files.require_length(max_seq_length)
        self._model = self._load("encoder", new=("bert/pooler/*",))
        # A partial, without warnings of TensorFlow: see `evaluation.metrics`.
        states = functools.partial(self._states)
        self._compiled = tf.function(states, reduce_retracing=True)

    def __call__(
        self, texts: str | Iterable[str | tuple[str, str]]
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yields the tokens of each text, and their vectors: [layers, tokens, H]."""
        require_no_fork()
        examples = text_examples(texts)
        for first in range(0, len(examples), self.batch_size):
            part = examples[first : first + self.batch_size]
            sequences = encode_examples(part, self._tokenizer, self.max_seq_length)
            sequences.check_segments(self._type_vocab_size)
            rows = np.arange(len(part))[:, None]
            features = lay_out(sequences, rows, int(sequences.lengths.max()))
            tensors = {n: tf.convert_to_tensor(x) for n, x in features.items()}
            states = self._compiled(tensors).numpy()
            for row, length in enumerate(sequences.lengths):
                ids = features["input_ids"][row, :length]
                tokens = [self._tokenizer.inverse_vocab[i] for i in ids]
                yield tokens, states[:, row, :length]

    def _states(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """[layers, B, S, H]."""
        bert = self._model.get_layer("bert")
        ids, mask = features["input_ids"], features["input_mask"]
        seed = tf.zeros([tf.shape(ids)[0], 3], tf.int32)
        names = ("segment_ids", "positions")
        x = bert.embeddings(ids, *(features[name] for name in names), seed)
        states = bert.encoder.hidden_states(x, mask, seed)
        return tf.stack([states[number] for number in self.layers])
