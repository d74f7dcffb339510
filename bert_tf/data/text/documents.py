"""Reads text files as documents, which are lists of sentences; large files in parts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from bert_tf.data.text.input_files import utf8_remedy
from bert_tf.data.text.sentence_splitting import split_sentences
from bert_tf.data.text.tokenization import CASED, WordSplitter
from bert_tf.files import content_size, opened

Sentences = list[str]

# Longer documents are read as several: that costs one sentence pair, and bounds the
# memory for any input.
MAX_DOCUMENT_BYTES = 16 << 20
MAX_LINE_BYTES = 16 << 20

_BOM = b"\xef\xbb\xbf"
_BYTES_AT_ONCE = 256 << 10
_ANY_CASE = WordSplitter(CASED)


class FileRange(NamedTuple):
    """A part of a file that holds whole documents.

    Attributes:
      path: The file.
      begin: Offset of the first byte.
      end: Offset after the last byte.
    """

    path: str
    begin: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Size of the part."""
        return self.end - self.begin


def cut_into_ranges(
    paths: Sequence[str], input_format: str, target_bytes: int
) -> Iterator[FileRange]:
    """Cuts files at ends of documents, without reading them completely.

    Args:
      paths: Text files. Offsets in a .gz are those of its content.
      input_format: google (one sentence per line, a blank line between documents; the
        end of a file also ends a document), text (each file is a document; files of
        more than `MAX_DOCUMENT_BYTES` are cut at a blank line) or lines (each line is
        a document).
      target_bytes: A range of google's format ends at the first blank line after so
        many bytes, or at a line end if none follows within `MAX_DOCUMENT_BYTES`; one
        of lines at the first line end.

    Yields:
      Stretches that cover every file, in order.
    """
    if input_format == "text":
        target_bytes = MAX_DOCUMENT_BYTES
    for path in paths:
        size = content_size(path)
        begin = 0
        with opened(path) as file:
            while begin < size:
                end = size
                if begin + target_bytes < size:
                    is_line = input_format == "lines"
                    end = _document_end(file, begin + target_bytes, is_line=is_line)
                yield FileRange(path, begin, end)
                begin = end


def _document_end(file: BinaryIO, offset: int, *, is_line: bool) -> int:
    """The end of the first blank line that begins after `offset`, or of its line."""
    file.seek(offset)
    end = offset
    for number, line in enumerate(_lines(file)):
        end += len(line)
        is_far = end - offset > MAX_DOCUMENT_BYTES
        if is_line or (number and (line.isspace() or is_far)):
            break
    return end


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; lines above `MAX_LINE_BYTES` are split into parts."""
    rest = b""
    while block := file.read(_BYTES_AT_ONCE):
        data = rest + block
        # Whether LF follows a CR at the end of the block is not known yet.
        known = data.rstrip(b"\r")
        lines = known.splitlines(keepends=True)
        if b"\r\r\n" in known:
            lines = _join_line_ends(lines)
        rest = lines.pop() if lines and not known.endswith(b"\n") else b""
        rest += data[len(known) :]
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield from rest.splitlines(keepends=True)


def _join_line_ends(lines: Sequence[bytes]) -> list[bytes]:
    """Makes one line end of a CRLF and the CRs before it, which some programs add."""
    joined: list[bytes] = []
    for line in lines:
        parts = [line]
        while line == b"\r\n" and joined and joined[-1].endswith(b"\r"):
            parts.append(joined.pop())
            if parts[-1] != b"\r":
                break
        joined.append(b"".join(reversed(parts)))
    return joined


def holds_words(text: str, splitter: WordSplitter = _ANY_CASE) -> bool:
    """Whether a text has any token; control characters alone make none."""
    return any(map(str.isalnum, text)) or bool(splitter.words(text))


def count_documents(
    file_range: FileRange, input_format: str, splitter: WordSplitter
) -> int:
    """Counts the documents with words in a range: 0, 1, or 2 for any larger number.

    Args:
      file_range: The text.
      input_format: google, lines, or text, whose ranges are one document.
      splitter: Decides what a word is.
    """
    count = 0
    is_new = True
    for line in read_lines(*file_range):
        is_new = is_new or input_format == "lines"
        if not line:
            is_new = is_new or input_format == "google"
        elif is_new and holds_words(line, splitter):
            count += 1
            is_new = False
            if count == 2:
                break
    return count


def read_ranges(ranges: Iterable[FileRange], input_format: str) -> Iterator[Sentences]:
    """Streams the documents of ranges; see `read_range`."""
    for file_range in ranges:
        yield from read_range(file_range, input_format)


def read_range(file_range: FileRange, input_format: str) -> Iterator[Sentences]:
    """Streams the documents of a range.

    Args:
      file_range: UTF-8 text; byte order marks, CRLF and CR line ends are fine.
      input_format: google, text or lines.

    Yields:
      Non-empty lists of non-empty sentences, of not much more than
      `MAX_DOCUMENT_BYTES`.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if it is not UTF-8 text, naming file, line and byte.
    """
    document: Sentences = []
    size = 0
    is_google, is_text = input_format == "google", input_format == "text"
    lines = read_lines(*file_range)
    for line in join_paragraphs(lines) if is_text else lines:
        if line:
            document += [line] if is_google else split_sentences(line)
            size += len(line)
        ends = input_format == "lines" or (not line and is_google)
        if document and (ends or size > MAX_DOCUMENT_BYTES):
            yield document
            document, size = [], 0
    if document:
        yield document


def join_paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Joins lines up to a blank one into a paragraph; very long ones end earlier.

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
      path: The file, which may be a .gz; its lines end with LF, CRLF or CR.
      begin: Where to begin, the first byte of a line.
      end: The byte after the last one; None for the whole file.

    Raises:
      ValueError: if a line is not UTF-8 or too long, naming file, line and byte.
    """
    offset = begin
    with opened(path) as file:
        file.seek(begin)
        for line in _lines(file):
            if end is not None and offset >= end:
                return
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}, line {_line_number(path, offset)}: the line has more "
                    f"than {MAX_LINE_BYTES} bytes. Put each sentence on its own line."
                )
            content = line.removeprefix(_BOM) if offset == 0 else line
            try:
                yield content.decode().strip()
            except UnicodeDecodeError as error:
                byte = offset + len(line) - len(content) + error.start
                number = _line_number(path, offset)
                raise ValueError(
                    f"{path}, line {number}: byte {byte} of the file "
                    f"(0x{content[error.start]:02x}) is not UTF-8. "
                    f"{utf8_remedy(path)}"
                ) from None
            offset += len(line)


def _line_number(path: str, offset: int) -> int:
    """Number of the line that begins at a byte, from 1."""
    position = 0
    number = 1
    with opened(path) as file:
        for line in _lines(file):
            if position >= offset:
                break
            position += len(line)
            number += 1
    return number
