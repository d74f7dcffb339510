"""Sequences in rows: nothing lost, nothing twice, and each as if it stood alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.data.packing.layout import (
    MAX_SEQUENCES,
    RowSettings,
    lay_out,
    merge_sequences,
    most_in_a_row,
    pack_examples,
    padded_rows,
    token_indices,
)
from bert_tf.data.packing.planning import Assignment
from bert_tf.data.text.token_sequences import TokenSequences

S = 8
LENGTHS = st.lists(st.integers(1, 24), min_size=1, max_size=200)


@pytest.fixture
def sequences():
    """Three sequences of 3, 4 and 2 tokens; tokens 0-2, 3-6 and 7-8 of all."""
    return TokenSequences.join(
        [([2, 5, 3], [0, 0, 0]), ([2, 6, 3, 7], [0, 0, 0, 1]), ([2, 3], [0, 0])]
    )


@pytest.fixture
def features(sequences):
    """The second and the first in one row, the third in another, and an empty row."""
    rows = np.array([[1, 0, -1], [2, -1, -1], [-1, -1, -1]])
    features = lay_out(sequences, rows, S)
    return features | {"tokens": token_indices(sequences, rows, features)}


@pytest.mark.parametrize(
    "name, packed_row, row_of_one",
    [
        ("input_ids", [2, 6, 3, 7, 2, 5, 3, 0], [2, 3, 0, 0, 0, 0, 0, 0]),
        ("input_mask", [1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
        ("segment_ids", [0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]),
        ("positions", [0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 0, 0, 0, 0, 0, 0]),
        ("tokens", [3, 4, 5, 6, 0, 1, 2, -1], [7, 8, -1, -1, -1, -1, -1, -1]),
        ("next_sentence_positions", [0, 4, 0], [0, 0, 0]),
        ("example_weights", [1, 1, 0], [1, 0, 0]),
    ],
)
def test_rows_are_as_written_by_hand(features, name, packed_row, row_of_one):
    assert features[name][:2].tolist() == [packed_row, row_of_one]


def test_an_empty_row_is_padding_alone(features):
    assert (features["tokens"][2] == -1).all()
    for name in features.keys() - {"tokens"}:
        assert not features[name][2].any(), name


def test_features_have_the_types_that_the_model_takes(features):
    types = {name: str(array.dtype) for name, array in features.items()}
    assert types.pop("example_weights") == "float32"
    assert types.pop("tokens") == "int64"
    assert set(types.values()) == {"int32"}


def test_a_sequence_may_fill_its_row():
    full = TokenSequences.join([(list(range(1, S + 1)), [0] * S)])
    features = lay_out(full, np.array([[0]]), S)
    assert features["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert features["input_mask"].tolist() == [[1] * S]


@given(LENGTHS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_sequence_is_in_one_row(lengths, is_packed):
    rows = RowSettings(24, is_packed).assign_rows(np.array(lengths))
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(lengths)))


@given(LENGTHS)
@settings(max_examples=60, deadline=None)
def test_no_row_is_too_long_or_has_too_many_sequences(lengths):
    rows = RowSettings(24, is_packed=True).assign_rows(np.array(lengths))
    assert rows.shape[1] == MAX_SEQUENCES
    sums = np.append(lengths, 0)[rows].sum(axis=1)
    assert sums.max() <= 24
    assert sums.min() > 0


@given(LENGTHS)
@settings(max_examples=60, deadline=None)
def test_the_sequences_of_a_row_precede_its_empty_slots(lengths):
    is_taken = RowSettings(24, is_packed=True).assign_rows(np.array(lengths)) >= 0
    assert (is_taken[:, :-1] >= is_taken[:, 1:]).all()


def test_tiny_sequences_share_a_row_up_to_the_limit():
    rows = RowSettings(512, is_packed=True).assign_rows(np.ones(100, int))
    assert np.sort((rows >= 0).sum(axis=1)).tolist() == [4] + [16] * 6


def test_without_packing_each_sequence_has_the_row_of_its_number():
    assert RowSettings(24).assign_rows(np.array([3, 24, 1])).tolist() == [[0], [1], [2]]
    assert RowSettings(24).max_sequences == 1


@pytest.fixture
def records():
    """Unpacked records of 3, 4 and 2 tokens, with 1, 2 and no masked ones."""
    return {
        "input_ids": np.array([[2, 5, 3, 0], [2, 6, 3, 7], [2, 3, 0, 0]]),
        "input_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]),
        "segment_ids": np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]]),
        "masked_lm_positions": np.array([[1, 0], [1, 3], [0, 0]]),
        "masked_lm_ids": np.array([[15, 0], [16, 17], [0, 0]]),
        "masked_lm_weights": np.array([[1.0, 0], [1, 1], [0, 0]]),
        "next_sentence_labels": np.array([[1], [0], [1]]),
    }


def test_records_in_a_row_are_as_written_by_hand(records):
    wide = ("input_ids", "input_mask", "segment_ids")
    padded = {name: np.pad(records[name], ((0, 0), (0, 4))) for name in wide}
    merged = merge_sequences(records | padded, np.array([2, 1]), 3, 2)
    assert {name: array.tolist() for name, array in merged.items()} == {
        "input_ids": [[2, 5, 3, 2, 6, 3, 7, 0], [2, 3, 0, 0, 0, 0, 0, 0]],
        "input_mask": [[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 0, 0, 0, 0, 0, 0]],
        "segment_ids": [[0, 0, 0, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0, 0, 0]],
        "positions": [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 0, 0, 0, 0, 0, 0]],
        "masked_lm_positions": [[1, 4, 6], [0, 0, 0]],
        "masked_lm_ids": [[15, 16, 17], [0, 0, 0]],
        "masked_lm_weights": [[1, 1, 1], [0, 0, 0]],
        "next_sentence_positions": [[0, 3], [0, 0]],
        "next_sentence_labels": [[1, 0], [1, 0]],
        "next_sentence_weights": [[1, 1], [1, 0]],
    }
    for name in ("masked_lm_weights", "next_sentence_weights"):
        assert merged[name].dtype == np.float32
    assert merged["next_sentence_labels"].dtype == np.int32


@pytest.mark.parametrize("mask", [[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
def test_a_mask_with_a_hole_or_without_tokens_is_refused(records, mask):
    records["input_mask"][1] = mask
    with pytest.raises(ValueError, match="must be ones for the tokens and then zeros"):
        pack_examples(records)


def test_a_prediction_in_the_padding_is_refused(records):
    records["masked_lm_positions"][0, 0] = 3
    with pytest.raises(ValueError, match="must be positions of tokens"):
        pack_examples(records)


def test_the_fullest_row_decides_how_many_predictions_a_row_has():
    """Sequence 2, with four masked tokens, is alone; 0 and 1 share a row."""
    rows = Assignment(members=np.array([2, 0, 1]), starts=np.array([0, 1, 3]))
    assert most_in_a_row(np.array([1, 2, 4]), rows) == 4
    assert most_in_a_row(np.array([3, 2, 4]), rows) == 5


def examples(count):
    """Of four tokens, in rows of 16."""
    mask = np.repeat([[1] * 4 + [0] * 12], count, axis=0)
    return dict.fromkeys(("input_ids", "input_mask", "segment_ids"), mask)


@pytest.mark.parametrize(
    "limit, sizes", [((), [3, 3]), ((3,), [3, 3]), ((2,), [2, 2, 2]), ((0,), [2, 4])]
)
def test_examples_in_memory_are_packed_up_to_the_limit(limit, sizes):
    packed, _ = pack_examples(examples(6), *limit)
    weights = packed["next_sentence_weights"]
    assert sorted(weights.sum(axis=1).tolist()) == sizes
    assert weights.shape == (len(sizes), max(sizes))


def test_which_examples_in_memory_share_a_row_depends_on_the_seed_alone():
    first, again, other = (
        pack_examples(examples(100), seed=seed)[1].members.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_dealing_is_a_function_of_the_lengths_alone():
    lengths = np.random.default_rng(0).integers(1, 25, 300)
    first, again = (RowSettings(24, True).assign_rows(lengths) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_packing_saves_rows():
    rows = RowSettings(24, is_packed=True).assign_rows(np.array([12, 8, 20, 4, 4]))
    assert len(rows) == 2  # 48 tokens in rows of 24.


def test_padded_rows_are_followed_by_empty_ones():
    padded = padded_rows(np.array([[4, 2], [1, -1]]), 3)
    assert padded.tolist() == [[4, 2], [1, -1], [-1, -1]]


def test_a_sequence_that_is_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match=r"must be in 1 .. 24. Received: 3 .. 25"):
        RowSettings(24, is_packed=True).assign_rows(np.array([3, 25]))
