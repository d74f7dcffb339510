"""Splits text into WordPiece ids, token for token like the original BERT.

Source of the rules: google-research/bert, `tokenization.py` (`FullTokenizer`), whose
words of more than 200 characters are [UNK]. The Unicode properties are those of
Python's `unicodedata`, as there; the `tokenizers` library does the WordPiece matching.
Its own normalizer differs from the original's for some characters, so words are split
here.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers.models import WordPiece

from bert_tf.data.text.padded_arrays import Text, checked_pairs, padded_arrays
from bert_tf.data.text.vocabulary import (
    CONTINUATION,
    SPECIAL_TOKENS,
    SpecialTokens,
    load_vocabulary,
)

MAX_CHARS_PER_WORD = 200

# Text repeats itself, so the tokens of what is between blanks are cached, unless it is
# long (whole sentences in languages without blanks).
_MAX_CACHED = 500_000
_MAX_CACHED_OFFSETS = 1 << 17
_MAX_CACHED_CHARS = 24

_CJK_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
# `str.split` splits at these control characters; the original drops them before it
# splits, so that they join the text around them.
_CONTROLS_THAT_SPLIT = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
_DROP_CONTROLS = dict.fromkeys(map(ord, _CONTROLS_THAT_SPLIT))
# What lies between blanks, where these control characters are none.
_BETWEEN_BLANKS = re.compile(r"[\S\x0b\x0c\x1c-\x1f\x85]+")


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """How text is normalised before it is split into pieces.

    Attributes:
      do_lower_case: Lower-case it.
      strip_accents: Decompose it and drop what combines (category Mn).
      tokenize_chinese_chars: Make each Chinese character a word.
    """

    do_lower_case: bool = True
    strip_accents: bool = True
    tokenize_chinese_chars: bool = True


UNCASED = TokenizerSettings()
CASED = TokenizerSettings(do_lower_case=False, strip_accents=False)


class _CharTable(dict):
    """For `str.translate`: each entry is computed when its character first occurs."""

    def __init__(self, entry: Callable[[str], str]) -> None:
        super().__init__()
        self._entry = entry

    def __missing__(self, code: int) -> str:
        self[code] = entry = self._entry(chr(code))
        return entry


def _clean(char: str, *, isolates_chinese: bool) -> str:
    """Drops control characters, makes blanks equal and Chinese characters words."""
    category = unicodedata.category(char)
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char in "\0\ufffd" or category in ("Cc", "Cf"):
        return ""
    is_chinese = any(first <= ord(char) <= last for first, last in _CJK_RANGES)
    return f" {char} " if isolates_chinese and is_chinese else char


def _split(char: str, *, strips_accents: bool) -> str:
    """Makes punctuation marks words and, if asked, drops accents."""
    category = unicodedata.category(char)
    if strips_accents and category == "Mn":
        return ""
    is_sign = "!" <= char <= "~" and not char.isalnum()
    return f" {char} " if is_sign or category.startswith("P") else char


class WordSplitter:
    """Splits text into words and punctuation marks, as an uncased or cased BERT does.

    Attributes:
      settings: How it normalises text.
    """

    def __init__(self, settings: TokenizerSettings = UNCASED) -> None:
        """Prepares for some settings.

        Args:
          settings: How to normalise text.
        """
        self.settings = settings
        chinese, strips = settings.tokenize_chinese_chars, settings.strip_accents
        self._clean = _CharTable(functools.partial(_clean, isolates_chinese=chinese))
        self._split = _CharTable(functools.partial(_split, strips_accents=strips))

    def words(self, text: str) -> list[str]:
        """Normalised words and punctuation marks, before WordPiece splits them."""
        text = text.translate(self._clean)
        if self.settings.do_lower_case:
            text = text.lower()
        if self.settings.strip_accents:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._split).split()


class WordPieceTokenizer(WordSplitter):
    """Splits text into WordPieces; special tokens in the text are plain text.

    A call gives the padded arrays of a model's inputs:

        tokenizer = WordPieceTokenizer("vocab.txt")
        model(tokenizer(["one text", "another"]))
    """

    def __init__(self, vocab_file: str, settings: TokenizerSettings = UNCASED) -> None:
        """Reads the vocabulary.

        Args:
          vocab_file: One token per line.
          settings: How to normalise text.

        Raises:
          FileNotFoundError, ValueError: see `load_vocabulary`.
        """
        super().__init__(settings)
        self.inverse_vocab = load_vocabulary(vocab_file)
        self.vocab = {token: id_ for id_, token in enumerate(self.inverse_vocab)}
        self.special = SpecialTokens(*(self.vocab[token] for token in SPECIAL_TOKENS))
        self.continuations = frozenset(
            id_ for token, id_ in self.vocab.items() if token.startswith(CONTINUATION)
        )
        self._pieces = WordPiece(
            self.vocab,
            unk_token=SPECIAL_TOKENS.unk,
            max_input_chars_per_word=MAX_CHARS_PER_WORD,
            continuing_subword_prefix=CONTINUATION,
        )
        self._cache: dict[str, tuple[int, ...]] = {}

    def __call__(
        self,
        text: Text | Sequence[Text],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = True,
        truncation: bool | str = False,
        max_length: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Encodes texts or pairs as [CLS] a [SEP] or [CLS] a [SEP] b [SEP].

        Args:
          text: A text, a list of them, or a list of pairs (tuples).
          text_pair: The second text of each.
          padding: True or "longest", to the longest row; "max_length"; False or
            "do_not_pad", for texts that are equally long.
          truncation: True or "longest_first" drops tokens at the end of the longer text
            of a pair, of the second if both are equally long, as google-research/bert
            does; "only_first"; "only_second"; False or "do_not_truncate".
          max_length: Maximum number of tokens of a row, with [CLS] and [SEP].

        Returns:
          `input_ids`, `input_mask` and `segment_ids`, [n, S] int32.

        Raises:
          ValueError: if there is no text, or an argument is wrong.
        """
        pairs = checked_pairs(text, text_pair)
        encoded = [
            (self._encode_text(a), None if b is None else self._encode_text(b))
            for a, b in pairs
        ]
        return padded_arrays(
            encoded,
            self.special,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
        )

    def tokenize(self, text: str) -> list[str]:
        """The WordPieces of a text, without [CLS] and [SEP]."""
        return [self.inverse_vocab[id_] for id_ in self._encode_text(text)]

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of each text, without [CLS] and [SEP].

        Args:
          texts: Any strings; lone surrogates make [UNK].

        Returns:
          A list of ids in [0, V) for each text, empty for blank texts.
        """
        return [self._encode_text(text) for text in texts]

    def _encode_text(self, text: str) -> list[int]:
        # No rule of the original looks beyond a blank, so the chunks between
        # blanks are encoded, and cached, independently.
        chunks = text.split()
        if not text.isprintable() and any(c in text for c in _CONTROLS_THAT_SPLIT):
            chunks = text.translate(_DROP_CONTROLS).split()
        cache = self._cache
        ids: list[int] = []
        for chunk in chunks:
            found = cache.get(chunk)
            ids += self._encode_chunk(chunk) if found is None else found
        return ids

    def _encode_chunk(self, chunk: str) -> tuple[int, ...]:
        ids = tuple(i for word in self.words(chunk) for i in self._encode_word(word))
        if len(chunk) <= _MAX_CACHED_CHARS:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[chunk] = ids
        return ids

    def _encode_word(self, word: str) -> list[int]:
        try:
            return [piece.id for piece in self._pieces.tokenize(word)]
        except UnicodeEncodeError:
            # A lone surrogate, which no token of a UTF-8 vocabulary can hold.
            return [self.special.unk]


@functools.lru_cache(maxsize=1)
def cached_tokenizer(
    vocab_file: str, vocab_sha256: str, settings: TokenizerSettings
) -> WordPieceTokenizer:
    """The tokenizer of a worker process: made once, and again if the file changes.

    Args:
      vocab_file: One token per line.
      vocab_sha256: Checksum of its content.
      settings: How to normalise text.
    """
    return WordPieceTokenizer(vocab_file, settings)


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
        self._cache = functools.lru_cache(_MAX_CACHED_OFFSETS)(self._encode_chunk)
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
        for match in _BETWEEN_BLANKS.finditer(text):
            chunk, start = match[0], match.start()
            is_short = len(chunk) <= _MAX_CACHED_CHARS
            encode = self._cache if is_short else self._encode_chunk
            input_ids, begins, ends = encode(chunk)
            tokens.input_ids.extend(input_ids)
            tokens.begins.extend([start + begin for begin in begins])
            tokens.ends.extend([start + end for end in ends])
        return tokens

    def _encode_chunk(self, chunk: str) -> TokenOffsets:
        """The tokens of text without blanks: its words are end to end in `_spans`."""
        begins, ends = self._spans(chunk)
        [input_ids] = self._tokenizer.encode([chunk])
        tokens = TokenOffsets(input_ids, [], [])
        first = 0
        remaining = iter(input_ids)
        for word in self._tokenizer.words(chunk):
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

    def _spans(self, chunk: str) -> tuple[list[int], list[int]]:
        """Source range of each normalised character; stripped marks extend it."""
        parts = [
            (part, source)
            for source, char in enumerate(chunk)
            for part in self._parts(char)
        ]
        if self._tokenizer.settings.strip_accents and not chunk.isascii():
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
