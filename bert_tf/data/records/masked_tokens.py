"""What a sample of records says of its masked tokens, before any training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bert_tf.data.pretraining.statistics import SUMMARY
from bert_tf.data.records.metadata import Metadata
from bert_tf.data.records.record_index import SetShare
from bert_tf.data.text.vocabulary import CONTINUATION, SPECIAL_TOKENS, load_vocabulary

# Enough for the entropy to 0.05 nats, and read within a second.
_MOST_RECORDS = 4096
_RECORDS_AT_ONCE = 512
# Parts of a sample, and masked tokens that tell whether they differ.
_NUM_PARTS, _FEWEST_ORDERED = 8, 2000
# The id of [UNK] in published vocabularies, for runs without a vocabulary.
_UNKNOWN_ID = 100
# With fewer masked tokens that are not [MASK], their share of kept ones is not known.
_FEWEST_SHOWN = 50
# Chinese characters and what follows are words of one letter.
_FIRST_CJK = "\u2e80"

Parser = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class MaskedTokens:
    """The masked tokens of a sample of records.

    Attributes:
      entropy: Entropy of their frequencies, in nats: the loss of the best model
        without context.
      num_masked: How many.
      num_records: Records of the sample.
      masked_per_record: On average.
      tokens_per_record: On average, without padding.
      unknown_share: Share of them that are [UNK], or [unusedN] of the vocabulary.
      letter_share: Share of them that are a single letter of an alphabet; 0 without a
        vocabulary.
      kept_share: Share of them that the input shows unchanged, among those that it does
        not show as [MASK]: about half in BERT's records. None if there are too few.
      copies: How many other records a record is equal to, masks included: an estimate.
      order_gain: How much smaller the entropy is within parts of the files than in the
        whole, in nats: about 0 if their records are shuffled.
      repeated_documents: Share of the documents that repeat another one, as metadata
        state; 0 if none does.
    """

    entropy: float
    num_masked: int
    num_records: int
    masked_per_record: float
    tokens_per_record: float
    unknown_share: float
    letter_share: float
    kept_share: float | None
    copies: float
    order_gain: float
    repeated_documents: float


def measure_masked_tokens(
    parser: Parser,
    shares: Sequence[SetShare],
    metadata: Mapping[str, Metadata | None],
    vocab_file: str = "",
) -> MaskedTokens | None:
    """Reads a sample that is a function of the numbers of records alone.

    Args:
      parser: Reads the records.
      shares: The sets that a run reads, in order; a single one has all records.
      metadata: Folder -> its metadata, None if it has none.
      vocab_file: Their vocabulary; empty if it is not known.

    Returns:
      The statistics; None if no token of the sample is masked.
    """
    numbers, weights = sample_numbers(shares)
    words = load_vocabulary(vocab_file) if vocab_file else []
    labels, shown, owners, keys, num_tokens = [], [], [], [], 0.0
    for first in range(0, len(numbers), _RECORDS_AT_ONCE):
        part = slice(first, first + _RECORDS_AT_ONCE)
        features = parser(numbers[part])
        row, slot = np.nonzero(features["masked_lm_weights"] > 0)
        labels.append(features["masked_lm_ids"][row, slot])
        position = features["masked_lm_positions"][row, slot]
        shown.append(features["input_ids"][row, position])
        owners.append(first + row)
        keys.append(_sequence_keys(features))
        num_tokens += float((features["input_mask"] > 0).sum(axis=1) @ weights[part])
    labels, shown, owners, keys = map(np.concatenate, (labels, shown, owners, keys))
    if not len(labels):
        return None
    counts = np.bincount(labels, weights[owners])
    total = counts.sum()
    unknown = [i for i, word in enumerate(words) if _is_placeholder(word)]
    unknown = np.array(unknown or [_UNKNOWN_ID])
    is_letter = np.array([*map(_is_letter, words[: len(counts)])], bool)
    fraction = len(numbers) / sum(share.num_records for share in shares)
    return MaskedTokens(
        entropy=_entropy(counts),
        num_masked=len(labels),
        num_records=len(numbers),
        masked_per_record=float(total) / len(numbers),
        tokens_per_record=num_tokens / len(numbers),
        unknown_share=float(counts[unknown[unknown < len(counts)]].sum() / total),
        letter_share=float(counts[: len(is_letter)][is_letter].sum() / total),
        kept_share=_kept_share(labels, shown),
        copies=_copies(keys, fraction),
        order_gain=_order_gain(labels, owners),
        repeated_documents=_repeated_documents(metadata),
    )


def sample_numbers(shares: Sequence[SetShare]) -> tuple[np.ndarray, np.ndarray]:
    """Record numbers spread evenly over each set, and weights of mean 1.

    Args:
      shares: The sets in the order of their numbers.
    """
    numbers, weights, first = [], [], 0
    for share in shares:
        count = min(share.num_records, max(1, _MOST_RECORDS // len(shares)))
        chosen = np.linspace(0, share.num_records - 1, count).astype(np.int64)
        numbers.append(first + np.unique(chosen))
        weights.append(np.full(len(numbers[-1]), share.parts / len(numbers[-1])))
        first += share.num_records
    weight = np.concatenate(weights)
    return np.concatenate(numbers), weight / weight.mean()


def _entropy(counts: np.ndarray) -> float:
    """The entropy of frequencies, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _order_gain(labels: np.ndarray, owners: np.ndarray) -> float:
    """See `MaskedTokens`: parts of neighbours against parts of every n-th record."""
    if len(labels) < _FEWEST_ORDERED:
        return 0.0
    neighbours = owners * _NUM_PARTS // (owners.max() + 1)
    return _mean_entropy(labels, owners % _NUM_PARTS) - _mean_entropy(
        labels, neighbours
    )


