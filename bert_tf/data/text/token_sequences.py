"""Token sequences of unequal lengths, end to end in a few arrays."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenSequences:
    """n sequences with [CLS] and [SEP], without padding; T tokens in all.

    Attributes:
      input_ids: [T] int32, one sequence after the other.
      segment_ids: [T] int32, 0 or 1.
      offsets: [n + 1] int64; sequence i is at `offsets[i]:offsets[i + 1]`.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def join(
        cls, sequences: Iterable[tuple[Sequence[int], Sequence[int]]]
    ) -> "TokenSequences":
        """Lays sequences end to end.

        Args:
          sequences: The token ids and the segment ids of each.
        """
        input_ids: list[int] = []
        segment_ids: list[int] = []
        offsets = [0]
        for ids, segments in sequences:
            input_ids += ids
            segment_ids += segments
            offsets.append(len(input_ids))
        return cls(
            np.asarray(input_ids, np.int32),
            np.asarray(segment_ids, np.int32),
            np.asarray(offsets, np.int64),
        )

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, [n] int64."""
        return np.diff(self.offsets)

    def check_segments(self, type_vocab_size: int) -> None:
        """Refuses pairs of texts for a model that has segments for single ones alone.

        Raises:
          ValueError: if there is a segment id of `type_vocab_size` or more.
        """
        most = int(self.segment_ids.max(initial=0))
        if most >= type_vocab_size:
            raise ValueError(
                f"The model has type_vocab_size={type_vocab_size}, so that texts must "
                f"have segment_ids below that. Received: segment_ids of {most}, those "
                "of a pair's second text. Use a model with type_vocab_size=2, or "
                "single texts."
            )

    def span(self, number: int) -> slice:
        """The slice of the arrays that holds sequence `number`."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))


def pair_sequence(
    first: Sequence[int], second: Sequence[int] | None, cls_id: int, sep_id: int
) -> tuple[list[int], list[int]]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], and the segment ids."""
    ids = [cls_id, *first, sep_id]
    segments = [0] * len(ids)
    if second is not None:
        ids += [*second, sep_id]
        segments += [1] * (len(second) + 1)
    return ids, segments


def truncated_lengths(first: int, second: int, limit: int) -> tuple[int, int]:
    """Lengths of a pair after tokens are dropped from the longer one until it fits.

    Args:
      first: Number of tokens of the first text.
      second: Number of tokens of the second, which loses one if both are equally long.
      limit: Maximum number of tokens of both together.

    Source: google-research/bert, `run_classifier.py` (`_truncate_seq_pair`), whose
    loop ends at these lengths.
    """
    if first + second <= limit:
        return first, second
    kept = min(first, max(limit - second, (limit + 1) // 2))
    return kept, limit - kept
