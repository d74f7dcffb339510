"""Masks that are drawn while training: other ones in each epoch of the same records.

A record holds the original tokens: those of its masked positions are its labels. They
are put back, and as many tokens of each sequence are masked anew. Masks are a pure
function of the seed, the epoch and the number of the record, so that a run resumes
exactly, on any number of workers.

Sources:
- Masks: `data.pretraining.instances`, the same rules for whole arrays.
- New masks in each epoch: Liu et al. 2019 (arXiv:1907.11692), section 4.1.
- Random numbers: SplitMix64, Steele et al. 2014, "Fast Splittable Pseudorandom Number
  Generators", figure 17, started at a hash of what identifies the sequence.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bert_tf.data.records.metadata import Metadata
from bert_tf.data.text.vocabulary import (
    CONTINUATION,
    SPECIAL_TOKENS,
    load_vocabulary,
)

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
# The low bits of a random number hold the column, so that no two are equal: a sort then
# has one result, whatever its algorithm.
_COLUMN_BITS = np.uint64(0xFFFF)
_LAST = np.uint64(2**64 - 1)
# Below the first number, of 32 random bits, a masked token becomes [MASK], below the
# second it stays.
_MASKED, _MASKED_OR_KEPT = (8 << 32) // 10, (9 << 32) // 10

# A step may have many thousand rows; so many fit into a processor's cache.
_ROWS_AT_ONCE = 128

Features = Mapping[str, np.ndarray]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _start_of(seed: int, *parts: np.ndarray) -> np.ndarray:
    """Where the random numbers start of what `parts`, [n] integers, identify: [n]."""
    state = _mix(np.full(len(parts[0]), seed, np.uint64) + _GAMMA)
    for part in parts:
        state = _mix(state + _GAMMA + part.astype(np.uint64))
    return state


def _random(start: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The random numbers with an index, from 0: uint64."""
    return _mix(start + (index.astype(np.uint64) + np.uint64(1)) * _GAMMA)


