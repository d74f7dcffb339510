"""Renders parsed markup as text, with a mark for what is left out.

`mwparserfromhell` cuts the markup into tokens and builds nodes from them. Half of an
article's tokens are in references, boxes and tables, which show nothing or a mark: the
tokens are rendered here, and nodes are built only for what is not simple.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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
from mwparserfromhell.parser import Parser, tokens
from mwparserfromhell.parser.builder import Builder

from bert_tf.data.text.mediawiki.functions import (
    AFTER_DIGIT,
    PREFIXES,
    find_function,
    raised,
)
from bert_tf.data.text.mediawiki.incomplete_sentences import (
    FORMULA,
    HOLE,
    IMAGE,
    ITEM,
)
from bert_tf.data.text.mediawiki.templates import find_rendering, show

_OPENING = (
    tokens.TemplateOpen,
    tokens.ArgumentOpen,
    tokens.WikilinkOpen,
    tokens.ExternalLinkOpen,
    tokens.HTMLEntityStart,
    tokens.HeadingStart,
    tokens.CommentStart,
    tokens.TagOpenOpen,
)
_CLOSING = (
    tokens.TemplateClose,
    tokens.ArgumentClose,
    tokens.WikilinkClose,
    tokens.ExternalLinkClose,
    tokens.HTMLEntityEnd,
    tokens.HeadingEnd,
    tokens.CommentEnd,
    tokens.TagCloseSelfclose,
    tokens.TagCloseClose,
)
_STEPS = dict.fromkeys(_OPENING, 1) | dict.fromkeys(_CLOSING, -1)
_AFTER_TAG_NAME = (
    tokens.TagAttrStart,
    tokens.TagCloseOpen,
    tokens.TagCloseSelfclose,
)
_AFTER_TEMPLATE_NAME = (tokens.TemplateParamSeparator, tokens.TemplateClose)
ADDRESS = re.compile(r"https?://\S*[^\s.,;:!?)\]]")
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
# A file is known by its extension, in any language of the namespaces.
_MEDIA = re.compile(
    r"\.(png|jpe?g|gif|svg|tiff?|webp|xcf|pdf|djvu|og[agv]|opus|midi?|mp[34]|wav|flac|"
    r"webm)$",
    re.IGNORECASE,
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
_MARKS = (ITEM, HOLE, FORMULA, IMAGE, AFTER_DIGIT)
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


def without_marks(text: str) -> str:
    """The text without the characters that this package uses as marks."""
    for mark in _MARKS:
        text = text.replace(mark, "")
    return text


class _Tokens(NamedTuple):
    """Tokens of an article.

    Attributes:
      all: The tokens.
      depths: How many constructs are open after each.
    """

    all: list[Any]
    depths: list[int]

    def constructs(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Begins and ends of the texts, links, tags, ... of a range."""
        while begin < end:
            after = begin + 1
            if type(self.all[begin]) is not tokens.Text:
                after += self.depths.index(self.depths[begin] - 1, begin) - begin
            yield begin, after
            begin = after

    def node(self, begin: int, end: int) -> Node:
        """The node of a construct."""
        return Builder().build(self.all[begin:end]).nodes[0]


def render_article(wikitext: str) -> str:
    """Renders an article's markup without the sections after its text.

    Args:
      wikitext: The text of an article.

    Returns:
      Its text, with a mark for each part that is left out.

    Raises:
      mwparserfromhell.parser.ParserError: if the markup cannot be parsed.
    """
    # The parser's own tokenizer: the compiled one, where there is one.
    found = Parser()._tokenizer.tokenize(wikitext)
    steps = map(_STEPS.get, map(type, found), itertools.repeat(0))
    article = _Tokens(found, list(itertools.accumulate(steps)))
    pieces = []
    dropped_level = None
    for begin, end in article.constructs(0, len(found)):
        # Each listed section is dropped, up to the next heading of its level or higher.
        if type(found[begin]) is tokens.HeadingStart:
            level = found[begin].level
            if dropped_level is None or level <= dropped_level:
                title = article.node(begin, end).title.strip_code().strip().lower()
                dropped_level = level if title in _DROPPED_SECTIONS else None
        if dropped_level is None:
            pieces.append(_render_construct(article, begin, end))
    return "".join(pieces)


def _render_construct(article: _Tokens, begin: int, end: int) -> str:
    first = article.all[begin]
    kind = type(first)
    if kind is tokens.Text:
        return first["text"]
    if kind is tokens.CommentStart:
        return ""
    if kind is tokens.HeadingStart:
        return "\n\n"
    name = article.all[begin + 1]
    text = None
    # Names that hold markup are left to the nodes.
    if type(name) is tokens.Text:
        after = type(article.all[begin + 2])
        if kind is tokens.WikilinkOpen:
            text = _simple_link(article, begin, end)
        elif kind is tokens.TagOpenOpen and after in _AFTER_TAG_NAME:
            text = _simple_tag(article, begin, end)
        elif kind is tokens.TemplateOpen and after in _AFTER_TEMPLATE_NAME:
            text = _simple_template(name["text"])
    return _render_node(article.node(begin, end)) if text is None else text


