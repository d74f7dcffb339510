"""Gives a model the words of a domain, which its vocabulary splits into pieces."""

import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_tf.config.models import ConvertOptions, ExtendOptions
from bert_tf.data.commands.extract import describe_left_out, find_input
from bert_tf.data.commands.vocab import count_all_words
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.data.text.vocabulary import check_size, is_unused
from bert_tf.errors import counted
from bert_tf.interop.export import (
    Model,
    find_form,
    require_free,
    weights_file,
    write_model,
)
from bert_tf.interop.weight_conversion import read_model
from bert_tf.interop.weight_files import NO_VOCABULARY, VOCABULARY

_TABLE, _BIAS = "bert/embeddings/word_embeddings", "cls/predictions/output_bias"
# A word that occurs once may be a typing error.
_MIN_FREQUENCY = 2
_MAX_EXAMPLES = 10


class NewWord(NamedTuple):
    """A word to add.

    Attributes:
      word: The word.
      pieces: Ids of the pieces that it was split into.
      saved: How many pieces of the text it saves.
    """

    word: str
    pieces: Sequence[int]
    saved: int


def choose_words(
    counts: Mapping[str, int], tokenizer: WordPieceTokenizer, num_tokens: int
) -> list[NewWord]:
    """The words whose pieces take most room, of those that occur twice or more.

    Args:
      counts: Word -> how often it occurs.
      tokenizer: Splits words into pieces; [UNK] is none.
      num_tokens: At most so many.

    Returns:
      The words, those that save most first, equal ones in alphabetical order.
    """
    found = []
    for word, count in counts.items():
        if count >= _MIN_FREQUENCY and word not in tokenizer.vocab:
            [pieces] = tokenizer.encode([word])
            if len(pieces) > 1:
                found.append(NewWord(word, pieces, count * (len(pieces) - 1)))
    found.sort(key=lambda new: (-new.saved, new.word))
    return found[:num_tokens]


def place_words(
    tokens: Sequence[str], words: Sequence[str], *, into_unused: bool
) -> tuple[list[str], list[int]]:
    """A vocabulary with more words, and their ids.

    Args:
      tokens: The vocabulary.
      words: Those to add.
      into_unused: Whether they replace [unusedN].

    Raises:
      ValueError: if there are fewer [unusedN] than words.
    """
    if not into_unused:
        return [*tokens, *words], list(range(len(tokens), len(tokens) + len(words)))
    free = [number for number, token in enumerate(tokens) if is_unused(token)]
    if len(free) < len(words):
        raise ValueError(
            f"`num_tokens` must be at most {len(free)}, the [unusedN] of the "
            "vocabulary, with `into_unused`. Received: "
            f"{counted(len(words), 'word')}. Pass a smaller --num_tokens, or leave "
            "out --into_unused."
        )
    placed = list(tokens)
    for number, word in zip(free, words, strict=False):
        placed[number] = word
    return placed, free[: len(words)]


def with_rows(
    values: np.ndarray, ids: Sequence[int], words: Sequence[NewWord], num_rows: int
) -> np.ndarray:
    """A table of the vocabulary with the mean of its old pieces for each new word.

    Args:
      values: [V, ...], the table.
      ids: Ids of the new words.
      words: The new words.
      num_rows: Rows of the result.
    """
    grown = np.zeros((num_rows, *values.shape[1:]), values.dtype)
    grown[: len(values)] = values
    for number, new in zip(ids, words, strict=True):
        grown[number] = values[list(new.pieces)].mean(axis=0)
    return grown


