"""Vectors of sentences, and the contrastive loss: its value and its gradient."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from keras_fit.threads import run_threads

from bert_tf.data.batches.example_batches import ExampleReader, LabelledSequences
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.packing.layout import RowSettings, lay_out
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.distribute import Communicator
from bert_tf.modeling.models import model_outputs
from bert_tf.modeling.sentences import SentenceTask, build_sentence_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.gradients import GradientAccumulator, GradientSettings

SCALE = 20.0


@pytest.fixture(scope="module")
def tiny_config(tiny_config):
    """One layer says what two would, and traces in half the time."""
    return dataclasses.replace(tiny_config, num_hidden_layers=1)


def some_sequences(count, seed=0):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(5, 30, rng.integers(3, 8)).tolist() for _ in range(count)]
    return TokenSequences.join((ids, [0] * len(ids)) for ids in texts)


def as_tensors(features):
    return {name: tf.constant(array) for name, array in features.items()}


def vectors_of(model, features, training=False):
    return model_outputs(model, as_tensors(features), training)["sentence_vectors"]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vector_is_the_pooled_hidden_states_with_length_1(tiny_config, pooling):
    model = build_sentence_model(tiny_config, pooling)
    sequences = some_sequences(3)
    features = lay_out(sequences, np.arange(3)[:, None], 16)
    hidden = model.get_layer("bert")(
        {n: features[n] for n in ("input_ids", "input_mask", "segment_ids")}
        | {n: features[n] for n in ("positions", "next_sentence_positions")}
        | {"dropout_seed": np.zeros((3, 3), np.int32)}
    )["sequence_output"].numpy()
    for row, length in enumerate(sequences.lengths):
        tokens = hidden[row, :length]
        pooled = tokens.mean(axis=0) if pooling == "mean" else tokens[0]
        expected = pooled / np.linalg.norm(pooled)
        ours = vectors_of(model, features).numpy()[row, 0]
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_packed_sequences_have_the_vectors_that_they_have_alone(tiny_config, pooling):
    model = build_sentence_model(tiny_config, pooling)
    sequences = some_sequences(4)
    alone = lay_out(sequences, np.arange(4)[:, None], 16)
    packed = lay_out(sequences, np.array([[0, 1], [2, 3]]), 16)
    ours = vectors_of(model, packed).numpy().reshape(4, -1)
    np.testing.assert_allclose(ours, vectors_of(model, alone)[:, 0], atol=1e-5)


def test_another_pooling_is_refused(tiny_config):
    with pytest.raises(ValueError, match="must be mean or cls. Received: 'max'"):
        build_sentence_model(tiny_config, "max")


def batch_of(sequences, texts, *, k=1, rank=0, size=1, is_packed=False):
    """The features of one step over all examples, of one worker."""
    count = len(sequences) // texts
    reader = ExampleReader(
        LabelledSequences(sequences, per_example=texts),
        RecordOrder(num_records=count, seed=5, is_shuffled=True),
        BatchShape(
            micro_batch_size=count // (k * size),
            num_micro_batches=k,
            rank=rank,
            size=size,
        ),
        RowSettings(16, is_packed),
    )
    return reader.batch(0)


def step_of(task, batch, communicator=None, **settings):
    """Gradients and loss of a step with dropout."""
    communicator = communicator or Communicator()
    settings = GradientSettings(rank=communicator.rank, seed=11, **settings)
    accumulator = GradientAccumulator(task, communicator, settings)
    graph = tf.function(accumulator, autograph=False)
    gradients, losses = graph(as_tensors(batch), tf.constant(3))
    return [g.numpy() for g in gradients], float(losses[0])


def whole_loss(vectors, texts):
    """The loss as its formula says, from the vectors [N * texts, H] of all examples."""
    parts = tf.reshape(vectors, [-1, texts, vectors.shape[-1]])
    others = tf.concat([parts[:, n] for n in range(1, texts)], axis=0)
    odds = tf.nn.log_softmax(SCALE * parts[:, 0] @ tf.transpose(others), axis=1)
    return -tf.reduce_mean(tf.linalg.diag_part(odds[:, : len(parts)]))


def assert_same_step(ours, expected):
    """1e-5 of each tensor's norm; the floor is for key biases, whose true is 0."""
    assert ours[1] == pytest.approx(expected[1], rel=1e-5)
    for a, b in zip(ours[0], expected[0], strict=True):
        assert np.linalg.norm(a - b) <= max(1e-5 * np.linalg.norm(b), 2e-7)


