"""A call of the tokenizer, against the library that transformers' tokenizers use."""

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from bert_tf.data.text.tokenization import WordPieceTokenizer

TEXTS = ["the cat", "a very glad dog ran to see it", "", "running"]
# 10 and 5 tokens, and 6 and 10.
PAIRS = [
    ("the cat sat on a mat and the cat ran", "it ran to see it"),
    ("see it run to see it", "the dog was very glad to see it run and"),
]
WAYS = ["longest_first", "only_first", "only_second"]


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return WordPieceTokenizer(vocab_file)


@pytest.fixture
def other(vocab_file):
    return BertWordPieceTokenizer(vocab_file, lowercase=True)


def assert_equal(ours, encodings):
    names = {"input_ids": "ids", "input_mask": "attention_mask"}
    for name, theirs in (names | {"segment_ids": "type_ids"}).items():
        expected = [getattr(encoding, theirs) for encoding in encodings]
        assert ours[name].dtype == np.int32
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)


def test_texts_are_padded_to_the_longest(tokenizer, other):
    other.enable_padding()
    assert_equal(tokenizer(TEXTS), other.encode_batch(TEXTS))


@pytest.mark.parametrize("as_lists", [True, False])
def test_pairs_have_two_segments(tokenizer, other, as_lists):
    other.enable_padding()
    firsts, seconds = zip(*PAIRS, strict=True)
    ours = tokenizer(list(firsts), list(seconds)) if as_lists else tokenizer(PAIRS)
    assert_equal(ours, other.encode_batch(PAIRS))


@pytest.mark.parametrize("way", WAYS)
def test_pairs_are_cut_and_padded_to_the_length(tokenizer, other, way):
    other.enable_truncation(17, strategy=way)
    other.enable_padding(length=17)
    ours = tokenizer(PAIRS, padding="max_length", truncation=way, max_length=17)
    assert_equal(ours, other.encode_batch(PAIRS))


def test_texts_are_cut(tokenizer, other):
    other.enable_truncation(5)
    other.enable_padding()
    ours = tokenizer(TEXTS, truncation=True, max_length=5)
    assert_equal(ours, other.encode_batch(TEXTS))


def test_a_single_text_is_a_batch_of_one(tokenizer):
    both = tokenizer("the cat"), tokenizer(["the cat"])
    assert both[0]["input_ids"].shape == (1, 4)
    np.testing.assert_array_equal(both[0]["input_ids"], both[1]["input_ids"])


def test_the_longer_text_is_cut_as_in_google_bert(tokenizer):
    # Six and three tokens, five are left: the first loses tokens down to three, then
    # the second one loses one.
    first, second = "the cat sat on a mat", "the dog ran"
    ids = tokenizer.encode([first, second])
    cls, sep = tokenizer.special.cls, tokenizer.special.sep
    ours = tokenizer(first, second, truncation=True, max_length=8)["input_ids"]
    assert ours.tolist() == [[cls, *ids[0][:3], sep, *ids[1][:2], sep]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one text"),
        (
            ([3],),
            r"strings or of pairs of them. Received: \(int, NoneType\) at index 0",
        ),
        ((["a"], ["b", "c"]), "Received: 1 and 2 texts"),
        (([("a", "b", "c")],), "at index 0"),
    ],
)
def test_what_is_no_text_is_refused(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding": "left"}, "`padding` must be true, false or one of longest"),
        ({"truncation": "last"}, "`truncation` must be .* only_first"),
        ({"truncation": True}, "`max_length` must be given"),
        ({"padding": "max_length"}, "`max_length` must be given"),
        ({"padding": False}, "from 2 to 10 tokens. Pass padding=True"),
        ({"padding": "max_length", "max_length": 5}, "Pass truncation=True"),
        ({"truncation": True, "max_length": 1}, "larger `max_length`"),
    ],
)
def test_settings_that_give_no_array_are_refused(tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(TEXTS, **settings)
