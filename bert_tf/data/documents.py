"""Text files to documents, each a list of sentences; large files in stretches."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from bert_tf.data.sentences import split_sentences

Sentences = list[str]

# What is longer is read as several documents: it costs one sentence pair and keeps
# memory bounded, whatever file is given.
MAX_DOCUMENT_BYTES = 16 << 20
MAX_LINE_BYTES = 16 << 20

# Read as text they would give a model their syntax to learn.
_OTHER_KINDS = (".json", ".jsonl", ".xml", ".bz2", ".gz", ".zip", ".tfrecord", ".hdf5")
_BOM = b"\xef\xbb\xbf"
# After text a blank line, and text again: two documents of google's format.
_NEXT_DOCUMENT = re.compile(rb"\n[ \t\r\f\v]*\n\s*\S")


class Stretch(NamedTuple):
    """Whole documents of a file.

    Attributes:
      path: The file.
      begin: Its first byte.
      end: The byte after the last one.
    """

    path: str
    begin: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return self.end - self.begin


def expand_paths(input_paths: str, suffixes: tuple[str, ...] = (".txt",)) -> list[str]:
    """Finds the files that a setting names.

    Args:
      input_paths: Files, folders and patterns with * and ?, separated by commas.
      suffixes: Which files of a folder are meant.

    Returns:
      Paths, sorted within each part; a file that two parts name is there once.

    Raises:
      FileNotFoundError: if a part matches no file.
    """
    files: dict[str, None] = {}
    kinds = ", ".join(f"*{suffix}" for suffix in suffixes)
    for part in filter(None, (part.strip() for part in input_paths.split(","))):
        matches = [part] if os.path.exists(part) else sorted(glob.glob(part))
        found = [file for match in matches for file in _files(match, suffixes)]
        if not found:
            what = f"holds no {kinds} file" if matches else "does not exist"
            raise FileNotFoundError(
                f"`input` must name files, or folders of {kinds} files, but {part} "
                f"{what}. Received: input={input_paths}."
            )
        for file in found:
            if file.endswith(_OTHER_KINDS) and not file.endswith(suffixes):
                raise ValueError(
                    f"`input` must name {kinds} files. Received: {file}. `python -m "
                    "bert_tf data extract` reads dumps and JSON, `data sentences` what "
                    "extract has written."
                )
        files |= dict.fromkeys(found)
    if not files:
        raise FileNotFoundError(
            f"`input` must name files. Received: input={input_paths!r}."
        )
    return list(files)


def _files(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """The file itself, or those files of a folder."""
    if not os.path.isdir(path):
        return [path]
    return sorted(
        entry.path
        for entry in os.scandir(path)
        if entry.name.endswith(suffixes) and entry.is_file()
    )


def cut_into_stretches(
    paths: Sequence[str], input_format: str, target_bytes: int
) -> Iterator[Stretch]:
    """Cuts files where a document ends, without reading all of them.

    Args:
      paths: Text files.
      input_format: google (a sentence per line, a blank line between documents; a
        file's end ends a document too) or text (a file is a document; one of more
        than `MAX_DOCUMENT_BYTES` is cut at a blank line).
      target_bytes: A stretch of google's format ends at the first blank line after so
        many bytes; at a line's end, if none comes within `MAX_DOCUMENT_BYTES`.

    Yields:
      Stretches that cover every file, in order.
    """
    if input_format == "text":
        target_bytes = MAX_DOCUMENT_BYTES
    for path in paths:
        size = os.path.getsize(path)
        begin = 0
        with open(path, "rb") as file:
            while begin < size:
                end = size
                if begin + target_bytes < size:
                    end = _document_end(file, begin + target_bytes)
                yield Stretch(path, begin, end)
                begin = end


def _document_end(file: BinaryIO, place: int) -> int:
    """The end of the first blank line that begins after `place`."""
    file.seek(place)
    file.readline(MAX_LINE_BYTES)
    while line := file.readline(MAX_LINE_BYTES):
        if line.isspace() or file.tell() - place > MAX_DOCUMENT_BYTES:
            break
    return file.tell()


def count_documents(stretch: Stretch, input_format: str) -> int:
    """How many documents a stretch holds: 0, 1, or 2 for any larger number."""
    with open(stretch.path, "rb") as file:
        file.seek(stretch.begin)
        content = file.read(stretch.num_bytes).removeprefix(_BOM).strip()
    if input_format == "google" and _NEXT_DOCUMENT.search(content):
        return 2
    return int(bool(content))


def read_documents(paths: Sequence[str], input_format: str) -> Iterator[Sentences]:
    """Streams the documents of files; see `cut_into_stretches` and `read_stretch`."""
    for stretch in cut_into_stretches(paths, input_format, MAX_DOCUMENT_BYTES):
        yield from read_stretch(stretch, input_format)


def read_stretch(stretch: Stretch, input_format: str) -> Iterator[Sentences]:
    """Streams the documents of a stretch.

    Args:
      stretch: UTF-8 text; byte order marks and CRLF line ends are fine.
      input_format: google or text.

    Yields:
      Non-empty lists of non-empty sentences, of not much more than
      `MAX_DOCUMENT_BYTES`.

    Raises:
      FileNotFoundError: if the file is not there.
      ValueError: if it is not UTF-8 text, naming file, line and byte.
    """
    document: Sentences = []
    size = 0
    for line in _parts(stretch, input_format):
        if line:
            document += [line] if input_format == "google" else split_sentences(line)
            size += len(line)
        ends = not line and input_format == "google"
        if document and (ends or size > MAX_DOCUMENT_BYTES):
            yield document
            document, size = [], 0
    if document:
        yield document


def _parts(stretch: Stretch, input_format: str) -> Iterator[str]:
    lines = read_lines(*stretch)
    return lines if input_format == "google" else join_paragraphs(lines)


def join_paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Lines up to the next blank one, joined; very long ones are cut after a line.

    Args:
      lines: Without blanks at their ends.

    Yields:
      Non-empty paragraphs.
    """
    paragraph: list[str] = []
    size = 0
    for line in lines:
        if line:
            paragraph.append(line)
            size += len(line)
        if paragraph and (not line or size > MAX_DOCUMENT_BYTES):
            yield " ".join(paragraph)
            paragraph, size = [], 0
    if paragraph:
        yield " ".join(paragraph)


