import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_tf.data.batches.record_order import Permutation, RecordOrder


@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_an_epoch_has_every_record_once(size, seed, epoch):
    numbers = Permutation(size, seed, epoch)(np.arange(size))
    assert sorted(numbers) == list(range(size))


def test_orders_differ_by_seed_and_epoch():
    orders = [
        tuple(Permutation(100, seed, epoch)(np.arange(100)))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_an_order_looks_random():
    """Few fixed points and neighbours: 1 and 2 are expected, 10 has odds of 1e-7."""
    size = 10_000
    numbers = Permutation(size, 1, 0)(np.arange(size))
    assert np.sum(numbers == np.arange(size)) < 10
    assert np.sum(np.abs(np.diff(numbers)) == 1) < 12
    correlation = np.corrcoef(numbers, np.arange(size))[0, 1]
    assert abs(correlation) < 0.05  # 5 standard deviations of 1 / sqrt(size)


def test_huge_sets_take_no_memory():
    size = 2**40
    numbers = Permutation(size, 1, 0)(np.asarray([0, 1, size - 1]))
    assert len(set(numbers)) == 3
    assert numbers.max() < size


@pytest.mark.parametrize("batch_size", [1, 7, 32, 250])
def test_batches_straddle_epochs_without_loss(batch_size):
    order = RecordOrder(num_records=100, seed=3)
    steps = 1000 // batch_size
    read = [order.records(step * batch_size, batch_size) for step in range(steps)]
    counts = np.bincount(np.concatenate(read), minlength=100)
    assert counts.max() - counts.min() <= 1


def test_the_order_does_not_depend_on_how_it_is_read():
    order = RecordOrder(num_records=100, seed=3)
    whole = order.records(0, 512)
    parts = [order.records(start, 64) for start in range(0, 512, 64)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_file_order_without_shuffling():
    order = RecordOrder(num_records=5, seed=3, is_shuffled=False)
    assert list(order.records(3, 6)) == [3, 4, 0, 1, 2, 3]
