"""Turns MediaWiki's markup into plain paragraphs.

`mwparserfromhell` parses the markup, which regular expressions cannot: templates, links
and tables nest. This module decides what to keep: running text, in complete sentences.
A mark replaces what is removed, until the sentences without it are known.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import mwparserfromhell
from mwparserfromhell.definitions import is_single
from mwparserfromhell.nodes import (
    Argument,
    Comment,
    ExternalLink,
    Heading,
    HTMLEntity,
    Node,
    Tag,
    Template,
    Text,
    Wikilink,
)
from mwparserfromhell.nodes.extras import Parameter

from bert_tf.data.text.mediawiki.functions import (
    AFTER_DIGIT,
    PREFIXES,
    find_function,
    raised,
    resolve_variants,
)
from bert_tf.data.text.mediawiki.incomplete_sentences import (
    FORMULA,
    HOLE,
    IMAGE,
    ITEM,
    CompleteText,
    drop_incomplete,
    join_lines,
)
from bert_tf.data.text.mediawiki.templates import find_rendering, show
from bert_tf.data.text.sentence_splitting import CLOSING, STOPS

# Longer texts are lists or logs; the parser takes half a second per megabyte.
MAX_CHARS = 4_000_000
# For each unclosed bracket the parser reads on to the end of the text. So many brackets
# times characters take about 15 seconds; an open <b> costs a tenth of a link.
MAX_OPEN_WORK = 100_000_000
_OPEN_TAGS_PER_MARK = 10
_MARKS = (("{{", "}}"), ("{|", "|}"), ("[", "]"), ("<", ">"))
_TAG = re.compile(r"<(/?[a-zA-Z]++)[^<>]*+(?<!/)>")

_DROPPED_TAGS = frozenset(
    """ref references gallery imagemap graph mapframe maplink templatestyles section
    inputbox categorytree dynamicpagelist indicator style script includeonly rt
    rp""".split()
)
# Parts of a sentence, but no words.
_FORMULA_TAGS = frozenset(
    "math chem ce code source syntaxhighlight pre timeline score hiero poem".split()
)
_BLOCKS = frozenset("hr p div blockquote center".split())
_LIST_TAGS = frozenset("li dd dt".split())
_DROPPED_PREFIXES = frozenset("file image category".split())
_SHOWN_MEDIA = frozenset("media medium média медиа".split())
_LANGUAGE = re.compile(r"(?!(?:mw|doi|rfc|pmid)$)[a-z]{2,3}(-[a-z]+)*")
# Options of a picture within a line; other pictures are beside the text.
_SMALL = re.compile(
    r"[\dx]*px|\w+=.*|border|frameless|baseline|middle|sub|super|text-top|"
)
# In any language of the namespaces: a file is known by its extension, categories as
# links with a prefix that are alone on their line.
_MEDIA = re.compile(
    r"\.(png|jpe?g|gif|svg|tiff?|webp|xcf|pdf|djvu|og[agv]|opus|midi?|mp[34]|wav|flac|"
    r"webm)$",
    re.IGNORECASE,
)
_CATEGORIES = re.compile(
    r"^(?:\[\[[^\[\]|:\n]+:[^\[\]|\n]+(?:\|[^\[\]|\n]*)?\]\][ \t]*)+$", re.MULTILINE
)
_DROPPED_SECTIONS = {
    "see also",
    "references",
    "external links",
    "further reading",
    "notes",
    "footnotes",
    "bibliography",
    "sources",
    "citations",
    "notes and references",
    "references and notes",
    "works cited",
    "gallery",
    "publications",
    "discography",
    "filmography",
    "selected works",
}
_CONTROLS = (ITEM, HOLE, FORMULA, IMAGE, AFTER_DIGIT)
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_SPACED_FRACTION = re.compile(rf"(?<=\d){AFTER_DIGIT}")
_LEFTOVERS = re.compile(r"'{2,}|__[A-Z]+__|\[\[|\]\]|\{\{+|\}\}+|</?[a-zA-Z][^<>\n]*>")
_ADDRESS = re.compile(r"https?://\S*[^\s.,;:!?)\]]")
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
    wikitext = resolve_variants(_without_marks(wikitext))
    wikitext = _CATEGORIES.sub("", wikitext)
    try:
        nodes = mwparserfromhell.parse(wikitext).nodes
        text = _render(_without_dropped_sections(nodes))
    except (RecursionError, mwparserfromhell.parser.ParserError) as error:
        raise UnparsableError(f"The markup cannot be parsed: {error}.") from None
    paragraphs = []
    num_dropped = 0
    for paragraph in re.split(r"\n\s*\n", join_lines(text)):
        complete = drop_incomplete(_join_paragraph(paragraph))
        num_dropped += complete.num_dropped
        paragraphs.append(_tidy(complete.text))
    return CompleteText("\n\n".join(filter(None, paragraphs)), num_dropped)


def _without_marks(text: str) -> str:
    for mark in _CONTROLS:
        text = text.replace(mark, "")
    return text


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


def _without_dropped_sections(nodes: Iterable[Node]) -> Iterable[Node]:
    """Drops each listed section, up to the next heading of its level or higher."""
    dropped_level = None
    for node in nodes:
        if isinstance(node, Heading):
            if dropped_level is None or node.level <= dropped_level:
                title = node.title.strip_code().strip().lower()
                dropped_level = node.level if title in _DROPPED_SECTIONS else None
        if dropped_level is None:
            yield node


def _render(nodes: Iterable[Node]) -> str:
    return "".join(map(_render_node, nodes))


def _render_node(node: Node) -> str:
    if isinstance(node, Text):
        return node.value
    if isinstance(node, Wikilink):
        return _render_link(node)
    if isinstance(node, Tag):
        return _render_tag(node)
    if isinstance(node, Template):
        return _render_template(node)
    if isinstance(node, Heading):
        return "\n\n"
    if isinstance(node, HTMLEntity):
        return _without_marks(node.normalize())
    if isinstance(node, ExternalLink):
        if node.title:
            return _render(node.title.nodes)
        # As text it may be an argument; `_join_paragraph` marks the other addresses.
        address = str(node.url)
        return HOLE if node.brackets or not _ADDRESS.match(address) else address
    if isinstance(node, Argument):
        return _render(node.default.nodes) if node.default is not None else HOLE
    return ""  # A comment.


def _render_link(node: Wikilink) -> str:
    title = str(node.title).strip()
    prefix = title.partition(":")[0].strip() if ":" in title else ""
    if prefix and prefix.lower() not in _SHOWN_MEDIA and _MEDIA.search(title):
        options = str(node.text or "").split("|")
        return IMAGE if all(map(_SMALL.fullmatch, map(str.strip, options))) else ""
    if prefix and (prefix.lower() in _DROPPED_PREFIXES or _LANGUAGE.fullmatch(prefix)):
        return ""
    text = _render(node.text.nodes) if node.text is not None else ""
    # [[#Section]] shows its sign.
    return text or title.removeprefix(":").partition("#")[0] or title


def _render_tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in _LIST_TAGS and node.wiki_markup:
        return f"\n{ITEM}"
    if name in _DROPPED_TAGS:
        return ""
    if name in _FORMULA_TAGS:
        return FORMULA
    if name == "br":
        return "\n"
    if name == "table":
        return f"\n{HOLE}\n"
    if any(
        attribute.name == "style" and _HIDDEN.search(str(attribute.value or ""))
        for attribute in node.attributes
    ):
        return ""
    text = _render(node.contents.nodes) if node.contents else ""
    if name == "sup":
        return raised(text)
    return f"\n{text}\n" if name in _BLOCKS else text


def _render_template(node: Template) -> str:
    name = str(node.name)
    if "<!--" in name:
        parts = node.name.nodes
        name = "".join(str(part) for part in parts if not isinstance(part, Comment))
    name = " ".join(name.replace("_", " ").split())
    prefix, colon, rest = name.partition(":")
    num_prefixes = 1
    if colon and prefix.strip().lower() in PREFIXES:
        name, (prefix, colon, _) = rest.strip(), rest.partition(":")
        num_prefixes = 2
    if known := find_rendering(name):
        rendering, named = known
        arguments = {**_arguments(node), **named} if rendering else named
        text = show(rendering, arguments)
    elif function := find_function(prefix.strip()) if colon else None:
        first = _render(node.name.nodes).split(":", num_prefixes)[-1].strip()
        text = function([first, *map(_render_parameter, node.params)])
    else:
        text = _render_unknown(node)
    return HOLE if text is None else text


def _arguments(node: Template) -> Mapping[str, str]:
    given = {str(p.name).strip(): _render(p.value.nodes).strip() for p in node.params}
    # German templates write {{Zitat|Text=...}}.
    return {name.lower(): text for name, text in given.items()} | given


def _render_parameter(parameter: Parameter) -> str:
    """An argument of a function, which has no names: {{#if:x|a=b}} shows a=b."""
    name = f"{_render(parameter.name.nodes)}=" if parameter.showkey else ""
    return (name + _render(parameter.value.nodes)).strip()


def _render_unknown(node: Template) -> str:
    positional = [p.value for p in node.params if not p.showkey]
    if not positional and node.has("date"):
        return ""  # An editor's remark, with its date.
    if len(positional) == 1 and any(
        isinstance(inner, Wikilink) or (isinstance(inner, Tag) and inner.wiki_markup)
        for inner in positional[0].nodes
    ):
        return _render(positional[0].nodes).strip()
    # A template of several lines is a box, whatever follows it.
    return f"{HOLE}\n" if "\n" in str(node) else HOLE


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
    text = _LEFTOVERS.sub("", html.unescape(" ".join(lines)))
    text = _ADDRESS.sub(HOLE, text)
    if AFTER_DIGIT in text:
        text = _SPACED_FRACTION.sub(" ", text).replace(AFTER_DIGIT, "")
    return " ".join(text.split())


def _tidy(text: str) -> str:
    """Removes the punctuation around what was removed."""
    text = _LEADING_SIGNS.sub("(", _TRAILING_SIGNS.sub(")", text))
    text = _DOUBLED_SIGNS.sub("", _EMPTY_BRACKETS.sub("", text))
    text = _SPACE_BEFORE.sub("", text).strip()
    return text if any(char.isalnum() for char in text) else ""
