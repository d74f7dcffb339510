"""Makes masked sentence pairs, or single segments, from tokenised documents.

Sources:
- Pairs: google-research/bert, `create_pretraining_data.py` (Devlin et al. 2019,
  arXiv:1810.04805, section 3.1 and appendix A). Departures: another document is drawn
  from all others directly, where the original tries ten times and may then take the
  same one; masked positions are drawn without replacement, where it shuffles all of
  them and takes the first (the same distribution). Random tokens are drawn from all
  ids, as there.
- Single segments: Liu et al. 2019 (arXiv:1907.11692), section 4.2, "DOC-SENTENCES".
- Whole words: google-research/bert's README of May 2019. The pieces of a word are
  selected together, and each is replaced independently.
- N-grams of whole words: Lan et al. 2020 (arXiv:1909.11942), section 3.1, where n words
  have a probability proportional to 1/n.
"""

import dataclasses
import itertools
import random
from collections.abc import Collection, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.text.vocabulary import SpecialTokens

Document = Sequence[Sequence[int]]

_NUM_SPECIAL = 3  # [CLS] a [SEP] b [SEP]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingInstance:
    """A masked pair of text segments, or a single one, not padded.

    Attributes:
      input_ids: [CLS] a [SEP] b [SEP] or [CLS] a [SEP], with masks, at most S ids.
      segment_ids: 0 up to the first [SEP], then 1; one for each token.
      is_random_next: Whether b comes from another document.
      masked_lm_positions: Ascending positions of the masked tokens, at most P.
      masked_lm_ids: The original tokens at these positions.
    """

    input_ids: list[int]
    segment_ids: list[int]
    is_random_next: bool
    masked_lm_positions: list[int]
    masked_lm_ids: list[int]


class Masker:
    """Selects the tokens of a sequence to predict, and masks them.

    Of the selected tokens 80% become [MASK], 10% a random token, and 10% stay: since
    [MASK] never occurs in fine-tuning, the model must not rely on it.
    """

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

        Words, or n-grams of them, are tried in random order. One that exceeds the limit
        is skipped and the next is tried, as in the original, so that long words do not
        end the selection.
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

    def _words(self, ids: Sequence[int], segment: range) -> list[range]:
        """The words of a segment, which may begin with the rest of a cut word."""
        starts = [
            position
            for position in segment
            if position == segment.start or ids[position] not in self._continuations
        ]
        bounds = itertools.pairwise([*starts, segment.stop])
        return [range(begin, end) for begin, end in bounds]

    def _ngrams(self, words: list[list[range]], rng: random.Random) -> list[range]:
        """The positions of n words, from each word on; fewer at a segment's end."""
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


