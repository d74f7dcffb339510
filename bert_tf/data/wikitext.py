"""MediaWiki's markup to plain paragraphs.

`mwparserfromhell` parses the markup, which regular expressions cannot: templates, links
and tables nest. What is kept is a choice of this module: running text.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable

import mwparserfromhell
from mwparserfromhell.definitions import is_single
from mwparserfromhell.nodes import (
    ExternalLink,
    Heading,
    HTMLEntity,
    Node,
    Tag,
    Template,
    Text,
    Wikilink,
)

# What is longer is a list or a log; the parser takes half a second for each megabyte.
MAX_CHARS = 4_000_000
# For each mark that is left open the parser reads on to the text's end. Of marks times
# characters this is done in about 15 seconds; an open <b> costs a tenth of a link.
MAX_OPEN_WORK = 100_000_000
_OPEN_TAGS_PER_MARK = 10
_MARKS = (("{{", "}}"), ("{|", "|}"), ("[", "]"), ("<", ">"))
_TAG = re.compile(r"<(/?[a-zA-Z]++)[^<>]*+(?<!/)>")

_DROPPED_TAGS = frozenset(
    """ref references math chem ce code source syntaxhighlight pre timeline score
    gallery imagemap hiero table graph mapframe maplink templatestyles section inputbox
    categorytree dynamicpagelist poem indicator style script""".split()
)
_BLOCKS = frozenset("hr p div blockquote center".split())
_LIST_TAGS = frozenset("li dd dt".split())
_DROPPED_PREFIXES = frozenset("file image media category".split())
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
# In whatever language the namespaces are named: a file by its name's end, categories as
# links with a prefix that have their line to themselves.
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
# Templates that stand for words of the sentence: which arguments are these words.
_TEXT_TEMPLATES = {
    "lang": (1,),
    "nowrap": (0,),
    "nobr": (0,),
    "convert": (0, 1),
    "cvt": (0, 1),
    "abbr": (0,),
    "sc": (0,),
    "smallcaps": (0,),
    "smaller": (0,),
    "vanchor": (0,),
    "angbr": (0,),
    "quote": (0,),
    "cquote": (0,),
    "blockquote": (0,),
}
# {{convert|5|to|10|km}}: the unit comes after the second number.
_RANGES = frozenset("to and or by x × - – ±".split())

# Marks the lines that were items of lists until it is decided which are kept.
_ITEM = "\x00"
_LEFTOVERS = re.compile(
    r"'{2,}|__[A-Z]+__|\[\[|\]\]|\{\{+|\}\}+|</?[a-zA-Z][^<>\n]*>|https?://\S+"
)
_BROKEN_LINE = re.compile(r"\s*(\{\||\|\}|\|-|[|!]|(\[\[)?(File|Image|Category):)")
# For text with single blanks. None tries a run of signs again from each of its places.
_EMPTY_BRACKETS = re.compile(r" ?[(\[][ ,;:.–—/-]*[)\]]")
_LEADING_SIGNS = re.compile(r"\([ ,;:]*[,;:] ?")
_TRAILING_SIGNS = re.compile(r"(?<![ ,;:])[ ,;:]+\)")
_SPACE_BEFORE = re.compile(r" (?=[,.;:!?)](?: |$))")
_DOUBLED_SIGNS = re.compile(r"(?:[,;] ?)+(?=[,;]|\.(?: |$))")
_WHOLE_SENTENCE = re.compile(r"[.!?][\"')\]”’]*$")


class UnparsableError(ValueError):
    """The markup of an article cannot be parsed; the message says why."""


def plain_text(wikitext: str) -> str:
    """Takes the markup off.

    Templates, tables, references, images, formulas, categories, headings and the
    sections behind an article's end (references, external links, ...) are dropped;
    links and emphasis leave their text; items of lists are kept if they are sentences.

    Args:
      wikitext: The text of an article, of at most `MAX_CHARS` characters.

    Returns:
      Paragraphs, a blank line between them; empty if nothing is left.

    Raises:
      UnparsableError: if it is too long, nested too deeply, or leaves so many links,
        templates or tags open that to parse it would take minutes.
    """
    _check_size(wikitext)
    wikitext = _CATEGORIES.sub("", wikitext.replace(_ITEM, ""))
    try:
        nodes = mwparserfromhell.parse(wikitext).nodes
        text = _render(_without_dropped_sections(nodes))
    except (RecursionError, mwparserfromhell.parser.ParserError) as error:
        raise UnparsableError(f"The markup cannot be parsed: {error}.") from None
    paragraphs = (_clean(paragraph) for paragraph in re.split(r"\n\s*\n", text))
    return "\n\n".join(filter(None, paragraphs))


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
    """Leaves a section out up to the next heading of its level or a higher one."""
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
        return node.normalize()
    if isinstance(node, ExternalLink) and node.title:
        return _render(node.title.nodes)
    return ""  # Comments, addresses, and arguments of templates.


def _render_link(node: Wikilink) -> str:
    title = str(node.title).strip()
    prefix = title.partition(":")[0].strip() if ":" in title else ""
    if prefix and (prefix.lower() in _DROPPED_PREFIXES or _LANGUAGE.fullmatch(prefix)):
        return ""
    if prefix and _MEDIA.search(title):
        return ""
    if node.text is not None:
        return _render(node.text.nodes)
    return title.removeprefix(":").partition("#")[0] or title


def _render_tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in _LIST_TAGS and node.wiki_markup:
        return f"\n{_ITEM}"
    if name in _DROPPED_TAGS:
        return ""
    if name == "br":
        return "\n"
    text = _render(node.contents.nodes) if node.contents else ""
    return f"\n{text}\n" if name in _BLOCKS else text


def _render_template(node: Template) -> str:
    name = str(node.name).strip().lower()
    places = _TEXT_TEMPLATES.get(name, ())
    values = [p.value for p in node.params if not p.showkey]
    if not places or len(values) <= max(places):
        return ""
    if len(places) > 1 and len(values) > 3 and str(values[1]).strip() in _RANGES:
        places = (0, 1, 2, 3)
    return " ".join(_render(values[place].nodes).strip() for place in places)


def _clean(paragraph: str) -> str:
    """One paragraph of rendered text as a single line, what the parser left removed."""
    lines = []
    for line in paragraph.split("\n"):
        is_item = line.startswith(_ITEM)
        line = line.replace(_ITEM, "").strip()
        if _BROKEN_LINE.match(line) or (is_item and not _WHOLE_SENTENCE.search(line)):
            continue
        lines.append(line)
    # Some entities are escaped twice.
    text = _LEFTOVERS.sub("", html.unescape(" ".join(lines)))
    text = " ".join(text.split())
    text = _LEADING_SIGNS.sub("(", _TRAILING_SIGNS.sub(")", text))
    text = _DOUBLED_SIGNS.sub("", _EMPTY_BRACKETS.sub("", text))
    text = _SPACE_BEFORE.sub("", text).strip()
    return text if any(char.isalnum() for char in text) else ""
