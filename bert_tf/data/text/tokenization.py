"""Splits text into WordPiece ids, token for token like the original BERT.

Source of the rules: google-research/bert, `tokenization.py` (`FullTokenizer`), whose
words of more than 200 characters are [UNK]. The Unicode properties are those of
Python's `unicodedata`, as there; the `tokenizers` library does the WordPiece matching.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenizers.models import WordPiece

MAX_CHARS_PER_WORD = 200
CONTINUATION = "##"

# Text repeats itself, so the ids of text between blanks are cached. Long stretches
# (whole sentences in languages without blanks) are not worth it.
_MAX_REMEMBERED = 500_000
_MAX_REMEMBERED_CHARS = 24

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


class SpecialTokens(NamedTuple):
    """Ids of the tokens that the algorithm itself needs."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


SPECIAL_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


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


class _CleanTable(dict):
    """For `str.translate`: drops control characters, sets blanks, isolates CJK."""

    def __init__(self, isolates_chinese: bool) -> None:
        super().__init__()
        self._isolates_chinese = isolates_chinese

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            entry = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            entry = ""
        elif self._isolates_chinese and any(
            first <= code <= last for first, last in _CJK_RANGES
        ):
            entry = f" {char} "
        else:
            entry = char
        self[code] = entry
        return entry


class _SplitTable(dict):
    """For `str.translate`: isolates punctuation and, if asked, drops accents."""

    def __init__(self, strip_accents: bool) -> None:
        super().__init__()
        self._strip_accents = strip_accents

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if self._strip_accents and category == "Mn":
            entry = ""
        elif category.startswith("P") or (33 <= code <= 126 and not char.isalnum()):
            entry = f" {char} "
        else:
            entry = char
        self[code] = entry
        return entry


def load_vocabulary(vocab_file: str) -> list[str]:
    """Reads a vocabulary, one token per line.

    Args:
      vocab_file: A UTF-8 file; any line ends, and blank lines at its end, are allowed.

    Returns:
      The tokens; a token's index is its id.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not UTF-8, a token is empty or occurs twice, or one of the
        special tokens is missing; the message names file and line.
    """
    try:
        with open(vocab_file, "rb") as file:
            data = file.read()
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(
            f"`vocab_file` must be an existing file. Received: vocab_file={vocab_file}."
        ) from None
    lines = data.rstrip(b"\r\n").split(b"\n" if b"\n" in data else b"\r")
    tokens: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        token = _decode_token(line, f"{vocab_file}, line {number}", first=number == 1)
        if not token:
            remedy = _replace(number, lines) if len(lines) > 1 else ""
            raise ValueError(
                f"{vocab_file}, line {number}: the line is empty. Each line must hold "
                f"one token. {remedy}"
            )
        if token in tokens:
            # Other programs give the token the id of its last line.
            raise ValueError(
                f"{vocab_file}, line {number}: the token {token!r} is on line "
                f"{tokens[token]} already. {_replace(tokens[token], lines)}"
            )
        tokens[token] = number
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise ValueError(
            f"{vocab_file}, lines 1 to {len(tokens)}: the special tokens "
            f"{', '.join(missing)} are missing. Use a BERT vocabulary with one token "
            "per line."
        )
    return list(tokens)


def _replace(number: int, lines: Sequence[bytes]) -> str:
    """The remedy for a line: replacing it, since removing it would change ids."""
    known = {line.strip() for line in lines}
    names = (f"[unused{n}]" for n in itertools.count())
    free = next(name for name in names if name.encode() not in known)
    return (
        f"Replace line {number} by {free}, which is not in the file. Do not delete the "
        "line: the ids of all later tokens would change."
    )


def _decode_token(line: bytes, place: str, first: bool) -> str:
    """Decodes one line of a vocabulary; the first may have a byte order mark."""
    try:
        return line.decode("utf-8-sig" if first else "utf-8").strip(" \t\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: not UTF-8 (byte {error.start}: 0x{line[error.start]:02x}). "
            "Store the vocabulary as UTF-8."
        ) from None


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
        self._clean = _CleanTable(settings.tokenize_chinese_chars)
        self._split = _SplitTable(settings.strip_accents)

    def words(self, text: str) -> list[str]:
        """Normalised words and punctuation marks, before WordPiece splits them."""
        text = text.translate(self._clean)
        if self.settings.do_lower_case:
            text = text.lower()
        if self.settings.strip_accents:
            text = unicodedata.normalize("NFD", text)
        return text.translate(self._split).split()


class WordPieceTokenizer(WordSplitter):
    """Splits text into WordPieces; special tokens in the text are plain text."""

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
        self._remembered: dict[str, tuple[int, ...]] = {}

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
        # No rule of the original looks beyond a blank, so the stretches between
        # blanks are encoded, and cached, independently.
        stretches = text.split()
        if not text.isprintable() and any(c in text for c in _CONTROLS_THAT_SPLIT):
            stretches = text.translate(_DROP_CONTROLS).split()
        remembered = self._remembered
        ids: list[int] = []
        for stretch in stretches:
            found = remembered.get(stretch)
            ids += self._encode_stretch(stretch) if found is None else found
        return ids

    def _encode_stretch(self, stretch: str) -> tuple[int, ...]:
        ids = tuple(i for word in self.words(stretch) for i in self._encode_word(word))
        if len(stretch) <= _MAX_REMEMBERED_CHARS:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[stretch] = ids
        return ids

    def _encode_word(self, word: str) -> list[int]:
        try:
            return [piece.id for piece in self._pieces.tokenize(word)]
        except UnicodeEncodeError:
            # A lone surrogate, which no token of a UTF-8 vocabulary can hold.
            return [self.special.unk]
