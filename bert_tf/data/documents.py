"""Text files to a stream of documents, each a list of sentences."""

import glob
import os
from collections.abc import Iterator, Sequence

from bert_tf.data.sentences import split_sentences

Sentences = list[str]

# What is longer is read as several documents: it costs one sentence pair and keeps
# memory bounded, whatever file is given.
MAX_DOCUMENT_BYTES = 16 << 20
MAX_LINE_BYTES = 16 << 20

_BOM = b"\xef\xbb\xbf"


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
    for part in filter(None, (part.strip() for part in input_paths.split(","))):
        matches = [part] if os.path.exists(part) else sorted(glob.glob(part))
        found = [file for match in matches for file in _files(match, suffixes)]
        if not found:
            what = f"holds no *{suffixes[0]} file" if matches else "does not exist"
            raise FileNotFoundError(
                f"`input` must name files, or folders of *{suffixes[0]} files, but "
                f"{part} {what}. Received: input={input_paths}."
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


def read_documents(paths: Sequence[str], input_format: str) -> Iterator[Sentences]:
    """Streams the documents of files.

    A document of more than `MAX_DOCUMENT_BYTES` comes as several.

    Args:
      paths: UTF-8 text files; byte order marks and CRLF line ends are fine.
      input_format: google (a sentence per line, a blank line between documents; a
        file's end ends a document too) or text (a file is a document).

    Yields:
      Non-empty lists of non-empty sentences.

    Raises:
      FileNotFoundError: if a file is not there.
      ValueError: if a file is not UTF-8 text, naming file, line and byte.
    """
    reader = {"google": _google_documents, "text": _plain_documents}[input_format]
    for path in paths:
        yield from reader(path)


def read_lines(path: str) -> Iterator[str]:
    """Streams the lines of a UTF-8 file, blanks at both ends removed.

    Raises:
      ValueError: if a line is not UTF-8 or too long, naming file, line and byte.
    """
    offset = 0
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}, line {number}: the line has more than {MAX_LINE_BYTES} "
                    "bytes. Give text files with shorter lines."
                )
            content = line.removeprefix(_BOM) if number == 1 else line
            try:
                yield content.decode().strip()
            except UnicodeDecodeError as error:
                place = offset + len(line) - len(content) + error.start
                raise ValueError(
                    f"{path}, line {number}: byte {place} of the file "
                    f"(0x{content[error.start]:02x}) is not UTF-8. Convert the file, "
                    "for example with `iconv -t UTF-8`."
                ) from None
            offset += len(line)


def document_bytes(document: Sentences) -> int:
    """Size of a document in google's format, in bytes of UTF-8."""
    return sum(len(s) if s.isascii() else len(s.encode()) for s in document) + len(
        document
    )


def _google_documents(path: str) -> Iterator[Sentences]:
    document: Sentences = []
    size = 0
    for line in read_lines(path):
        if line:
            document.append(line)
            size += len(line)
        if document and (not line or size > MAX_DOCUMENT_BYTES):
            yield document
            document, size = [], 0
    if document:
        yield document


def _plain_documents(path: str) -> Iterator[Sentences]:
    document: Sentences = []
    size = 0
    for paragraph in _paragraphs(path):
        document += split_sentences(paragraph)
        size += len(paragraph)
        if size > MAX_DOCUMENT_BYTES:
            yield document
            document, size = [], 0
    if document:
        yield document


def _paragraphs(path: str) -> Iterator[str]:
    """Lines up to the next blank one, joined; very long ones are cut after a line."""
    lines: list[str] = []
    size = 0
    for line in read_lines(path):
        if line:
            lines.append(line)
            size += len(line)
        if lines and (not line or size > MAX_DOCUMENT_BYTES):
            yield " ".join(lines)
            lines, size = [], 0
    if lines:
        yield " ".join(lines)
