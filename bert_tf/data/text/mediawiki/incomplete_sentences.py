"""Finds sentences that lost a part with the markup, and drops them.

Rendered text has a mark wherever something visible was removed. A mark alone on its
line was a box beside the text; elsewhere the sentence has a hole.
"""

import re
from typing import NamedTuple

from bert_tf.data.text.sentence_splitting import CLOSING, STOPS, split_sentences

HOLE = "\x01"  # A template, a table or an address.
FORMULA = (
    "\x03"  # A formula or code; displayed on a line it is a part of a sentence too.
)
IMAGE = "\x04"  # A small picture within a line.
ITEM = "\x00"  # Begins a line that was an item of a list.

_MARKS = f"{HOLE}{FORMULA}{IMAGE}"
# Possessive, and from a run's begin only: otherwise a run costs quadratic time.
_RUN = re.compile(
    rf"(?<![\s{ITEM}])(?P<before>[\s{ITEM}]*+)"
    rf"(?P<marks>[{_MARKS}](?:[\s{ITEM}.,;:]*+[{_MARKS}])*+[.,;:]*+)"
    rf"(?P<after>[\s{ITEM}]*+)"
)
_FINISHED = re.compile(rf"[{STOPS}][{CLOSING}]*$")
_BRACKETS = re.compile(r"\([^()]*+\)|（[^（）]*+）")
_LIST_SIGNS = re.compile(r"([,;，；、])")
# A reference follows a sign without a blank, words do not.
_NOTE = re.compile(
    rf"([{STOPS},;:，；：、][{CLOSING}]*+){HOLE}++(?=[\s,;:，；：、{STOPS}{CLOSING}]|$)"
)
# Replaces marks while sentences are split: a letter without case.
_LETTER = "\N{PHOENICIAN LETTER ALF}"


class CompleteText(NamedTuple):
    """Text without holes.

    Attributes:
      text: The sentences that are complete.
      num_dropped: How many were not.
    """

    text: str
    num_dropped: int


def join_lines(text: str) -> str:
    """Decides which marks at the beginning of a line are parts of a sentence.

    Args:
      text: Rendered text with marks.

    Returns:
      The text without the marks of boxes. A displayed formula is in one paragraph with
      the rest of its sentence.
    """
    return _RUN.sub(_join, text).replace(IMAGE, HOLE)


def _join(match: re.Match[str]) -> str:
    before, marks, after = match["before"], match["marks"], match["after"]
    text = match.string
    ends_line = "\n" in after or match.end() == len(text)
    is_open = match.start() > 0 and not _FINISHED.search(
        text[max(0, match.start() - 8) : match.start()]
    )
    continues = text[match.end() : match.end() + 1].islower()
    if "\n" not in before and match.start() > 0:
        # Between the end of a sentence and the end of its line, it is part of neither.
        is_remark = ends_line and not (is_open or continues or FORMULA in marks)
        return after if is_remark else match[0]
    if FORMULA in marks:
        hole_before = is_open
        hole_after = continues or not (ends_line or marks.endswith("."))
    elif ends_line:
        hole_before = hole_after = is_open and continues
    else:
        is_box = not after or HOLE not in marks
        hole_before, hole_after = False, continues or not is_box
    if not (hole_before or hole_after):
        return before + after
    mark = FORMULA if FORMULA in marks else HOLE
    return (" " if hole_before else before) + mark + (" " if hole_after else ".\n\n")


def drop_incomplete(paragraph: str) -> CompleteText:
    """Drops the sentences that have a mark.

    Args:
      paragraph: One line of text with single blanks.

    Returns:
      The other sentences, and the number of dropped ones that had words.
    """
    if HOLE not in paragraph and FORMULA not in paragraph:
        return CompleteText(paragraph, 0)
    text = _NOTE.sub(r"\1", _BRACKETS.sub(_drop_list_items, paragraph))
    text = text.replace(HOLE, _LETTER).replace(FORMULA, _LETTER)
    kept = []
    num_dropped = end = 0
    for sentence in split_sentences(text):
        begin = text.index(sentence, end)
        if _LETTER not in sentence:
            kept.append(text[end:begin] + sentence)
        elif any(char.isalnum() for char in sentence.replace(_LETTER, "")):
            num_dropped += 1
        end = begin + len(sentence)
    return CompleteText("".join(kept).strip(), num_dropped)


def _drop_list_items(match: re.Match[str]) -> str:
    """Drops the items of a list in brackets that hold only marks."""
    text = match[0]
    if HOLE not in text and FORMULA not in text:
        return text
    items = _LIST_SIGNS.split(text[1:-1])
    kept = [
        item
        for item in items
        if not (HOLE in item or FORMULA in item) or any(map(str.isalnum, item))
    ]
    if len(kept) == len(items):
        return text
    return text[0] + "".join(kept).strip(" ,;，；、") + text[-1]
