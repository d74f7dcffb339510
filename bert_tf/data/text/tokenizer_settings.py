"""Decides whether a model's text is lower-cased, stripped of accents, and so on.

The first of these sources decides: an explicit flag; the files next to the model
(task.json of this program, then transformers' tokenizer_config.json and
tokenizer.json); the metadata of records; the letters of the vocabulary.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bert_tf.data.text.tokenization import TokenizerSettings
from bert_tf.data.text.unreachable_tokens import (
    case_warnings,
    has_accents,
    is_lower_case,
)
from bert_tf.data.text.vocabulary import load_vocabulary
from bert_tf.json_files import read_object

TASK_FILE = "task.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILE = "tokenizer.json"

_CASE = "do_lower_case"
SETTING_NAMES = tuple(field.name for field in dataclasses.fields(TokenizerSettings))
# The names of these settings in the library `tokenizers`.
_NORMALIZER_KEYS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_OTHER_TOKENIZERS = ("Japanese", "Roberta", "Albert", "Camembert", "XLMRoberta")


class StatedSettings(NamedTuple):
    """The settings that one source states.

    Attributes:
      values: Some of the fields of `TokenizerSettings`.
      source: The source, for messages.
    """

    values: Mapping[str, bool]
    source: str


class TokenizerChoice(NamedTuple):
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


def stated_settings(values: Mapping[str, object], source: str) -> StatedSettings | None:
    """All settings that a mapping states, defaults filled in; None without a case.

    Args:
      values: The settings that records were made with, and others.
      source: Path of the file that has them, for messages.

    Raises:
      ValueError: if one of them is not true or false.
    """
    found = _flags(values, source)
    if _CASE not in found:
        return None
    return StatedSettings(dataclasses.asdict(_resolve(found)), source)


def choose_settings(
    flags: Mapping[str, bool | None],
    folders: Iterable[str],
    vocab_file: str = "",
    records: StatedSettings | None = None,
) -> TokenizerChoice | None:
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
        files, notes = _settings_next_to_model(folder)
        if any(_CASE in stated.values for stated in files):
            break
    of_model = [stated for stated in files if _CASE in stated.values]
    sources = of_model or ([records] if records else [])
    is_guess = False
    given = {name: value for name, value in flags.items() if value is not None}
    flag = StatedSettings(
        given, " ".join(f"--{name}={value}" for name, value in given.items())
    )
    if _CASE in given:
        sources = [flag, *sources]
    elif not sources and vocab_file:
        sources = [_guess_from_letters(vocab_file)]
        is_guess = True
    if not sources:
        return None
    lower, source = sources[0].values[_CASE], sources[0].source
    values: dict[str, bool] = {}
    for stated in (flag, *sources, *files):
        values = _with_case(stated.values, lower) | values
    settings = _resolve(values)
    if records:
        _check_records(settings, source, records)
    notes = [f"Tokenizer: {describe(settings)}, by {source}.", *notes]
    notes += [
        f"warning: {flag.source if name in given else source} overrides "
        f"{stated.source}, which sets {name}={stated.values[name]}."
        for stated in of_model
        for name in dict.fromkeys((_CASE, *given))
        if stated.values.get(name, given.get(name)) != getattr(settings, name)
    ]
    if vocab_file:
        vocabulary = load_vocabulary(vocab_file)
        is_flag = _CASE in given
        notes += case_warnings(settings, vocabulary, vocab_file, is_flag=is_flag)
        notes += _added_tokens(folder, vocabulary) if folder else []
    return TokenizerChoice(settings, source, notes, is_guess)


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


def _guess_from_letters(vocab_file: str) -> StatedSettings:
    vocabulary = load_vocabulary(vocab_file)
    lower = is_lower_case(vocabulary)
    strips = lower and not has_accents(vocabulary)
    return StatedSettings(
        {_CASE: lower, "strip_accents": strips}, f"the letters of {vocab_file}"
    )


def _check_records(
    settings: TokenizerSettings, source: str, records: StatedSettings
) -> None:
    for name in SETTING_NAMES:
        made, chosen = records.values[name], getattr(settings, name)
        if made != chosen:
            raise ValueError(
                f"{records.source}: the records were made with {name}={made}. "
                f"Received: {name}={chosen}, by {source}. Set it to {made} there, or "
                f"make the records again with --{name}={chosen}."
            )


def _settings_next_to_model(folder: str) -> tuple[list[StatedSettings], list[str]]:
    """The settings of each file in a folder, by precedence; and warnings."""
    found, notes = [], []
    for name in (TASK_FILE, TOKENIZER_CONFIG, TOKENIZER_FILE):
        path = os.path.join(folder, name)
        values = read_object(path)
        if name == TOKENIZER_CONFIG:
            notes += _unsupported(values, path)
        if name == TOKENIZER_FILE:
            keras_hub = values.get("config")  # Its presets have this key.
            values = _normalizer_settings(values.get("normalizer"))
            if isinstance(keras_hub, dict):
                values = {_CASE: keras_hub.get("lowercase")}
                values["strip_accents"] = keras_hub.get("strip_accents")
        found.append(StatedSettings(_flags(values, path), path))
    return found, notes


def _flags(values: Mapping[str, object], path: str) -> dict[str, bool]:
    """The settings that have a value; null is the same as no value."""
    found = {
        name: values[name] for name in SETTING_NAMES if values.get(name) is not None
    }
    for name, value in found.items():
        if not isinstance(value, bool):
            raise ValueError(
                f"{path}: `{name}` must be true or false. Received: {name}={value!r}. "
                "Correct the file."
            )
    return found


def _normalizer_settings(normalizer: object) -> dict[str, object]:
    """The settings of the normalizers of tokenizer.json; empty if they have none."""
    values: dict[str, object] = {}
    for part in _normalizers(normalizer):
        if part.get("type") == "BertNormalizer":
            values = {name: part.get(key) for name, key in _NORMALIZER_KEYS.items()}
            if values["strip_accents"] is None:  # Here null is a value.
                values["strip_accents"] = values[_CASE]
        elif part.get("type") == "Lowercase":
            values[_CASE] = True
        elif part.get("type") == "StripAccents":
            values["strip_accents"] = True
    # What no part of a sequence does is not done.
    return {_CASE: False, "strip_accents": False} | values if values else values


def _normalizers(normalizer: object) -> Iterator[dict[str, object]]:
    if isinstance(normalizer, dict):
        yield normalizer
        parts = normalizer.get("normalizers")
        for part in parts if isinstance(parts, list) else ():
            yield from _normalizers(part)


def _unsupported(values: Mapping[str, object], path: str) -> list[str]:
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
