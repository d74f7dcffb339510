"""Inputs and weights of the models under test."""

import numpy as np
import pytest
import tensorflow as tf


def _padded(rows, width):
    """Lists of numbers -> [B, S] int32, zeros at the end."""
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


def _make_inputs(packs, max_seq_length):
    """Encoder inputs of records, each a list of (ids, segments) that it packs."""
    num_sequences = max(len(pack) for pack in packs)
    columns = {name: [] for name in ("ids", "mask", "segments", "positions", "starts")}
    for pack in packs:
        lengths = [len(ids) for ids, _ in pack]
        columns["ids"].append([i for ids, _ in pack for i in ids])
        columns["segments"].append([i for _, segments in pack for i in segments])
        columns["mask"].append(np.repeat(np.arange(len(pack)) + 1, lengths))
        columns["positions"].append([p for n in lengths for p in range(n)])
        columns["starts"].append(np.cumsum([0, *lengths[:-1]]))
    return {
        "input_ids": _padded(columns["ids"], max_seq_length),
        "input_mask": _padded(columns["mask"], max_seq_length),
        "segment_ids": _padded(columns["segments"], max_seq_length),
        "positions": _padded(columns["positions"], max_seq_length),
        "next_sentence_positions": _padded(columns["starts"], num_sequences),
    }


def _set_weights(model, weights):
    """Gives every variable the array of its path, and leaves no array over."""
    variables = {variable.path: variable for variable in model.trainable_variables}
    assert variables.keys() == weights.keys()
    for name, values in weights.items():
        variables[name].assign(values)


@pytest.fixture(scope="session")
def make_inputs():
    return _make_inputs


@pytest.fixture(scope="session")
def set_weights():
    return _set_weights


@pytest.fixture(scope="session")
def pad():
    return _padded


def _pretraining_features(config, *, packed):
    """Four rows of 32 tokens with labels: one sequence each, or up to three."""
    rng = np.random.default_rng(0)
    if packed:
        lengths = [[10, 12, 7], [5, 20, 0], [8, 8, 16], [3, 4, 5]]
    else:
        lengths = [[32], [32], [20], [7]]
    mask, positions = np.zeros((4, 32), int), np.zeros((4, 32), int)
    starts = np.zeros((4, len(lengths[0])), int)
    for row, parts in enumerate(lengths):
        ends = np.cumsum(parts)
        for number, (end, length) in enumerate(zip(ends, parts, strict=True)):
            mask[row, end - length : end] = number + 1
            positions[row, end - length : end] = np.arange(length)
            starts[row, number] = end - length if length else 0
    ids = {
        "input_ids": rng.integers(5, config.vocab_size, (4, 32)) * (mask > 0),
        "input_mask": mask,
        "segment_ids": rng.integers(0, 2, (4, 32)),
        "positions": positions,
        "masked_lm_positions": np.tile([1, 2, 6, 0], (4, 1)),
        "masked_lm_ids": rng.integers(5, config.vocab_size, (4, 4)),
        "next_sentence_positions": starts,
        "next_sentence_labels": rng.integers(0, 2, starts.shape),
        "dropout_seed": [[1, 2, row] for row in range(4)],
    }
    weights = {
        "masked_lm_weights": np.tile([1, 1, 1, 0], (4, 1)),
        "next_sentence_weights": np.array(lengths) > 0,
    }
    return {
        **{name: tf.constant(values, tf.int32) for name, values in ids.items()},
        **{name: tf.constant(values, tf.float32) for name, values in weights.items()},
    }


@pytest.fixture(scope="session")
def pretraining_features():
    return _pretraining_features
