"""Batches of fine-tuning: the same examples for any number of workers, packed or not.

A sequence's first token after [CLS] is 100 + its number: so a test sees what is where.
"""

import numpy as np
import pytest

from bert_tf.data.batches.example_batches import (
    ExampleReader,
    LabelledSequences,
    prediction_batches,
)
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.text.token_sequences import TokenSequences

S, N = 24, 37
BOTH = pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])


@pytest.fixture(scope="module")
def examples():
    """37 sequences of 3 to 12 tokens; each has a class, and a place that holds 9."""
    rng = np.random.default_rng(4)
    sequences, places = [], []
    for number in range(N):
        length = int(rng.integers(3, 13))
        ids = [2, 100 + number, *[5] * (length - 2)]
        place = int(rng.integers(2, length))
        ids[place] = 9
        sequences.append((ids, [0] * length))
        places.append(place)
    labels = {
        "labels": np.arange(N, dtype=np.int32) * 10,
        "start_positions": np.array(places, np.int32),
    }
    return LabelledSequences(
        TokenSequences.join(sequences), labels, ("start_positions",)
    )


def reader(examples, is_packed, *, micro=8, accumulation=1, rank=0, size=1, **more):
    shape = BatchShape(
        micro_batch_size=micro, num_micro_batches=accumulation, rank=rank, size=size
    )
    order = RecordOrder(num_records=N, seed=11)
    return ExampleReader(examples, order, shape, RowSettings(S, is_packed), **more)


def joined(batches):
    """The rows of all workers' batches [k, B, ...], one after the other."""
    batches = list(batches)
    return {
        name: np.concatenate([b[name].reshape(-1, *b[name].shape[2:]) for b in batches])
        for name in batches[0]
    }


def numbers_of(features):
    """The examples in rows, by the tokens that name them, in the order of the rows."""
    ids = features["input_ids"]
    return (ids[ids >= 100] - 100).tolist()


@BOTH
@pytest.mark.parametrize("cut", [(4, 1, 2), (2, 2, 2), (1, 2, 4), (3, 1, 3)])
def test_the_rows_of_all_workers_are_those_of_one(examples, is_packed, cut):
    micro, accumulation, size = cut
    count = micro * accumulation * size
    one = joined([reader(examples, is_packed, micro=count).batch(5)])
    shares = [
        reader(
            examples,
            is_packed,
            micro=micro,
            accumulation=accumulation,
            rank=rank,
            size=size,
        ).batch(5)
        for rank in range(size)
    ]
    all_rows = joined(shares)
    num_rows = len(one["input_ids"])
    for name, array in one.items():
        np.testing.assert_array_equal(all_rows[name][:num_rows], array)
        # What was added so that all workers have as many rows.
        assert not all_rows[name][num_rows:].any(), name
    assert len({share["input_ids"].shape for share in shares}) == 1


@BOTH
def test_an_epoch_has_each_example_once(examples, is_packed):
    order = RecordOrder(num_records=N, seed=11)
    shape = BatchShape(micro_batch_size=N, num_micro_batches=1)
    whole = ExampleReader(examples, order, shape, RowSettings(S, is_packed))
    for step in (0, 1):
        assert sorted(numbers_of(whole.batch(step))) == list(range(N))


def test_packing_changes_no_step_examples(examples):
    for step in range(6):
        plain, packed = (reader(examples, x).batch(step) for x in (False, True))
        assert sorted(numbers_of(plain)) == sorted(numbers_of(packed))
        assert packed["input_ids"].shape[1] < plain["input_ids"].shape[1]


@BOTH
def test_a_batch_is_a_function_of_the_step_alone(examples, is_packed):
    first = reader(examples, is_packed)
    for step in (0, 1, 2):
        first.batch(step)
    resumed = reader(examples, is_packed, first_step=3, first_position=24)
    for name, array in resumed.batch(3).items():
        np.testing.assert_array_equal(array, first.batch(3)[name])


