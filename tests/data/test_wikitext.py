"""Markup of hand-made cases, and of the 106 articles of a real dump."""

import re
import time

import pytest

from bert_tf.data import wikitext
from bert_tf.data.mediawiki import read_pages
from bert_tf.data.wikitext import UnparsableError, plain_text

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("A '''bold''' and ''italic'' word.", "A bold and italic word."),
        ("A [[cat]] and [[dog (animal)|dogs]].", "A cat and dogs."),
        ("A [[:Category:Cats]] or [[wikt:cat|word]].", "A Category:Cats or word."),
        ("x [[File:a.png|thumb|A [[cat]] here.]] y", "x y"),
        ("x[[Category:Cats]][[fr:Chat]][[zh-min-nan:Niau]]", "x"),
        ("{{Infobox|a={{b|c}}\n|d=[[e]]}}\nText.", "Text."),
        ("One.<ref>Book, {{p|5}}.</ref> Two.<ref name=x /> Three.", "One. Two. Three."),
        ("One.\n{| class=x\n! a\n|-\n| b || {{c}}\n|}\nTwo.", "One.\n\nTwo."),
        ("[http://a.org A site] or [http://b.org] or http://c.org.", "A site or or."),
        ("== History ==\nLong.\n\n=== Early ===\nShort.", "Long.\n\nShort."),
        ("A.\n== References ==\nB.\n=== Web ===\nC.\n== Use ==\nD.", "A.\n\nD."),
        ("It eats:\n* mice\n* Also [[fish]].\n# birds", "It eats:\n\nAlso fish."),
        ("a &amp; b&nbsp;c &ndash; d &amp;ndash; e", "a & b c – d – e"),
        ("x <!-- hidden --> y", "x y"),
        ("A cat ({{IPA|x}}) is ({{lang-fr|y}}, old) here.", "A cat is (old) here."),
        ("x [[Datei:a.png|mini|Eine [[Katze]].]] y", "x y"),
        ("x\n[[Kategorie:A]]\n[[Kategorie:B|b]] [[Categoría:C]]", "x"),
        ("Of [[Star Trek: Voyager]] all.", "Of Star Trek: Voyager all."),
        ("A {{lang|fr|chat}} of {{convert|5|km|mi}}.", "A chat of 5 km."),
        ("Up to {{convert|5|to|10|km|mi}} long.", "Up to 5 to 10 km long."),
        ("Cats, {{x}}, {{y}}; or {{z}}, dogs, {{x}}.", "Cats; or, dogs."),
        ("In 1961, ... all was ( {{x}}; new; {{y}} ).", "In 1961, ... all was (new)."),
        ("H<sub>2</sub>O <math>x^2</math> <code>y</code> <span>z</span>", "H2O z"),
        ("__NOTOC__ One.<br />Two.", "One. Two."),
        ("#1\n*\n----\n:", ""),
        ("'''", ""),
        ("{{unclosed [[link", "unclosed link"),
        ("", ""),
    ],
)
def test_markup_is_taken_off(markup, expected):
    assert plain_text(markup) == expected


@pytest.mark.parametrize(
    "markup",
    [
        "{{" * 5000 + "}}" * 5000,
        "[[" * 5000,
        "<b>" * 3000 + "</b>" * 3000,
        "{|" * 2000,
        "'" * 10_000,
        "[http://" * 3000,
        "\n:" * 5000,
    ],
    ids=["templates", "links", "tags", "tables", "quotes", "addresses", "indents"],
)
def test_hostile_markup_ends_soon(markup):
    try:
        assert len(plain_text(markup)) <= len(markup)
    except UnparsableError:
        pass


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("{{", "100000 brackets and 0 tags"),
        ("[[a|", "200000 brackets and 0 tags"),
        ("[http://a ", "100000 brackets and 0 tags"),
        ("{|\n|", "100000 brackets and 0 tags"),
        ("<!-- ", "100000 brackets and 0 tags"),
        ('<a b="', "100000 brackets and 0 tags"),
        ("<b>", "0 brackets and 100000 tags"),
    ],
)
def test_many_open_marks_are_refused_at_once(mark, message):
    start = time.thread_time()
    with pytest.raises(UnparsableError, match=f"{message} are not closed"):
        plain_text(mark * 100_000)
    # The parser needs minutes to hours.
    assert time.thread_time() - start < 4


def test_tags_that_need_no_end_are_not_open():
    markup = "One.<br>Two.<br/><ref name=a />" * 5000
    assert plain_text(markup).count("One. Two.") == 5000


@pytest.mark.parametrize("signs", [", ", " ", "( ", "(, ", "&#91; ", "'"])
def test_runs_of_signs_cost_no_time(signs):
    start = time.thread_time()
    plain_text(f"a{signs * 20_000}b")
    # Tried from every place they take ten seconds.
    assert time.thread_time() - start < 4


def test_too_long_text_is_refused(monkeypatch):
    monkeypatch.setattr(wikitext, "MAX_CHARS", 10)
    with pytest.raises(UnparsableError, match="more than 10 characters"):
        plain_text("x" * 11)


@pytest.fixture(scope="module")
def articles(real_data):
    pages = list(read_pages(str(real_data / "text" / "dump" / DUMP)))
    return {page.title: plain_text(page.wikitext) for page in pages}


def test_all_articles_of_a_real_dump_are_found(articles):
    assert len(articles) == 106
    assert {"Anarchism", "Albedo", "Abraham Lincoln", "Algorithm"} <= set(articles)
    # Some pages are a list of links alone.
    assert sum(map(bool, articles.values())) >= 100
    # Its 5.9 MB of wikitext are known to hold about 3 MB of text.
    assert 2.5e6 < sum(map(len, articles.values())) < 3.5e6


@pytest.mark.parametrize(
    ("title", "sentence"),
    [
        (
            "Anarchism",
            "Anarchism is a political philosophy that advocates self-governed "
            "societies based on voluntary institutions. These are often described as "
            "stateless societies, although several authors have defined them",
        ),
        (
            "Autism",
            "Autism is a neurodevelopmental disorder characterized by impaired social "
            "interaction, verbal and non-verbal communication, and restricted and "
            "repetitive behavior.",
        ),
        (
            "Atlantic Ocean",
            "The average depth of the Atlantic with its adjacent seas, is",
        ),
    ],
)
def test_sentences_of_real_articles_are_whole(articles, title, sentence):
    assert sentence in articles[title]


def test_no_markup_is_left_in_real_articles(articles):
    paragraphs = [p for text in articles.values() for p in text.split("\n\n")]
    assert len(paragraphs) > 5000
    markup = re.compile(
        r"\[\[|\]\]|\{\{|\}\}|''|<ref|\{\||\|\}|https?://|&[a-z]+;|</?[a-z]+>|^[*#:=|!]"
    )
    marked = [p for p in paragraphs if markup.search(p)]
    assert len(marked) < 0.002 * len(paragraphs), marked[:5]
    text = "".join(paragraphs)
    letters = sum(char.isalpha() or char.isspace() for char in text)
    assert letters > 0.92 * len(text)
