"""Several sequences to one row, for many rows at once."""

import numpy as np

Arrays = dict[str, np.ndarray]


def sequence_lengths(arrays: Arrays) -> np.ndarray:
    """Tokens of each sequence: [n] int64.

    Raises:
      ValueError: if a mask is not ones and then zeros, or there are no tokens.
    """
    mask = arrays["input_mask"] > 0
    lengths = mask.sum(axis=1)
    expected = np.arange(mask.shape[1]) < lengths[:, None]
    if not lengths.all() or (mask != expected).any():
        raise ValueError(
            "`input_mask` must be ones for the tokens and then zeros for the padding, "
            "with at least one token. Received: a record where it is not."
        )
    return lengths


def prediction_counts(arrays: Arrays) -> np.ndarray:
    """Masked tokens of each sequence: [n] int64."""
    return (arrays["masked_lm_weights"] > 0).sum(axis=1)


def _starts(sizes: np.ndarray, rows: np.ndarray, slots: np.ndarray, shape: tuple):  # noqa: ANN202
    """Where each sequence's part begins in its row: [n] int64."""
    table = np.zeros(shape, np.int64)
    table[rows, slots] = sizes
    begins = np.cumsum(table, axis=1) - table
    return begins[rows, slots]


def merge_sequences(
    arrays: Arrays, counts: np.ndarray, max_predictions: int, max_sequences: int
) -> Arrays:
    """Puts sequences one after another into rows.

    Args:
      arrays: Features of unpacked records, [n, S], [n, P] and [n, 1].
      counts: How many of them go into each row, in their order: [R], sum n.
      max_predictions: Width of the masked_lm_* features of a row.
      max_sequences: K.

    Returns:
      Features of packed records: `input_ids`, `input_mask` (1-based number of the
      sequence, 0 for padding), `segment_ids`, `positions` [R, S], `masked_lm_*`
      [R, max_predictions], `next_sentence_*` [R, K].
    """
    num_rows, width = len(counts), arrays["input_ids"].shape[1]
    rows = np.repeat(np.arange(num_rows), counts)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    grid = (num_rows, max_sequences)
    lengths = sequence_lengths(arrays)
    begins = _starts(lengths, rows, slots, grid)
    packed = _merge_tokens(arrays, lengths, begins, rows, slots, (num_rows, width))
    masks = _starts(prediction_counts(arrays), rows, slots, grid)
    shape = (num_rows, max_predictions)
    packed |= _merge_predictions(arrays, masks, begins, rows, shape)
    labels = np.zeros(grid, np.int64)
    labels[rows, slots] = arrays["next_sentence_labels"][:, 0]
    positions = np.zeros(grid, np.int64)
    positions[rows, slots] = begins
    weights = np.zeros(grid, np.float32)
    weights[rows, slots] = 1.0
    return packed | {
        "next_sentence_positions": positions,
        "next_sentence_labels": labels,
        "next_sentence_weights": weights,
    }


def _merge_tokens(
    arrays: Arrays,
    lengths: np.ndarray,
    begins: np.ndarray,
    rows: np.ndarray,
    slots: np.ndarray,
    shape: tuple[int, int],
) -> Arrays:
    """The features of each token, [R, S]."""
    sequence, place = np.nonzero(arrays["input_mask"] > 0)
    target = rows[sequence], begins[sequence] + place
    values = {
        "input_ids": arrays["input_ids"][sequence, place],
        "input_mask": slots[sequence] + 1,
        "segment_ids": arrays["segment_ids"][sequence, place],
        "positions": place,
    }
    merged = {name: np.zeros(shape, np.int64) for name in values}
    for name, array in values.items():
        merged[name][target] = array
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
    sequence, place = np.nonzero(is_real)
    number = np.cumsum(is_real, axis=1)[sequence, place] - 1
    target = rows[sequence], masks[sequence] + number
    merged = {
        "masked_lm_positions": np.zeros(shape, np.int64),
        "masked_lm_ids": np.zeros(shape, np.int64),
        "masked_lm_weights": np.zeros(shape, np.float32),
    }
    places = arrays["masked_lm_positions"][sequence, place] + begins[sequence]
    merged["masked_lm_positions"][target] = places
    merged["masked_lm_ids"][target] = arrays["masked_lm_ids"][sequence, place]
    merged["masked_lm_weights"][target] = 1.0
    return merged
