"""Markup that is rendered without nodes is rendered as nodes are."""

import gc

import pytest

from bert_tf.data.text.mediawiki import markup
from bert_tf.data.text.mediawiki.markup import UnparsableError, complete_text
from bert_tf.data.text.mediawiki.rendering import render_article

# A tag with attributes is rendered from its node, and so is everything in it.
AS_NODES = '<span class="x">{}</span>'


@pytest.mark.parametrize(
    "wikitext",
    [
        "a [[b]] [[c|d]] [[e|''f'' [[g]]]] [[#h]] [[:i:j]] [[k:l|m]] [[fr:n]] o",
        "a [[File:b.png|thumb|c [[d]]]] [[e.png]] [[Image:f.svg|20px]] [[Media:g.ogg]]",
        "a<ref>b {{c|[[d]]}}</ref> e<ref name=f /> g<ref name='h'>''i''</ref>",
        "''a'' '''b''' <b>c</b> <sup>2</sup> 10<sup>{{e}}</sup> <br> d<br/>e <u></u>",
        "<math>a</math> <code><nowiki>[[b]]</nowiki></code> <div>c</div> <BR>",
        "{{cite book|title=a}} {{Infobox b\n|c=d}} {{lang|fr|e}} {{f|g}} {{h|date=i}}",
        "{{Template:cite web|a=b}} {{ efn |c}} {{_cn_}} {{lc:ABC}} {{#if:x|a|b}}",
        "{{{a|b}}} {{{c}}}",
        "{{a<!-- b -->c|d}} {{cite<!-- e --> book|f}} <!-- g --> [[h<!-- i -->|j]]",
        "&amp; &#65; &#x41; &nbsp; &notanentity; [http://a.org b] http://c.org [http://d]",
        "{| class=a\n| b\n|}\n* c\n# d\n; e : f\n----\ng",
        "'''a ''b''' c'' [[d [[e]] {{f <ref>g [[h",
    ],
)
def test_tokens_are_rendered_as_nodes_are(wikitext):
    begin, end = AS_NODES.format("\n|").split("|")
    assert render_article(f"{begin}{wikitext}{end}") == render_article(f"\n{wikitext}")


def test_a_dropped_section_ends_at_a_heading_of_its_level():
    text = "A.\n== Notes ==\nB.\n=== C ===\nD.\n== ''E'' {{f}} ==\nG.\n= See also =\nH."
    assert complete_text(text).text == "A.\n\nG."


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_collection_is_as_before(monkeypatch, is_enabled):
    def fails(wikitext):
        raise RecursionError

    was_enabled = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        complete_text("A [[b]].")
        monkeypatch.setattr(markup, "render_article", fails)
        with pytest.raises(UnparsableError):
            complete_text("A [[b]].")
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
