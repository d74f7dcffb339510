"""Warns of tokens of a vocabulary that match no text, as the tokenizer is set."""

import dataclasses
import itertools
import unicodedata
from collections.abc import Sequence, Set

from bert_tf.data.text.tokenization import TokenizerSettings, WordSplitter
from bert_tf.data.text.vocabulary import CONTINUATION, SPECIAL_TOKENS

# Fraction of the tokens above which there is a warning; docs/data.md states it.
MAX_UNMATCHED = 0.01
# An uncased vocabulary has almost no words with a capital letter, a cased one a third;
# with accents it is the same.
_FEW = 0.01
_UNUSED = "[unused"
_MAX_EXAMPLES = 3
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


def is_lower_case(vocabulary: Sequence[str]) -> bool:
    """Whether a vocabulary is uncased: almost no token has a capital letter.

    Args:
      vocabulary: The tokens; those in brackets, such as [CLS], do not count.
    """
    words = _words(vocabulary)
    return sum(word != word.lower() for word in words) <= len(words) * _FEW


def has_accents(vocabulary: Sequence[str]) -> bool:
    """Whether stripping accents would make more than a few tokens unreachable."""
    words = _words(vocabulary)
    return sum(map(_is_accented, words)) > len(words) * _FEW


def _words(vocabulary: Sequence[str]) -> list[str]:
    return [t for t in vocabulary if not (t.startswith("[") and t.endswith("]"))]


def _is_accented(word: str) -> bool:
    return not word.isascii() and any(
        unicodedata.category(char) == "Mn"
        for char in unicodedata.normalize("NFD", word)
    )


def case_warnings(
    settings: TokenizerSettings,
    vocabulary: Sequence[str],
    vocab_file: str,
    *,
    is_flag: bool,
) -> list[str]:
    """A warning if case or accents do not fit the vocabulary.

    Args:
      settings: Those of the tokenizer.
      vocabulary: The tokens.
      vocab_file: Their file, for the message.
      is_flag: Whether a flag decided on lower-casing.
    """
    is_lower = is_lower_case(vocabulary)
    if settings.do_lower_case and not is_lower:
        count = sum(word != word.lower() for word in _words(vocabulary))
        return [
            f"warning: {vocab_file} has {count} words with capital letters, which "
            "never match with do_lower_case=True: for a cased model pass "
            "--do_lower_case=false."
        ]
    if is_flag and not settings.do_lower_case and is_lower:
        return [
            f"warning: {vocab_file} has no words with capital letters, so that with "
            "do_lower_case=False such words are [UNK]: for an uncased model pass "
            "--do_lower_case=true."
        ]
    if settings.strip_accents and has_accents(vocabulary):
        count = sum(map(_is_accented, _words(vocabulary)))
        return [
            f"warning: {vocab_file} has {count} words with accents, which never match "
            "since accents are stripped: for a model with accents set "
            '"strip_accents": false in tokenizer_config.json next to it.'
        ]
    return []


def split_warnings(tokens: Sequence[str], settings: TokenizerSettings) -> list[str]:
    """Warnings about tokens that match no text, since it is split otherwise.

    There is one if any of the user's own words on lines of [unusedN] never match, and
    one if more than `MAX_UNMATCHED` of the other tokens of two or more characters do
    not: published vocabularies have a few. `case_warnings` is about tokens that only
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
    replaced = _replaced_ids(tokens, {number for number, _ in lost})
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


def _is_reachable(token: str, splitter: WordSplitter) -> bool:
    word = token.removeprefix(CONTINUATION)
    if word.isascii() and word.isalnum():
        return word == word.lower() or not splitter.settings.do_lower_case
    if word and word is not token:
        word = "a" + word  # A ## piece is always within a word.
    return splitter.words(word or token) == [word or token]


def _replaced_ids(tokens: Sequence[str], lost: Set[int]) -> set[int]:
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
    return ", ".join(repr(token) for token in tokens[:_MAX_EXAMPLES])
