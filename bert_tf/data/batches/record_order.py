"""Which records a step reads: a pure function of seed, step and global batch size.

Nothing but the position in the run decides the order, so that a run resumes exactly, on
any number of workers, and every worker computes its own share of each batch.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from bert_tf.data.records.record_index import SetShare

_ROUNDS = 6


def _mix(x: np.ndarray, key: np.uint32) -> np.ndarray:
    """A 32-bit hash of each number (the finaliser of MurmurHash3, keyed)."""
    x = (x ^ key).astype(np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


class Permutation:
    """A keyed permutation of 0 .. size - 1 that is computed, not stored.

    It takes no memory, and any entry is found at once; a shuffled list would take 8
    bytes per record and be made again for each epoch. A Feistel network permutes the
    next larger power of four; numbers that fall outside of the range are permuted again
    until they fall inside.

    Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 4
    (generalised Feistel with cycle walking); round function MurmurHash3's finaliser.
    """

    def __init__(self, size: int, seed: int, epoch: int, set_number: int = 0) -> None:
        """Makes the permutation of one epoch.

        Args:
          size: Number of entries, 1 .. 2**62.
          seed: Non-negative.
          epoch: Non-negative; each epoch has a different order.
          set_number: Non-negative; so has each set of records.
        """
        self.size = size
        self._half_bits = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
        self._half_mask = np.uint64((1 << int(self._half_bits)) - 1)
        key = [seed, epoch, set_number] if set_number else [seed, epoch]
        sequence = np.random.SeedSequence(key)
        self._keys = sequence.generate_state(_ROUNDS, np.uint32)

    def _cipher(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self._half_bits, x & self._half_mask
        for key in self._keys:
            mixed = _mix(right.astype(np.uint32), key).astype(np.uint64)
            left, right = right, left ^ (mixed & self._half_mask)
        return (left << self._half_bits) | right

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Maps indices to distinct numbers.

        Args:
          index: [n] int64, each in [0, size).

        Returns:
          [n] int64, each in [0, size).
        """
        if self.size == 1:
            return np.zeros_like(index)
        result = self._cipher(index.astype(np.uint64))
        outside = np.flatnonzero(result >= self.size)
        while outside.size:
            result[outside] = self._cipher(result[outside])
            outside = outside[result[outside] >= self.size]
        return result.astype(np.int64)


class Interleaving:
    """Which set each record of a run comes from: as evenly as whole numbers allow.

    Of `parts` records in a block, the j-th is due at (j + 1/2) / parts of the block;
    the records of all sets are in the order in which they are due. So after any number
    of records each of n sets has its share, up to (n + 1) / 2 records.
    """

    def __init__(self, shares: Sequence[SetShare]) -> None:
        """Prepares one block, which is repeated.

        Args:
          shares: The sets.
        """
        self._parts = np.asarray([share.parts for share in shares])
        sets = np.repeat(np.arange(len(shares)), self._parts)
        within = np.concatenate([np.arange(parts) for parts in self._parts])
        order = np.argsort((within + 0.5) / self._parts[sets], kind="stable")
        self._sets, self._within = sets[order], within[order]

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The set of each position of the run, and its position within that set."""
        blocks, slots = np.divmod(positions, len(self._sets))
        sets = self._sets[slots]
        return sets, blocks * self._parts[sets] + self._within[slots]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordOrder:
    """The order in which a run reads its records.

    Attributes:
      num_records: Records in all sets.
      seed: Decides the order of every epoch.
      is_shuffled: Whether an epoch is permuted; file order otherwise.
      shares: The sets in the order of their numbers, which are read in parallel, each
        with its own epochs; empty for a single one.
    """

    num_records: int
    seed: int
    is_shuffled: bool = True
    shares: Sequence[SetShare] = ()

    def records(self, position: int, count: int) -> np.ndarray:
        """The record numbers at `position` .. `position + count - 1` of the run.

        Args:
          position: Number of records read before, since the start of the run; epochs
            follow one another without a gap, and a batch may straddle them.
          count: Number of records.

        Returns:
          [count] int64, each in [0, num_records).
        """
        return self.epochs_and_records(position, count)[1]

    def epochs_and_records(
        self, position: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """How often each record has been read before, and `records`: two [count]."""
        positions = np.arange(position, position + count, dtype=np.int64)
        shares = self.shares or [SetShare(self.num_records)]
        sets, within = self._interleaving(positions)
        sizes = np.asarray([share.num_records for share in shares])
        epochs, indices = np.divmod(within, sizes[sets])
        firsts = np.cumsum(sizes) - sizes
        if not self.is_shuffled:
            return epochs, firsts[sets] + indices
        numbers = np.empty_like(indices)
        for number, size in enumerate(sizes.tolist()):
            of_set = np.flatnonzero(sets == number)
            for epoch in np.unique(epochs[of_set]).tolist():
                chosen = of_set[epochs[of_set] == epoch]
                permutation = Permutation(size, self.seed, epoch, number)
                numbers[chosen] = firsts[number] + permutation(indices[chosen])
        return epochs, numbers

    @functools.cached_property
    def _interleaving(self) -> Interleaving:
        return Interleaving(self.shares or [SetShare(self.num_records)])
