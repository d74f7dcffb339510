"""WordPiece ids of a text together with the characters that each of them covers.

The ids are those of `WordPieceTokenizer`, which it is asked for. The characters are
found by following each of them through the same rules: dropped or kept, lower-cased,
decomposed, put into canonical order, and stripped if it is an accent.
"""

import functools
import re
import unicodedata
from typing import NamedTuple

from bert_tf.data.tokenization import (
    CASED,
    CONTINUATION,
    WordPieceTokenizer,
    WordSplitter,
)

# What stands between blanks; these control characters are none to the tokenizer.
_STRETCH = re.compile(r"[\S\x0b\x0c\x1c-\x1f\x85]+")

# Text repeats itself, so short stretches are kept with their tokens.
_MAX_REMEMBERED = 1 << 17
_MAX_REMEMBERED_CHARS = 24


class TokenOffsets(NamedTuple):
    """The n tokens of a text; token i covers `text[begins[i]:ends[i]]`.

    Attributes:
      input_ids: n ids in [0, V).
      begins: The first character of each.
      ends: The character after its last, > begins.
    """

    input_ids: list[int]
    begins: list[int]
    ends: list[int]


class OffsetTokenizer:
    """Splits text into WordPieces and says where each of them stands in it."""

    def __init__(self, tokenizer: WordPieceTokenizer) -> None:
        """Prepares.

        Args:
          tokenizer: Decides on the ids.
        """
        self._tokenizer = tokenizer
        self._sizes = [
            len(token.removeprefix(CONTINUATION)) for token in tokenizer.inverse_vocab
        ]
        self._cleaner = WordSplitter(CASED)
        self._remembered = functools.lru_cache(_MAX_REMEMBERED)(self._encode_stretch)
        self._parts = functools.lru_cache(None)(self._decompose)
        self._is_kept = functools.lru_cache(None)(self._survives)

    def encode(self, text: str) -> TokenOffsets:
        """The tokens of a text, without [CLS] and [SEP].

        A token covers every character that it comes from: also the combining marks
        that an uncased tokenizer strips, and characters dropped within it. Characters
        that are dropped at either end of a word belong to no token, nor do blanks.
        An [UNK] covers its whole word; several pieces may come from one character.

        Args:
          text: Any string.

        Returns:
          The tokens; the ids equal `WordPieceTokenizer.encode([text])[0]`.
        """
        tokens = TokenOffsets([], [], [])
        for match in _STRETCH.finditer(text):
            stretch, start = match[0], match.start()
            is_short = len(stretch) <= _MAX_REMEMBERED_CHARS
            encode = self._remembered if is_short else self._encode_stretch
            input_ids, begins, ends = encode(stretch)
            tokens.input_ids.extend(input_ids)
            tokens.begins.extend([start + begin for begin in begins])
            tokens.ends.extend([start + end for end in ends])
        return tokens

    def _encode_stretch(self, stretch: str) -> TokenOffsets:
        """The tokens of text without blanks; the words lie end to end in `_spans`."""
        begins, ends = self._spans(stretch)
        [input_ids] = self._tokenizer.encode([stretch])
        tokens = TokenOffsets(input_ids, [], [])
        first = 0
        remaining = iter(input_ids)
        for word in self._tokenizer.words(stretch):
            word_end = first + len(word)
            while first < word_end:
                token = next(remaining)
                is_unknown = token == self._tokenizer.special.unk
                last = word_end if is_unknown else first + self._sizes[token]
                # Not the outer two: canonical order may have swapped marks.
                tokens.begins.append(min(begins[first:last]))
                tokens.ends.append(max(ends[first:last]))
                first = last
        return tokens

    def _spans(self, stretch: str) -> tuple[list[int], list[int]]:
        """Where each normalised character comes from; stripped marks join them."""
        parts = [
            (part, place)
            for place, char in enumerate(stretch)
            for part in self._parts(char)
        ]
        if self._tokenizer.settings.strip_accents and not stretch.isascii():
            parts = _canonically_ordered(parts)
        begins: list[int] = []
        ends: list[int] = []
        for part, place in parts:
            if self._is_kept(part):
                begins.append(place)
                ends.append(place + 1)
            elif ends:
                ends[-1] = max(ends[-1], place + 1)
        return begins, ends

    def _decompose(self, char: str) -> str:
        """What a character becomes before marks are ordered and stripped.

        Final sigma is the only letter whose lower case depends on its neighbours, and
        takes one place in either form.
        """
        if not self._cleaner.words(char):
            return ""
        settings = self._tokenizer.settings
        part = char.lower() if settings.do_lower_case else char
        return unicodedata.normalize("NFD", part) if settings.strip_accents else part

    def _survives(self, part: str) -> bool:
        """Whether a normalised character is not stripped."""
        return bool(self._tokenizer.words(part))


def _canonically_ordered(parts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Sorts each run of combining marks by class, as NFD does (Unicode 3.11, D108)."""
    keys = []
    run = 0
    for part, _ in parts:
        combining_class = unicodedata.combining(part)
        run += combining_class == 0
        keys.append((run, combining_class))
    return [parts[i] for i in sorted(range(len(parts)), key=keys.__getitem__)]