def _fitting(sizes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Takes what fits from left to right; what exceeds the rest is skipped.

    Args:
      sizes: [n, U], 0 for nothing.
      limits: [n], the greatest sum of what is taken.

    Returns:
      [n, U], what is taken.
    """
    sizes = sizes.copy()
    while True:
        sums = np.cumsum(sizes, axis=1)
        exceeds = sums > limits[:, None]
        if not exceeds.any():
            return sizes > 0
        left = limits - np.where(exceeds, 0, sums).max(axis=1)
        sizes[exceeds & (sizes > left[:, None])] = 0


def make_masker(
    vocab_file: str, vocab_size: int, records: Mapping[str, Metadata | None]
) -> tuple["DynamicMasker", list[str]]:
    """The masker of records: whole words if they were made with whole words.

    Args:
      vocab_file: Their vocabulary; empty if it is not known.
      vocab_size: Exclusive upper bound of the ids in the records.
      records: Folder -> metadata, None if it has none.

    Returns:
      The masker, and lines for the log.

    Raises:
      ValueError: if there is no vocabulary, or only some records have whole words.
      FileNotFoundError: if the vocabulary does not exist.
    """
    if not vocab_file:
        raise ValueError(
            "`dynamic_masking` needs the vocabulary of the records. Received: "
            "vocab_file=''. Pass --vocab_file."
        )
    configs = {f: (about and about.config) or {} for f, about in records.items()}
    name = "do_whole_word_mask"
    whole = [folder for folder, config in configs.items() if config.get(name)]
    others = [folder for folder in configs if folder not in whole]
    if whole and others:
        raise ValueError(
            f"`dynamic_masking` needs records that all have the same {name} in their "
            f"metadata. Received: true in that of {whole[0]}, but not in that of "
            f"{others[0]}. Make one of them again, or leave out one of them."
        )
    words = load_vocabulary(vocab_file)
    masker = DynamicMasker(words, vocab_size, do_whole_word_mask=bool(whole))
    notes = [
        f"Masks are drawn anew in each epoch: {masker.units}, as many in each sequence "
        "as in its record. Evaluation records keep theirs."
    ]
    silent = [folder for folder, config in configs.items() if name not in config]
    if silent:
        notes.append(
            f"No metadata states {name} for {', '.join(silent)}: taken to be false."
        )
    if any(config.get("max_ngram_size", 1) != 1 for config in configs.values()):
        notes.append(
            "warning: the records were made with n-grams (max_ngram_size); masks are "
            "drawn of words alone."
        )
    return masker, notes


class DynamicMasker:
    """Replaces the masks of records by others.

    Attributes:
      units: What is masked together: whole words, or single tokens.
    """

    def __init__(
        self, words: Sequence[str], vocab_size: int, *, do_whole_word_mask: bool = False
    ) -> None:
        """Prepares for the records of a vocabulary.

        Args:
          words: The vocabulary; random tokens are drawn from all of it.
          vocab_size: Exclusive upper bound of the ids in the records.
          do_whole_word_mask: Mask all pieces of a word together.
        """
        self.units = "whole words" if do_whole_word_mask else "single tokens"
        self._num_words = np.uint64(len(words))
        self._mask_id = words.index(SPECIAL_TOKENS.mask)
        # Text holds [UNK], but none of the others.
        kept = {*SPECIAL_TOKENS} - {SPECIAL_TOKENS.unk}
        self._is_kept = np.zeros(vocab_size, bool)
        self._is_kept[[words.index(word) for word in kept]] = True
        self._continues_word = np.zeros(vocab_size, bool)
        if do_whole_word_mask:
            is_piece = [word.startswith(CONTINUATION) for word in words]
            self._continues_word[: len(words)] = is_piece

    def __call__(
        self, features: Features, seed: int, epochs: np.ndarray, numbers: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Masks records anew.

        Each sequence gets as many masked tokens as it has in the record, so that those
        that are skipped keep none; with whole words up to as many.

        Args:
          features: Of n records, as a parser returns them.
          seed: That of the run.
          epochs: [n], how often each record has been read before.
          numbers: [n], the numbers of the records.

        Returns:
          The features, with other `input_ids` and `masked_lm_*`.
        """
        parts = []
        for first in range(0, len(numbers), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            some = {name: values[rows] for name, values in features.items()}
            parts.append(self._mask(some, seed, epochs[rows], numbers[rows]))
        masked = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
        return dict(features) | masked

    def _mask(
        self, features: Features, seed: int, epochs: np.ndarray, numbers: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The new features of some records; see `__call__`."""
        ids, owners = features["input_ids"].copy(), features["input_mask"]
        row, index = np.nonzero(features["masked_lm_weights"] > 0)
        position = features["masked_lm_positions"][row, index]
        ids[row, position] = features["masked_lm_ids"][row, index]
        # Masked tokens of each row and sequence; sequences count from 1.
        shape = (len(ids), features["next_sentence_weights"].shape[1] + 1)
        limits = np.zeros(shape, np.int64)
        np.add.at(limits, (row, owners[row, position]), 1)
        row, slot = np.nonzero(limits[:, 1:])
        start = _start_of(seed, epochs[row], numbers[row], slot)
        begin = features["next_sentence_positions"][row, slot]
        # Each sequence from its first token on: [n sequences, S].
        columns = begin[:, None] + np.arange(ids.shape[1])
        is_inside = columns < ids.shape[1]
        columns[~is_inside] = 0
        tokens = ids[row[:, None], columns]
        is_open = is_inside & (owners[row[:, None], columns] == slot[:, None] + 1)
        is_open &= ~self._is_kept[tokens]
        chosen = self._choose(tokens, is_open, limits[row, slot + 1], start)
        sequence, column = np.nonzero(chosen)
        position = begin[sequence] + column
        random = _random(start[sequence], column + ids.shape[1])
        max_predictions = features["masked_lm_ids"].shape[1]
        return self._masked(ids, row[sequence], position, random, max_predictions)

    def _choose(
        self,
        tokens: np.ndarray,
        is_open: np.ndarray,
        limits: np.ndarray,
        start: np.ndarray,
    ) -> np.ndarray:
        """Which tokens of each sequence are masked.

        Words, or single tokens, are tried in random order until the limit is reached.

        Args:
          tokens: [n, S], the sequences.
          is_open: [n, S], which tokens may be masked.
          limits: [n], how many at most.
          start: [n], where the random numbers of each sequence start.

        Returns:
          [n, S] bool.
        """
        count, width = tokens.shape
        column = np.arange(width)
        follows = np.zeros_like(is_open)
        follows[:, 1:] = is_open[:, :-1] & self._continues_word[tokens[:, 1:]]
        is_first = is_open & ~follows
        # The column of the first token of each token's word.
        first = np.maximum.accumulate(np.where(is_first, column, 0), axis=1)
        words = np.arange(count)[:, None] * width + first
        sizes = np.bincount(words[is_open], minlength=count * width)
        keys = _random(start[:, None], column) & ~_COLUMN_BITS | column.astype(
            np.uint64
        )
        keys = np.sort(np.where(is_first, keys, _LAST), axis=1)
        order = (keys & _COLUMN_BITS).astype(np.int64)
        order[keys == _LAST] = 0
        sorted_sizes = np.take_along_axis(sizes.reshape(count, width), order, axis=1)
        sorted_sizes[keys == _LAST] = 0
        is_taken = np.zeros_like(is_open)
        sequence, rank = np.nonzero(_fitting(sorted_sizes, limits))
        is_taken[sequence, order[sequence, rank]] = True
        return is_open & np.take_along_axis(is_taken, first, axis=1)

    def _masked(
        self,
        ids: np.ndarray,
        row: np.ndarray,
        position: np.ndarray,
        random: np.ndarray,
        max_predictions: int,
    ) -> dict[str, np.ndarray]:
        """The features of records with these masks.

        Args:
          ids: [n, S], the original tokens; they are changed.
          row: [m], the rows of the masked tokens, ascending.
          position: [m], their positions, ascending within a row.
          random: [m], a random number for each.
          max_predictions: P.
        """
        labels = ids[row, position]
        draw, other = random >> np.uint64(32), random & np.uint64(2**32 - 1)
        other = (other * self._num_words >> np.uint64(32)).astype(ids.dtype)
        replaced = np.where(draw < _MASKED_OR_KEPT, labels, other)
        ids[row, position] = np.where(draw < _MASKED, self._mask_id, replaced)
        index = np.arange(len(row)) - np.searchsorted(row, row)
        shape = (len(ids), max_predictions)
        values = {
            "masked_lm_positions": position,
            "masked_lm_ids": labels,
            "masked_lm_weights": np.ones(len(row), np.float32),
        }
        masked = {
            name: np.zeros(shape, np.float32 if name.endswith("weights") else np.int32)
            for name in values
        }
        for name, array in values.items():
            masked[name][row, index] = array
        return {"input_ids": ids, **masked}
