"""The summary and the warnings that `data create` prints."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence, Set

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.counts import different_documents, merge_samples
from bert_tf.data.records.metadata import Metadata
from bert_tf.data.records.shards import Part, total_counts
from bert_tf.data.text.tokenization import (
    CONTINUATION,
    MAX_CHARS_PER_WORD,
    SPECIAL_TOKENS,
    TokenizerSettings,
    WordSplitter,
)

# Key of the metadata that has the result of `summarize`.
SUMMARY = "text_summary"

# Fractions above which there is a warning; docs/data.md states them.
MAX_UNKNOWN = 0.05
MAX_RANDOM_NEXT = 0.75
MAX_UNMASKED = 0.01
MAX_DROPPED = 0.4
MAX_REPEATED = 0.2
MAX_UNMATCHED = 0.01

_COUNTED = (
    "records",
    "documents",
    "text_tokens",
    "unknown_tokens",
    "random_next",
    "unmasked",
)
_UNUSED = "[unused"
_MOST_EXAMPLES = 3


def summarize(parts: Iterable[Part], config: CreateDataConfig) -> dict[str, int] | None:
    """Adds up the counts of the parts of a data set.

    Returns:
      `records`, of them `random_next` and `unmasked`; `documents`, of them
      `repeated_documents` (an estimate if there are many); `text_tokens`, of them
      `unknown_tokens`; and of the tokens of all duplicates, `drawn_tokens`, those that
      are in no record, `dropped_tokens`. None if a part lacks these counts, since an
      earlier version made it.
    """
    parts = list(parts)
    total = total_counts(parts)
    if not total["documents"] or not all("kept_tokens" in p.counts for p in parts):
        return None
    documents = total["documents"]
    different = different_documents(merge_samples(p.sample for p in parts), documents)
    drawn = total["text_tokens"] * config.dupe_factor
    return {name: total[name] for name in _COUNTED} | {
        "repeated_documents": documents - different,
        "dropped_tokens": drawn - total["kept_tokens"],
        "drawn_tokens": drawn,
    }


def describe(metadata: Metadata) -> tuple[str, list[str]]:
    """The summary in one line, and a warning for each fraction above its bound."""
    found = metadata.extra.get(SUMMARY)
    if not isinstance(found, Mapping):
        return "No summary: an earlier version made some of the records.", []
    shares = {
        "unknown": found["unknown_tokens"] / found["text_tokens"],
        "random": found["random_next"] / found["records"],
        "unmasked": found["unmasked"] / found["records"],
        "dropped": found["dropped_tokens"] / found["drawn_tokens"],
        "repeated": found["repeated_documents"] / found["documents"],
    }
    line = (
        f"{found['documents']:,} documents ({shares['repeated']:.1%} repeated), "
        f"{found['text_tokens']:,} tokens ({shares['unknown']:.2%} [UNK], "
        f"{shares['dropped']:.1%} dropped); {shares['random']:.1%} of the records have "
        f"a random next segment, {shares['unmasked']:.1%} no mask"
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
            "Remove the copies unless they are intended."
        )


def vocabulary_warnings(
    tokens: Sequence[str], settings: TokenizerSettings
) -> list[str]:
    """Warnings about tokens that match no text, since it is split otherwise.

    There is one if any of the user's own words on lines of [unusedN] never match, and
    one if more than `MAX_UNMATCHED` of the other tokens of two or more characters do
    not: published vocabularies have a few. `choose_settings` warns of tokens that only
    case or accents rule out.

    Args:
      tokens: The vocabulary.
      settings: Those of the tokenizer.
    """
    splitter = WordSplitter(settings)
    as_written = WordSplitter(
        dataclasses.replace(settings, do_lower_case=False, strip_accents=False)
    )
    lost = [
        (number, token)
        for number, token in enumerate(tokens)
        if not token.startswith(_UNUSED)
        and token not in SPECIAL_TOKENS
        and not _is_reachable(token, splitter)
    ]
    replaced = _unused_places(tokens, {number for number, _ in lost})
    own = [token for number, token in lost if number in replaced]
    others = [
        token
        for number, token in lost
        if number not in replaced
        and len(token.removeprefix(CONTINUATION)) > 1
        and not _is_reachable(token, as_written)
    ]
    lines = []
    if own:
        lines.append(
            f"warning: {len(own)} of your own words in place of [unusedN] can never "
            f"match: {_examples(own)}. {_RULES[settings.do_lower_case]}"
        )
    if len(others) > MAX_UNMATCHED * len(tokens):
        lines.append(
            f"warning: {len(others):,} of {len(tokens):,} tokens of the vocabulary can "
            f"never match: {_examples(others)}. {_RULES[False]}"
        )
    return lines


_RULES = {
    True: (
        "With --do_lower_case=true text has no capitals and accents, and is split at "
        "blanks, punctuation and CJK characters: write them in that form."
    ),
    False: (
        "Text is split at blanks, punctuation and CJK characters: write them as single "
        "words."
    ),
}


def _is_reachable(token: str, splitter: WordSplitter) -> bool:
    word = token.removeprefix(CONTINUATION)
    if word.isascii() and word.isalnum():
        return word == word.lower() or not splitter.settings.do_lower_case
    if word and word is not token:
        word = "a" + word  # A ## piece is always within a word.
    return splitter.words(word or token) == [word or token]


def _unused_places(tokens: Sequence[str], lost: Set[int]) -> set[int]:
    """Ids at which an [unusedN] was probably replaced.

    These are the ids that the missing numbers would have. The largest number is not
    known, so `lost` tokens right after an [unusedN] count too; not if these are many,
    as in a cased vocabulary for lower-case text.
    """
    numbered = {
        int(token[len(_UNUSED) : -1]): index
        for index, token in enumerate(tokens)
        if token.startswith(_UNUSED) and token[len(_UNUSED) : -1].isdecimal()
    }
    missing = set(range(max(numbered, default=0))) - set(numbered)
    offsets = {index - number for number, index in numbered.items()}
    replaced = {number + offset for number in missing for offset in offsets}
    is_few = len(lost) <= MAX_UNMATCHED * len(tokens)
    for index in numbered.values() if is_few else ():
        after = itertools.takewhile(lost.__contains__, itertools.count(index + 1))
        replaced.update(after)
    return replaced


def _examples(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in tokens[:_MOST_EXAMPLES])
