import numpy as np
import pytest

from bert_tf.data.tasks.classification import (
    TextExample,
    encode_examples,
    truncated_lengths,
)
from bert_tf.data.text.tokenization import WordPieceTokenizer


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return WordPieceTokenizer(vocab_file)


def encoded(tokenizer, pairs, max_seq_length):
    """Tokens, with blanks between, and segment ids of each pair."""
    examples = [TextExample(a, b, None, "here") for a, b in pairs]
    sequences = encode_examples(examples, tokenizer, max_seq_length)
    assert len(sequences) == len(pairs)
    results = []
    for number in range(len(sequences)):
        place = sequences.span(number)
        tokens = [tokenizer.inverse_vocab[i] for i in sequences.input_ids[place]]
        results.append((" ".join(tokens), sequences.segment_ids[place].tolist()))
    return results


def test_one_text_is_between_cls_and_sep(tokenizer):
    assert encoded(tokenizer, [("The cat sat", None)], 8) == [
        ("[CLS] the cat sat [SEP]", [0, 0, 0, 0, 0])
    ]


def test_second_text_has_segment_one_with_its_sep(tokenizer):
    assert encoded(tokenizer, [("the cat", "a dog ran")], 8) == [
        ("[CLS] the cat [SEP] a dog ran [SEP]", [0, 0, 0, 0, 1, 1, 1, 1])
    ]


def test_long_text_is_cut_at_its_end(tokenizer):
    assert encoded(tokenizer, [("the cat sat on a mat", None)], 5) == [
        ("[CLS] the cat sat [SEP]", [0, 0, 0, 0, 0])
    ]


def test_longer_text_of_a_pair_is_cut(tokenizer):
    assert encoded(tokenizer, [("the cat sat on a mat", "a dog")], 8) == [
        ("[CLS] the cat sat [SEP] a dog [SEP]", [0, 0, 0, 0, 0, 1, 1, 1])
    ]


def test_second_text_is_cut_first_if_both_are_as_long(tokenizer):
    assert encoded(tokenizer, [("the cat sat", "a dog ran")], 8) == [
        ("[CLS] the cat sat [SEP] a dog [SEP]", [0, 0, 0, 0, 0, 1, 1, 1])
    ]


def test_sequences_follow_one_another(tokenizer):
    results = encoded(tokenizer, [("cat", None), ("", None), ("dog", "mat")], 8)
    assert [tokens for tokens, _ in results] == [
        "[CLS] cat [SEP]",
        "[CLS] [SEP]",
        "[CLS] dog [SEP] mat [SEP]",
    ]


def test_too_short_a_length_is_refused(tokenizer):
    with pytest.raises(ValueError, match="max_seq_length=2"):
        encode_examples([], tokenizer, 2)


def popped_lengths(first, second, limit):
    """One token after the other, as the paper's authors' script does it."""
    while first + second > limit:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


def test_lengths_are_those_after_popping_tokens_one_by_one():
    for first, second, limit in np.ndindex(13, 13, 13):
        expected = popped_lengths(first, second, limit)
        assert truncated_lengths(first, second, limit) == expected


@pytest.mark.slow
@pytest.mark.parametrize("max_seq_length", [4, 5, 8, 32])
def test_sequences_are_those_of_model_garden(
    tokenizer, vocab_file, original_tokenizer, max_seq_length
):
    from official.nlp.data import classifier_data_lib as library

    original = original_tokenizer(vocab_file)
    texts = ["", "the cat", "Running dogs were unaffable!", "on a mat " * 5]
    pairs = [(a, b) for a in texts for b in (None, *texts)]
    ours = encode_examples(
        [TextExample(a, b, None, "here") for a, b in pairs], tokenizer, max_seq_length
    )
    for number, (text_a, text_b) in enumerate(pairs):
        feature = library.convert_single_example(
            number,
            library.InputExample("", text_a, text_b, "0"),
            ["0"],
            max_seq_length,
            original,
        )
        length = sum(feature.input_mask)
        place = ours.span(number)
        assert ours.input_ids[place].tolist() == feature.input_ids[:length]
        assert ours.segment_ids[place].tolist() == feature.segment_ids[:length]