class InstanceMaker:
    """Makes instances from documents of token ids, with one random generator."""

    def __init__(
        self,
        config: CreateDataConfig,
        special: SpecialTokens,
        masker: Masker,
        rng: random.Random,
    ) -> None:
        """Prepares for a group of documents.

        Args:
          config: Lengths and probabilities.
          special: Ids of the special tokens.
          masker: Masks the sequences.
          rng: The only source of randomness.
        """
        self._config = config
        self._special = special
        self._masker = masker
        self._rng = rng

    def make(self, documents: Sequence[Document]) -> list[TrainingInstance]:
        """Makes the instances of all documents, each of which is used once.

        Args:
          documents: Documents of sentences of ids; empty ones are left out.

        Returns:
          The instances in the order of the documents.

        Raises:
          ValueError: if pairs are made, and fewer than two documents hold text: there
            is no other document to take a random next segment from.
        """
        documents = [kept for kept in ([s for s in d if s] for d in documents) if kept]
        if not self._config.do_nsp:
            return [
                self._masked(segment, [], False)
                for document in documents
                for segment in self._segments(document)
            ]
        if len(documents) < 2:
            raise ValueError(
                "The text must hold at least two documents, so that a random next "
                f"segment can come from another one. Received: {len(documents)}. In "
                "google's format, put a blank line between documents; with "
                "--input_format=text, each file is a document; with "
                "--input_format=lines, each line is. Without next-sentence prediction "
                "(--nodo_nsp, here and in training) one is enough."
            )
        return [
            self._masked(tokens_a, tokens_b, is_random_next)
            for number in range(len(documents))
            for tokens_a, tokens_b, is_random_next in self._pairs(documents, number)
        ]

    def _segments(self, document: Document) -> list[list[int]]:
        """Divides one document into segments of whole sentences.

        A sentence that does not fit begins the next segment, and one that is longer
        than a segment is cut: each token is in exactly one segment.
        """
        segments: list[list[int]] = []
        current: list[int] = []
        limit = self._target_length()
        for sentence in document:
            rest = list(sentence)
            while rest:
                if current and len(current) + len(rest) > limit:
                    segments.append(current)
                    current, limit = [], self._target_length()
                current += rest[:limit]
                rest = rest[limit:]
        return [*segments, current]

    def _pairs(
        self, documents: Sequence[Document], number: int
    ) -> list[tuple[list[int], list[int], bool]]:
        """Divides one document into pairs of segments a and b.

        Sentences are collected up to the target length and split at random: a is the
        first part, b the rest. In half of the pairs, and if there is only one sentence,
        b is taken from another document instead; the sentences that b would have been
        then begin the next pair, so that no sentence is lost.
        """
        document = documents[number]
        target_length = self._target_length()
        pairs = []
        chunk: list[Sequence[int]] = []
        length = 0
        index = 0
        while index < len(document):
            chunk.append(document[index])
            length += len(document[index])
            index += 1
            if index < len(document) and length < target_length:
                continue
            a_end = self._rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            tokens_a = [token for sentence in chunk[:a_end] for token in sentence]
            is_random_next = len(chunk) == 1 or self._rng.random() < 0.5
            if is_random_next:
                other = self._other_document(documents, number)
                tokens_b = self._random_segment(other, target_length - len(tokens_a))
                index -= len(chunk) - a_end  # The unused sentences are used again.
            else:
                tokens_b = [token for sentence in chunk[a_end:] for token in sentence]
            pairs.append((*self._truncated(tokens_a, tokens_b), is_random_next))
            chunk, length = [], 0
        return pairs

    def _target_length(self) -> int:
        num_special = _NUM_SPECIAL if self._config.do_nsp else _NUM_SPECIAL - 1
        longest = self._config.max_seq_length - num_special
        if self._rng.random() < self._config.short_seq_prob:
            return self._rng.randint(2, longest)
        return longest

    def _other_document(self, documents: Sequence[Document], number: int) -> Document:
        other = self._rng.randrange(len(documents) - 1)
        return documents[other + (other >= number)]

    def _random_segment(self, document: Document, target_length: int) -> list[int]:
        """Consecutive sentences from a random one on, until there are enough tokens."""
        tokens: list[int] = []
        for sentence in document[self._rng.randrange(len(document)) :]:
            tokens += sentence
            if len(tokens) >= target_length:
                break
        return tokens

    def _truncated(self, a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
        """Drops tokens of the longer segment, each at a random end, until both fit.

        As in the original, random ends avoid a bias towards either end of sentences.
        """
        limit = self._config.max_seq_length - _NUM_SPECIAL
        first, end = [0, 0], [len(a), len(b)]
        for _ in range(len(a) + len(b) - limit):
            longer = 0 if end[0] - first[0] > end[1] - first[1] else 1
            if self._rng.random() < 0.5:
                first[longer] += 1
            else:
                end[longer] -= 1
        return a[first[0] : end[0]], b[first[1] : end[1]]

    def _masked(
        self, tokens_a: list[int], tokens_b: list[int], is_random_next: bool
    ) -> TrainingInstance:
        """Joins a pair, or takes a alone where b is empty, and masks it."""
        special = self._special
        ids = [special.cls, *tokens_a, special.sep]
        first_b = len(ids)
        segments = [range(1, first_b - 1)]
        if tokens_b:
            ids += [*tokens_b, special.sep]
            segments.append(range(first_b, len(ids) - 1))
        positions, labels = self._masker.mask(ids, segments, self._rng)
        segment_ids = [0] * first_b + [1] * (len(ids) - first_b)
        return TrainingInstance(ids, segment_ids, is_random_next, positions, labels)