def _mean_entropy(labels: np.ndarray, parts: np.ndarray) -> float:
    """The mean of the entropies of parts, given by number."""
    tokens = [labels[parts == number] for number in np.unique(parts)]
    return float(np.mean([_entropy(np.bincount(one)) for one in tokens]))


def _sequence_keys(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """A 64-bit hash of the tokens of each sequence, packed or not, that has any."""
    owners = features["input_mask"].astype(np.int64)
    row, column = np.nonzero(owners)
    token = features["input_ids"][row, column].astype(np.uint64)
    place = features["positions"][row, column].astype(np.uint64)
    value = (token << np.uint64(20)) + place + np.uint64(1)
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # As SplitMix64 mixes.
        value = (value ^ (value >> np.uint64(31))) * np.uint64(factor)
    sums = np.zeros((len(owners), int(owners.max(initial=0)) + 1), np.uint64)
    np.add.at(sums, (row, owners[row, column]), value)
    return sums[sums > 0]


def _copies(keys: np.ndarray, fraction: float) -> float:
    """How many others equal a sequence, from a fraction of all of them.

    If each has k copies, the sample has one of them with probability 1 - exp(-k f).
    A few frequent ones say nothing of the others: a tenth at least must have a copy.
    Where most have one, their median number tells more.
    """
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    of_key = counts[inverse]
    share = float((of_key > 1).mean()) if len(keys) else 0.0
    if share < 0.1:
        return 0.0
    if share > 0.9:
        return float(np.median(of_key) - 1.0) / fraction
    return -float(np.log(1.0 - share)) / fraction


def _kept_share(labels: np.ndarray, shown: np.ndarray) -> float | None:
    """See `MaskedTokens`; [MASK] is what most masked tokens are shown as."""
    mask = np.bincount(shown).argmax()
    is_shown = shown != mask
    if is_shown.sum() < _FEWEST_SHOWN:
        return None
    return float((labels == shown)[is_shown].mean())


def _is_placeholder(word: str) -> bool:
    return word == SPECIAL_TOKENS.unk or word.startswith("[unused")


def _is_letter(word: str) -> bool:
    letter = word.removeprefix(CONTINUATION)
    return len(letter) == 1 and letter.isalpha() and letter < _FIRST_CJK


def _repeated_documents(metadata: Mapping[str, Metadata | None]) -> float:
    found = [about.extra.get(SUMMARY) for about in metadata.values() if about]
    stated = [one for one in found if one]
    total = sum(one["documents"] for one in stated)
    return sum(one["repeated_documents"] for one in stated) / max(total, 1)
