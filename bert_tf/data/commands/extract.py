"""Extracts documents from dumps, JSON, tables and text files, as JSON lines."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bert_tf.config.text import ExtractConfig, TextConfig
from bert_tf.data.commands.document_files import write_documents
from bert_tf.data.commands.output_folder import (
    TEXT_FILES,
    OutputFolder,
    settings_of,
)
from bert_tf.data.output_files import OutputFile, require_documents, total_counts
from bert_tf.data.tasks.label_names import quoted, quoted_list
from bert_tf.data.tasks.tables import column_names, read_rows
from bert_tf.data.text.documents import (
    cut_into_ranges,
    holds_words,
    join_paragraphs,
    read_lines,
)
from bert_tf.data.text.input_files import (
    TEXT_SUFFIXES,
    check_content,
    expand_paths,
    has_suffix,
)
from bert_tf.data.text.mediawiki.dump import read_pages
from bert_tf.data.text.mediawiki.markup import UnparsableError, complete_text
from bert_tf.files import content_size, extension, without_gz
from bert_tf.json_files import HUGE, REMEDY, parse_json, read_json
from bert_tf.launch import report
from bert_tf.progress import ProgressReport

_FORMATS = {
    ".xml": "mediawiki",
    ".xml.bz2": "mediawiki",
    ".bz2": "mediawiki",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}


class RawDocument(NamedTuple):
    """A document as it is in its file.

    Attributes:
      title: Its title, or else its location in the file.
      text: Its text, with any markup.
      has_markup: Whether it has MediaWiki's markup.
    """

    title: str
    text: str
    has_markup: bool


def extract_documents(config: ExtractConfig) -> Counter[str]:
    """Extracts the documents of files; resumes an interrupted call.

    Args:
      config: All settings.

    Returns:
      Counts of `documents`, of `empty` and `unparsable` ones and of
      `incomplete_sentences`, which are left out, and of `bytes` written.

    Raises:
      FileNotFoundError: if there is no input.
      FileExistsError: if `output_dir` holds other output.
      ValueError: if a file cannot be read; the message says where.
    """
    paths = find_input(config)
    settings = settings_of(config, "input")
    output = OutputFolder("extract", config.output_dir, TEXT_FILES, settings, paths)
    files = output.complete(config.overwrite, lambda o: _extract(config, paths, o))
    return total_counts(files)


def find_input(config: TextConfig, name: str = "input") -> list[str]:
    """The files of `input`, whose content is that of their formats.

    Args:
      config: The files, and what they hold.
      name: The setting that names them, for messages.

    Raises:
      FileNotFoundError, ValueError: see `expand_paths` and `check_content`.
    """
    paths = expand_paths(config.input, tuple(_FORMATS), name)
    for path in paths:
        kind = format_of(path, config)
        if kind != "parquet":
            check_content(path, is_text=kind not in ("mediawiki", "json"))
    return paths


def _extract(
    config: ExtractConfig, paths: Sequence[str], output: OutputFolder
) -> list[OutputFile]:
    num_texts = sum(format_of(path, config) == "text" for path in paths)
    if num_texts:
        report(
            f"Text files ({num_texts:,}) are read as one document each. Files of "
            "several documents, a sentence per line and a blank line between them, "
            "need no extract: `python -m bert_tf data shard` reads them."
        )
    # The size of what is compressed is not known: to about a quarter.
    total = sum(
        os.path.getsize(path) * (4 if path.endswith((".bz2", ".gz")) else 1)
        for path in paths
    )
    with ProgressReport(total, "documents") as progress:
        files = write_documents(
            raw_documents(paths, config),
            clean_documents,
            output,
            ".jsonl",
            config.num_processes,
            progress,
        )
    require_documents(files, output.partial_dir, config.input)
    return files


def format_of(path: str, config: TextConfig) -> str:
    """The format of a file: as the settings say, or by its extension."""
    if config.input_format != "auto":
        return config.input_format
    for suffix, name in _FORMATS.items():
        if without_gz(path.lower()).endswith(suffix):
            return name
    if has_suffix(os.path.basename(path), TEXT_SUFFIXES):
        return "text"
    raise ValueError(
        f"`input_format` must be given for {path}, whose extension is not one of "
        f"{', '.join(_FORMATS)}. Received: input_format=auto. Pass --input_format="
        "mediawiki, json, csv, parquet, text or lines."
    )


def raw_documents(
    paths: Sequence[str], config: TextConfig
) -> Iterator[tuple[RawDocument, int]]:
    """All documents in order, with their sizes."""
    for path in paths:
        kind = format_of(path, config)
        if kind == "mediawiki":
            documents = (
                RawDocument(*page, has_markup=True) for page in read_pages(path)
            )
        elif kind == "json":
            documents = _json_documents(path, config.text_field)
        elif kind in ("csv", "parquet"):
            documents = _table_documents(path, config.text_field, kind)
        elif kind == "lines":
            documents = _line_documents(path)
        else:
            documents = _plain_documents(path)
        for document in documents:
            yield document, len(document.text)


def _plain_documents(path: str) -> Iterator[RawDocument]:
    title = os.path.basename(path)
    if not content_size(path):  # No range, but a document without text.
        yield RawDocument(title, "", has_markup=False)
    for file_range in cut_into_ranges([path], "text", 0):
        text = "\n".join(join_paragraphs(read_lines(*file_range)))
        yield RawDocument(title, text, has_markup=False)


def _line_documents(path: str) -> Iterator[RawDocument]:
    for number, line in enumerate(read_lines(path), start=1):
        if line:
            yield RawDocument(f"line {number}", line, has_markup=False)


def _json_documents(path: str, text_field: str) -> Iterator[RawDocument]:
    """The documents of a JSON file.

    A document is an object with `text_field`, or a string. JSON lines are streamed,
    one list or object is not.
    """
    entries = _json_lines(path) if _holds_lines(path) else _json_entries(path)
    for location, title, entry in entries:
        text = entry.get(text_field) if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            found = type(entry).__name__
            if isinstance(entry, dict) and text_field in entry:
                found = f"a value of type {type(text).__name__}: {quoted(text)}"
            elif isinstance(entry, dict):
                found = f"an object with {quoted_list(entry)}"
            raise ValueError(
                f"{path}, {location}: a document must be a string or an object with a "
                f"string under `text_field`. Received: text_field={text_field}, "
                f"{found}. Correct or remove the document, or pass the name of the "
                "text as --text_field."
            )
        named = entry.get("title") if isinstance(entry, dict) else None
        yield RawDocument(named if isinstance(named, str) else title, text, False)


def _table_documents(path: str, text_field: str, kind: str) -> Iterator[RawDocument]:
    """The documents of a table, one in each row; a text that is null is empty."""
    present = column_names(path, kind)
    if text_field not in present:
        raise ValueError(
            f"{path}: there must be a column {text_field!r}. Received: "
            f"{quoted_list(present)}. Pass the column of the text as --text_field."
        )
    columns = list(dict.fromkeys([text_field, *(["title"] * ("title" in present))]))
    for location, values in read_rows(path, columns, kind=kind):
        text, title = values[text_field], values.get("title")
        if not isinstance(text, str | None):
            raise ValueError(
                f"{location}: {text_field!r} must be text. Received: {quoted(text)}. "
                "Pass another column as --text_field."
            )
        title = title if isinstance(title, str) else location.rpartition(", ")[2]
        yield RawDocument(title, text or "", has_markup=False)


def _holds_lines(path: str) -> bool:
    """Whether a file holds a JSON value on each line, whatever its name is."""
    if extension(path) == ".jsonl":
        return True
    try:
        lines = filter(None, read_lines(path))
        first, second = next(lines, ""), next(lines, "")
        return bool(second) and isinstance(parse_json(first), dict | str)
    except ValueError:
        return False  # One value over many lines, or on a very long one.


def _json_lines(path: str) -> Iterator[tuple[str, str, object]]:
    """Location, title and entry of each line."""
    for number, line in enumerate(read_lines(path), start=1):
        if line:
            location = f"line {number}"
            yield location, location, _parse_json(line, f"{path}, line {number}")


def _json_entries(path: str) -> Iterator[tuple[str, str, object]]:
    """Location, title and value of each entry of a list or an object by title."""
    values = read_json(path, max_bytes=HUGE, remedy=REMEDY)
    if isinstance(values, dict):
        for title, entry in values.items():
            yield f"entry {title!r}", title, entry
    elif isinstance(values, list):
        for number, entry in enumerate(values):
            yield f"entry {number}", f"entry {number}", entry
    else:
        raise ValueError(
            f"{path}: must be a JSON list or object of documents. Received: "
            f"{type(values).__name__}."
        )


def _parse_json(content: str, location: str) -> object:
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{location}: not JSON: {error}. {REMEDY}") from None


def plain_text(document: RawDocument, counts: Counter[str]) -> str | None:
    """The text of a document without markup and blank lines.

    Returns:
      None if the markup cannot be parsed; `counts` says how much was left out.
    """
    text = document.text
    if document.has_markup:
        try:
            text, num_dropped = complete_text(text)
        except UnparsableError:
            counts["unparsable"] += 1
            return None
        counts["incomplete_sentences"] += num_dropped
    return "\n".join(filter(None, map(str.strip, text.splitlines())))


def describe_left_out(counts: Counter[str]) -> list[str]:
    """A line about what `plain_text` left out, if anything."""
    names = {
        "unparsable": "documents that cannot be parsed",
        "incomplete_sentences": "incomplete sentences",
    }
    parts = [f"{counts[key]:,} {name}" for key, name in names.items() if counts[key]]
    return [f"left out: {', '.join(parts)}"] if parts else []


def clean_documents(raw: list[RawDocument]) -> tuple[bytes, Counter[str]]:
    """Removes markup: one task of a worker process.

    Args:
      raw: Documents.

    Returns:
      A line for each document, a JSON object of `title` and `text` with one paragraph
      per line of the text; and counts of `documents`, and of what is left out: `empty`
      and `unparsable` documents and `incomplete_sentences`.
    """
    counts: Counter[str] = Counter()
    lines = []
    for document in raw:
        text = plain_text(document, counts)
        if text is None:
            continue
        if not holds_words(text):
            counts["empty"] += 1
            continue
        line = json.dumps({"title": document.title, "text": text}, ensure_ascii=False)
        lines.append(line + "\n")
        counts["documents"] += 1
    return "".join(lines).encode(errors="replace"), counts
