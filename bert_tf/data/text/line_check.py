"""Notices text that is not in google's format, one sentence per line."""

import itertools
from collections.abc import Iterator, Sequence

from bert_tf.data.text.documents import read_lines
from bert_tf.data.text.sentence_splitting import split_sentences

_MAX_FILES = 5
_MAX_LINES = 1000
_MAX_CHARACTERS = 1 << 20  # In all these lines.
# Share of lines that are no sentences: a few percent in the format, most in plain text.
_SHARE = 0.2
# How plain text is read by commands with --input_format.
REMEDY = (
    "For plain text pass --input_format=text if each file is a document, "
    "--input_format=lines if each line is."
)
# What a sentence, a title or an item of a list may end with.
_ENDINGS = ".!?:;,)]}\"'\u201d\u2019\u00bb\u2026"


def warn_of_plain_text(paths: Sequence[str], remedy: str) -> list[str]:
    """Warnings about files whose lines are not sentences, of the first files.

    Args:
      paths: Text files, see `read_lines`.
      remedy: How plain text is read, a sentence.

    Returns:
      A line for the first such file; none if the lines of all look like sentences.
    """
    for path in paths[:_MAX_FILES]:
        lines = list(_first_lines(path))
        count = sum(map(bool, lines))
        several = sum(len(split_sentences(line)) > 1 for line in lines)
        continued = sum(_continues(*pair) for pair in itertools.pairwise(lines))
        kinds = {
            "hold several sentences": several,
            # Without sentences that end within a line it is text without punctuation.
            "continue a sentence of the line before": continued if several else 0,
        }
        number, kind = max((number, kind) for kind, number in kinds.items())
        if number > _SHARE * count:
            found = f"{path}: {number} of its first {count} lines {kind}"
            return [
                f"warning: {found}, but each line is read as one sentence, and a blank "
                f"line ends a document. {remedy}"
            ]
    return []


def _first_lines(path: str) -> Iterator[str]:
    left = _MAX_CHARACTERS
    for line in itertools.islice(read_lines(path), _MAX_LINES):
        yield line[:left]
        left -= len(line)
        if left <= 0:
            return


def _continues(before: str, line: str) -> bool:
    """Whether a line goes on where the one before was broken."""
    return bool(before and line) and line[0].islower() and before[-1] not in _ENDINGS
