"""Predictions find their way back to the example or token that they are of."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data.batches.example_batches import LabelledSequences, prediction_batches
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.distribute import Communicator
from bert_tf.evaluation.prediction import predict


class Echo:
    """A model that says what it sees: of tokens, or of where sequences begin."""

    num_outputs = 2

    def __init__(self, of_tokens):
        self.of_tokens = of_tokens
        self.num_preparations = 0

    def logits(self, features):
        ids = tf.cast(features["input_ids"], tf.float32)
        if not self.of_tokens:
            begins = features["next_sentence_positions"]
            ids = tf.gather(ids, begins, batch_dims=1)
        return tf.stack([ids, -ids], axis=-1)

    @contextlib.contextmanager
    def step_scope(self):
        self.num_preparations += 1
        yield


@pytest.fixture(scope="module")
def examples():
    """Eleven sequences; the first token of each is its number and 1."""
    return LabelledSequences(
        TokenSequences.join(
            ([n + 1, *range(50, 52 + n % 4)], [0] * (3 + n % 4)) for n in range(11)
        )
    )


def shares(examples, size, is_packed):
    settings = RowSettings(12, is_packed)
    return [
        prediction_batches(examples, settings, batch_size=2, rank=rank, size=size)
        for rank in range(size)
    ]


class Recording(Communicator):
    """Keeps what this worker adds to the sum."""

    def sum(self, tensors, name):
        self.part = tensors[0].numpy()
        return tensors


@pytest.mark.parametrize("is_packed", [False, True])
def test_each_example_gets_its_own_logits(examples, is_packed):
    [batches] = shares(examples, 1, is_packed)
    ours = predict(Echo(False), batches, 11, Communicator(), of_tokens=False)
    assert ours.dtype == np.float32
    assert ours.tolist() == [[n + 1, -n - 1] for n in range(11)]


@pytest.mark.parametrize("is_packed", [False, True])
def test_each_token_gets_its_own_logits(examples, is_packed):
    ids = examples.sequences.input_ids
    [batches] = shares(examples, 1, is_packed)
    ours = predict(Echo(True), batches, len(ids), Communicator(), of_tokens=True)
    np.testing.assert_array_equal(ours, np.stack([ids, -ids], axis=1))


@pytest.mark.parametrize("is_packed", [False, True])
def test_the_parts_of_workers_add_up_to_the_whole(examples, is_packed):
    parts = []
    for batches in shares(examples, 3, is_packed):
        reduction = Recording()
        predict(Echo(False), batches, 11, reduction, of_tokens=False)
        parts.append(reduction.part)
    assert sum(parts)[:, 0].tolist() == list(range(1, 12))


def test_weights_are_prepared_once_for_all_batches(examples):
    task = Echo(False)
    [batches] = shares(examples, 1, False)
    predict(task, batches, 11, Communicator(), of_tokens=False)
    assert task.num_preparations == 1
