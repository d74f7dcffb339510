"""Names of classes: what counts as the same name, and what looks like a mistake."""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence

_SEPARATORS = re.compile(r"[\s_-]+")
# How programs write that there is no label; "-" is SNLI's for no agreement.
_MISSING = frozenset(("nan", "null", "<na>", "n/a", "-", "?"))
# Of joined files and copied texts; joiners are left out, which are part of words.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
_MAX_LISTED = 20
_MAX_SHOWN = 80


def without_blanks(name: str) -> str:
    """A name without white space around it, and single spaces in it.

    Byte order marks and spaces of no width are left out too.
    """
    return " ".join(name.translate(_INVISIBLE).split())


def shown(value: object) -> str:
    """A value for a message, in quotes if it is a string, and cut if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _MAX_SHOWN
    return short.repr(value)


def _key(name: str) -> str:
    """Equal for names that differ in case, and in spaces, `_` and `-` between words."""
    return _SEPARATORS.sub("_", name.strip().casefold())


def same_names(
    wanted: Sequence[str], known: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """For each name the known one that certainly means the same class.

    Equal names do; else names that differ only in case, or in spaces, `_` and `-`
    between words, and aliases of them. Where that is ambiguous only equal names count.

    Args:
      wanted: Names to look for, none of them twice.
      known: Names to choose from, likewise.
      aliases: Another word for a class -> the class, as `wanted` or `known` names it.

    Returns:
      Name -> known name, of the wanted names for which there is one.
    """
    words = {_key(alias): _key(name) for alias, name in aliases.items()}
    keys = {name: words.get(_key(name), _key(name)) for name in (*wanted, *known)}
    by_key = {keys[name]: name for name in known}
    exact = {name: name for name in wanted if name in known}
    found = {name: by_key[keys[name]] for name in wanted if keys[name] in by_key}
    found |= exact
    is_ambiguous = len(by_key) < len(known) or len({*found.values()}) < len(found)
    return exact if is_ambiguous else found


def listed(names: Sequence[str]) -> str:
    """Names in quotes, of many of them the first."""
    more = len(names) - _MAX_LISTED
    text = ", ".join(map(shown, names[:_MAX_LISTED]))
    return f"{text} and {more} others" if more > 0 else text or "none"


def doubtful_names(spellings: Iterable[str]) -> list[str]:
    """Sentences about labels that may not be meant as separate classes.

    Args:
      spellings: All labels of a file, as they stand there.

    Returns:
      One on labels with needless white space, which is left out; one on labels that
      differ in case; one on labels that look like missing ones.
    """
    spellings = sorted(spellings)
    names = sorted({*map(without_blanks, spellings)})
    notes = []
    if spaced := [each for each in spellings if each != without_blanks(each)]:
        notes.append(
            f"white space in {listed(spaced)} is left out: labels that differ only in "
            "white space are one class"
        )
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(_key(name), []).append(name)
    alike = [name for group in by_case.values() if len(group) > 1 for name in group]
    if alike:
        notes.append(
            f"{listed(alike)} differ only in case or in spaces, `_` and `-`, and are "
            "separate classes. Write them alike if they mean the same"
        )
    # Files made by other programs number their classes from 0, and -1 is none; so it is
    # among words. {-1, 1} are two classes.
    is_missing = "0" in names or not all(n.lstrip("-").isdecimal() for n in names)
    numbers = {"-1"} if is_missing else frozenset()
    missing = [n for n in names if n.casefold() in _MISSING or n in numbers]
    if missing:
        notes.append(
            f"{listed(missing)} looks like a missing label, and is a separate class. "
            "Remove these lines if it is not meant"
        )
    return notes
