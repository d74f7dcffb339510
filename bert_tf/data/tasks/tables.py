"""Reads rows of tab-separated and JSON-lines files, with file and line for messages.

Lines are split at tabs here: the module `csv`, with QUOTE_NONE too, refuses a carriage
return within a text, and texts of more than 128 KiB.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.files import check_regular
from bert_tf.json_files import parse_json

# A text is far shorter; a file without line ends would fill the memory.
_MAX_LINE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """The requested columns of a row.

    Attributes:
      location: File and line, for messages.
      values: Column name -> string of a .tsv file, or any JSON value of a .jsonl file.
    """

    location: str
    values: dict[str, object]


def read_rows(
    path: str,
    columns: Sequence[str],
    header: Sequence[str] = (),
    *,
    skips_broken_rows: bool = False,
) -> Iterator[Row]:
    """Streams columns of a table.

    Args:
      path: A UTF-8 file. A .jsonl file has an object per line; anything else is
        tab-separated, and quotes in it are plain text.
      columns: Names of the columns to read.
      header: Names of all columns, if a tab-separated file has no header line.
      skips_broken_rows: Whether tab-separated lines with too few or too many columns
        are skipped, with a warning that counts them, instead of refused.

    Yields:
      The rows in the order of the file.

    Raises:
      ValueError: if the file is empty or not UTF-8, a column is missing, or a line has
        too few or too many columns; the message names file and line.
    """
    if path.endswith(".jsonl"):
        yield from _json_rows(path, columns)
    else:
        yield from _tab_rows(path, columns, header, skips_broken_rows)


def column_names(path: str) -> list[str]:
    """The columns of a table: a header line, or the keys of the first JSON object.

    Raises:
      ValueError: if the file is empty, or its first line cannot be read.
    """
    for number, line in numbered_lines(path):
        if path.endswith(".jsonl"):
            return list(_json_object(line, f"{path}, line {number}"))
        return line.split("\t")
    raise ValueError(f"{path}, line 1: the file is empty. Use a file with examples.")


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Streams the lines of a UTF-8 file; empty ones at its end are skipped.

    Args:
      path: The file. A byte order mark and CRLF line ends are allowed.

    Yields:
      The number of each line, from 1, and the line without its end.

    Raises:
      ValueError: if a line is not UTF-8, naming file and line.
    """
    check_regular(path)
    empty: list[int] = []
    with open(path, "rb") as file:
        # Not in text mode, which ends lines at characters that texts may contain.
        lines = iter(lambda: file.readline(_MAX_LINE_BYTES + 1), b"")
        for number, data in enumerate(lines, start=1):
            if len(data) > _MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}, line {number}: a line must have at most "
                    f"{_MAX_LINE_BYTES:,} bytes. Correct the file, or fetch it again."
                )
            content = (data.removeprefix(_BOM) if number == 1 else data).rstrip(b"\r\n")
            if not content:
                empty.append(number)
                continue
            yield from ((blank, "") for blank in empty)
            empty.clear()
            try:
                yield number, content.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 (byte {error.start}: "
                    f"0x{content[error.start]:02x}). Convert the file, for example "
                    "with `iconv -t UTF-8`."
                ) from None


def _tab_rows(
    path: str, columns: Sequence[str], header: Sequence[str], skips_broken_rows: bool
) -> Iterator[Row]:
    lines = numbered_lines(path)
    if not header:
        header = column_names(path)
        next(lines)
    check_columns(columns, header, f"{path}, line 1")
    _check_single(header, f"{path}, line 1")
    header = list(header)
    numbers = [header.index(column) for column in columns]
    num_broken, names = 0, "\t".join(header)
    for number, line in lines:
        fields = line.split("\t")
        if line.removeprefix("\ufeff") == names:
            raise ValueError(
                f"{path}, line {number}: the header line occurs again. Remove it; if "
                "several files were joined, each has one."
            )
        if len(fields) == len(header):
            values = {
                column: fields[n] for column, n in zip(columns, numbers, strict=True)
            }
            yield Row(f"{path}, line {number}", values)
            continue
        if not skips_broken_rows:
            raise ValueError(
                f"{path}, line {number}: a line must have {len(header)} tab-separated "
                f"columns. Received: {len(fields)}. Correct or remove the line."
            )
        num_broken += 1
    if num_broken:
        logging.warning(
            "%s: skipped %d lines that do not have %d columns.",
            path,
            num_broken,
            len(header),
        )


def _check_single(header: Sequence[str], location: str) -> None:
    """Refuses a column that occurs twice; those without a name are not meant."""
    for column in filter(None, header):
        if list(header).count(column) > 1:
            raise ValueError(
                f"{location}: there must be only one column {column!r}. Received: "
                f"{quoted_list(header)}. Rename the other, or use another column."
            )


def _json_rows(path: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in numbered_lines(path):
        location = f"{path}, line {number}"
        entry = _json_object(line, location)
        check_columns(columns, entry, location)
        yield Row(location, {column: entry[column] for column in columns})


def _json_object(line: str, location: str) -> dict[str, object]:
    try:
        # A label that is not read may be NaN: pandas writes missing values so.
        entry = parse_json(line, finite=False)
    except ValueError as error:
        raise ValueError(
            f"{location}: not JSON ({error}). Each line must hold one JSON object."
        ) from None
    if not isinstance(entry, dict):
        raise ValueError(
            f"{location}: each line must hold one JSON object. Received: {line[:40]}."
        )
    return entry


def check_columns(
    columns: Sequence[str], present: Sequence[str] | dict[str, object], location: str
) -> None:
    """Refuses a table without a requested column.

    Args:
      columns: The requested columns.
      present: All columns of the table.
      location: File and line, for the message.

    Raises:
      ValueError: if a column is missing; the message lists those of the table.
    """
    for column in columns:
        if column not in present:
            raise ValueError(
                f"{location}: there must be a column {column!r}. Received: "
                f"{quoted_list(list(present))}. Use one of these columns, or correct "
                "the file."
            )
