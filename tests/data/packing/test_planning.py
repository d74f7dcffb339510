import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.data.packing.planning import (
    _full_rows,
    _within,
    assign,
    length_histogram,
    make_plan,
    plan_longest_first,
    plan_nnls,
)


def rows_of(assignment):
    return [assignment.rows(r, r + 1)[0] for r in range(assignment.num_rows)]


length_lists = st.lists(st.integers(1, 24), min_size=1, max_size=200)


def check_plan(plan, lengths, size, max_sequences):
    """Every sequence has its place, and no row is too long or too crowded."""
    used = np.zeros(size + 1, int)
    for strategy in plan.strategies:
        assert strategy.count > 0
        assert sum(strategy.lengths) <= size
        assert len(strategy.lengths) <= max_sequences
        for length in strategy.lengths:
            used[length] += strategy.count
    np.testing.assert_array_equal(used, np.bincount(lengths, minlength=size + 1))


@given(length_lists, st.integers(1, 8))
def test_longest_first_packs_every_sequence_once(lengths, max_sequences):
    plan = plan_longest_first(length_histogram(lengths, 24), max_sequences)
    check_plan(plan, lengths, 24, max_sequences)


@settings(max_examples=50)
@given(length_lists)
def test_least_squares_packs_every_sequence_once(lengths):
    plan = plan_nnls(length_histogram(lengths, 24))
    check_plan(plan, lengths, 24, 3)


@given(length_lists, st.sampled_from([1, 2, 3, None]), st.integers(0, 100))
def test_every_sequence_is_in_exactly_one_row(lengths, max_sequences, seed):
    plan = make_plan(length_histogram(lengths, 24), max_sequences)
    rows = rows_of(assign(np.asarray(lengths), plan, seed))
    assert len(rows) == plan.num_packs
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[i] for i in row) <= 24
        assert len(row) <= (max_sequences or 24)


