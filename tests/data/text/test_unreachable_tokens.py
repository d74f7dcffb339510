"""Tokens that no text can match are pointed out."""

import pytest
from data.shared import SPECIALS

from bert_tf.data.text.tokenization import CASED, UNCASED
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.data.text.unreachable_tokens import split_warnings

SETTINGS = {True: UNCASED, False: CASED}


def unused(count, **replaced):
    tokens = [f"[unused{n}]" for n in range(count)]
    for number, word in replaced.items():
        tokens[int(number.removeprefix("n"))] = word
    return ["[PAD]", *tokens, *SPECIALS[1:], *(f"word{n}" for n in range(200))]


@pytest.mark.parametrize(
    ("word", "do_lower_case"),
    [
        ("COVID", True),
        ("café", True),
        ("covid-19", False),
        ("two words", False),
        ("北京", False),
        ("##-19", False),
        ("##Ab", True),
    ],
)
def test_an_own_word_that_never_matches_is_named(word, do_lower_case):
    [line] = split_warnings(unused(20, n3=word), SETTINGS[do_lower_case])
    assert line.startswith("warning: 1 of your own words in place of [unusedN]")
    assert repr(word) in line


@pytest.mark.parametrize(
    ("word", "do_lower_case"),
    [("covid", True), ("COVID", False), ("##ish", True), ("北", True), ("##19", False)],
)
def test_an_own_word_that_matches_is_not_named(word, do_lower_case):
    assert split_warnings(unused(20, n3=word), SETTINGS[do_lower_case]) == []


def test_own_words_in_place_of_any_unused_but_the_last_are_found():
    words = {f"n{n}": f"Word{n}" for n in range(19)}
    [line] = split_warnings(unused(20, **words), UNCASED)
    assert line.startswith("warning: 19 of your own words")


def test_own_words_in_place_of_the_last_unused_are_found():
    words = {"n18": "Word18", "n19": "Word19"}
    [line] = split_warnings(unused(20, **words), UNCASED)
    assert line.startswith("warning: 2 of your own words")


def test_words_with_capitals_after_the_unused_of_a_cased_vocabulary_are_not_own():
    tokens = [*SPECIALS, "[unused0]", "[unused1]", "The", "the", "Cat", "cat"]
    assert split_warnings(tokens, UNCASED) == []


def test_many_tokens_that_are_not_words_are_noticed():
    tokens = [
        *SPECIALS,
        *(f"two words{n}" for n in range(10)),
        *(f"a{n}" for n in range(99)),
    ]
    [line] = split_warnings(tokens, CASED)
    assert "10 of 114 tokens of the vocabulary can never match: 'two words0'" in line


def test_a_cased_vocabulary_for_lower_case_text_is_warned_of_once(tmp_path):
    tokens = [*SPECIALS, *(f"Word{n}" for n in range(10)), "für", "a"]
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    notes = choose_settings({"do_lower_case": True}, [], str(vocab_file)).notes
    warnings = [*notes[1:], *split_warnings(tokens, UNCASED)]
    assert len(warnings) == 1 and "10 words with capital letters" in warnings[0]


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_the_published_vocabulary_gives_no_warning(real_data, do_lower_case):
    tokens = (real_data / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert split_warnings(tokens, SETTINGS[do_lower_case]) == []
