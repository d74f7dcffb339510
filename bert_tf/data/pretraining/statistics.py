"""Statistics of text and records, and the summary and warnings of `data create`.

The totals do not depend on the number of processes or on interruptions: counts are
sums, and documents are sampled by their content alone.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bert_tf.data.output_files import OutputFile, total_counts
from bert_tf.data.pretraining.instances import Document, TrainingInstance
from bert_tf.data.text.tokenization import MAX_CHARS_PER_WORD
from bert_tf.errors import shown

# Key of the metadata that has the result of `summarize`.
SUMMARY = "text_summary"

# Fractions above which there is a warning; docs/data.md states them.
MAX_UNKNOWN = 0.05
MAX_RANDOM_NEXT = 0.75
MAX_UNMASKED = 0.01
MAX_DROPPED = 0.4
MAX_REPEATED = 0.2

_COUNTED = (
    "records",
    "documents",
    "text_tokens",
    "unknown_tokens",
    "random_next",
    "unmasked",
)
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
            has_pair = instance.segment_ids[-1] == 1
            kept += len(instance.input_ids) - _NUM_SPECIAL + (not has_pair)
        unmasked += not instance.masked_lm_ids
    return Counter(random_next=random_next, unmasked=unmasked, kept_tokens=kept)


def summarize(files: Sequence[OutputFile], dupe_factor: int) -> dict[str, int] | None:
    """Adds up the counts of the files of a data set.

    Returns:
      `records`, of them `random_next` and `unmasked`; `documents`, of them
      `repeated_documents` (an estimate if there are many); `text_tokens`, of them
      `unknown_tokens`; and of the tokens of all duplicates, `drawn_tokens`, those that
      are in no record, `dropped_tokens`. None if a file lacks these counts, since an
      earlier version made it.
    """
    total = total_counts(files)
    if not total["documents"] or not all("kept_tokens" in f.counts for f in files):
        return None
    documents = total["documents"]
    different = different_documents(merge_samples(f.sample for f in files), documents)
    drawn = total["text_tokens"] * dupe_factor
    return {name: total[name] for name in _COUNTED} | {
        "repeated_documents": documents - different,
        "dropped_tokens": drawn - total["kept_tokens"],
        "drawn_tokens": drawn,
    }


def check_summary(found: object) -> None:
    """Raises a ValueError if metadata hold a summary that `summarize` cannot make."""
    names = (*_COUNTED, "repeated_documents", "dropped_tokens", "drawn_tokens")
    totals = ("records", "documents", "text_tokens", "drawn_tokens")
    is_valid = isinstance(found, Mapping) and all(
        type(found.get(name)) is int and found[name] >= (name in totals)
        for name in names
    )
    if found is not None and not is_valid:
        raise ValueError(
            f"`{SUMMARY}` must hold whole numbers as {', '.join(names)}. Received: "
            f"{shown(found)}."
        )


def describe_summary(
    found: Mapping[str, int] | None, *, has_pairs: bool = True
) -> tuple[str, list[str]]:
    """The result of `summarize` in one line, and a warning for each doubtful fraction.

    Args:
      found: Under `SUMMARY` in the metadata; None if it is not there.
      has_pairs: Whether the records have next segments.
    """
    if found is None:
        return "No summary: an earlier version made some of the records.", []
    shares = {
        "unknown": found["unknown_tokens"] / found["text_tokens"],
        "random": found["random_next"] / found["records"],
        "unmasked": found["unmasked"] / found["records"],
        "dropped": found["dropped_tokens"] / found["drawn_tokens"],
        "repeated": found["repeated_documents"] / found["documents"],
    }
    random = f"{shares['random']:.1%} have a random next segment, " if has_pairs else ""
    line = (
        f"{found['documents']:,} documents ({shares['repeated']:.1%} repeated), "
        f"{found['text_tokens']:,} tokens ({shares['unknown']:.2%} [UNK], "
        f"{shares['dropped']:.1%} dropped); of the records {random}"
        f"{shares['unmasked']:.1%} have no mask"
    )
    return line, list(_warnings(found, shares))


def _warnings(found: Mapping[str, int], shares: Mapping[str, float]) -> Iterable[str]:
    records = found["records"]
    if shares["unknown"] > MAX_UNKNOWN:
        yield (
            f"warning: {shares['unknown']:.1%} of the tokens are [UNK]: the vocabulary "
            "lacks words or letters of the text, or words have more than "
            f"{MAX_CHARS_PER_WORD} characters. Use a vocabulary for the text's "
            "language, or train one with `python -m bert_tf data vocab`."
        )
    if shares["random"] > MAX_RANDOM_NEXT:
        yield (
            f"warning: {found['random_next']:,} of {records:,} records "
            f"({shares['random']:.1%}) have a random next segment, where about half is "
            "usual: most documents have one sentence, or sentences fill a record. A "
            "blank line ends a document: put it between documents, not sentences. "
            "Where sentences are long, raise --max_seq_length."
        )
    if shares["unmasked"] > MAX_UNMASKED:
        yield (
            f"warning: {found['unmasked']:,} of {records:,} records have no masked "
            "token, so they train no masked LM. With --do_whole_word_mask every word "
            "in them has more pieces than may be masked: raise "
            "--max_predictions_per_seq and --masked_lm_prob, or leave out "
            "--do_whole_word_mask."
        )
    if shares["dropped"] > MAX_DROPPED:
        yield (
            f"warning: {shares['dropped']:.1%} of the tokens are dropped, since lines "
            "are long for the records. Put each sentence on its own line "
            "(--input_format=text splits files that are one document each), or raise "
            "--max_seq_length."
        )
    if shares["repeated"] > MAX_REPEATED:
        yield (
            f"warning: about {found['repeated_documents']:,} of "
            f"{found['documents']:,} documents repeat another one word for word. "
            "--dedup leaves them out."
        )
