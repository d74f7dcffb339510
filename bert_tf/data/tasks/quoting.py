"""Quotes in tab-separated tables: around fields, as programs for CSV write them."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# A field in quotes or without any. Possessive: a mismatch must not take time.
_FIELD = r'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\t]*+)'
_RECORD = re.compile(rf"{_FIELD}(?:\t{_FIELD})*+")
_FIELDS = re.compile(rf"(?:^|\t)({_FIELD})")
_WITH_QUOTES_INSIDE = re.compile(r'"[^"]*+(?:""[^"]*+)++"')
# Characters of a record; a single quote would join all lines after it.
_MAX_RECORD = 16 << 20


class Quotes(NamedTuple):
    """The quotes of a table.

    Attributes:
      count: Fields in quotes; of a table that is not quoted, those that also have
        doubled quotes inside.
      other: The first line with quotes that are neither around a field nor doubled; 0
        for a quoted table.
    """

    count: int
    other: int = 0


def quoted_records(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each record, and its lines.

    Args:
      lines: Numbered lines; a line end within quotes does not end a record.
    """
    parts: list[str] = []
    first, size, is_open = 0, 0, False
    for number, line in lines:
        first = first if parts else number
        parts.append(line)
        size += len(line)
        is_open ^= bool(line.count('"') % 2)
        if not is_open or size > _MAX_RECORD:
            yield first, parts
            parts, size, is_open = [], 0, False
    if parts:
        yield first, parts


def split_quoted(parts: list[str]) -> list[str]:
    """The fields of a record, without their quotes."""
    fields = _FIELDS.findall("\n".join(parts))
    return [x[1:-1].replace('""', '"') if x.startswith('"') else x for x in fields]


def find_quotes(lines: Iterable[tuple[int, str]]) -> Quotes:
    """Whether a table is quoted: each field with a quote is in quotes, others doubled.

    Lines in quotes that have as many columns as the header by themselves are rows with
    quotes in their texts, not a field with line ends.
    """
    count, width = 0, 0
    for first, parts in quoted_records(lines):
        width = width or parts[0].count("\t")
        if len(parts) > 1 and all(part.count("\t") == width for part in parts):
            return Quotes(0, first)
        record = "\n".join(parts)
        if '"' not in record:
            continue
        if not _RECORD.fullmatch(record):
            return Quotes(0, first)
        count += sum(x.startswith('"') for x in _FIELDS.findall(record))
    return Quotes(count)


def count_doubled(lines: Iterable[tuple[int, str]]) -> int:
    """Fields that are in quotes and have doubled quotes inside."""
    fields = (x for _, line in lines if '""' in line for x in line.split("\t"))
    return sum(bool(_WITH_QUOTES_INSIDE.fullmatch(x)) for x in fields)
