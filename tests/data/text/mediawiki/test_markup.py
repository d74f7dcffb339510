"""Markup of hand-made cases, and of the 106 articles of a real dump."""

import re
import time

import pytest
from data.holes import find_holes

from bert_tf.data.text.mediawiki import markup, rendering
from bert_tf.data.text.mediawiki.dump import read_pages
from bert_tf.data.text.mediawiki.markup import UnparsableError, complete_text
from bert_tf.data.text.mediawiki.templates import find_rendering
from bert_tf.data.text.sentence_splitting import split_sentences

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
        ("[http://a.org A site] is here.", "A site is here."),
        ("== History ==\nLong.\n\n=== Early ===\nShort.", "Long.\n\nShort."),
        ("A.\n== References ==\nB.\n=== Web ===\nC.\n== Use ==\nD.", "A.\n\nD."),
        ("It eats:\n* mice\n* Also [[fish]].\n# birds", "It eats:\n\nAlso fish."),
        ("a &amp; b&nbsp;c &ndash; d &amp;ndash; e", "a & b c – d – e"),
        ("x <!-- hidden --> y", "x y"),
        (
            "A cat ({{IPA|x}}) is ({{lang-fr|y}}) here.",
            "A cat (x) is (French: y) here.",
        ),
        ("x [[Datei:a.png|mini|Eine [[Katze]].]] y", "x y"),
        ("x\n[[Kategorie:A]]\n[[Kategorie:B|b]] [[Categoría:C]]", "x"),
        ("Of [[Star Trek: Voyager]] all.", "Of Star Trek: Voyager all."),
        ("A {{lang|fr|chat}} of {{convert|5|km|mi}}.", "A chat of 5 km."),
        ("Up to {{convert|5|to|10|km|mi}} long.", "Up to 5 to 10 km long."),
        ("In 1961, ... all was ( {{x}}; new; {{y}} ).", "In 1961, ... all was (new)."),
        ("H<sub>2</sub>O of 10<sup>-3</sup> m <span>z</span>", "H2O of 10⁻³ m z"),
        ("The 19<sup>th</sup> word", "The 19th word"),
        ("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>", "漢字"),
        ('A<span style="display: none">x</span> b', "A b"),
        ("The [[Foo (bar)|]] and [[doi:10.1/2|a paper]]", "The Foo (bar) and a paper"),
        ("北京（Peking，{{x}}）在。", "北京（Peking）在。"),
        ("A [[Media:x.ogg|sound]] is [[:File:x.png|here]].", "A sound is here."),
        ("* 我在北京。\n* 北京", "我在北京。"),
        ("__NOTOC__ One.<br />Two.", "One. Two."),
        ("#1\n*\n----\n:", ""),
        ("'''", ""),
        ("{{unclosed [[link", "unclosed link"),
        ("It was <ref>unclosed note. Good.", "Good."),
        ("A <nowiki>{{x}}</nowiki> is a {{x\ny|z}} here. Good.", "Good."),
        ("", ""),
    ],
)
def test_markup_is_taken_off(markup, expected):
    assert complete_text(markup).text == expected


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
        assert len(complete_text(markup).text) <= len(markup)
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
        complete_text(mark * 100_000)
    # The parser needs minutes to hours.
    assert time.thread_time() - start < 4


def test_tags_that_need_no_end_are_not_open():
    markup = "One.<br>Two.<br/><ref name=a />" * 5000
    assert complete_text(markup).text.count("One. Two.") == 5000


@pytest.mark.parametrize("signs", [", ", " ", "( ", "(, ", "&#91; ", "'"])
def test_runs_of_signs_cost_no_time(signs):
    start = time.thread_time()
    complete_text(f"a{signs * 20_000}b")
    # Tried from every place they take ten seconds.
    assert time.thread_time() - start < 4


def test_too_long_text_is_refused(monkeypatch):
    monkeypatch.setattr(markup, "MAX_CHARS", 10)
    with pytest.raises(UnparsableError, match="more than 10 characters"):
        complete_text("x" * 11)


@pytest.fixture(scope="module")
def articles(real_data):
    pages = list(read_pages(str(real_data / "text" / "dump" / DUMP)))
    return {page.title: complete_text(page.wikitext).text for page in pages}


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


# Prose that its editors wrote so.
AS_WRITTEN = """thousands wire (and the million wire|pound sterling (£)|
    clothing of the) chest|somewhere in between.|parts per million|evidence of the and|
    is–ought problem|is-ought problem|immediacy and or depth|waypoint journey|
    commission the building of)|see video at)|disposed of.|smaller number s:;|
    where is his dignity|than of regional ones"""
AS_WRITTEN = AS_WRITTEN.replace("\n    ", "").split("|")


def sentences_of(texts):
    return [s for text in texts for p in text.split("\n\n") for s in split_sentences(p)]


def test_no_sentence_of_a_real_dump_has_a_hole(articles):
    sentences = sentences_of(articles.values())
    assert len(sentences) > 19_000
    found = [(s, find_holes(s)) for s in sentences if find_holes(s)]
    assert [f for f in found if not any(part in f[0] for part in AS_WRITTEN)] == []


def test_planted_holes_of_a_real_dump_are_found(real_data, articles, monkeypatch):
    def forget_measures(name):
        known = find_rendering(name)
        return ("", known[1]) if name.lower() == "convert" else known

    monkeypatch.setattr(rendering, "find_rendering", forget_measures)
    titles = [
        "Alaska",
        "Alabama",
        "Alberta",
        "Apollo 8",
        "Angola",
        "Aardvark",
        "Andorra",
    ]
    pages = read_pages(str(real_data / "text" / "dump" / DUMP))
    texts = [
        complete_text(page.wikitext).text for page in pages if page.title in titles
    ]
    whole = set(sentences_of(articles.values()))
    planted = [s for s in sentences_of(texts) if s not in whole]
    assert len(planted) > 60
    found = [s for s in planted if find_holes(s)]
    assert len(found) > len(planted) / 4
