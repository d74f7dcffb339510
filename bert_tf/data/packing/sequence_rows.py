"""Lays token sequences out in rows of fixed length, one or several to a row."""

import dataclasses

import numpy as np

from bert_tf.data.packing.planning import assign, length_histogram, plan_longest_first
from bert_tf.data.text.token_sequences import TokenSequences

# Maximum sequences in a row: each takes an entry in the arrays of every head, and texts
# that are so short that more would fit are rare.
MAX_SEQUENCES = 16
_NOBODY = -1


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """Length of the rows, and whether they are packed.

    Attributes:
      max_seq_length: S, tokens per row.
      is_packed: Whether a row holds several sequences where they fit.
    """

    max_seq_length: int
    is_packed: bool = False

    @property
    def max_sequences(self) -> int:
        """K, the maximum number of sequences in a row."""
        return MAX_SEQUENCES if self.is_packed else 1

    def deal(self, lengths: np.ndarray) -> np.ndarray:
        """Assigns sequences to rows.

        Args:
          lengths: [n] integers, each in 1 .. S.

        Returns:
          [R, K] int64: the numbers of the sequences of each row, padded with -1. They
          depend on the lengths alone, so that all workers make the same rows.
        """
        if not self.is_packed:
            return np.arange(len(lengths))[:, None]
        histogram = length_histogram(lengths, self.max_seq_length)
        plan = plan_longest_first(histogram, self.max_sequences)
        assignment = assign(lengths, plan, seed=0)
        sizes = np.diff(assignment.starts)
        rows = np.full((assignment.num_rows, self.max_sequences), _NOBODY)
        rows[np.arange(self.max_sequences) < sizes[:, None]] = assignment.members
        return rows


def row_features(
    sequences: TokenSequences, rows: np.ndarray, max_seq_length: int
) -> dict[str, np.ndarray]:
    """Lays sequences out in rows.

    Args:
      sequences: All sequences.
      rows: [R, K] numbers of the sequences of each row, then -1.
      max_seq_length: S.

    Returns:
      The inputs of the encoder, int32: `input_ids, input_mask, segment_ids, positions`
      [R, S] and `next_sentence_positions` [R, K], at which each sequence begins;
      `example_weights` [R, K] float32, 0 for no sequence; and `tokens` [R, S] int64,
      the index of each token in `sequences`, -1 for padding.
    """
    num_rows, num_slots = rows.shape
    lengths = np.append(sequences.lengths, 0)[rows]  # Index -1 is the 0 at the end.
    begins = np.cumsum(lengths, axis=1) - lengths
    columns = np.arange(max_seq_length)
    # The sequence within its row that each token belongs to, 1-based; 0 is padding.
    slot = np.zeros((num_rows, max_seq_length), np.int64)
    for k in range(num_slots):
        inside = (columns >= begins[:, k, None]) & (
            columns < begins[:, k, None] + lengths[:, k, None]
        )
        slot[inside] = k + 1
    index = np.maximum(slot - 1, 0)
    row = np.arange(num_rows)[:, None]
    is_token = slot > 0
    positions = np.where(is_token, columns - begins[row, index], 0)
    tokens = np.where(is_token, sequences.offsets[rows[row, index]] + positions, -1)
    arrays = {
        "input_ids": np.where(is_token, sequences.input_ids[tokens], 0),
        "input_mask": slot,
        "segment_ids": np.where(is_token, sequences.segment_ids[tokens], 0),
        "positions": positions,
        "next_sentence_positions": np.where(rows >= 0, begins, 0),
    }
    features = {name: array.astype(np.int32) for name, array in arrays.items()}
    features["example_weights"] = (rows >= 0).astype(np.float32)
    features["tokens"] = tokens
    return features


def padded_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Appends empty rows up to `count` rows."""
    empty = np.full((count - len(rows), rows.shape[1]), _NOBODY)
    return np.concatenate([rows, empty])
