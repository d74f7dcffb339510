"""A sentence that lost a part is not kept."""

import random
import time

import pytest
from data.holes import find_holes

from bert_tf.data.text.mediawiki.markup import complete_text


@pytest.mark.parametrize(
    "sentence",
    [
        "The {{zork}} sank.",
        "It cost {{zork|1}} or {{zork|2}} million.",
        "{{zork|x}} sank.",
        "He was{{zork}}born.",
        "He ({{zork|x}} born) sat.",
        "The mass <math>m</math> is small.",
        "The name is <code>x</code>.",
        "It has <chem>H2O</chem> in it.",
        "A site or [http://b.org] or http://c.org.",
        "The red [[File:x.svg|20px]] sign.",
        "The energy is\n:<math>E = mc^2</math>\nwhere it is the mass.",
        "The energy is:\n\n<math>E = mc^2</math>.",
        "The ship\n{{zork}}\nsank.",
        "The codes are\n{|\n| a\n|}\nof old.",
        "The codes are {{{1}}} here.",
        "It met:\n* one\n* two\nand three.",
    ],
)
def test_a_sentence_with_a_hole_is_dropped(sentence):
    text, num_dropped = complete_text(f"One is.\n\n{sentence} So it is.")
    assert text.replace("It met:\n\n", "").split() == ["One", "is.", "So", "it", "is."]
    assert num_dropped == 1


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("{{zork}}\nIt is.", "It is."),
        ("{{zork\n| a = b\n}} '''It''' is.", "It is."),
        ("{{zork}}'''It''' is.", "It is."),
        ("{{zork}}{{zork}}\n{{zork}}\n\nIt is.", "It is."),
        ("It is.\n{{zork}}\nHe is.", "It is. He is."),
        ("It is.{{zork|x}} He is, {{efn|x}}so.", "It is. He is, so."),
        ("It ({{zork|x}}) is ({{zork}}, new; {{zork}}).", "It is (new)."),
        ("[[File:a.svg|20px]] It is.", "It is."),
        ("It [[File:a.svg|thumb|b]] is.", "It is."),
        ("Of {{zork|[[a]] ''word''}} it is.", "Of a word it is."),
        ("It is.\n:<math>x</math>\nHe is.", "It is. He is."),
        ("It is. {{zork}}\nHe is. {{zork}}", "It is. He is."),
    ],
)
def test_boxes_beside_the_text_are_no_holes(markup, expected):
    text, num_dropped = complete_text(markup)
    assert (" ".join(text.split()), num_dropped) == (expected, 0)


@pytest.mark.parametrize(
    "text",
    ["<math>x</math>\n" * 10_000, "\n" * 300_000, "\n {{x}}" * 20_000]
    + [
        "({{x}}" * 20_000,
        "http://" * 40_000,
        ",{{x}}" * 20_000,
        "<b>" + "\n:" * 20_000,
    ],
    ids=["formulas", "lines", "boxes", "brackets", "addresses", "notes", "items"],
)
def test_runs_of_marks_cost_no_time(text):
    start = time.thread_time()
    complete_text(text)
    assert time.thread_time() - start < 4


def test_holes_are_found_where_words_are_cut_out():
    sentences = [
        "The volcano is {} above the {} and covers an area of {}.",
        "It weighs about {} (roughly {}), less than {} or {} million.",
        "The {} sank.",
        "It cost {} or {} million.",
        "He was born at {}, in the {}.",
        "The capital, {}, is where {} is the king.",
    ]
    rng = random.Random(0)
    for sentence in sentences:
        words = [
            rng.choice(["five", "Rome", "8 km"]) for _ in range(sentence.count("{}"))
        ]
        assert not find_holes(sentence.format(*words)), sentence
        cut = " ".join(sentence.replace("{}", "").split()).replace(" .", ".")
        assert find_holes(cut), cut
