"""Reads rows of tables, with file and line for messages: tabs, JSON, CSV, Parquet.

Lines are split at tabs here: the module `csv`, with QUOTE_NONE too, refuses a carriage
return within a text. Quotes around fields: see `quoting`.
"""

import contextlib
import csv
import functools
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bert_tf.data.tasks.quoting import (
    count_doubled,
    find_quotes,
    quoted_records,
    split_quoted,
)
from bert_tf.data.tasks.table_columns import check_columns, check_single
from bert_tf.data.text.input_files import HEAD_BYTES, refuse_zeros, utf8_remedy
from bert_tf.errors import counted
from bert_tf.files import check_regular, extension, opened
from bert_tf.json_files import parse_json

_LOGGER = logging.getLogger(__name__)

# A text is far shorter; a file without line ends would fill the memory.
_MAX_LINE_BYTES = 16 << 20
_ROWS_AT_ONCE = 1024
# Earlier versions run code that a Parquet file holds.
_SAFE_PYARROW = (14, 0, 1)
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """The requested columns of a row.

    Attributes:
      location: File and line, for messages.
      values: Column name -> string of a .tsv or .csv file, or any value of a .jsonl or
        .parquet file.
    """

    location: str
    values: dict[str, object]


def read_rows(
    path: str,
    columns: Sequence[str],
    header: Sequence[str] = (),
    *,
    skips_broken_rows: bool = False,
    keeps_quotes: bool = False,
    kind: str = "",
) -> Iterator[Row]:
    """Streams columns of a table.

    Args:
      path: A .parquet file, or a UTF-8 file, also as .gz. A .jsonl file has an object
        per line; a .csv file has commas, a header line, and quotes where a text has
        commas or line ends; anything else is tab-separated, with quotes around fields
        if all that have any are quoted as in CSV, else with quotes as plain text.
      columns: Names of the columns to read.
      header: Names of all columns, if a tab-separated file has no header line.
      skips_broken_rows: Whether tab-separated lines with too few or too many columns
        are skipped, with a warning that counts them, instead of refused.
      keeps_quotes: Whether quotes of a tab-separated file are text in any case.
      kind: csv or parquet, for a file with another extension.

    Yields:
      The rows in the order of the file.

    Raises:
      ValueError: if the file is empty or not UTF-8, a column is missing, or a line has
        too few or too many columns; the message names file and line.
    """
    kind = kind or extension(path)[1:]
    if kind == "jsonl":
        yield from _json_rows(path, columns)
    elif kind == "csv":
        yield from _csv_rows(path, columns)
    elif kind == "parquet":
        yield from _parquet_rows(path, columns)
    else:
        yield from _tab_rows(path, columns, header, skips_broken_rows, keeps_quotes)


