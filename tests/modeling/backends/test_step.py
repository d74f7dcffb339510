"""What the micro-batches of a step share: packed kernels, lookups, sums."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import PRESETS
from bert_tf.distribute import Communicator
from bert_tf.modeling import ops
from bert_tf.modeling.backends import fused, fused_products
from bert_tf.modeling.backends.fused_products import prepack
from bert_tf.modeling.backends.step import (
    GradientSum,
    ModelStep,
    Recorder,
    StepScope,
)
from bert_tf.modeling.models import model_outputs, step_scope
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.gradients import GradientAccumulator, GradientSettings

CONFIG = dataclasses.replace(
    PRESETS["tiny"], vocab_size=100, hidden_size=64, intermediate_size=128
)

ROWS = tf.constant([[2, 0], [2, 3]])  # Row 2 is taken twice.
WEIGHTS = tf.reshape(tf.range(12.0), [2, 2, 3])
OTHER_USE = tf.fill([4, 3], 0.5)


def expected_gradient():
    expected = np.full((4, 3), 0.5)
    np.add.at(expected, ROWS.numpy(), WEIGHTS.numpy())
    return expected


@pytest.fixture
def table():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    return keras.Variable(values, name="table")


def scope_with_a_sum(table):
    """A backend's scope that adds up the gradient of a table."""
    scope = StepScope()
    scope.sums = {"table": GradientSum(table.shape)}
    return scope


def test_the_gradients_of_a_lookup_and_of_other_uses_add_up(table):
    recorder = Recorder()
    step = ModelStep(recorder, [StepScope()])

    @tf.function
    def gradient():
        with step, step.micro_batch([table]) as part:
            rows = recorder.look_up(table, ROWS)
            again = tf.convert_to_tensor(table)
            total = tf.reduce_sum(rows * WEIGHTS) + tf.reduce_sum(again * OTHER_USE)
        return rows, part.gradients(total)

    rows, [found] = gradient()
    np.testing.assert_array_equal(rows, table.numpy()[ROWS.numpy()])
    np.testing.assert_array_equal(found, expected_gradient())


@pytest.mark.parametrize("others", [OTHER_USE, None], ids=["product", "no product"])
def test_rows_that_are_looked_up_are_added_to_the_sum_of_products(table, others):
    recorder = Recorder()
    step = ModelStep(recorder, [scope_with_a_sum(table)])

    @tf.function
    def gradient():
        with step, step.micro_batch([table]) as part:
            total = tf.reduce_sum(recorder.look_up(table, ROWS) * WEIGHTS)
        if others is not None:
            step.sums["table"].put(others)  # As the gradient of a product does.
        assert part.gradients(total) == [None]
        return step.take_sum("table")

    expected = expected_gradient() - (others is None) * OTHER_USE.numpy()
    for _ in range(2):  # The first call leaves the sum empty.
        np.testing.assert_array_equal(gradient(), expected)


def test_a_lookup_outside_of_a_step_has_the_gradient_of_tensorflow(table):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(Recorder().look_up(table, ROWS) * WEIGHTS)
    found = tf.convert_to_tensor(tape.gradient(total, table.value))
    np.testing.assert_array_equal(found + OTHER_USE, expected_gradient())


def build(policy=PrecisionPolicy("bf16")):  # noqa: B008 - it is frozen
    return build_pretraining_model(
        CONFIG,
        max_seq_length=32,
        policy=policy,
        allow_fused=True,
        seeded_dropout=True,
    )


@pytest.mark.usefixtures("isa")
def test_a_step_begins_without_the_sums_of_one_that_failed():
    step = step_scope(build(), accumulates=True)
    name = "bert/encoder/layer_0/intermediate/dense/kernel"
    with pytest.raises(ZeroDivisionError), step:
        step.sums[name].put(tf.ones([64, 128]))
        1 / 0  # noqa: B018
    with step:
        np.testing.assert_array_equal(step.take_sum(name), np.zeros([64, 128]))


@pytest.mark.usefixtures("isa")
def test_kernels_are_prepacked_once_for_all_calls_inside(
    monkeypatch, pretraining_features
):
    model, packed = build(), []  # Keras traces the layers while it builds.
    monkeypatch.setattr(
        fused, "prepack", lambda kernels: packed.append(kernels) or prepack(kernels)
    )
    monkeypatch.setattr(fused_products, "prepack", lambda _: pytest.fail("in a call"))
    task = PretrainingTask(model)
    step = step_scope(model, accumulates=True)
    features = pretraining_features(CONFIG, packed=False)
    with step:
        for _ in range(2):
            task.loss_sums(features, training=True)
    # Four products of each of two layers, query, key and value together; the table.
    assert sorted(map(len, packed)) == [1] * 7 + [3, 3]
    # Every kernel of a layer has its own sum.
    assert len(step.sums) == 2 * 6 + 1


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_a_loss_may_ignore_a_head(pretraining_features, num_micro_batches):
    """Its weights' gradients are 0, whether they are summed in place or not."""

    class NextSentence(PretrainingTask):
        loss_names = ("nsp_loss",)

        def counts(self, features):
            return super().counts(features)[1:]

        def loss_sums(self, features, *, training):
            logits = model_outputs(self.model.with_labels, features, training)
            labels = features["next_sentence_labels"]
            losses = ops.cross_entropy(logits["next_sentence_logits"], labels)
            return tf.reduce_sum(losses * features["next_sentence_weights"])[None]

    class WithoutSums(NextSentence):
        def step_scope(self, *, accumulates=False):
            return super().step_scope()

    features = pretraining_features(CONFIG, packed=True)
    batch = {name: tf.stack([x] * num_micro_batches) for name, x in features.items()}
    found, model = [], build()
    for kind in (NextSentence, WithoutSums):
        task = kind(model)
        compute = GradientAccumulator(task, Communicator(), GradientSettings(seed=1))
        gradients, _ = tf.function(lambda c=compute: c(batch, tf.constant(0)))()
        paths = [v.path for v in model.trainable_variables]
        found.append(dict(zip(paths, gradients, strict=True)))
    ours, expected = found
    for path, gradient in expected.items():
        np.testing.assert_allclose(ours[path], gradient, rtol=1e-4, atol=1e-6)
    assert not np.any(ours["cls/predictions/output_bias"])
    assert np.any(ours["bert/embeddings/word_embeddings"])
