import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bert_tf.data.batches.record_order import Permutation, RecordOrder
from bert_tf.data.records.record_index import SetShare


@example(2**4 + 1, 0, 0)  # A number of records that needs a bit more than the last one.
@example(2**8 + 1, 0, 0)
@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_an_epoch_has_every_record_once(size, seed, epoch):
    numbers = Permutation(size, seed, epoch)(np.arange(size))
    assert sorted(numbers) == list(range(size))


def permuted(number, size, keys):
    """A Feistel network with cycle walking, round function MurmurHash3's finaliser."""
    half = -(-(size - 1).bit_length() // 2)
    while True:
        left, right = number >> half, number % 2**half
        for key in keys:
            x = (right ^ key) & 0xFFFFFFFF
            x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
            x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
            left, right = right, left ^ (x ^ x >> 16) % 2**half
        number = left << half | right
        if number < size:
            return number


@pytest.mark.parametrize("size", [2, 3, 4, 5, 15, 16, 17, 64, 100, 3_000, 2**40 + 5])
def test_the_order_is_that_of_the_published_construction(size):
    """Runs of earlier versions resume: their order must stay to the last record."""
    keys = np.random.SeedSequence([3, 2]).generate_state(6, np.uint32).tolist()
    expected = [permuted(number, size, keys) for number in range(min(size, 50))]
    numbers = Permutation(size, 3, 2)(np.arange(len(expected)))
    assert numbers.tolist() == expected
    assert numbers.dtype == np.int64


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


MIXED = RecordOrder(
    num_records=150, seed=3, shares=[SetShare(100, 7), SetShare(40, 2), SetShare(10, 1)]
)
BEGINS = np.asarray([0, 100, 140])


def sets_of(numbers):
    return np.searchsorted(BEGINS, numbers, side="right") - 1


def test_each_set_has_its_exact_share_of_every_block():
    sets = sets_of(MIXED.records(0, 10_000)).reshape(-1, 10)
    counts = np.stack([np.bincount(block, minlength=3) for block in sets])
    assert (counts == [7, 2, 1]).all()


@pytest.mark.parametrize("parts", [(7, 3), (1, 1), (999, 1), (1, 2, 3, 4, 5)])
def test_shares_are_even_after_any_number_of_records(parts):
    """Within (n + 1) / 2 records of the share."""
    shares = [SetShare(10, part) for part in parts]
    order = RecordOrder(num_records=10 * len(parts), seed=1, shares=shares)
    read = order.records(0, 3000)[:, None] // 10 == np.arange(len(parts))
    shares = np.asarray(parts) / sum(parts)
    expected = np.arange(1, 3001)[:, None] * shares
    assert np.abs(np.cumsum(read, axis=0) - expected).max() <= (len(parts) + 1) / 2


def test_of_records_that_are_due_together_the_first_set_is_first():
    """Sorts that are not stable give another order, and on each processor its own."""
    shares = [SetShare(100, 50), SetShare(100, 50), SetShare(100, 50)]
    order = RecordOrder(num_records=300, seed=3, shares=shares)
    assert (order.records(0, 150) // 100 == np.tile([0, 1, 2], 50)).all()


def test_each_set_has_its_own_epochs():
    epochs, numbers = MIXED.epochs_and_records(0, 2000)
    sets = sets_of(numbers)
    for number, size in enumerate((100, 40, 10)):
        read = numbers[sets == number]
        of_epochs = [read[i : i + size] for i in range(0, len(read) - size + 1, size)]
        begin = BEGINS[number]
        for each in of_epochs:
            assert sorted(each) == list(range(begin, begin + size))
        assert len({tuple(each) for each in of_epochs}) == len(of_epochs) > 3
        expected = np.arange(len(read)) // size
        np.testing.assert_array_equal(epochs[sets == number], expected)


def test_sets_of_one_size_have_different_orders():
    shares = [SetShare(50), SetShare(50)]
    numbers = RecordOrder(num_records=100, seed=3, shares=shares).records(0, 100)
    assert (numbers[numbers < 50] != numbers[numbers >= 50] - 50).mean() > 0.9


@pytest.mark.parametrize("is_shuffled", [True, False])
def test_a_mixed_order_does_not_depend_on_how_it_is_read(is_shuffled):
    order = RecordOrder(
        num_records=150, seed=3, is_shuffled=is_shuffled, shares=MIXED.shares
    )
    whole = order.epochs_and_records(0, 5000)
    for size in (1, 7, 64, 333):
        starts = range(0, 5000 - size, max(size, 37))
        for start in starts:
            part = order.epochs_and_records(start, size)
            for a, b in zip(part, whole, strict=True):
                np.testing.assert_array_equal(a, b[start : start + size])


def test_mixed_sets_in_file_order():
    """Of every 3 records 2 of the first set: due at 1/4, 3/4 and, between, 1/2."""
    shares = [SetShare(3, 2), SetShare(2, 1)]
    order = RecordOrder(num_records=5, seed=3, is_shuffled=False, shares=shares)
    assert list(order.records(0, 9)) == [0, 3, 1, 2, 4, 0, 1, 3, 2]


def test_a_single_set_has_the_order_that_it_had_before_there_were_shares():
    """Numbers of the permutation alone, epoch after epoch."""
    order = RecordOrder(num_records=100, seed=3)
    expected = [Permutation(100, 3, epoch)(np.arange(100)) for epoch in range(3)]
    np.testing.assert_array_equal(order.records(0, 300), np.concatenate(expected))
    epochs, _ = order.epochs_and_records(95, 110)
    assert epochs.tolist() == [0] * 5 + [1] * 100 + [2] * 5


def test_a_run_resumes_at_once_after_any_number_of_records():
    numbers = MIXED.records(10**15, 20)
    assert np.bincount(sets_of(numbers)).tolist() == [14, 4, 2]
