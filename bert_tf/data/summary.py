"""What `data create` reports at its end, and what it warns of."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence, Set

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.metadata import Metadata
from bert_tf.data.parts import Part, total_counts
from bert_tf.data.text_counts import different_documents, merge_samples
from bert_tf.data.tokenization import (
    CONTINUATION,
    MAX_CHARS_PER_WORD,
    SPECIAL_TOKENS,
    TokenizerSettings,
    WordSplitter,
)

# Key of the metadata under which `summarize` stands.
SUMMARY = "text_summary"

# Shares beyond which there is a warning; docs/data.md states them.
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
    """Adds up what the parts of a data set count.

    Returns:
      `records`, of them `random_next` and `unmasked`; `documents`, of them
      `repeated_documents` (an estimate where there are many); `text_tokens`, of them
      `unknown_tokens`; and of the tokens of all duplicates, `drawn_tokens`, those that
      are in no record, `dropped_tokens`. None for parts that count less.
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
    """The summary in one line, and a warning for each share beyond its bound."""
    found = metadata.extra.get(SUMMARY)
    if not isinstance(found, Mapping):
        return "No summary: an earlier version has made a part of the records.", []
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
            f"{MAX_CHARS_PER_WORD} characters. Use a vocabulary of its language, or "
            "train one with `python -m bert_tf data vocab`."
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
            "--max_predictions_per_seq and --masked_lm_prob, or mask without whole "
            "words."
        )
    if shares["dropped"] > MAX_DROPPED:
        yield (
            f"warning: {shares['dropped']:.1%} of the tokens are dropped, since lines "
            "are long for the records. Put each sentence on its own line "
            "(--input_format=text finds the sentences of files that are one document "
            "each), or raise --max_seq_length."
        )
    if shares["repeated"] > MAX_REPEATED:
        yield (
            f"warning: about {found['repeated_documents']:,} of "
            f"{found['documents']:,} documents repeat another one word for word. "
            "Remove the copies unless they are meant."
        )


def vocabulary_warnings(
    tokens: Sequence[str], settings: TokenizerSettings
) -> list[str]:
    """Lines about tokens that no text can ever become.

    Own words in places of [unusedN] are named if there is one; other tokens, of two or
    more characters, beyond `MAX_UNMATCHED`: published vocabularies have a few. Those
    that only case or accents rule out are the subject of `choose_settings`.

    Args:
      tokens: The vocabulary.
      settings: Of the tokenizer.
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
    places = _unused_places(tokens, {number for number, _ in lost})
    own = [token for number, token in lost if number in places]
    others = [
        token
        for number, token in lost
        if number not in places
        and len(token.removeprefix(CONTINUATION)) > 1
        and not _is_reachable(token, as_written)
    ]
    lines = []
    if own:
        lines.append(
            f"warning: {len(own)} of your own words in [unusedN] places can never "
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
        "blanks, punctuation and CJK characters: write them so."
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
        word = "a" + word  # A piece stands within a word.
    return splitter.words(word or token) == [word or token]


def _unused_places(tokens: Sequence[str], lost: Set[int]) -> set[int]:
    """Lines that would hold an [unusedN] if all of its numbers were there.

    Where the numbers ended nobody knows: lines behind the last one count while they
    are among those of `lost` tokens; not where these are many, as those of a cased
    vocabulary for lower-case text.
    """
    numbered = {
        int(token[len(_UNUSED) : -1]): place
        for place, token in enumerate(tokens)
        if token.startswith(_UNUSED) and token[len(_UNUSED) : -1].isdecimal()
    }
    missing = set(range(max(numbered, default=0))) - set(numbered)
    offsets = {place - number for number, place in numbered.items()}
    places = {number + offset for number in missing for offset in offsets}
    is_few = len(lost) <= MAX_UNMATCHED * len(tokens)
    for place in numbered.values() if is_few else ():
        behind = itertools.takewhile(lost.__contains__, itertools.count(place + 1))
        places.update(behind)
    return places


def _examples(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in tokens[:_MOST_EXAMPLES])
