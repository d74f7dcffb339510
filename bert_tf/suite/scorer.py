"""A model that scores texts: by its masked-LM head, and by its hidden states."""

from collections.abc import Callable, Iterator, Sequence
from typing import Unpack

import numpy as np
import tensorflow as tf

from bert_tf.data.packing.layout import lay_out
from bert_tf.data.pretraining.instances import TrainingInstance
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.interop.model_kind import FILL_MASK, has_head
from bert_tf.modeling.models import model_outputs, settings_of, step_scope
from bert_tf.predictors import Predictor, PredictorSettings

# Enough to fill the products, few enough to stay in the caches.
_TOKENS_AT_ONCE = 4096
_ENCODER = ("input_ids", "input_mask", "segment_ids", "positions")
_FIRST = "next_sentence_positions"
_HEAD = ("masked_lm_positions", "masked_lm_ids")

# Called with the number of predictions or texts that are done.
Progress = Callable[[int], None]


class Scorer(Predictor):
    """Scores texts.

    Attributes:
      has_masked_lm: Whether there is a masked-LM head.
      max_seq_length: Tokens of a text at most.
    """

    def __init__(self, model_dir: str, **settings: Unpack[PredictorSettings]) -> None:
        """See `Predictor`; any kind of model will do."""
        super().__init__(model_dir, **settings)
        self.has_masked_lm = has_head(self.path, FILL_MASK)
        if self.has_masked_lm:
            more = {"do_nsp": False, "seeded_dropout": True}
            self._model = self._load("pretraining", **more)
        else:
            self._model = self._load("encoder", new=("bert/pooler/*",))
        config = settings_of(self._model).config
        self.max_seq_length = config.max_position_embeddings
        self.hidden_size = config.hidden_size
        self._stack.enter_context(step_scope(self._model))
        self._losses = _compiled(self._masked_losses, (*_ENCODER, _FIRST, *_HEAD))
        self._vectors = _compiled(self._mean_vectors, (*_ENCODER, _FIRST))

    @property
    def tokenizer(self) -> WordPieceTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def vocab_file(self) -> str:
        """The model's vocabulary."""
        return self._files.vocab_file

    def pseudo_log_likelihoods(
        self, sequences: Sequence[Sequence[int]], progress: Progress
    ) -> np.ndarray:
        """The sum over a sequence's tokens of the log probability given all others.

        Args:
          sequences: n times the ids of [CLS] text [SEP], of at least one token and
            fewer than `max_seq_length` together.
          progress: Called with numbers of tokens.

        Returns:
          [n] float64, in nats.

        Source: Salazar et al. 2020 (arXiv:1910.14659), equation 1: each token is
        masked alone; [CLS] and [SEP] do not count.
        """
        lengths = np.fromiter(map(len, sequences), np.int64)
        sums = np.zeros(len(sequences))
        for length in np.unique(lengths)[::-1]:
            numbers = np.flatnonzero(lengths == length)
            ids = np.array([sequences[n] for n in numbers], np.int32)
            num_words = int(length) - 2
            losses = np.empty(len(numbers) * num_words)
            rows = max(1, _TOKENS_AT_ONCE // int(length))
            for first in range(0, len(losses), rows):
                copies = np.arange(first, min(first + rows, len(losses)))
                positions = 1 + copies % num_words
                masked, row = ids[copies // num_words], np.arange(len(copies))
                labels = masked[row, positions]
                masked[row, positions] = self._tokenizer.special.mask
                found = self._losses(_inputs(masked, positions, labels))
                losses[copies] = found.numpy()[:, 0]
                progress(len(copies))
            sums[numbers] = -losses.reshape(-1, num_words).sum(axis=1)
        return sums

    def masked_lm_loss(
        self, instances: Sequence[TrainingInstance], progress: Progress
    ) -> tuple[float, int]:
        """The mean masked-LM loss in nats, and the number of tokens in it."""
        total, count = 0.0, 0
        lengths = np.array([len(each.input_ids) for each in instances])
        for numbers in _batches(lengths):
            part = [instances[number] for number in numbers]
            sequences = TokenSequences.join((i.input_ids, i.segment_ids) for i in part)
            features = _encoder_inputs(sequences)
            sizes = np.array([len(each.masked_lm_ids) for each in part])
            is_real = np.arange(sizes.max()) < sizes[:, None]
            for name in _HEAD:
                features[name] = np.zeros(is_real.shape, np.int32)
                features[name][is_real] = np.concatenate(
                    [getattr(each, name) for each in part]
                )
            found = self._losses(_tensors(features)).numpy()
            total += float(found[is_real].sum(dtype=np.float64))
            count += int(sizes.sum())
            progress(int(sizes.sum()))
        return total / count, count

    def mean_vectors(self, sequences: TokenSequences, progress: Progress) -> np.ndarray:
        """The mean of each text's last hidden states, [n, H] float32.

        [CLS] and [SEP] count, as in sentence-transformers' mean pooling.
        """
        vectors = np.zeros((len(sequences), self.hidden_size), np.float32)
        for numbers in _batches(sequences.lengths):
            features = _encoder_inputs(sequences, numbers)
            vectors[numbers] = self._vectors(_tensors(features)).numpy()
            progress(len(numbers))
        return vectors

    def _masked_losses(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """[B, P] in nats."""
        outputs = model_outputs(self._model.with_labels, features, training=False)
        return outputs["masked_lm_losses"]

    def _mean_vectors(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """[B, H]."""
        seed = tf.zeros([tf.shape(features["input_ids"])[0], 3], tf.int32)
        bert = self._model.get_layer("bert")
        states = bert({**features, "dropout_seed": seed})["sequence_output"]
        weights = tf.cast(features["input_mask"] > 0, tf.float32)[:, :, None]
        return tf.reduce_sum(states * weights, 1) / tf.reduce_sum(weights, 1)


def _compiled(
    function: Callable[[dict[str, tf.Tensor]], tf.Tensor], names: Sequence[str]
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """A graph that is traced once, for matrices of any size under these names."""
    signature = {name: tf.TensorSpec([None, None], tf.int32, name) for name in names}
    return tf.function(function, input_signature=[signature], autograph=False)


def _batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of sequences of similar lengths, the longest first."""
    order, first = np.argsort(-lengths, kind="stable"), 0
    while first < len(order):
        rows = max(1, _TOKENS_AT_ONCE // int(lengths[order[first]]))
        yield order[first : first + rows]
        first += rows


def _encoder_inputs(
    sequences: TokenSequences, numbers: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The encoder's inputs of some sequences, by default of all, one to a row."""
    numbers = np.arange(len(sequences)) if numbers is None else numbers
    length = int(sequences.lengths[numbers].max())
    features = lay_out(sequences, numbers[:, None], length)
    return {name: features[name] for name in (*_ENCODER, _FIRST)}


def _inputs(
    ids: np.ndarray, positions: np.ndarray, labels: np.ndarray
) -> dict[str, tf.Tensor]:
    """The inputs of rows without padding, [B, S], with one masked token each, [B]."""
    return _tensors(
        {
            "input_ids": ids,
            "input_mask": np.ones_like(ids),
            "segment_ids": np.zeros_like(ids),
            "positions": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
            _FIRST: np.zeros((len(ids), 1), np.int32),
            "masked_lm_positions": positions[:, None],
            "masked_lm_ids": labels[:, None],
        }
    )


def _tensors(features: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(x, tf.int32) for name, x in features.items()}
