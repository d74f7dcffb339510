"""Inputs and weights of the models under test."""

import numpy as np
import pytest


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
