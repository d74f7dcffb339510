"""Streams the articles of a MediaWiki XML dump, plain, .bz2 or .gz.

Source: MediaWiki's export format (mediawiki.org, Help:Export, schema export-0.x).
"""

import bz2
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.etree import ElementTree

from bert_tf.files import opened

_BZ2_MAGIC = b"BZh"
_ARTICLES = "0"  # The number of the namespace that articles are in.
# #REDIRECT in any language; in a numbered list a blank follows the #. Possessive
# quantifiers, since a page may be a million blanks.
_REDIRECT = re.compile(r"\s*+#[^\s\[\]:#*]++\s*+:?\s*+\[\[")
_BYTES_AT_ONCE = 1 << 16
_MAX_HEAD_BYTES = 1 << 20
# MediaWiki allows 2 MiB for a text; dumps may hold all revisions of a page.
MAX_PAGE_BYTES = 1 << 30


class Page(NamedTuple):
    """An article.

    Attributes:
      title: Its title.
      wikitext: Its text, with MediaWiki's markup.
    """

    title: str
    wikitext: str


def read_pages(path: str) -> Iterator[Page]:
    """Streams the articles of a dump: no talk, no templates, no redirects.

    Args:
      path: An XML export, plain or compressed, in one stream or many.

    Yields:
      Articles in the order of the file, each with its first revision in the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is truncated or not a dump, naming the last good page.
    """
    last = None
    with opened(path) as raw:
        is_compressed = raw.read(len(_BZ2_MAGIC)) == _BZ2_MAGIC
        raw.seek(0)
        file = bz2.BZ2File(raw) if is_compressed else raw
        try:
            for page in _parse(file):
                last = page.title
                if page.wikitext and not _REDIRECT.match(page.wikitext):
                    yield page
        except (ElementTree.ParseError, EOFError, OSError, UnicodeDecodeError) as error:
            where = f"after the page {last!r}" if last else "before the first page"
            raise ValueError(
                f"{path}: the dump is damaged or truncated {where}: {error}. Download "
                "it again."
            ) from None
    if last is None:
        raise ValueError(
            f"{path} holds no article. Pass a MediaWiki XML export, such as "
            "enwiki-latest-pages-articles.xml.bz2."
        )


def _parse(file: BinaryIO) -> Iterator[Page]:
    """All pages of the articles' namespace that are not marked as redirects."""
    parser = ElementTree.XMLPullParser(events=("start", "end"))
    root = None
    waiting = 0
    head = b""
    while data := file.read(_BYTES_AT_ONCE):
        waiting += len(data)
        if waiting > MAX_PAGE_BYTES:
            raise ElementTree.ParseError(f"a page of more than {MAX_PAGE_BYTES} bytes")
        if root is None:
            # A dump has no DOCTYPE, which could define entities of unbounded size.
            # Without zero bytes it is found in UTF-16 too.
            head += data.replace(b"\0", b"")
            if b"<!DOCTYPE" in head:
                raise ElementTree.ParseError("a dump must not have a DOCTYPE")
            if len(head) > _MAX_HEAD_BYTES:
                raise ElementTree.ParseError("it does not begin with <mediawiki>")
        parser.feed(data)
        for event, element in parser.read_events():
            if root is None:
                root = element
                if _name(element) != "mediawiki":
                    raise ElementTree.ParseError(
                        f"the root element is <{_name(element)}>, not <mediawiki>"
                    )
            if event == "end" and _name(element) == "page":
                waiting = 0
                yield from _page(element)
                root.clear()  # Otherwise the whole dump stays in memory.
    parser.close()


def _name(element: ElementTree.Element) -> str:
    """Name of an element without the namespace, which has the format's version."""
    return element.tag.rpartition("}")[2]


def _page(element: ElementTree.Element) -> Iterator[Page]:
    children = {}
    for child in element:
        children.setdefault(_name(child), child)
    namespace = children.get("ns")
    if "redirect" in children or "title" not in children:
        return
    if namespace is not None and (namespace.text or "").strip() != _ARTICLES:
        return
    for child in children.get("revision", ()):
        if _name(child) == "text":
            yield Page(children["title"].text or "", child.text or "")
