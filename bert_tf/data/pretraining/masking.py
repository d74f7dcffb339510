"""Selects the tokens of a sequence to predict, and masks them.

Of the selected tokens 80% become [MASK], 10% a random token, and 10% stay: since
[MASK] never occurs in fine-tuning, the model must not rely on it.

Sources: Devlin et al. 2019 (arXiv:1810.04805), section 3.1; whole words as in
google-research/bert's README of May 2019: the pieces of a word are selected together,
and each is replaced independently; n-grams of whole words as in Lan et al. 2020
(arXiv:1909.11942), section 3.1, where n words have a probability proportional to 1/n.
"""

import random
from collections.abc import Collection, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.text.tokenization import SpecialTokens

# Positions of the tokens of one unit, which are selected together or not at all.
Unit = range


class Masker:
    """Masks sequences with the settings of a data set."""

    def __init__(
        self,
        config: CreateDataConfig,
        special: SpecialTokens,
        vocab_size: int,
        continuations: Collection[int],
    ) -> None:
        """Prepares for many sequences.

        Args:
          config: How many tokens, and whether whole words or n-grams.
          special: Ids of the special tokens.
          vocab_size: V; random tokens are drawn from [0, V).
          continuations: Ids of the pieces that continue a word (##...).
        """
        self._config = config
        self._mask_id = special.mask
        self._vocab_size = vocab_size
        self._continuations = continuations
        self._ngram_weights = [1 / n for n in range(1, config.max_ngram_size + 1)]

    def mask(
        self, ids: list[int], segments: Sequence[range], rng: random.Random
    ) -> tuple[list[int], list[int]]:
        """Masks a sequence in place.

        Args:
          ids: The sequence with its special tokens.
          segments: Positions of the tokens that may be masked, a range per segment.
          rng: The only source of randomness.

        Returns:
          Ascending positions of the selected tokens, and the original tokens there.
        """
        config = self._config
        num_tokens = sum(len(segment) for segment in segments)
        limit = min(
            config.max_predictions_per_seq,
            max(1, round(len(ids) * config.masked_lm_prob)),
            num_tokens,
        )
        if config.do_whole_word_mask:
            positions = self._whole_words(ids, segments, limit, rng)
        else:
            candidates = [position for segment in segments for position in segment]
            positions = sorted(rng.sample(candidates, limit))
        labels = [ids[position] for position in positions]
        for position in positions:
            draw = rng.random()
            if draw < 0.8:
                ids[position] = self._mask_id
            elif draw >= 0.9:
                ids[position] = rng.randrange(self._vocab_size)
        return positions, labels

    def _whole_words(
        self,
        ids: Sequence[int],
        segments: Sequence[range],
        limit: int,
        rng: random.Random,
    ) -> list[int]:
        """Selects at most `limit` positions.

        Units are tried in random order. One that exceeds the limit is skipped and the
        next is tried, as in the original, so that long words do not end the selection.
        """
        units = self._ngrams([self._words(ids, s) for s in segments], rng)
        rng.shuffle(units)
        chosen: set[int] = set()
        for unit in units:
            if len(chosen) == limit:
                break
            if len(chosen) + len(unit) <= limit and chosen.isdisjoint(unit):
                chosen.update(unit)
        return sorted(chosen)

    def _words(self, ids: Sequence[int], segment: range) -> list[Unit]:
        """The words of a segment, which may begin with the rest of a cut word."""
        starts = [
            position
            for position in segment
            if position == segment.start or ids[position] not in self._continuations
        ]
        return [
            range(a, b)
            for a, b in zip(starts, [*starts[1:], segment.stop], strict=True)
        ]

    def _ngrams(self, words: list[list[Unit]], rng: random.Random) -> list[Unit]:
        """For each word, the unit of n words from it on; fewer at a segment's end."""
        if len(self._ngram_weights) == 1:
            return [word for segment in words for word in segment]
        sizes = range(1, len(self._ngram_weights) + 1)
        units = []
        for segment in words:
            lengths = rng.choices(sizes, self._ngram_weights, k=len(segment))
            for first, n in enumerate(lengths):
                last = segment[min(first + n, len(segment)) - 1]
                units.append(range(segment[first].start, last.stop))
        return units
