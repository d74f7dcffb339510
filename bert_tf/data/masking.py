"""Which tokens of a sequence are masked, and what stands in their place.

Sources: Devlin et al. 2019 (arXiv:1810.04805), section 3.1; whole words as in
google-research/bert's README of May 2019: the pieces of a word are masked together,
each replaced on its own; n-grams of whole words as in Lan et al. 2020
(arXiv:1909.11942), section 3.1, where n words have a probability proportional to 1/n.
"""

import random
from collections.abc import Collection, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.tokenization import SpecialTokens

# Places of the tokens of one unit, which is masked as a whole or not at all.
Unit = range


class Masker:
    """Masks sequences by the settings of a data set."""

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
          continuations: Ids of the pieces that go on with a word (##...).
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
          segments: Places of the tokens that may be masked, a range for each segment.
          rng: Decides everything.

        Returns:
          Ascending places of the masked tokens, and the tokens that stood there.
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
            candidates = [place for segment in segments for place in segment]
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
        """At most `limit` places; a unit that would go beyond is left out."""
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
        """The words of a segment; a piece at its beginning begins one."""
        starts = [
            place
            for place in segment
            if place == segment.start or ids[place] not in self._continuations
        ]
        return [
            range(a, b)
            for a, b in zip(starts, [*starts[1:], segment.stop], strict=True)
        ]

    def _ngrams(self, words: list[list[Unit]], rng: random.Random) -> list[Unit]:
        """For each word the unit that begins with it: n words, or fewer at the end."""
        if len(self._ngram_weights) == 1:
            return [word for segment in words for word in segment]
        sizes = range(1, len(self._ngram_weights) + 1)
        units = []
        for segment in words:
            lengths = rng.choices(sizes, self._ngram_weights, k=len(segment))
            for place, n in enumerate(lengths):
                last = segment[min(place + n, len(segment)) - 1]
                units.append(range(segment[place].start, last.stop))
        return units
