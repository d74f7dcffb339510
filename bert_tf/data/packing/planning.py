"""Plans packing: which lengths of sequences share a row, and how often.

Plans are made for lengths, from their histogram, and not for single sequences: a set of
millions of sequences has only S different lengths. Sequences are assigned afterwards.
"""

import dataclasses
from collections import defaultdict

import numpy as np
import scipy.optimize

# The method of Habana's and Graphcore's packers allows three: with four there would be
# 960,000 ways to fill a row of 512, more than a dense matrix can hold.
NNLS_MAX_SEQUENCES = 3


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One way to fill a row.

    Attributes:
      lengths: Lengths of the sequences in it, longest first.
      count: How many rows are filled this way.
    """

    lengths: tuple[int, ...]
    count: int


@dataclasses.dataclass(frozen=True)
class PackingPlan:
    """The lengths that all rows of a packed set hold.

    Attributes:
      max_seq_length: S, tokens per row.
      strategies: All ways to fill a row that are used, most frequent first.
    """

    max_seq_length: int
    strategies: tuple[Strategy, ...]

    @property
    def num_packs(self) -> int:
        """Number of rows."""
        return sum(s.count for s in self.strategies)

    @property
    def num_sequences(self) -> int:
        """Number of sequences."""
        return sum(s.count * len(s.lengths) for s in self.strategies)

    @property
    def num_tokens(self) -> int:
        """Number of tokens without padding."""
        return sum(s.count * sum(s.lengths) for s in self.strategies)

    @property
    def efficiency(self) -> float:
        """Fraction of the tokens that are not padding, in [0, 1]."""
        return self.num_tokens / (self.num_packs * self.max_seq_length)

    @property
    def max_sequences(self) -> int:
        """Maximum number of sequences in a row."""
        return max(len(s.lengths) for s in self.strategies)


def length_histogram(lengths: np.ndarray, max_seq_length: int) -> np.ndarray:
    """Counts sequences by length.

    Args:
      lengths: [n] integers, each in 1 .. S.
      max_seq_length: S.

    Returns:
      [S + 1] int64; entry l is the number of sequences of l tokens.

    Raises:
      ValueError: if a length is out of range, or there is none.
    """
    lengths = np.asarray(lengths)
    if not lengths.size or lengths.min() < 1 or lengths.max() > max_seq_length:
        found = f"{lengths.min()} .. {lengths.max()}" if lengths.size else "none"
        raise ValueError(
            f"`lengths` must be in 1 .. {max_seq_length}. Received: {found}."
        )
    return np.bincount(lengths, minlength=max_seq_length + 1)


def _plan(max_seq_length: int, counts: dict[tuple[int, ...], int]) -> PackingPlan:
    strategies = [Strategy(lengths, n) for lengths, n in counts.items() if n]
    strategies.sort(key=lambda s: (-s.count, s.lengths))
    return PackingPlan(max_seq_length, tuple(strategies))


def plan_longest_first(
    histogram: np.ndarray, max_sequences: int | None = None
) -> PackingPlan:
    """Longest-pack-first histogram packing (LPFHP).

    Lengths are packed from the longest to the shortest, each into the fullest begun row
    that has room (best fit); if none has, new rows take several of that length. Long
    sequences come first because short ones fill the gaps that are left.

    Args:
      histogram: [S + 1] int64, of `length_histogram`.
      max_sequences: Maximum number of sequences in a row; None for no limit.

    Returns:
      A plan for every sequence.

    Source: Krell et al. 2021 (arXiv:2107.02027), section 3 and appendix; here a new
    row takes several sequences of a length at once, where theirs takes one.
    """
    size = len(histogram) - 1
    limit = max_sequences or size
    # Room that is left -> {lengths: number of rows}, rows below the limit only.
    begun: list[dict[tuple[int, ...], int]] = [{} for _ in range(size + 1)]
    done: dict[tuple[int, ...], int] = defaultdict(int)

    def put(lengths: tuple[int, ...], rows: int, room: int) -> None:
        if room and len(lengths) < limit:
            begun[room][lengths] = begun[room].get(lengths, 0) + rows
        else:
            done[lengths] += rows

    for length in range(size, 0, -1):
        left = int(histogram[length])
        room = length
        while left and room <= size:
            if not begun[room]:
                room += 1
                continue
            lengths, rows = begun[room].popitem()
            used = min(rows, left)
            if rows > used:
                begun[room][lengths] = rows - used
            put((*lengths, length), used, room - length)
            left -= used
        while left:
            together = min(size // length, limit, left)
            rows = left // together
            put((length,) * together, rows, size - together * length)
            left -= rows * together
    for rows_by_lengths in begun:
        for lengths, rows in rows_by_lengths.items():
            done[lengths] += rows
    return _plan(size, done)


def _full_rows(size: int) -> np.ndarray:
    """All ways to fill a row exactly with one to three lengths: [m, 3], zeros last."""
    ways = [(size, 0, 0)]
    ways += [(size - b, b, 0) for b in range(1, size // 2 + 1)]
    for c in range(1, size // 3 + 1):
        ways += [(size - b - c, b, c) for b in range(c, (size - c) // 2 + 1)]
    return np.asarray(ways)


def _within(ways: np.ndarray, rows: np.ndarray, histogram: np.ndarray) -> np.ndarray:
    """Lowers counts of rows until no length is used more often than it occurs."""
    rows = rows.copy()
    used = _usage(ways, rows, len(histogram))
    # The rarest ways first: lowering them costs the fewest well-filled rows.
    for way in np.argsort(rows, kind="stable"):
        excess = max((used[n] - histogram[n] for n in ways[way] if n), default=0)
        lowered = min(int(rows[way]), max(0, int(excess)))
        if lowered:
            rows[way] -= lowered
            for n in ways[way]:
                used[n] -= lowered
    return rows


def _usage(ways: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    used = np.zeros(size, np.int64)
    np.add.at(used, ways, rows[:, None])
    used[0] = 0
    return used


def plan_nnls(histogram: np.ndarray) -> PackingPlan:
    """Non-negative least squares histogram packing (NNLSHP), three to a row.

    The number of rows of each way to fill a row exactly is a non-negative least-squares
    solution of "as many of each length as there are", rounded down; the sequences that
    are left are packed longest first.

    Args:
      histogram: [S + 1] int64, of `length_histogram`.

    Returns:
      A plan for every sequence, at most three in a row.

    Source: Krell et al. 2021 (arXiv:2107.02027), section 3; there the sequences that
    are left are padded.
    """
    size = len(histogram) - 1
    ways = _full_rows(size)
    matrix = np.zeros((size + 1, len(ways)))
    for column in range(ways.shape[1]):
        np.add.at(matrix, (ways[:, column], np.arange(len(ways))), 1.0)
    total = histogram.sum()
    solution, _ = scipy.optimize.nnls(matrix[1:], histogram[1:] / total)
    rows = np.floor(solution * total + 1e-6).astype(np.int64)
    rows = _within(ways, rows, histogram)
    rest = histogram - _usage(ways, rows, size + 1)
    counts: dict[tuple[int, ...], int] = defaultdict(int)
    for way in np.flatnonzero(rows):
        counts[tuple(int(n) for n in ways[way] if n)] += int(rows[way])
    for strategy in plan_longest_first(rest, NNLS_MAX_SEQUENCES).strategies:
        counts[strategy.lengths] += strategy.count
    return _plan(size, counts)


def make_plan(histogram: np.ndarray, max_sequences: int | None = 3) -> PackingPlan:
    """Plans by NNLSHP for three sequences to a row, by LPFHP for any other number."""
    if max_sequences == NNLS_MAX_SEQUENCES:
        return plan_nnls(histogram)
    return plan_longest_first(histogram, max_sequences)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The sequences of each row.

    Attributes:
      members: [n] numbers of the sequences, row after row, longest first in each.
      starts: [R + 1] index in `members` at which each row begins.
    """

    members: np.ndarray
    starts: np.ndarray

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.starts) - 1

    def rows(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The members of some rows, and the number of them in each: [end - begin]."""
        starts = self.starts[begin : end + 1]
        return self.members[starts[0] : starts[-1]], np.diff(starts)


def assign(lengths: np.ndarray, plan: PackingPlan, seed: int) -> Assignment:
    """Assigns sequences to the rows of a plan, in a random order of rows.

    The rows of the plan, shuffled, ask for lengths one after another; the k-th request
    for a length gets the k-th sequence of that length, after a shuffle of all
    sequences. So which sequences share a row is random, although a plan knows only
    lengths. Two stable sorts match requests and sequences without a loop.

    Args:
      lengths: [n] integers; the plan must be one for their histogram.
      plan: Which lengths share a row.
      seed: Random seed of which sequences share a row, and of the order of the rows.

    Returns:
      Every sequence in one row. It takes about 50 bytes of memory per sequence.
    """
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths).astype(
        np.uint16 if plan.max_seq_length < 2**16 else int
    )
    shuffled = rng.permutation(len(lengths))
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    rows_of_kind = [strategy.count for strategy in plan.strategies]
    kinds = rng.permutation(np.repeat(np.arange(len(rows_of_kind)), rows_of_kind))
    sizes = np.asarray([len(strategy.lengths) for strategy in plan.strategies])
    wanted = np.concatenate([strategy.lengths for strategy in plan.strategies])
    first_wanted = np.cumsum(sizes) - sizes
    row_sizes = sizes[kinds]
    starts = np.concatenate([[0], np.cumsum(row_sizes)])
    # Slot by slot, in the order of the rows: which length it takes.
    slots = np.arange(len(lengths)) - np.repeat(starts[:-1], row_sizes)
    slots += np.repeat(first_wanted[kinds], row_sizes)
    taken = wanted[slots].astype(lengths.dtype)
    # The k-th slot for a length takes the k-th sequence of that length.
    members = np.empty(len(lengths), np.int64)
    members[np.argsort(taken, kind="stable")] = by_length
    return Assignment(members, starts)