@pytest.mark.parametrize("size, accumulation", [(1, 1), (1, 3), (3, 1)])
def test_few_row_counts_add_empty_rows_at_the_end(examples, size, accumulation):
    settings = {"micro": 8, "accumulation": accumulation, "size": size}
    plain_counts, counts = set(), set()
    for step in range(12):
        plain, few = (
            joined(
                reader(examples, True, rank=rank, **settings, **more).batch(step)
                for rank in range(size)
            )
            for more in ({}, {"max_row_counts": 2})
        )
        num_rows = len(plain["input_ids"])
        for name, array in few.items():
            np.testing.assert_array_equal(array[:num_rows], plain[name])
            assert not array[num_rows:].any(), name
        plain_counts.add(num_rows // (size * accumulation))
        counts.add(len(few["input_ids"]) // (size * accumulation))
    assert plain_counts - {4, 8}
    assert counts <= {4, 8}


def test_rows_that_are_not_packed_are_never_added_to(examples):
    batch = reader(examples, False, micro=5, max_row_counts=2).batch(0)
    assert batch["input_ids"].shape == (1, 5, S)


@BOTH
def test_labels_that_are_positions_move_with_their_sequence(examples, is_packed):
    batch = joined([reader(examples, is_packed).batch(2)])
    is_real = batch["example_weights"] > 0
    rows, _ = np.nonzero(is_real)
    assert is_real.sum() == 8
    assert (batch["input_ids"][rows, batch["start_positions"][is_real]] == 9).all()


@BOTH
def test_other_labels_stay_as_they_are(examples, is_packed):
    batch = joined([reader(examples, is_packed).batch(2)])
    is_real = batch["example_weights"] > 0
    rows, _ = np.nonzero(is_real)
    names = batch["next_sentence_positions"][is_real] + 1
    numbers = batch["input_ids"][rows, names] - 100
    np.testing.assert_array_equal(batch["labels"][is_real], numbers * 10)
    assert not batch["labels"][~is_real].any()


def test_a_worker_without_rows_gets_empty_ones(examples):
    # Three sequences of at most 12 tokens need two rows of 24 at most.
    shares = [
        reader(examples, True, micro=1, rank=rank, size=3).batch(0) for rank in range(3)
    ]
    assert sorted(numbers_of(joined(shares))) == sorted(
        numbers_of(joined([reader(examples, False, micro=3).batch(0)]))
    )
    assert shares[2]["input_ids"].shape == (1, 1, S)
    assert not any(array.any() for array in shares[2].values())


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3])
def test_prediction_batches_hold_every_example_once(examples, is_packed, size):
    settings = RowSettings(S, is_packed)
    batches = [
        batch
        for rank in range(size)
        for batch in prediction_batches(
            examples, settings, batch_size=4, rank=rank, size=size
        )
    ]
    rows = np.concatenate([batch.rows.ravel() for batch in batches])
    tokens = np.concatenate([batch.tokens.ravel() for batch in batches])
    assert sorted(rows[rows >= 0].tolist()) == list(range(N))
    num_tokens = len(examples.sequences.input_ids)
    assert sorted(tokens[tokens >= 0].tolist()) == list(range(num_tokens))


@BOTH
def test_prediction_batches_have_one_shape_on_all_workers(examples, is_packed):
    shares = [
        [
            batch.features["input_ids"].shape
            for batch in prediction_batches(
                examples, RowSettings(S, is_packed), batch_size=4, rank=rank, size=3
            )
        ]
        for rank in range(3)
    ]
    assert shares[0] == shares[1] == shares[2]
    assert set(shares[0]) == {(4, S)}


@BOTH
def test_tokens_of_a_prediction_have_the_right_indices(examples, is_packed):
    ids = examples.sequences.input_ids
    for batch in prediction_batches(examples, RowSettings(S, is_packed), batch_size=4):
        is_real = batch.tokens >= 0
        found = batch.features["input_ids"]
        np.testing.assert_array_equal(found[is_real], ids[batch.tokens[is_real]])
        assert not found[~is_real].any()


@BOTH
def test_the_examples_of_a_micro_batch_are_named(examples, is_packed):
    one = reader(examples, is_packed, accumulation=2, rank=1, size=2)
    batch = one.batch(3)
    for part in range(2):
        ids = batch["input_ids"][part]
        held = sorted(set(ids[ids >= 100] - 100))
        assert held
        expected = f"examples {', '.join(map(str, held))} (from 0)"
        assert one.name_rows(3, part) == expected
