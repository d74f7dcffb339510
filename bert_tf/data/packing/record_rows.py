"""Merges unpacked sequences into packed rows, many rows at once."""

import numpy as np

from bert_tf.data.packing.planning import (
    Assignment,
    assign,
    length_histogram,
    make_plan,
)

Arrays = dict[str, np.ndarray]


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


def _starts(sizes: np.ndarray, rows: np.ndarray, slots: np.ndarray, shape: tuple):  # noqa: ANN202
    """Offset of each sequence in its row, of what it has `sizes` of: [n] int64."""
    table = np.zeros(shape, np.int64)
    table[rows, slots] = sizes
    begins = np.cumsum(table, axis=1) - table
    return begins[rows, slots]


def merge_sequences(
    arrays: Arrays, counts: np.ndarray, max_predictions: int, max_sequences: int
) -> Arrays:
    """Puts sequences one after another into rows.

    Args:
      arrays: Features of unpacked sequences: `input_ids`, `input_mask`, `segment_ids`
        [n, S], and optionally `masked_lm_*` [n, P] and `next_sentence_labels` [n, 1].
      counts: Number of sequences of each row, which takes them in order: [R], sum n.
      max_predictions: Width of the masked_lm_* features of a row.
      max_sequences: K.

    Returns:
      Features of packed records: `input_ids`, `input_mask` (1-based number of the
      sequence, 0 for padding), `segment_ids`, `positions` [R, S], `masked_lm_*`
      [R, max_predictions], `next_sentence_positions` (where each sequence begins),
      `next_sentence_labels` and `next_sentence_weights` (1 for a sequence, 0 for none)
      [R, K].
    """
    num_rows, width = len(counts), arrays["input_ids"].shape[1]
    rows = np.repeat(np.arange(num_rows), counts)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    grid = (num_rows, max_sequences)
    lengths = sequence_lengths(arrays)
    begins = _starts(lengths, rows, slots, grid)
    packed = _merge_tokens(arrays, lengths, begins, rows, slots, (num_rows, width))
    if "masked_lm_ids" in arrays:
        masks = _starts(prediction_counts(arrays), rows, slots, grid)
        shape = (num_rows, max_predictions)
        packed |= _merge_predictions(arrays, masks, begins, rows, shape)
    return packed | _merge_sentences(arrays, begins, rows, slots, grid)


def _merge_sentences(
    arrays: Arrays,
    begins: np.ndarray,
    rows: np.ndarray,
    slots: np.ndarray,
    grid: tuple[int, int],
) -> Arrays:
    """The features of each sequence, [R, K]."""
    positions = np.zeros(grid, np.int64)
    positions[rows, slots] = begins
    weights = np.zeros(grid, np.float32)
    weights[rows, slots] = 1.0
    merged = {"next_sentence_positions": positions}
    if "next_sentence_labels" in arrays:
        merged["next_sentence_labels"] = np.zeros(grid, np.int64)
        labels = arrays["next_sentence_labels"][:, 0]
        merged["next_sentence_labels"][rows, slots] = labels
    return merged | {"next_sentence_weights": weights}


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


def _merge_tokens(
    arrays: Arrays,
    lengths: np.ndarray,
    begins: np.ndarray,
    rows: np.ndarray,
    slots: np.ndarray,
    shape: tuple[int, int],
) -> Arrays:
    """The features of each token, [R, S]."""
    is_real = arrays["input_mask"] > 0
    # Within its sequence; `target` is within all rows, laid end to end.
    position = np.arange(lengths.sum())
    position -= np.repeat(np.cumsum(lengths) - lengths, lengths)
    target = position + np.repeat(rows * shape[1] + begins, lengths)
    values = {
        "input_ids": arrays["input_ids"][is_real],
        "input_mask": np.repeat(slots + 1, lengths),
        "segment_ids": arrays["segment_ids"][is_real],
        "positions": position,
    }
    merged = {name: np.zeros(shape, np.int32) for name in values}
    for name, array in values.items():
        merged[name].ravel()[target] = array
    return merged


def _merge_predictions(
    arrays: Arrays,
    masks: np.ndarray,
    begins: np.ndarray,
    rows: np.ndarray,
    shape: tuple[int, int],
) -> Arrays:
    """The features of each masked token, [R, max_predictions]."""
    is_real = arrays["masked_lm_weights"] > 0
    sequence, column = np.nonzero(is_real)
    number = np.cumsum(is_real, axis=1)[sequence, column] - 1
    target = rows[sequence], masks[sequence] + number
    merged = {
        "masked_lm_positions": np.zeros(shape, np.int64),
        "masked_lm_ids": np.zeros(shape, np.int64),
        "masked_lm_weights": np.zeros(shape, np.float32),
    }
    positions = arrays["masked_lm_positions"][sequence, column] + begins[sequence]
    merged["masked_lm_positions"][target] = positions
    merged["masked_lm_ids"][target] = arrays["masked_lm_ids"][sequence, column]
    merged["masked_lm_weights"][target] = 1.0
    return merged
