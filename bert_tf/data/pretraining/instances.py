"""Makes masked sentence pairs from tokenised documents.

Source: google-research/bert, `create_pretraining_data.py` (Devlin et al. 2019,
arXiv:1810.04805, section 3.1 and appendix A). Departures: another document is drawn
from all others directly, where the original tries ten times and may then take the same
one; masked positions are drawn without replacement, where it shuffles all of them and
takes the first (the same distribution). Random tokens are drawn from all ids, as there.
"""

import dataclasses
import random
from collections.abc import Collection, Sequence

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.masking import Masker
from bert_tf.data.text.tokenization import SpecialTokens

Document = Sequence[Sequence[int]]

_NUM_SPECIAL = 3  # [CLS] a [SEP] b [SEP]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingInstance:
    """A masked pair of text segments, not padded.

    Attributes:
      input_ids: [CLS] a [SEP] b [SEP], with masks, at most S ids.
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
        """Makes the instances of all documents, each used once as the first segment.

        Args:
          documents: Documents of sentences of ids; empty ones are left out.

        Returns:
          The instances in the order of the documents.

        Raises:
          ValueError: if fewer than two documents hold text: there is no other
            document to take a random next segment from.
        """
        documents = [kept for kept in ([s for s in d if s] for d in documents) if kept]
        if len(documents) < 2:
            raise ValueError(
                "The text must hold at least two documents, so that a random next "
                f"segment can come from another one. Received: {len(documents)}. In "
                "google's format, put a blank line between documents; with "
                "--input_format=text, each file is a document."
            )
        return [
            self._masked(tokens_a, tokens_b, is_random_next)
            for number in range(len(documents))
            for tokens_a, tokens_b, is_random_next in self._pairs(documents, number)
        ]

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
        longest = self._config.max_seq_length - _NUM_SPECIAL
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
        """Joins a pair and masks it."""
        special = self._special
        ids = [special.cls, *tokens_a, special.sep, *tokens_b, special.sep]
        first_b = len(tokens_a) + 2
        segments = range(1, first_b - 1), range(first_b, len(ids) - 1)
        positions, labels = self._masker.mask(ids, segments, self._rng)
        segment_ids = [0] * first_b + [1] * (len(ids) - first_b)
        return TrainingInstance(ids, segment_ids, is_random_next, positions, labels)


def create_instances(
    documents: Sequence[Document],
    config: CreateDataConfig,
    special: SpecialTokens,
    vocab_size: int,
    rng: random.Random,
    continuations: Collection[int] = (),
) -> list[TrainingInstance]:
    """Makes the instances of a group of documents, see `InstanceMaker.make`.

    Args:
      documents: At least two documents of sentences of ids; random next segments come
        from these documents too.
      config: Lengths and probabilities.
      special: Ids of the special tokens.
      vocab_size: V.
      rng: The only source of randomness: the same state gives the same instances.
      continuations: Ids of the pieces that continue a word (##...), for whole-word
        masks.

    Returns:
      Instances in document order.

    Raises:
      ValueError: if fewer than two documents hold text.
    """
    masker = Masker(config, special, vocab_size, continuations)
    return InstanceMaker(config, special, masker, rng).make(documents)
