"""Several sequences to one row, for many rows at once."""

import numpy as np

from bert_tf.data.packing import Assignment, assign, length_histogram, make_plan

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
    """Masked tokens of each sequence: [n] int64.

    Raises:
      ValueError: if one is beyond the tokens of its sequence.
    """
    is_real = arrays["masked_lm_weights"] > 0
    lengths = (arrays["input_mask"] > 0).sum(axis=1)
    if (is_real & (arrays["masked_lm_positions"] >= lengths[:, None])).any():
        raise ValueError(
            "`masked_lm_positions` must be places of tokens. Received: a record with "
            "one in its padding."
        )
    return is_real.sum(axis=1)


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
      arrays: Features of unpacked sequences: `input_ids`, `input_mask`, `segment_ids`
        [n, S], and where they are wanted `masked_lm_*` [n, P] and
        `next_sentence_labels` [n, 1].
      counts: How many of them go into each row, in their order: [R], sum n.
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
    """Packs examples that are in memory.

    Args:
      arrays: As for `merge_sequences`; n >= 1 examples.
      max_sequences_per_pack: As for `data pack`; 0 for any number.
      seed: Decides which sequences meet.

    Returns:
      Features of packed records, and which example is where: row r holds the examples
      `rows(r, r + 1)[0]`, in the order of its K sequences, so that what belongs to an
      example, such as a label, finds its place, and a prediction its example.

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
    """The largest sum over a row of a number that each sequence has."""
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
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    target = place + np.repeat(rows * shape[1] + begins, lengths)
    values = {
        "input_ids": arrays["input_ids"][is_real],
        "input_mask": np.repeat(slots + 1, lengths),
        "segment_ids": arrays["segment_ids"][is_real],
        "positions": place,
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
