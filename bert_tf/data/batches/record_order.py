"""Which records a step reads: a pure function of seed, step and global batch size.

Nothing but the position in the run decides the order, so that a run resumes exactly, on
any number of workers, and every worker computes its own share of each batch.
"""

import dataclasses

import numpy as np

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

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        """Makes the permutation of one epoch.

        Args:
          size: Number of entries, 1 .. 2**62.
          seed: Non-negative.
          epoch: Non-negative; each epoch has a different order.
        """
        self.size = size
        self._half_bits = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
        self._half_mask = np.uint64((1 << int(self._half_bits)) - 1)
        sequence = np.random.SeedSequence([seed, epoch])
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordOrder:
    """The order in which a run reads its records.

    Attributes:
      num_records: Records in the set.
      seed: Decides the order of every epoch.
      is_shuffled: Whether an epoch is permuted; file order otherwise.
    """

    num_records: int
    seed: int
    is_shuffled: bool = True

    def records(self, position: int, count: int) -> np.ndarray:
        """The record numbers at `position` .. `position + count - 1` of the run.

        Args:
          position: Number of records read before, since the start of the run; epochs
            follow one another without a gap, and a batch may straddle them.
          count: Number of records.

        Returns:
          [count] int64, each in [0, num_records).
        """
        positions = np.arange(position, position + count, dtype=np.int64)
        epochs, indices = np.divmod(positions, self.num_records)
        if not self.is_shuffled:
            return indices
        numbers = np.empty_like(indices)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            chosen = epochs == epoch
            permutation = Permutation(self.num_records, self.seed, epoch)
            numbers[chosen] = permutation(indices[chosen])
        return numbers