def _render_range(article: _Tokens, begin: int, end: int) -> str:
    constructs = article.constructs(begin, end)
    return "".join(_render_construct(article, *construct) for construct in constructs)


def _simple_link(article: _Tokens, begin: int, end: int) -> str | None:
    after = type(article.all[begin + 2])
    if after not in (tokens.WikilinkSeparator, tokens.WikilinkClose):
        return None
    title = article.all[begin + 1]["text"].strip()
    prefix = _link_prefix(title)
    if _is_media(title, prefix):
        return None
    if _is_dropped_prefix(prefix):
        return ""
    return _link_text(title, _render_range(article, begin + 3, end - 1))


def _simple_tag(article: _Tokens, begin: int, end: int) -> str | None:
    name = article.all[begin + 1]["text"].strip().lower()
    fixed = _fixed_text(name, is_list_sign=bool(article.all[begin].wiki_markup))
    if fixed is not None:
        return fixed
    has_attributes = type(article.all[begin + 2]) is not tokens.TagCloseOpen
    # The last tokens are </, the name and >.
    if has_attributes or type(article.all[end - 3]) is not tokens.TagOpenClose:
        return None
    return _tag_text(name, _render_range(article, begin + 3, end - 3))


def _simple_template(name: str) -> str | None:
    """Nothing, if the template of this name shows nothing whatever it is given."""
    name = _single_blanks(name)
    prefix, colon, rest = name.partition(":")
    if colon and prefix.strip().lower() in PREFIXES:
        name = rest.strip()
    known = find_rendering(name)
    return "" if known and known[0] == "" else None


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
        return without_marks(node.normalize())
    if isinstance(node, ExternalLink):
        if node.title:
            return _render(node.title.nodes)
        # As text it may be an argument; `_join_paragraph` marks the other addresses.
        address = str(node.url)
        return HOLE if node.brackets or not ADDRESS.match(address) else address
    if isinstance(node, Argument):
        return _render(node.default.nodes) if node.default is not None else HOLE
    return ""  # A comment.


def _render_link(node: Wikilink) -> str:
    title = str(node.title).strip()
    prefix = _link_prefix(title)
    if _is_media(title, prefix):
        options = str(node.text or "").split("|")
        return IMAGE if all(map(_SMALL.fullmatch, map(str.strip, options))) else ""
    if _is_dropped_prefix(prefix):
        return ""
    return _link_text(title, _render(node.text.nodes) if node.text is not None else "")


def _link_prefix(title: str) -> str:
    return title.partition(":")[0].strip() if ":" in title else ""


def _is_media(title: str, prefix: str) -> bool:
    is_page = not prefix or prefix.lower() in _SHOWN_MEDIA
    return not is_page and bool(_MEDIA.search(title))


def _is_dropped_prefix(prefix: str) -> bool:
    return bool(
        prefix and (prefix.lower() in _DROPPED_PREFIXES or _LANGUAGE.fullmatch(prefix))
    )


def _link_text(title: str, text: str) -> str:
    # [[#Section]] shows its sign.
    return text or title.removeprefix(":").partition("#")[0] or title


def _render_tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    fixed = _fixed_text(name, is_list_sign=bool(node.wiki_markup))
    if fixed is not None:
        return fixed
    if any(
        attribute.name == "style" and _HIDDEN.search(str(attribute.value or ""))
        for attribute in node.attributes
    ):
        return ""
    return _tag_text(name, _render(node.contents.nodes) if node.contents else "")


def _fixed_text(name: str, *, is_list_sign: bool) -> str | None:
    """What a tag shows whatever it holds; None if it shows what it holds."""
    if name in _LIST_TAGS and is_list_sign:
        return f"\n{ITEM}"
    if name in _DROPPED_TAGS:
        return ""
    if name in _FORMULA_TAGS:
        return FORMULA
    return {"br": "\n", "table": f"\n{HOLE}\n"}.get(name)


def _tag_text(name: str, text: str) -> str:
    if name == "sup":
        return raised(text)
    return f"\n{text}\n" if name in _BLOCKS else text


def _render_template(node: Template) -> str:
    name = str(node.name)
    if "<!--" in name:
        parts = node.name.nodes
        name = "".join(str(part) for part in parts if not isinstance(part, Comment))
    name = _single_blanks(name)
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


def _single_blanks(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


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