def column_names(path: str, kind: str = "", *, keeps_quotes: bool = False) -> list[str]:
    """The columns of a table: a header line, or the keys of the first JSON object.

    Args:
      path: See `read_rows`.
      kind: See `read_rows`.
      keeps_quotes: See `read_rows`.

    Raises:
      ValueError: if the file is empty, or its first line cannot be read.
    """
    kind = kind or extension(path)[1:]
    if kind == "parquet":
        return list(_parquet_file(path).schema_arrow.names)
    if kind == "csv":
        for _, fields in _csv_lines(path):
            return fields
    elif kind == "jsonl":
        for number, line in numbered_lines(path):
            return list(_json_object(line, f"{path}, line {number}"))
    else:
        for _, fields in _tab_fields(path, not keeps_quotes and _is_quoted(path)):
            return fields
    raise ValueError(f"{path}, line 1: the file is empty. Use a file with examples.")


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Streams the lines of a UTF-8 file; empty ones at its end are skipped.

    Args:
      path: The file, which may be a .gz. A byte order mark and CRLF line ends are
        allowed.

    Yields:
      The number of each line, from 1, and the line without its end.

    Raises:
      ValueError: if the file is UTF-16, or a line not UTF-8; the message names it.
    """
    check_regular(path)
    empty: list[int] = []
    with opened(path) as file:
        refuse_zeros(path, file.read(HEAD_BYTES))
        file.seek(0)
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
                    f"0x{content[error.start]:02x}). {utf8_remedy(path)}"
                ) from None


def _tab_fields(path: str, is_quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """The first line and the fields of each row of a tab-separated file."""
    lines = numbered_lines(path)
    if is_quoted:
        return ((first, split_quoted(parts)) for first, parts in quoted_records(lines))
    return ((number, line.split("\t")) for number, line in lines)


def _is_quoted(path: str) -> bool:
    """Whether a tab-separated file has quotes as CSV has them; logs what it finds."""
    check_regular(path)
    status = os.stat(path)
    return _find_quotes(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _find_quotes(path: str, *version: int) -> bool:
    del version  # Another one is another file.

    def lines() -> Iterator[tuple[int, str]]:
        with contextlib.suppress(ValueError):  # Raised again when the rows are read.
            yield from numbered_lines(path)

    quotes = find_quotes(lines())
    if quotes.count:
        _LOGGER.warning(
            "%s: %d fields are read without the double quotes around them, as CSV has "
            "them.",
            path,
            quotes.count,
        )
    elif quotes.other and (count := count_doubled(lines())):
        _LOGGER.warning(
            "warning: %s: all double quotes are read as text, also those of %d fields "
            "that look quoted as in CSV, since those of line %d are not as in CSV. "
            "Correct that line, or save the table as .csv (to train, --task_name=csv).",
            path,
            count,
            quotes.other,
        )
    return quotes.count > 0


def _quotes_note(fields: Sequence[str]) -> str:
    """What to add to an error about a row with a wrong number of columns."""
    if not any(field.startswith('"') for field in fields):
        return ""
    return (
        " A field begins with a double quote, which is text here, so that tabs and "
        "line ends after it count: save texts that have them as .csv or .jsonl."
    )


def _tab_rows(
    path: str,
    columns: Sequence[str],
    header: Sequence[str],
    skips_broken_rows: bool,
    keeps_quotes: bool,
) -> Iterator[Row]:
    is_quoted = not keeps_quotes and _is_quoted(path)
    lines = _tab_fields(path, is_quoted)
    if not header:
        header = column_names(path, keeps_quotes=keeps_quotes)
        next(lines)
    check_columns(columns, header, f"{path}, line 1")
    check_single(header, f"{path}, line 1")
    header = list(header)
    numbers = [header.index(column) for column in columns]
    num_broken = 0
    for number, fields in lines:
        if [fields[0].removeprefix("\ufeff"), *fields[1:]] == header:
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
            other = " Or the file is one of another task: check --task_name."
            raise ValueError(
                f"{path}, line {number}: a line must have {len(header)} tab-separated "
                f"columns. Received: {len(fields)}. Correct or remove the line."
                f"{other * (number == 1)}"
                f"{'' if is_quoted else _quotes_note(fields)}"
            )
        num_broken += 1
    if num_broken:
        _LOGGER.warning(
            "%s: skipped %d lines that do not have %d columns.",
            path,
            num_broken,
            len(header),
        )


def _csv_rows(path: str, columns: Sequence[str]) -> Iterator[Row]:
    lines = _csv_lines(path)
    header = column_names(path, "csv")
    next(lines)
    check_columns(columns, header, f"{path}, line 1")
    check_single(header, f"{path}, line 1")
    for location, fields in lines:
        if len(fields) != len(header):
            raise ValueError(
                f"{location}: a row must have {counted(len(header), 'column')}. "
                f"Received: {len(fields)}. Put texts with commas or line ends in "
                "double quotes."
            )
        values = dict(zip(header, fields, strict=True))
        yield Row(location, {column: values[column] for column in columns})


def _csv_lines(path: str) -> Iterator[tuple[str, list[str]]]:
    """Location and fields of each row, the header first; blank lines are skipped."""
    check_regular(path)
    csv.field_size_limit(_MAX_LINE_BYTES)
    with opened(path) as file:
        refuse_zeros(path, file.read(HEAD_BYTES))
        file.seek(0)
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        rows, last = csv.reader(text, strict=True), 0
        try:
            for fields in rows:
                if fields:
                    yield f"{path}, line {last + 1}", fields
                last = rows.line_num
        except UnicodeDecodeError:  # Of some line in the block that was read.
            for _ in numbered_lines(path):
                pass
            raise
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {last + 1}: not CSV: {error}. Put texts in double "
                "quotes, and double the quotes inside."
            ) from None


def _parquet_rows(path: str, columns: Sequence[str]) -> Iterator[Row]:
    file = _parquet_file(path)
    check_columns(columns, file.schema_arrow.names, path)
    number = 0
    try:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path}, row {number}", values)
    except (ValueError, OSError, NotImplementedError) as error:
        raise ValueError(
            f"{path} is not a whole Parquet file: {error}. Fetch it again."
        ) from None


def _parquet_file(path: str) -> Any:  # noqa: ANN401 - of an optional package
    check_regular(path)
    try:
        import pyarrow.parquet  # Takes a second to load.
    except ImportError:
        raise ValueError(
            f"{path} is Parquet, which the package pyarrow reads. Install it (`pip "
            "install pyarrow`), or write the table as .jsonl."
        ) from None
    version = tuple(map(int, re.findall(r"\d+", pyarrow.__version__)[:3]))
    if version < _SAFE_PYARROW:
        raise ValueError(
            f"{path} is Parquet, through which pyarrow {pyarrow.__version__} may run "
            "code (CVE-2023-47248). Install another version (`pip install "
            f"'pyarrow>={'.'.join(map(str, _SAFE_PYARROW))}'`)."
        )
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} is not a Parquet file: {error}. Fetch it again."
        ) from None


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
