"""A vocabulary as the files that transformers' tokenizers are read from.

The library `tokenizers` has other tables of Unicode than Python, takes private-use
characters for control characters, and knows no final sigma. `tokenizer.json` says in
classes of characters what it does not do by itself, so that it gives the ids of
`WordPieceTokenizer`. What it cannot say: special tokens in a text are special there.
"""

import functools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import WordPiece

from bert_tf.data.text.tokenization import (
    MAX_CHARS_PER_WORD,
    TokenizerSettings,
    WordSplitter,
)
from bert_tf.data.text.tokenizer_settings import TOKENIZER_CONFIG, TOKENIZER_FILE
from bert_tf.data.text.vocabulary import CONTINUATION, SPECIAL_TOKENS, load_vocabulary

_BETWEEN = " 0 "  # Stands between probes, and is none.
# Beyond are only characters without properties: private use, and not yet assigned.
_CODES = (range(0xD800), range(0xE000, 0x32000), range(0xE0000, 0xE0200))


def tokenizer_config(
    settings: TokenizerSettings, max_positions: int, *, has_file: bool = False
) -> str:
    """The text of `tokenizer_config.json`.

    Args:
      settings: What is done to text first.
      max_positions: Most tokens of a sequence.
      has_file: Whether there is a `tokenizer.json` next to it.
    """
    follows_case = settings.strip_accents == settings.do_lower_case
    config = {
        # BertTokenizer makes its own rules instead of reading those of that file.
        "tokenizer_class": "PreTrainedTokenizerFast" if has_file else "BertTokenizer",
        "do_lower_case": settings.do_lower_case,
        "strip_accents": None if follows_case else settings.strip_accents,
        "tokenize_chinese_chars": settings.tokenize_chinese_chars,
        "model_max_length": max_positions,
        **{f"{role}_token": token for role, token in SPECIAL_TOKENS._asdict().items()},
    }
    if has_file:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return json.dumps(config, indent=2) + "\n"


def tokenizer_files(
    vocab_file: str, settings: TokenizerSettings, max_positions: int
) -> dict[str, str]:
    """Makes the files of a tokenizer.

    Args:
      vocab_file: One token per line.
      settings: What is done to text first.
      max_positions: Most tokens of a sequence.

    Returns:
      File name -> text, for `tokenizer.json` and `tokenizer_config.json`.

    Raises:
      FileNotFoundError, ValueError: see `load_vocabulary`.
    """
    return {
        TOKENIZER_FILE: _tokenizer(load_vocabulary(vocab_file), settings),
        TOKENIZER_CONFIG: tokenizer_config(settings, max_positions, has_file=True),
    }


def _tokenizer(vocabulary: list[str], settings: TokenizerSettings) -> str:
    """`tokenizer.json`: BERT's rules, and [CLS] A [SEP] B [SEP] around its tokens."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    special = SPECIAL_TOKENS
    tokenizer = Tokenizer(
        WordPiece(
            ids,
            unk_token=special.unk,
            max_input_chars_per_word=MAX_CHARS_PER_WORD,
            continuing_subword_prefix=CONTINUATION,
        )
    )
    tokenizer.add_special_tokens(list(special))
    tokenizer.normalizer = _normalizer(settings)
    isolated = _isolated(settings.tokenize_chinese_chars)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Split(Regex(_class_of(isolated)), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special.cls} $A {special.sep}",
        pair=f"{special.cls} $A {special.sep} $B:1 {special.sep}:1",
        special_tokens=[(token, ids[token]) for token in (special.cls, special.sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    values: dict[str, Any] = json.loads(tokenizer.to_str())
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _normalizer(settings: TokenizerSettings) -> normalizers.Normalizer:
    """What is done to text, in the order of `WordSplitter.words`."""
    chinese = settings.tokenize_chinese_chars
    dropped = _dropped(False, chinese)
    parts = [normalizers.Replace(Regex(_class_of(dropped)), "")]
    if settings.do_lower_case:
        parts.append(normalizers.Replace(Regex(_final_sigma()), "ς"))
    parts.append(
        normalizers.BertNormalizer(
            clean_text=False,  # It would drop private-use characters.
            handle_chinese_chars=chinese,
            strip_accents=settings.strip_accents,
            lowercase=settings.do_lower_case,
        )
    )
    if settings.strip_accents:
        accents = set(_dropped(True, chinese)) - set(dropped)
        parts.append(normalizers.Replace(Regex(_class_of(accents)), ""))
    return normalizers.Sequence(parts)


def _codes() -> Iterator[int]:
    """All code points that may have properties, but for ASCII's letters and signs."""
    for codes in _CODES:
        yield from (code for code in codes if not 32 <= code < 127)


@functools.cache
def _probed(strips: bool, chinese: bool) -> dict[int, str]:
    """Code point -> what it makes of `x?x`, words joined by blanks."""
    splitter = WordSplitter(TokenizerSettings(False, strips, chinese))
    codes = list(_codes())
    words = splitter.words(_BETWEEN.join(f"x{chr(code)}x" for code in codes))
    return dict(zip(codes, " ".join(words).split(_BETWEEN), strict=True))


def _dropped(strips: bool, chinese: bool) -> list[int]:
    return [code for code, made in _probed(strips, chinese).items() if made == "xx"]


def _isolated(chinese: bool) -> list[int]:
    probed = _probed(False, chinese)
    return [code for code, made in probed.items() if made == f"x {chr(code)} x"]


@functools.cache
def _final_sigma() -> str:
    """Matches a capital sigma that Python makes a final one (Unicode, 3.13).

    It does after a cased letter, and not before one; case-ignorable characters, such as
    the apostrophe, may be in between.
    """
    codes = [*range(32, 127), *_codes()]
    before, behind = (
        {
            code
            for code, word in zip(codes, text.lower().split(_BETWEEN), strict=True)
            if word.endswith("ς")
        }
        for text in (
            _BETWEEN.join(f"{chr(code)}Σ" for code in codes),
            _BETWEEN.join(f"A{chr(code)}Σ" for code in codes),
        )
    )
    cased, passed = _class_of(before), _class_of(behind - before)
    return f"(?<={cased}{passed}*)Σ(?!{passed}*{cased})"


def _class_of(codes: Iterable[int]) -> str:
    """Code points as a class of a regular expression."""
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    ranges = (
        _literal(first) if first == last else f"{_literal(first)}-{_literal(last)}"
        for first, last in runs
    )
    return f"[{''.join(ranges)}]"


def _literal(code: int) -> str:
    return f"\\{chr(code)}" if chr(code) in "\\[]^-&" else chr(code)