def test_rows_depend_on_the_seed_alone():
    lengths = np.random.default_rng(0).integers(1, 25, 300)
    plan = make_plan(length_histogram(lengths, 24))
    first, again, other = (
        [tuple(row) for row in rows_of(assign(lengths, plan, seed))]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_next_slot_for_a_length_takes_the_next_sequence_of_it():
    """Many of each length: with sorts that are not stable others share a row."""
    lengths = np.random.default_rng(0).integers(1, 4, 500)
    plan = make_plan(length_histogram(lengths, 8))
    rng = np.random.default_rng(5)
    shuffled = rng.permutation(500).tolist()
    left = {n: [i for i in shuffled if lengths[i] == n] for n in (1, 2, 3)}
    counts = [strategy.count for strategy in plan.strategies]
    kinds = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    expected = [[left[n].pop(0) for n in plan.strategies[k].lengths] for k in kinds]
    found = rows_of(assign(lengths, plan, seed=5))
    assert [row.tolist() for row in found] == expected


def test_of_ways_that_are_equally_rare_the_first_are_lowered():
    """40 ways, 20 of them rare, take 60 single tokens, of which there are 50."""
    ways = np.asarray([(n, 1, 0) for n in range(2, 42)])
    counts = np.tile([2, 1], 20)
    rows = _within(ways, counts, np.asarray([0, 50, *counts]))
    assert rows.tolist() == [2, 0] * 10 + [2, 1] * 10


def test_pieces_of_rows_are_their_rows():
    lengths = np.random.default_rng(0).integers(1, 25, 300)
    assignment = assign(lengths, make_plan(length_histogram(lengths, 24)), 0)
    members, counts = assignment.rows(5, 40)
    expected = rows_of(assignment)[5:40]
    assert list(counts) == [len(row) for row in expected]
    assert list(members) == list(itertools.chain(*expected))


def test_a_hand_made_case():
    """4 + 4, 5 + 3 and 8 fill three rows of 8; nothing is left."""
    plan = plan_longest_first(length_histogram([4, 4, 5, 3, 8], 8))
    assert {s.lengths: s.count for s in plan.strategies} == {
        (8,): 1,
        (5, 3): 1,
        (4, 4): 1,
    }
    assert plan.efficiency == 1.0
    assert (plan.num_packs, plan.num_sequences, plan.num_tokens) == (3, 5, 24)


def test_the_most_frequent_way_to_fill_a_row_is_the_first():
    plan = plan_longest_first(length_histogram([5, 3, 4, 4, 8, 8], 8))
    assert [(s.lengths, s.count) for s in plan.strategies] == [
        ((8,), 2),
        ((4, 4), 1),
        ((5, 3), 1),
    ]


def test_every_way_to_fill_a_row_with_three_lengths_is_considered():
    numbers = itertools.product(range(14), repeat=3)
    expected = [n for n in numbers if sum(n) == 13 and n[0] >= n[1] >= n[2]]
    assert sorted(map(tuple, _full_rows(13).tolist())) == expected


def test_least_squares_fill_rows_that_longest_first_leaves_open():
    """6 + 2 + 2, 5 + 3 + 2 and 4 + 3 + 3 are full; best fit begins with 6 + 4."""
    lengths = np.repeat([6, 2, 2, 5, 3, 2, 4, 3, 3], 1000)
    histogram = length_histogram(lengths, 10)
    assert plan_longest_first(histogram, 3).efficiency < 0.9
    ways = {s.lengths: s.count for s in plan_nnls(histogram).strategies}
    assert ways == {(6, 2, 2): 1000, (5, 3, 2): 1000, (4, 3, 3): 1000}
    assert make_plan(histogram) == plan_nnls(histogram)


def test_a_length_goes_into_the_fullest_row_with_room():
    plan = plan_longest_first(length_histogram([6, 5, 2], 8))
    assert {s.lengths for s in plan.strategies} == {(6, 2), (5,)}
    plan = plan_longest_first(length_histogram([5, 2], 8))
    assert [s.lengths for s in plan.strategies] == [(5, 2)]


def test_lengths_beyond_16_bits_are_kept_apart():
    """70,000 = 2^16 + 4,464."""
    lengths = np.asarray([4_464, 70_000, 4_464, 4_464])
    plan = plan_longest_first(length_histogram(lengths, 70_000))
    for seed in range(10):
        rows = rows_of(assign(lengths, plan, seed))
        totals = sorted(int(lengths[row].sum()) for row in rows)
        assert totals == [3 * 4_464, 70_000]


def test_lengths_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"1 .. 8. Received: 0 .. 9"):
        length_histogram([0, 9], 8)
    with pytest.raises(ValueError, match="Received: none"):
        length_histogram([], 8)


def wikipedia_like_histogram(count=16_279_552):
    """The published shape of Wikipedia at 512: mean 255.8 tokens, 23.4% full rows.

    Between 5 and 511 tokens the density is l**0.6 * exp(-l / t), which rises and then
    falls as the published one does; t gives the published mean.
    """
    lengths = np.arange(5, 512)
    full = int(0.234 * count)
    mean = (255.8 * count - 512 * full) / (count - full)
    scales = np.linspace(50, 2000, 20_000)
    means = []
    for scale in scales:
        density = lengths**0.6 * np.exp(-lengths / scale)
        means.append((density * lengths).sum() / density.sum())
    scale = scales[np.argmin(np.abs(np.asarray(means) - mean))]
    density = lengths**0.6 * np.exp(-lengths / scale)
    histogram = np.zeros(513, np.int64)
    histogram[5:512] = np.round(density / density.sum() * (count - full))
    histogram[512] = full
    return histogram


@pytest.mark.slow
def test_wikipedia_packs_without_waste():
    histogram = wikipedia_like_histogram()
    total = histogram.sum()
    mean = (histogram * np.arange(513)).sum() / total
    assert mean == pytest.approx(255.8, abs=0.2)
    three, free = plan_nnls(histogram), plan_longest_first(histogram)
    assert three.num_sequences == free.num_sequences == total
    assert three.max_sequences == 3
    assert three.efficiency >= 0.997
    assert free.efficiency >= 0.999
