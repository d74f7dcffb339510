"""Counts text and records while records are made, for the summary.

The totals do not depend on the number of processes or on interruptions: counts are
sums over parts, and documents are sampled by their content alone.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from bert_tf.data.pretraining.instances import Document, TrainingInstance

# With so many hashes, the number of different documents is known to about 6%.
_SAMPLE_SIZE = 256
_HASH_BYTES = 7
_NUM_SPECIAL = 3


@dataclasses.dataclass(frozen=True)
class TextCounts:
    """Counts of the text of some documents.

    Attributes:
      counts: `documents` and `text_tokens`, of them `unknown_tokens` ([UNK]).
      sample: The smallest hashes of different documents, ascending.
    """

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    sample: tuple[int, ...] = ()


def count_text(
    texts: Sequence[Sequence[str]], documents: Sequence[Document], unknown: int
) -> TextCounts:
    """Counts documents and their tokens.

    Args:
      texts: The sentences of each document.
      documents: The token ids of these sentences.
      unknown: Id of [UNK].
    """
    counts: Counter[str] = Counter()
    hashes = []
    for text, document in zip(texts, documents, strict=True):
        tokens = sum(map(len, document))
        if not tokens:
            continue  # Control characters and the like.
        counts["documents"] += 1
        counts["text_tokens"] += tokens
        counts["unknown_tokens"] += sum(ids.count(unknown) for ids in document)
        content = "\n".join(text).encode(errors="replace")
        digest = hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()
        hashes.append(int.from_bytes(digest, "little"))
    return TextCounts(counts, merge_samples([hashes]))


def merge_samples(samples: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The smallest different hashes of all samples together."""
    return tuple(sorted({one for sample in samples for one in sample})[:_SAMPLE_SIZE])


def different_documents(sample: Sequence[int], documents: int) -> int:
    """Estimates the number of different documents from their smallest hashes.

    Exact for fewer than `_SAMPLE_SIZE` documents.

    Source: Bar-Yossef et al. 2002, "Counting distinct elements in a data stream": of n
    evenly spread hashes the k-th smallest is about k / n of the range.
    """
    if len(sample) < _SAMPLE_SIZE:
        return len(sample)
    estimate = (len(sample) - 1) * 256**_HASH_BYTES / sample[-1]
    return min(documents, round(estimate))


def count_instances(instances: Iterable[TrainingInstance]) -> Counter[str]:
    """Counts `random_next` and `unmasked` records, and `kept_tokens`.

    Kept tokens are those of a document itself in its records: the first segment and the
    true next segment. Each duplicate uses each token of a document once, so the others
    were dropped when segments were truncated.
    """
    random_next = unmasked = kept = 0
    for instance in instances:
        if instance.is_random_next:
            random_next += 1
            kept += instance.segment_ids.index(1) - 2
        else:
            kept += len(instance.input_ids) - _NUM_SPECIAL
        unmasked += not instance.masked_lm_ids
    return Counter(random_next=random_next, unmasked=unmasked, kept_tokens=kept)
