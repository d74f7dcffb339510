import bz2
import time

import pytest

from bert_tf.data.text.mediawiki import dump as dump_module
from bert_tf.data.text.mediawiki.dump import Page, read_pages

HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">'


def page(title, text, ns=0, more=""):
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>1</id>{more}<revision>"
        f"<contributor><username>x</username></contributor><text>{text}</text>"
        "</revision></page>"
    )


PAGES = [
    page("Cat", "A &lt;b&gt;cat&lt;/b&gt; &amp;amp; more."),
    page("Talk:Cat", "No.", ns=1),
    page("Kat", "#REDIRECT [[Cat]]"),
    page("Katze", "#Weiterleitung [[Cat]]"),
    page("Chat", "x", more='<redirect title="Cat" />'),
    page("Empty", ""),
    page("Größe", "Où ?"),
]
EXPECTED = [Page("Cat", "A <b>cat</b> &amp; more."), Page("Größe", "Où ?")]


def dump(*pages):
    return (HEAD + "<siteinfo><sitename>s</sitename></siteinfo>\n").encode() + (
        "\n".join(pages) + "</mediawiki>"
    ).encode()


def streams(content):
    """As Wikimedia's multistream files: several bzip2 streams in a row."""
    return b"".join(
        bz2.compress(content[begin : begin + 200])
        for begin in range(0, len(content), 200)
    )


@pytest.mark.parametrize(
    "compress", [bytes, bz2.compress, streams], ids=["plain", "bz2", "multistream"]
)
def test_articles_are_read(tmp_path, compress):
    path = tmp_path / "dump"
    path.write_bytes(compress(dump(*PAGES)))
    assert list(read_pages(str(path))) == EXPECTED


def test_first_revision_of_a_page_is_taken(tmp_path):
    one = "<revision><text>one</text></revision>"
    two = one.replace("one", "two")
    path = tmp_path / "dump"
    path.write_bytes(
        dump(f"<page><title>Cat</title><ns>0</ns>{one}{two}</page>", PAGES[0])
    )
    assert list(read_pages(str(path)))[0] == Page("Cat", "one")


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    + HEAD
    + page("Cat", "&b;")
    + "</mediawiki>"
).encode()


UTF_16_BOMB = ('<?xml version="1.0" encoding="utf-16"?>' + BOMB.decode()).encode(
    "utf-16"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dump(*PAGES)[:-40], "damaged or truncated after the page 'Empty'"),
        (bz2.compress(dump(*PAGES))[:-9], "damaged or truncated before the first page"),
        (b"BZh9 and no more", "damaged or truncated before the first page"),
        (b"<html><body>Not found</body></html>", "the root element is <html>"),
        (b"PK\x03\x04", "not well-formed"),
        (b"", "no element found"),
        (dump(), "holds no article"),
        (BOMB, "a dump must not have a DOCTYPE"),
        (b"<!-- " + b"x" * 65530 + b" -->" + BOMB, "a dump must not have a DOCTYPE"),
        (UTF_16_BOMB, "a dump must not have a DOCTYPE"),
        (
            b"<!-- " + b"x" * 2_000_000 + b" -->" + BOMB,
            "does not begin with <mediawiki>",
        ),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, content, message):
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        list(read_pages(str(path)))
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "is_redirect"),
    [
        ("#REDIRECT [[Cat]]", True),
        ("\n#redirect:[[Cat]]", True),
        ("#перенаправление [[Кот]]", True),
        ("#पुनर्प्रेषण [[बिल्ली]]", True),
        ("# Cats [[live]] here.", False),
        ("#1 of the charts was [[Cat]].", False),
        ("A cat. #REDIRECT [[Cat]]", False),
    ],
)
def test_redirects_are_known_by_their_text(tmp_path, text, is_redirect):
    path = tmp_path / "dump"
    path.write_bytes(dump(page("Here", text), PAGES[0]))
    titles = [found.title for found in read_pages(str(path))]
    assert titles == (["Cat"] if is_redirect else ["Here", "Cat"])


def test_blanks_after_a_sign_cost_no_time(tmp_path):
    path = tmp_path / "dump"
    path.write_bytes(dump(page("Blanks", "#a" + " " * 200_000 + "x")))
    start = time.thread_time()
    assert len(list(read_pages(str(path)))) == 1
    # Tried from every place it takes half a minute.
    assert time.thread_time() - start < 4


def test_page_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dump_module, "MAX_PAGE_BYTES", 100_000)
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress(dump(*PAGES, page("Dog", "x" * 1_000_000))))
    with pytest.raises(ValueError, match="a page of more than 100000 bytes"):
        list(read_pages(str(path)))
