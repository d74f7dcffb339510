"""Records named on a command line, in the form in which messages name them."""

import dataclasses
import re
from collections.abc import Sequence

FORM = "FILE:NUMBER or FILE:FIRST-LAST, such as part-3.tfrecord:5-9"
_ITEM = re.compile(r"(?:(?P<file>.+):)?(?P<first>\d{1,18})(?:-(?P<last>\d{1,18}))?")


@dataclasses.dataclass(frozen=True)
class RecordRange:
    """Consecutive records of a file.

    Attributes:
      file: Name or path of the file; empty for the only file of a set.
      first: Number of the first record within the file, from 0.
      last: Number of the last one.
    """

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        """The form that a command line takes."""
        file = f"{self.file}:" if self.file else ""
        last = f"-{self.last}" if self.last > self.first else ""
        return f"{file}{self.first}{last}"


def parse_ranges(name: str, items: Sequence[str]) -> list[RecordRange]:
    """Reads ranges of records.

    Args:
      name: The setting, for messages.
      items: Each in the form of `FORM`; the file may be left out where a set has one.

    Raises:
      ValueError: if one has another form.
    """
    ranges = []
    for item in items:
        match = _ITEM.fullmatch(item.strip())
        first, last = (match["first"], match["last"]) if match else (0, 0)
        if match is None or int(last or first) < int(first):
            raise ValueError(
                f"`{name}` must be a comma-separated list of {FORM}, as messages name "
                f"records. Received: {name}={item!r}."
            )
        ranges.append(RecordRange(match["file"] or "", int(first), int(last or first)))
    return ranges
