"""Turns MediaWiki's markup into plain paragraphs.

`mwparserfromhell` parses the markup, which regular expressions cannot: templates, links
and tables nest. `rendering` decides what to keep of it, this module what to keep of the
text: complete sentences. A mark replaces what is removed, until they are known.
"""

import contextlib
import gc
import html
import re
from collections import Counter
from collections.abc import Iterator

from mwparserfromhell.definitions import is_single
from mwparserfromhell.parser import ParserError

from bert_tf.data.text.mediawiki.functions import AFTER_DIGIT, resolve_variants
from bert_tf.data.text.mediawiki.incomplete_sentences import (
    HOLE,
    ITEM,
    CompleteText,
    drop_incomplete,
    join_lines,
)
from bert_tf.data.text.mediawiki.rendering import (
    ADDRESS,
    render_article,
    without_marks,
)
from bert_tf.data.text.sentence_splitting import CLOSING, STOPS

# Longer texts are lists or logs; the parser takes half a second per megabyte.
MAX_CHARS = 4_000_000
# For each unclosed bracket the parser reads on to the end of the text. So many brackets
# times characters take about 15 seconds; an open <b> costs a tenth of a link.
MAX_OPEN_WORK = 100_000_000
_OPEN_TAGS_PER_MARK = 10
_MARKS = (("{{", "}}"), ("{|", "|}"), ("[", "]"), ("<", ">"))
_TAG = re.compile(r"<(/?[a-zA-Z]++)[^<>]*+(?<!/)>")

# In any language: links with a prefix that are alone on their line.
_CATEGORIES = re.compile(
    r"^(?:\[\[[^\[\]|:\n]+:[^\[\]|\n]+(?:\|[^\[\]|\n]*)?\]\][ \t]*)+$", re.MULTILINE
)
_SPACED_FRACTION = re.compile(rf"(?<=\d){AFTER_DIGIT}")
_LEFTOVERS = re.compile(r"'{2,}|__[A-Z]+__|\[\[|\]\]|\{\{+|\}\}+|</?[a-zA-Z][^<>\n]*>")
# What the parser did not take as a template: {{#ifexpr: 1 > 0|...}}, {{a<b}}.
_UNPARSED = re.compile(r"\{\{[^{}]*+\}\}|<ref\b[^<>]*+>")
_BROKEN_LINE = re.compile(r"\s*(\{\||\|\}|\|-|[|!]|(\[\[)?(File|Image|Category):)")
# For text with single blanks. None tries a run of signs again from each position.
_EMPTY_BRACKETS = re.compile(r" ?[(\[][ ,;:.–—/-]*[)\]]|（[ ，；：、,;:]*）")
_LEADING_SIGNS = re.compile(r"\([ ,;:]*[,;:] ?")
_TRAILING_SIGNS = re.compile(r"(?<![ ,;:])[ ,;:]+\)")
_SPACE_BEFORE = re.compile(r" (?=[,.;:!?)](?: |$))")
_DOUBLED_SIGNS = re.compile(r"(?:[,;] ?)+(?=[,;]|\.(?: |$))")
_WHOLE_SENTENCE = re.compile(rf"[{STOPS}][{CLOSING}]*$")


class UnparsableError(ValueError):
    """The markup of an article cannot be parsed; the message says why."""


def complete_text(wikitext: str) -> CompleteText:
    """Removes the markup of an article.

    Tables, references, images, categories, headings, boxes and the sections after an
    article's text (references, external links, ...) are dropped; links and emphasis
    leave their text, known templates the text that a reader sees; items of lists are
    kept if they are sentences. Sentences with an unknown template, a formula or an
    address are dropped.

    Args:
      wikitext: The text of an article, of at most `MAX_CHARS` characters.

    Returns:
      Paragraphs with blank lines between them, empty if nothing is left; and the number
      of sentences that were dropped.

    Raises:
      UnparsableError: if it is too long, nested too deeply, or leaves so many links,
        templates or tags open that to parse it would take minutes.
    """
    _check_size(wikitext)
    wikitext = resolve_variants(without_marks(wikitext))
    wikitext = _CATEGORIES.sub("", wikitext)
    try:
        with _paused_collection():
            text = render_article(wikitext)
    except (RecursionError, ParserError) as error:
        raise UnparsableError(f"The markup cannot be parsed: {error}.") from None
    paragraphs = []
    num_dropped = 0
    for paragraph in re.split(r"\n\s*\n", join_lines(text)):
        complete = drop_incomplete(_join_paragraph(paragraph))
        num_dropped += complete.num_dropped
        paragraphs.append(_tidy(complete.text))
    return CompleteText("\n\n".join(filter(None, paragraphs)), num_dropped)


@contextlib.contextmanager
def _paused_collection() -> Iterator[None]:
    """Does not look for cycles among an article's tokens, which have none.

    They are so many that this would take a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_size(wikitext: str) -> None:
    if len(wikitext) > MAX_CHARS:
        raise UnparsableError(f"The text has more than {MAX_CHARS} characters.")
    marks = sum(max(0, wikitext.count(a) - wikitext.count(b)) for a, b in _MARKS)
    tags = Counter(_TAG.findall(wikitext.lower()))
    open_tags = sum(
        max(0, number - tags["/" + name])
        for name, number in tags.items()
        if not name.startswith("/") and not is_single(name)
    )
    if (marks + open_tags / _OPEN_TAGS_PER_MARK) * len(wikitext) > MAX_OPEN_WORK:
        raise UnparsableError(
            f"In {len(wikitext)} characters {marks} brackets and {open_tags} tags are "
            "not closed."
        )


def _join_paragraph(paragraph: str) -> str:
    """One paragraph of rendered text as a single line, broken lines removed."""
    lines = []
    follows_item = False
    for line in paragraph.split("\n"):
        is_item = line.startswith(ITEM)
        line = line.replace(ITEM, "").strip()
        if _BROKEN_LINE.match(line) or (is_item and not _WHOLE_SENTENCE.search(line)):
            follows_item = is_item
            continue
        # After dropped items, a sentence may continue that began before them.
        lines.append(HOLE + line if follows_item and line[:1].islower() else line)
        follows_item = False
    # Some entities are escaped twice.
    text = _UNPARSED.sub(HOLE, html.unescape(" ".join(lines)))
    text = _LEFTOVERS.sub("", text)
    text = ADDRESS.sub(HOLE, text)
    if AFTER_DIGIT in text:
        text = _SPACED_FRACTION.sub(" ", text).replace(AFTER_DIGIT, "")
    return " ".join(text.split())


def _tidy(text: str) -> str:
    """Removes the punctuation around what was removed."""
    text = _LEADING_SIGNS.sub("(", _TRAILING_SIGNS.sub(")", text))
    text = _DOUBLED_SIGNS.sub("", _EMPTY_BRACKETS.sub("", text))
    text = _SPACE_BEFORE.sub("", text).strip()
    return text if any(char.isalnum() for char in text) else ""
