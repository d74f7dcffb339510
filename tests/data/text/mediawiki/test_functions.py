"""Magic words and variants; the values are those of MediaWiki's help pages."""

import time

import pytest

from bert_tf.data.text.mediawiki.markup import complete_text


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Den är {{formatnum:3}}&nbsp;°C.", "Den är 3 °C."),
        ("{{formatnum: 3003 }} m {{FORMATNUM:1|NOSEP}}", "3003 m 1"),
        ("{{formatnum:1,234.5|R}} {{ZAHLENFORMAT:7}}", "1234.5 7"),
        ("{{formatnum:{{formatnum:5}}}} {{subst:formatnum:6}}", "5 6"),
        ("{{lc:ABC}} {{uc:abc}} {{ucfirst:abc}} {{lcfirst:ABC}}", "abc ABC Abc aBC"),
        ("{{plural:1|cat|cats}} {{plural:2|cat|cats}}", "cat cats"),
        (
            "{{plural:2|a|2=two|b}} {{plural:3|a|b|2=two}} {{plural:1|a|1=one}}",
            "two b one",
        ),
        ("{{gender:x|he|she|they}} {{padleft:7|3|0}}", "they 007"),
        ("{{#if: x |yes|no}} {{#if: |yes|no}} {{#if:x|a=b}}", "yes no a=b"),
        ("{{#ifeq:a|a|yes|no}} {{#ifeq:a|b|yes|no}}", "yes no"),
        ("A{{#tag:ref|x}} b.{{DEFAULTSORT:B, A}}", "A b."),
    ],
)
def test_functions_become_their_argument(markup, expected):
    assert complete_text(markup) == (expected, 0)


def test_a_width_beyond_measure_is_500():
    """500 is the most that MediaWiki pads to."""
    assert complete_text(f"{{{{padleft:a|{'9' * 5000}}}}}").text == "0" * 499 + "a"


@pytest.mark.parametrize(
    "name",
    [
        "#if:{{x}}|a|b",
        "#expr:1+1",
        "CURRENTYEAR",
        "PAGENAME",
        "#invoke:x|y",
        "int:x",
        "#ifexpr: 3 > 2|a|b",
        "#expr: 1<2",
        "foo>bar|x",
        "fooo:x",
    ],
)
def test_unknown_functions_are_holes(name):
    assert complete_text(f"One. It is {{{{{name}}}}} long. Two.") == ("One. Two.", 1)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("我用-{zh-hans:计算机;zh-hant:電腦}-。", "我用计算机。"),
        ("我用-{zh-hant:電腦; zh-hans:计算机; }-。", "我用计算机。"),
        ("-{zh-tw:電腦;zh-hk:電腦機}-", "電腦"),
        ("-{sr-el:reč; sr-ec:реч}-", "реч"),
        ("-{文本}-a-{[[甲|乙]]}-", "文本a乙"),
        ("a-{H|zh-cn:甲;zh-tw:乙}-b-{T|丙}-c-{-|zh-cn:甲}-d", "abcd"),
        ("-{A|zh-cn:甲;zh-tw:乙}- -{R|原}- -{zh;zh-hant|文}-", "甲 原 文"),
        ("-{zh-hans:{{lang|en|x}};zh-hant:-{乙}-}-", "x"),
        ("-{zh-hans:甲&nbsp;乙;zh-hant:丙}-", "甲 乙"),
        ("{{lang|zh|-{zh-hans:甲;zh-hant:乙}-}}", "甲"),
        ("1{{ndash}}2-{{nbsp}}-3 {{lang|fr|a-{b}}", "1–2- -3 a-{b"),
        ("-{ a }} b }-", "a b"),
    ],
)
def test_variants_of_a_language_become_one(markup, expected):
    assert complete_text(markup).text == expected


@pytest.mark.parametrize(
    "text",
    ["-{" * 100_000, "-{zh:" * 50_000 + "}-" * 50_000, "{{a" * 9 + "-{}}" * 90_000]
    + ["-{zh-cn:a" + ";" * 100_000 + "}-", "-{" + " ;" * 100_000 + "}-"],
    ids=["open", "nested", "crossed", "rules", "blanks"],
)
def test_hostile_variants_cost_no_time(text):
    start = time.thread_time()
    complete_text(text)
    assert time.thread_time() - start < 4
