"""Names of classes: which ones are equal, and which ones look like mistakes."""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from bert_tf.errors import listed

_SEPARATORS = re.compile(r"[\s_-]+")
# How programs write a missing label; "-" is SNLI's label for no agreement.
_MISSING = frozenset(("nan", "null", "<na>", "n/a", "-", "?"))
# Left by joining files or copying text. Not the joiners, which are part of words.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
# Digits that a float holds exactly.
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.0{1,9})?")
_MAX_CHARS = 80


def without_blanks(name: str) -> str:
    """A name without white space around it, and with single spaces in it.

    Byte order marks and zero-width spaces are removed too.
    """
    return " ".join(name.translate(_INVISIBLE).split())


def quoted(value: object) -> str:
    """A value for a message, in quotes if it is a string, and cut if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _MAX_CHARS
    return short.repr(value)


def _normalised(name: str) -> str:
    """Equal for names that differ in case, and in spaces, `_` and `-` between words."""
    return _SEPARATORS.sub("_", name.strip().casefold())


def same_names(
    wanted: Sequence[str], known: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """For each name the known name that certainly means the same class.

    That is an equal name; else one that differs only in case, or in spaces, `_` and `-`
    between words, or an alias of it. If that is ambiguous, only equal names count.

    Args:
      wanted: Names to look for, without duplicates.
      known: Names to choose from, without duplicates.
      aliases: Another word for a class -> the class, as in `wanted` or `known`.

    Returns:
      Wanted name -> known name, for those that have one.
    """
    words = {_normalised(alias): _normalised(name) for alias, name in aliases.items()}
    normalised = {name: _normalised(name) for name in (*wanted, *known)}
    keys = {name: words.get(each, each) for name, each in normalised.items()}
    by_key = {keys[name]: name for name in known}
    exact = {name: name for name in wanted if name in known}
    found = {name: by_key[keys[name]] for name in wanted if keys[name] in by_key}
    found |= exact
    is_ambiguous = len(by_key) < len(known) or len({*found.values()}) < len(found)
    return exact if is_ambiguous else found


def quoted_list(names: Iterable[str]) -> str:
    """Names in quotes, the first ones of many."""
    return listed(map(quoted, names)) or "none"


def _in_groups(names: Iterable[str], key: Callable[[str], object]) -> list[str]:
    """The names that share their key with another one, next to each other."""
    groups: dict[object, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [name for group in groups.values() if len(group) > 1 for name in group]


def doubtful_names(spellings: Iterable[str]) -> list[str]:
    """Sentences about labels that may not be meant as separate classes.

    Args:
      spellings: All different labels of a file, as written there.

    Returns:
      One on labels with needless white space, which is removed; one on labels that
      differ in case; one on labels that are the same number; one on labels that look
      like missing ones.
    """
    spellings = sorted(spellings)
    names = sorted({*map(without_blanks, spellings)})
    notes = []
    if spaced := [each for each in spellings if each != without_blanks(each)]:
        notes.append(
            f"white space in {quoted_list(spaced)} is removed: labels that differ only "
            "in white space are one class"
        )
    if alike := _in_groups(names, _normalised):
        notes.append(
            f"{quoted_list(alike)} differ only in case or in spaces, `_` and `-`, and "
            "are separate classes. Write them in the same way if they mean the same"
        )
    if same := _in_groups(filter(_NUMBER.fullmatch, names), float):
        notes.append(
            f"{quoted_list(same)} are written in several ways for one number, and are "
            "separate classes. Write them in the same way if they mean the same"
        )
    # Where classes are numbered from 0, or are words, -1 is a missing label. {-1, 1}
    # are two classes.
    is_missing = "0" in names or not all(n.lstrip("-").isdecimal() for n in names)
    numbers = {"-1"} if is_missing else frozenset()
    missing = [n for n in names if n.casefold() in _MISSING or n in numbers]
    if missing:
        notes.append(
            f"{quoted_list(missing)} looks like a missing label, but is a separate "
            "class. Remove its lines if it is not meant as a class"
        )
    return notes