def read_lines(path: str, begin: int = 0, end: int | None = None) -> Iterator[str]:
    """Streams the lines of a UTF-8 file, blanks at both ends removed.

    Args:
      path: The file.
      begin: Where to begin, the first byte of a line.
      end: The byte after the last one; None for the whole file.

    Raises:
      ValueError: if a line is not UTF-8 or too long, naming file, line and byte.
    """
    offset = begin
    with open(path, "rb") as file:
        file.seek(begin)
        while (end is None or offset < end) and (
            line := file.readline(MAX_LINE_BYTES + 1)
        ):
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}, line {_line_number(path, offset)}: the line has more "
                    f"than {MAX_LINE_BYTES} bytes. Give text files with shorter lines."
                )
            content = line.removeprefix(_BOM) if offset == 0 else line
            try:
                yield content.decode().strip()
            except UnicodeDecodeError as error:
                place = offset + len(line) - len(content) + error.start
                raise ValueError(
                    f"{path}, line {_line_number(path, offset)}: byte {place} of the "
                    f"file (0x{content[error.start]:02x}) is not UTF-8. Convert the "
                    "file, for example with `iconv -t UTF-8`."
                ) from None
            offset += len(line)


def _line_number(path: str, offset: int) -> int:
    """Number of the line that begins at a byte, from 1."""
    number = 1
    with open(path, "rb") as file:
        while offset > 0:
            part = file.read(min(offset, MAX_LINE_BYTES))
            number += part.count(b"\n")
            offset -= len(part)
    return number


def document_bytes(document: Sentences) -> int:
    """Size of a document in google's format, in bytes of UTF-8."""
    return sum(len(s) if s.isascii() else len(s.encode()) for s in document) + len(
        document
    )
