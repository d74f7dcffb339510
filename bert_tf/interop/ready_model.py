"""A model that is ready to use: its files, which are checked without TensorFlow."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bert_tf.config import BertConfig
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.data.text.tokenizer_settings import TokenizerChoice, choose_settings
from bert_tf.data.text.vocabulary import check_same_words
from bert_tf.errors import shown
from bert_tf.interop.classifier_labels import kind_of, read_description
from bert_tf.interop.model_kind import check_kind
from bert_tf.interop.weight_files import NO_VOCABULARY, find_source, folder_of
from bert_tf.interop.weights import describe, read_config, require_config

_LOGGER = logging.getLogger(__name__)


class ReadyModel(NamedTuple):
    """The files of a model.

    Attributes:
      path: Where it was looked for.
      config: The architecture.
      description: The content of task.json next to the weights; empty without it.
      vocab_file: The vocabulary.
    """

    path: str
    config: BertConfig
    description: Mapping[str, Any]
    vocab_file: str

    def require_length(self, max_seq_length: int) -> int:
        """The tokens of a row; a model has so many positions.

        Raises:
          ValueError: if it has fewer, or there is no room for a text.
        """
        most = self.config.max_position_embeddings
        is_number = isinstance(max_seq_length, int)
        if not (is_number and 3 <= max_seq_length <= most):
            raise ValueError(
                f"{self.path}: `max_seq_length` must be from 3 to the model's "
                f"max_position_embeddings={most}. Received: {shown(max_seq_length)}."
            )
        return max_seq_length

    def require_layers(self, layers: Sequence[int]) -> None:
        """Refuses layers, -1 is the last, that the model does not have.

        Raises:
          ValueError: if it lacks one, or there are none.
        """
        most = self.config.num_hidden_layers
        if not layers or not all(-most <= n < 0 for n in layers):
            raise ValueError(
                f"`layers` must be from -1, the last, to -{most}. "
                f"Received: {', '.join(map(str, layers)) or 'none'}."
            )


def find_model(
    path: str | os.PathLike[str],
    kind: str = "",
    *,
    vocab_file: str = "",
    do_lower_case: bool | None = None,
) -> ReadyModel:
    """Finds and checks the files of a model, but reads no weights.

    Args:
      path: The output_dir of a training, or any weights with their config.
      kind: What it must have been trained for; empty: anything.
      vocab_file: Default: that next to the weights.
      do_lower_case: See `load_tokenizer`.

    Raises:
      FileNotFoundError, ValueError, RunError: if something is missing or damaged.
    """
    path = os.fspath(path)
    source = find_source(path)
    description = read_description(os.path.dirname(source.path))
    if kind:
        check_kind(path, kind, kind_of(source, description))
    vocab_file, _, _ = _find_tokenizer(path, vocab_file, do_lower_case)
    config = require_config(read_config(source), describe(source))
    return ReadyModel(path, config, description, vocab_file)


def load_tokenizer(
    path: str | os.PathLike[str],
    *,
    vocab_file: str = "",
    do_lower_case: bool | None = None,
) -> WordPieceTokenizer:
    """The tokenizer of a model.

    Args:
      path: Weights or a folder with a vocabulary, as for `from_pretrained`; or a
        vocabulary file.
      vocab_file: Default: that next to the weights.
      do_lower_case: Whether it lower-cases and strips accents; None: as the files next
        to the vocabulary say, or else if it is uncased.

    Raises:
      FileNotFoundError: if there is no vocabulary.
      ValueError: if a file cannot be used.
    """
    vocab_file, choice, notes = _find_tokenizer(
        os.fspath(path), vocab_file, do_lower_case
    )
    for note in [*choice.notes, *notes]:
        is_warning = choice.is_guess or note.startswith("warning")
        _LOGGER.log(logging.WARNING if is_warning else logging.INFO, note)
    return WordPieceTokenizer(vocab_file, choice.settings)


def _find_tokenizer(
    path: str, vocab_file: str, do_lower_case: bool | None
) -> tuple[str, TokenizerChoice, list[str]]:
    """The vocabulary, its settings, and notes on it; see `load_tokenizer`."""
    notes: list[str] = []
    if path.endswith(".txt"):
        vocab_file, folders = path, [folder_of(path)]
    else:
        source = find_source(path)
        vocab_file = vocab_file or source.vocab_file
        if not vocab_file:
            raise FileNotFoundError(
                f"There is {NO_VOCABULARY} next to {source.path}. Pass `vocab_file`."
            )
        folders = [folder_of(source.path), folder_of(vocab_file)]
        if source.vocab_file:
            notes = check_same_words(vocab_file, source.vocab_file)
    choice = choose_settings({"do_lower_case": do_lower_case}, folders, vocab_file)
    return vocab_file, choice, notes