@pytest.mark.parametrize("texts", [2, 3])
def test_loss_and_gradient_are_those_of_the_formula(tiny_config, texts):
    config = tiny_config.without_dropout()
    model = build_sentence_model(config, max_seq_length=16)
    batch = batch_of(some_sequences(8 * texts), texts)
    rows = {name: array[0] for name, array in batch.items()}
    assert rows["batch_slots"][:, 0].tolist() == list(range(8 * texts))
    with tf.GradientTape() as tape:
        expected = whole_loss(vectors_of(model, rows)[:, 0], texts)
    gradients = tape.gradient(expected, model.trainable_variables)
    expected = [tf.convert_to_tensor(g).numpy() for g in gradients], float(expected)
    task = SentenceTask(model, scale=SCALE, texts_per_example=texts)
    assert_same_step(step_of(task, batch), expected)


@pytest.mark.parametrize("is_packed", [False, True], ids=["unpacked", "packed"])
def test_micro_batches_make_the_step_of_the_whole_batch(tiny_config, is_packed):
    config = tiny_config if not is_packed else tiny_config.without_dropout()
    task = SentenceTask(build_sentence_model(config), scale=SCALE)
    sequences = some_sequences(16)
    whole = step_of(task, batch_of(sequences, 2))
    parts = step_of(task, batch_of(sequences, 2, k=4, is_packed=is_packed))
    assert_same_step(parts, whole)


def in_order(communicator):
    """Makes sums follow one another: two that wait would take all threads."""
    plain, last = communicator.sum, []

    def sum_after(tensors, name):
        with tf.control_dependencies(last):
            last[:] = plain(tensors, name)
        return list(last)

    communicator.sum = sum_after


@pytest.mark.parametrize("k, is_packed", [(1, True), (2, False)])
def test_two_workers_make_the_step_of_one_with_twice_the_batch(
    tiny_config, k, is_packed
):
    sequences = some_sequences(24)

    def work(communicator):
        in_order(communicator)
        task = SentenceTask(
            build_sentence_model(tiny_config),
            scale=SCALE,
            texts_per_example=3,
            communicator=communicator,
        )
        shape = {"rank": communicator.rank, "size": communicator.size}
        batch = batch_of(sequences, 3, k=k, is_packed=is_packed, **shape)
        return step_of(task, batch, communicator)

    expected = work(Communicator())
    for ours in run_threads(2, work):
        assert_same_step(ours, expected)


def test_xla_makes_the_same_step(tiny_config):
    task = SentenceTask(build_sentence_model(tiny_config, max_seq_length=16))
    batch = batch_of(some_sequences(8), 2)
    assert_same_step(step_of(task, batch, use_xla=True), step_of(task, batch))


def test_bfloat16_activations_by_xla_are_near_the_reference(tiny_config):
    """The vectors of the whole batch are computed by TensorFlow, in the same types."""
    policy = PrecisionPolicy("bf16")
    model = build_sentence_model(tiny_config, max_seq_length=16, policy=policy)
    batch, task = batch_of(some_sequences(8), 2), SentenceTask(model)
    (_, ours), (_, expected) = step_of(task, batch, use_xla=True), step_of(task, batch)
    np.testing.assert_allclose(ours, expected, rtol=2e-3)
