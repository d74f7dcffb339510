"""Decides whether a model's text is lower-cased, stripped of accents, and so on.

The first of these sources decides: an explicit flag; the files next to the model
(task.json of this program, then transformers' tokenizer_config.json and
tokenizer.json); the metadata of records; the letters of the vocabulary.
"""

import dataclasses
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert_tf.data.records.metadata import Metadata, metadata_file
from bert_tf.data.text.tokenization import TokenizerSettings, load_vocabulary
from bert_tf.files import read_object

TASK_FILE = "task.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"

_CASE = "do_lower_case"
_NAMES = tuple(field.name for field in dataclasses.fields(TokenizerSettings))
# The names of these settings in the library `tokenizers`.
_OF_NORMALIZER = dict(
    zip(_NAMES, ("lowercase", "strip_accents", "handle_chinese_chars"), strict=True)
)
# An uncased vocabulary has almost no words with a capital letter, a cased one a third;
# with accents it is the same.
_FEW = 0.01
_OTHER_TOKENIZERS = ("Japanese", "Roberta", "Albert", "Camembert", "XLMRoberta")


class Said(NamedTuple):
    """The settings that one source states.

    Attributes:
      values: Some of the fields of `TokenizerSettings`.
      source: The source, for messages.
    """

    values: Mapping[str, bool]
    source: str


class Choice(NamedTuple):
    """The settings of a tokenizer.

    Attributes:
      settings: The settings.
      source: The source that decided on lower-casing.
      notes: Lines for the log: the source, and warnings.
      is_guess: Whether the letters of the vocabulary decided, for want of a source.
    """

    settings: TokenizerSettings
    source: str
    notes: list[str]
    is_guess: bool = False


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


def of_records(record_dir: str, metadata: Metadata | None) -> Said | None:
    """The settings in the metadata of records; None if it has none."""
    config = (metadata.config if metadata else None) or {}
    path = metadata_file(record_dir)
    values = _flags(config, path)
    if _CASE not in values:
        return None
    return Said(dataclasses.asdict(_resolve(values)), path)


def choose_settings(
    flags: Mapping[str, bool | None],
    folders: Iterable[str],
    vocab_file: str = "",
    records: Said | None = None,
) -> Choice | None:
    """Decides how a tokenizer normalises text.

    Args:
      flags: Some of the fields of `TokenizerSettings`; None if a flag was not given.
      folders: Where the model's files may be; the first one that has settings counts.
      vocab_file: The vocabulary; empty if there is none.
      records: The settings of the records, with which the choice must agree.

    Returns:
      The choice; None if no source states anything.

    Raises:
      FileNotFoundError, ValueError: if a file cannot be used, or the choice contradicts
        the records; the message names both.
    """
    files, notes, folder = [], [], ""
    for folder in folders:
        files, notes = _beside(folder)
        if any(_CASE in said.values for said in files):
            break
    of_model = [said for said in files if _CASE in said.values]
    sources = of_model or ([records] if records else [])
    is_guess = False
    given = {name: value for name, value in flags.items() if value is not None}
    flag = Said(given, " ".join(f"--{name}={value}" for name, value in given.items()))
    if _CASE in given:
        sources = [flag, *sources]
    elif not sources and vocab_file:
        sources = [_letters(vocab_file)]
        is_guess = True
    if not sources:
        return None
    lower, source = sources[0].values[_CASE], sources[0].source
    values: dict[str, bool] = {}
    for said in (flag, *sources, *files):
        values = _with_case(said.values, lower) | values
    settings = _resolve(values)
    if records:
        _check_records(settings, source, records)
    notes = [f"Tokenizer: {describe(settings)}, by {source}.", *notes]
    notes += [
        f"warning: {flag.source if name in given else source} overrides "
        f"{said.source}, which sets {name}={said.values[name]}."
        for said in of_model
        for name in dict.fromkeys((_CASE, *given))
        if said.values.get(name, given.get(name)) != getattr(settings, name)
    ]
    if vocab_file:
        vocabulary = load_vocabulary(vocab_file)
        notes += _doubts(settings, vocabulary, vocab_file, is_flag=_CASE in given)
        notes += _added_tokens(folder, vocabulary) if folder else []
    return Choice(settings, source, notes, is_guess)


def describe(settings: TokenizerSettings) -> str:
    """The settings in words."""
    words = [
        "lower-case" if settings.do_lower_case else "cased",
        f"accents {'stripped' if settings.strip_accents else 'kept'}",
    ]
    if not settings.tokenize_chinese_chars:
        words.append("Chinese characters not split")
    return ", ".join(words)


def _resolve(values: Mapping[str, bool]) -> TokenizerSettings:
    """Fills in missing settings like transformers: accents by lower-casing."""
    lower = values[_CASE]
    return TokenizerSettings(
        lower,
        values.get("strip_accents", lower),
        values.get("tokenize_chinese_chars", True),
    )


