"""Errors that a user can fix: entry scripts print them as one line."""

import difflib
from collections.abc import Iterable

_MAX_SHOWN = 200
_MAX_LINE = 2000
# Characters of a word that are compared with known ones, and how alike those must be.
_MAX_WORD, _LIKENESS = 100, 0.7


def shown(value: object) -> str:
    """A value for a message: its `repr`, the middle left out where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return f"a number of more than {_MAX_SHOWN} digits"
    try:
        return shortened(repr(value), _MAX_SHOWN)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the known word most like a wrong one; empty if none is."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(
        word[:_MAX_WORD].lower(), names, n=1, cutoff=_LIKENESS
    )
    return f"Did you mean {names[close[0]]}?" if close else ""


def listed(items: Iterable[str], separator: str = ", ", *, most: int = 20) -> str:
    """The first items, and the number of the others, in one line of a message."""
    items = list(items)
    more = len(items) - most
    first = separator.join(items[:most])
    return f"{first}{separator}and {more:,} more" if more > 0 else first


def counted(number: int, noun: str) -> str:
    """A number of things, in words: "1 thread", "1,000 steps"."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def one_line(error: BaseException | str) -> str:
    """The message of an error on one printable line.

    Line ends and control characters, which names of files may have, are escaped.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        where = error.filename if error.filename is not None else "A file"
        where = where if isinstance(where, str) else repr(where)
        text = (
            f"{where} cannot be read or written: {error.strerror}. Check the path, its "
            "permissions and the free space, or pass another path."
        )
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shortened(text, _MAX_LINE)


def printable(error: BaseException) -> str:
    """The message on one line, or, where it lists things, on a line for each."""
    if isinstance(error, OSError):
        return one_line(error)
    return "\n  ".join(map(one_line, str(error).split("\n  ")))


def shortened(text: str, most: int) -> str:
    """A text with its middle left out, where it has more than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} [...] {text[-most // 2 :]}"


class RunError(Exception):
    """A run cannot start or continue; the message states the cause and the remedy."""


class CorruptRecordError(RunError):
    """A record cannot be read; the message names file, record and byte offset.

    Attributes:
      number: Number of the record within its set; None if a whole file cannot be read.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""


class NotConverged(RunError):  # noqa: N818 - nothing failed
    """A training is over, or stops for now, without having reached its target."""


class OtherWorkerFailed(RunError):  # noqa: N818 - the error of another worker
    """Another worker stopped; that worker reports the cause."""


class WorkerLost(OtherWorkerFailed):
    """Another worker is gone, perhaps without a word about the cause."""


class Stopped(BaseException):  # noqa: N818 - not an error: a signal asked for it
    """A signal ends the run; no `except Exception` may hold it up."""
