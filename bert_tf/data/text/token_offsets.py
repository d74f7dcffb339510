"""WordPiece ids of a text with the range of characters that each id covers.

The ids come from `WordPieceTokenizer`. The ranges are found by applying the same rules
to each character: dropped or kept, lower-cased, decomposed, put into canonical order,
and stripped if it is an accent.
"""

import functools
import re
import unicodedata
from typing import NamedTuple

from bert_tf.data.text.tokenization import (
    CASED,
    CONTINUATION,
    WordPieceTokenizer,
    WordSplitter,
)

# Text between blanks; these control characters are not blanks to the tokenizer.
_STRETCH = re.compile(r"[\S\x0b\x0c\x1c-\x1f\x85]+")

# Text repeats itself, so the tokens of short stretches are cached.
_MAX_REMEMBERED = 1 << 17
_MAX_REMEMBERED_CHARS = 24


class TokenOffsets(NamedTuple):
    """The n tokens of a text; token i covers `text[begins[i]:ends[i]]`.

    Attributes:
      input_ids: n ids in [0, V).
      begins: Index of the first character of each token.
      ends: Index after its last character, > begins.
    """

    input_ids: list[int]
    begins: list[int]
    ends: list[int]


class OffsetTokenizer:
    """Splits text into WordPieces with their ranges of characters."""

    def __init__(self, tokenizer: WordPieceTokenizer) -> None:
        """Prepares for a tokenizer.

        Args:
          tokenizer: Makes the ids.
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
        """The tokens of text without blanks: its words are end to end in `_spans`."""
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
                # Not begins[first], ends[last - 1]: canonical order may swap marks.
                tokens.begins.append(min(begins[first:last]))
                tokens.ends.append(max(ends[first:last]))
                first = last
        return tokens

    def _spans(self, stretch: str) -> tuple[list[int], list[int]]:
        """Source range of each normalised character; stripped marks extend it."""
        parts = [
            (part, source)
            for source, char in enumerate(stretch)
            for part in self._parts(char)
        ]
        if self._tokenizer.settings.strip_accents and not stretch.isascii():
            parts = _canonically_ordered(parts)
        begins: list[int] = []
        ends: list[int] = []
        for part, source in parts:
            if self._is_kept(part):
                begins.append(source)
                ends.append(source + 1)
            elif ends:
                ends[-1] = max(ends[-1], source + 1)
        return begins, ends

    def _decompose(self, char: str) -> str:
        """The characters that one becomes, before marks are ordered and stripped.

        Final sigma is the only letter whose lower case depends on its neighbours, and
        is one character in either form.
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