def _with_case(values: Mapping[str, bool], lower: bool) -> dict[str, bool]:
    """The settings of a source, without its accents if its case was not chosen."""
    is_other = values.get(_CASE, lower) != lower
    return {n: v for n, v in values.items() if not (is_other and n == "strip_accents")}


def _letters(vocab_file: str) -> Said:
    vocabulary = load_vocabulary(vocab_file)
    lower = is_lower_case(vocabulary)
    strips = lower and not has_accents(vocabulary)
    return Said({_CASE: lower, "strip_accents": strips}, f"the letters of {vocab_file}")


def _check_records(settings: TokenizerSettings, source: str, records: Said) -> None:
    for name in _NAMES:
        made, chosen = records.values[name], getattr(settings, name)
        if made != chosen:
            raise ValueError(
                f"{records.source}: the records were made with {name}={made}. "
                f"Received: {name}={chosen}, by {source}. Set it to {made} there, or "
                f"make the records again with --{name}={chosen}."
            )


def _doubts(
    settings: TokenizerSettings,
    vocabulary: Sequence[str],
    vocab_file: str,
    is_flag: bool,
) -> list[str]:
    """A warning if case or accents do not fit the vocabulary."""
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


def _beside(folder: str) -> tuple[list[Said], list[str]]:
    """The settings of each file in a folder, by precedence; and warnings."""
    found, notes = [], []
    for name in (TASK_FILE, TOKENIZER_CONFIG, TOKENIZER_FILE):
        path = os.path.join(folder, name)
        values = read_object(path)
        if name == TOKENIZER_CONFIG:
            notes += _unsupported(values, path)
        if name == TOKENIZER_FILE:
            values = _of_normalizer(values.get("normalizer"))
        found.append(Said(_flags(values, path), path))
    return found, notes


def _flags(values: Mapping[str, Any], path: str) -> dict[str, bool]:
    """The settings that have a value; null is the same as no value."""
    found = {name: values[name] for name in _NAMES if values.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"{path}: `{name}` must be true or false. Received: {name}={value!r}. "
                "Correct the file."
            )
    return found


def _of_normalizer(normalizer: object) -> dict[str, Any]:
    """The settings of the normalizers of tokenizer.json; empty if they have none."""
    values: dict[str, Any] = {}
    for part in _normalizers(normalizer):
        if part.get("type") == "BertNormalizer":
            values = {name: part.get(key) for name, key in _OF_NORMALIZER.items()}
            if values["strip_accents"] is None:  # Here null is a value.
                values["strip_accents"] = values[_CASE]
        elif part.get("type") == "Lowercase":
            values[_CASE] = True
        elif part.get("type") == "StripAccents":
            values["strip_accents"] = True
    return values


def _normalizers(normalizer: object) -> Iterator[dict[str, Any]]:
    if isinstance(normalizer, dict):
        yield normalizer
        parts = normalizer.get("normalizers")
        for part in parts if isinstance(parts, list) else ():
            yield from _normalizers(part)


def _unsupported(values: Mapping[str, Any], path: str) -> list[str]:
    """Warnings about a tokenizer that splits words by other rules than BERT's."""
    odd = []
    kind = values.get("tokenizer_class")
    if isinstance(kind, str) and any(name in kind for name in _OTHER_TOKENIZERS):
        odd.append(f"tokenizer_class={kind}")
    if values.get("do_basic_tokenize") is False:
        odd.append("do_basic_tokenize=False")
    if values.get("never_split"):
        odd.append(f"never_split={values['never_split']}")
    return [
        f"warning: {path} sets {text}, which is ignored: words are split by the rules "
        "of google-research/bert."
        for text in odd
    ]


def _added_tokens(folder: str, vocabulary: Sequence[str]) -> list[str]:
    """A warning about tokens that transformers added outside of vocab.txt."""
    added = set(read_object(os.path.join(folder, "added_tokens.json")))
    config = read_object(os.path.join(folder, TOKENIZER_CONFIG))
    tokenizer = read_object(os.path.join(folder, TOKENIZER_FILE))
    by_id, entries = config.get("added_tokens_decoder"), tokenizer.get("added_tokens")
    entries = [
        *(by_id.values() if isinstance(by_id, dict) else ()),
        *(entries if isinstance(entries, list) else ()),
    ]
    added |= {
        str(e["content"]) for e in entries if isinstance(e, dict) and "content" in e
    }
    added -= set(vocabulary)
    if not added:
        return []
    return [
        f"warning: {folder} has {len(added)} added tokens that are not in its "
        f"vocabulary ({', '.join(sorted(added)[:3])}): they are split like other text."
    ]
