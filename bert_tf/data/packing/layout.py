"""Lays sequences out in rows of fixed length, one or several to a row."""

import dataclasses

import numpy as np

from bert_tf.data.packing.planning import (
    Assignment,
    assign,
    length_histogram,
    make_plan,
    plan_longest_first,
)
from bert_tf.data.text.token_sequences import TokenSequences

# Maximum sequences in a row of labelled examples: each takes an entry in the arrays of
# every head, and texts that are so short that more would fit are rare.
MAX_SEQUENCES = 16
_NO_SEQUENCE = -1

Arrays = dict[str, np.ndarray]


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

    def assign_rows(self, lengths: np.ndarray) -> np.ndarray:
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
        return _rows_of(assignment.members, sizes, self.max_sequences)


def _rows_of(members: np.ndarray, counts: np.ndarray, max_sequences: int) -> np.ndarray:
    """The members of each row, `counts` of them, then -1: [R, K]."""
    rows = np.full((len(counts), max_sequences), _NO_SEQUENCE)
    rows[np.arange(max_sequences) < counts[:, None]] = members
    return rows


def _begins(sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where each member of a row begins, if it has `sizes` of something: [R, K]."""
    sizes = np.append(sizes, 0)[rows]  # Index -1 is the 0 at the end.
    return np.cumsum(sizes, axis=1) - sizes


def lay_out(sequences: TokenSequences, rows: np.ndarray, max_seq_length: int) -> Arrays:
    """Lays sequences out in rows.

    Args:
      sequences: All sequences.
      rows: [R, K] numbers of the sequences of each row, then -1.
      max_seq_length: S.

    Returns:
      The inputs of the encoder, int32: `input_ids`, `input_mask` (1-based number of the
      sequence in its row, 0 for padding), `segment_ids`, `positions` [R, S], and
      `next_sentence_positions` [R, K], at which each sequence begins; and
      `example_weights` [R, K] float32, 0 for no sequence.
    """
    is_sequence = rows >= 0
    row, slot = np.nonzero(is_sequence)
    numbers = rows[is_sequence]
    begins = np.where(is_sequence, _begins(sequences.lengths, rows), 0)
    lengths = sequences.lengths[numbers]
    # All tokens, sequence after sequence: where each is in its sequence, in all
    # sequences, and in all rows laid end to end.
    position = np.arange(lengths.sum())
    position -= np.repeat(np.cumsum(lengths) - lengths, lengths)
    source = position + np.repeat(sequences.offsets[numbers], lengths)
    first = row * max_seq_length + begins[is_sequence]
    target = position + np.repeat(first, lengths)
    values = {
        "input_ids": sequences.input_ids[source],
        "input_mask": np.repeat(slot + 1, lengths),
        "segment_ids": sequences.segment_ids[source],
        "positions": position,
    }
    shape = (len(rows), max_seq_length)
    features = {name: np.zeros(shape, np.int32) for name in values}
    for name, array in values.items():
        features[name].ravel()[target] = array
    features["next_sentence_positions"] = begins.astype(np.int32)
    features["example_weights"] = is_sequence.astype(np.float32)
    return features


def token_indices(
    sequences: TokenSequences, rows: np.ndarray, features: Arrays
) -> np.ndarray:
    """The index of each token of a row in all sequences, -1 for padding: [R, S] int64.

    Args:
      sequences: All sequences.
      rows: [R, K] numbers of the sequences of each row, then -1.
      features: The result of `lay_out`.
    """
    slots = features["input_mask"] - 1
    numbers = np.take_along_axis(rows, np.maximum(slots, 0), axis=1)
    indices = sequences.offsets[numbers] + features["positions"]
    return np.where(slots >= 0, indices, -1)


def padded_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Appends empty rows up to `count` rows."""
    empty = np.full((count - len(rows), rows.shape[1]), _NO_SEQUENCE)
    return np.concatenate([rows, empty])


def sequence_lengths(arrays: Arrays) -> np.ndarray:
    """Number of tokens of each sequence: [n] int64.

    Raises:
      ValueError: if a mask is not ones and then zeros, or there are no tokens.
    """
    mask = arrays["input_mask"] > 0
    lengths = mask.sum(axis=1)
    expected = np.arange(mask.shape[1]) < lengths[:, None]
    if not lengths.all() or (mask != expected).any():
        raise ValueError(
            "`input_mask` must be ones for the tokens and then zeros for the padding, "
            "with at least one token. Received: a record with another mask. Make the "
            "records again."
        )
    return lengths


def prediction_counts(arrays: Arrays) -> np.ndarray:
    """Number of masked tokens of each sequence: [n] int64.

    Raises:
      ValueError: if a masked position is in the padding.
    """
    is_real = arrays["masked_lm_weights"] > 0
    lengths = (arrays["input_mask"] > 0).sum(axis=1)
    if (is_real & (arrays["masked_lm_positions"] >= lengths[:, None])).any():
        raise ValueError(
            "`masked_lm_positions` must be positions of tokens. Received: a record "
            "with one in its padding. Make the records again."
        )
    return is_real.sum(axis=1)


def merge_sequences(
    arrays: Arrays, counts: np.ndarray, max_predictions: int, max_sequences: int
) -> Arrays:
    """Puts unpacked records one after another into rows.

    Args:
      arrays: Features of unpacked records: `input_ids`, `input_mask`, `segment_ids`
        [n, S], and optionally `masked_lm_*` [n, P] and `next_sentence_labels` [n, 1].
      counts: Number of records of each row, which takes them in order: [R], sum n.
      max_predictions: Width of the masked_lm_* features of a row.
      max_sequences: K.

    Returns:
      Features of packed records: `input_ids`, `input_mask`, `segment_ids`, `positions`
      [R, S], `masked_lm_*` [R, max_predictions], `next_sentence_positions`,
      `next_sentence_labels` and `next_sentence_weights` (1 for a sequence, 0 for none)
      [R, K]; see `lay_out`.
    """
    lengths = sequence_lengths(arrays)
    is_token = arrays["input_mask"] > 0
    sequences = TokenSequences(
        arrays["input_ids"][is_token],
        arrays["segment_ids"][is_token],
        np.append(0, np.cumsum(lengths)),
    )
    rows = _rows_of(np.arange(len(lengths)), counts, max_sequences)
    packed = lay_out(sequences, rows, is_token.shape[1])
    is_sequence = packed.pop("example_weights") > 0
    begins = packed.pop("next_sentence_positions")
    if "masked_lm_ids" in arrays:
        first_mask = _begins(prediction_counts(arrays), rows)
        shape = (len(rows), max_predictions)
        packed |= _merge_predictions(arrays, is_sequence, begins, first_mask, shape)
    packed["next_sentence_positions"] = begins
    if "next_sentence_labels" in arrays:
        labels = np.zeros(rows.shape, np.int32)
        labels[is_sequence] = arrays["next_sentence_labels"][:, 0]
        packed["next_sentence_labels"] = labels
    return packed | {"next_sentence_weights": is_sequence.astype(np.float32)}


def _merge_predictions(
    arrays: Arrays,
    is_sequence: np.ndarray,
    begins: np.ndarray,
    first_mask: np.ndarray,
    shape: tuple[int, int],
) -> Arrays:
    """The features of each masked token, [R, max_predictions].

    Args:
      arrays: See `merge_sequences`.
      is_sequence: [R, K], whether a row has so many sequences.
      begins: [R, K], position of each sequence's first token in its row.
      first_mask: [R, K], index of each sequence's first masked token in its row.
      shape: That of the result.
    """
    is_masked = arrays["masked_lm_weights"] > 0
    sequence, column = np.nonzero(is_masked)
    row, _ = np.nonzero(is_sequence)
    index = np.cumsum(is_masked, axis=1)[is_masked] - 1
    target = row[sequence], first_mask[is_sequence][sequence] + index
    begin = begins[is_sequence][sequence]
    values = {
        "masked_lm_positions": arrays["masked_lm_positions"][sequence, column] + begin,
        "masked_lm_ids": arrays["masked_lm_ids"][sequence, column],
        "masked_lm_weights": np.ones(len(sequence), np.float32),
    }
    merged = {name: np.zeros(shape, array.dtype) for name, array in values.items()}
    for name, array in values.items():
        merged[name][target] = array
    return merged


def pack_examples(
    arrays: Arrays, max_sequences_per_pack: int = 3, seed: int = 0
) -> tuple[Arrays, Assignment]:
    """Packs examples in memory.

    Args:
      arrays: As for `merge_sequences`; n >= 1 examples.
      max_sequences_per_pack: As for `data pack`; 0 for no limit.
      seed: Random seed of which sequences share a row.

    Returns:
      Features of packed records, and the assignment of examples to rows: row r holds
      the examples `rows(r, r + 1)[0]`, in the order of its K sequences. It orders
      labels for the packed rows, and assigns predictions back to the examples.

    Raises:
      ValueError: if a mask is not ones and then zeros, or there are no examples.
    """
    width = arrays["input_ids"].shape[1]
    lengths = sequence_lengths(arrays)
    plan = make_plan(length_histogram(lengths, width), max_sequences_per_pack or None)
    assignment = assign(lengths, plan, seed)
    members, counts = assignment.rows(0, assignment.num_rows)
    max_predictions = 0
    if "masked_lm_ids" in arrays:
        max_predictions = most_in_a_row(prediction_counts(arrays), assignment)
    chosen = {name: array[members] for name, array in arrays.items()}
    packed = merge_sequences(chosen, counts, max_predictions, plan.max_sequences)
    return packed, assignment


def most_in_a_row(values: np.ndarray, assignment: Assignment) -> int:
    """The largest sum in a row of a value that each sequence has."""
    sums = np.add.reduceat(values[assignment.members], assignment.starts[:-1])
    return int(sums.max())
