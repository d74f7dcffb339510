"""How a text is split into the words that are tagged."""

from bert_tf.predictors.tagger import _words


def test_letters_keep_their_combining_marks():
    text = "हिन्दी में, ok"
    assert _words(text) == (text, ["हिन्दी", "में", ",", "ok"], [0, 7, 10, 12])


def test_half_a_surrogate_pair_is_a_letter():
    assert _words("a \ud800b.")[1:] == (["a", "\ud800b", "."], [0, 2, 4])