def extend_vocabulary(
    source: str, destination: str, options: ExtendOptions
) -> list[str]:
    """Writes a model that knows the frequent words of a text.

    Args:
      source: See `weight_files.find_source`.
      destination: See `export.find_form`.
      options: The rest.

    Returns:
      Lines to print.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the source or the text cannot be used, or the destination exists.
      RunError: if tensors are missing or misshapen.
      OSError: if the destination cannot be written.
    """
    form = find_form(destination)
    if os.path.realpath(source) == os.path.realpath(destination):
        raise ValueError(
            f"The new model must not be the old one. Received: {destination} for both. "
            "Name another."
        )
    if not options.overwrite:
        require_free(weights_file(destination, form), {})
    paths = find_input(options)
    model, notes = _read_model(source, options)
    tokenizer = WordPieceTokenizer(model.vocab_file, model.tokenizer)
    counts, left_out = count_all_words(
        paths, options, model.tokenizer, options.num_processes
    )
    notes += describe_left_out(left_out)
    words = choose_words(counts, tokenizer, options.num_tokens)
    if not words:
        raise ValueError(
            f"`input` must repeat words that {model.vocab_file} splits into pieces. "
            f"Received: input={options.input}, with {len(counts):,} different words, "
            "none of which is both repeated and split. Use text of the domain."
        )
    if len(words) < options.num_tokens:
        notes.append(
            f"warning: the text holds only {counted(len(words), 'word')}, twice or "
            f"more, to split into pieces: fewer than --num_tokens={options.num_tokens}"
        )
    tokens, ids = place_words(
        tokenizer.inverse_vocab,
        [new.word for new in words],
        into_unused=options.into_unused,
    )
    num_rows = max(model.config.vocab_size, len(tokens))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, VOCABULARY)
        Path(path).write_text("".join(f"{token}\n" for token in tokens), "utf-8")
        lines = _describe(counts, tokenizer, WordPieceTokenizer(path, model.tokenizer))
        grown = {
            name: with_rows(model.tensors[name], ids, words, num_rows)
            for name in (_TABLE, _BIAS)
            if name in model.tensors
        }
        model = model._replace(
            tensors={**model.tensors, **grown},
            config=dataclasses.replace(model.config, vocab_size=num_rows),
            vocab_file=path,
        )
        files = write_model(model, destination, form, overwrite=options.overwrite)
    where = "in place of [unusedN]" if options.into_unused else "behind all others"
    examples = ", ".join(new.word for new in words[:_MAX_EXAMPLES])
    return [
        *notes,
        f"added {counted(len(words), 'word')} {where}, such as {examples}",
        *lines,
        f"wrote a vocabulary of {len(tokens)} tokens to {', '.join(files)}",
    ]


def _read_model(source: str, options: ExtendOptions) -> tuple[Model, list[str]]:
    """The old model as it would be written, and lines about it."""
    used = ConvertOptions(
        vocab_file=options.vocab_file, do_lower_case=options.do_lower_case
    )
    model, notes = read_model(source, used)
    if not model.vocab_file:
        raise FileNotFoundError(
            f"There is {NO_VOCABULARY} next to the weights of {source}. Pass it as "
            "--vocab_file."
        )
    # A far smaller vocabulary, which `read_model` only warns of, is another model's.
    check_size(model.vocab_file, model.config.vocab_size)
    return model._replace(scores={}), notes  # They were those of the old model.


def _describe(
    counts: Counter[str], old: WordPieceTokenizer, new: WordPieceTokenizer
) -> list[str]:
    """Lines about the pieces of the text before and after."""
    before, after, unknown = 0, 0, 0
    for word, count in counts.items():
        ([first], [second]) = (x.encode([word]) for x in (old, new))
        before, after = before + count * len(first), after + count * len(second)
        # A new word at the beginning of a longer one may leave a rest without pieces.
        unknown += count * (old.special.unk in second and old.special.unk not in first)
    lines = [
        f"tokens of the text: {before:,} before, {after:,} after "
        f"({(after - before) / before:+.1%})"
    ]
    if unknown:
        lines.append(
            f"warning: {unknown:,} words of the text begin with a new word, and are "
            "[UNK] now: the vocabulary has no pieces for the rest"
        )
    return lines
