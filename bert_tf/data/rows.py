"""Token sequences to rows of fixed length: one to a row, or several."""

import dataclasses

import numpy as np

from bert_tf.data.packing import assign, length_histogram, plan_longest_first
from bert_tf.data.sequences import TokenSequences

# Most sequences in a row: more would make the arrays of their heads long, and texts so
# short that it matters are rare.
MAX_SEQUENCES = 16
_NOBODY = -1


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """What rows are like.

    Attributes:
      max_seq_length: S, tokens of a row.
      is_packed: Whether a row holds several sequences where they fit.
    """

    max_seq_length: int
    is_packed: bool = False

    @property
    def max_sequences(self) -> int:
        """K, the most sequences in a row."""
        return MAX_SEQUENCES if self.is_packed else 1

    def deal(self, lengths: np.ndarray) -> np.ndarray:
        """Deals sequences out to rows.

        Args:
          lengths: [n] integers, each in 1 .. S.

        Returns:
          [R, K] int64: which sequences are in each row, filled up with -1; a function
          of the lengths alone.
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
      sequences: Where they are taken from.
      rows: [R, K] numbers of sequences, -1 for none, those of a row first.
      max_seq_length: S.

    Returns:
      The inputs of the encoder, int32: `input_ids, input_mask, segment_ids, positions`
      [R, S] and `next_sentence_positions` [R, K], where each sequence begins;
      `example_weights` [R, K] float32, 0 where there is none; and `tokens` [R, S]
      int64, where each token is in `sequences`, -1 for padding.
    """
    num_rows, num_slots = rows.shape
    lengths = np.append(sequences.lengths, 0)[rows]  # The last one is nobody's.
    begins = np.cumsum(lengths, axis=1) - lengths
    places = np.arange(max_seq_length)
    # Which sequence of its row each token belongs to, 1-based; 0 is padding.
    slot = np.zeros((num_rows, max_seq_length), np.int64)
    for k in range(num_slots):
        inside = (places >= begins[:, k, None]) & (
            places < begins[:, k, None] + lengths[:, k, None]
        )
        slot[inside] = k + 1
    index = np.maximum(slot - 1, 0)
    row = np.arange(num_rows)[:, None]
    is_token = slot > 0
    positions = np.where(is_token, places - begins[row, index], 0)
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
    """`rows` and as many empty ones as make `count`."""
    empty = np.full((count - len(rows), rows.shape[1]), _NOBODY)
    return np.concatenate([rows, empty])
