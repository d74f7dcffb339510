"""What the micro-batches of a step share: packed kernels, lookups, sums."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import PRESETS
from bert_tf.modeling.backends.fused_products import GradientSum
from bert_tf.modeling.backends.step import CurrentStep, StepScope
from bert_tf.modeling.tasks import build_pretraining_model, step_scope
from bert_tf.precision import PrecisionPolicy

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


def gradient_of(current, scope, table):
    """Of a table that is looked up, and used again after."""

    @tf.function
    def gradient():
        with scope, scope.micro_batch([table]) as part:
            taken = current.look_up(table, ROWS)
            again = tf.convert_to_tensor(table)
            total = tf.reduce_sum(taken * WEIGHTS) + tf.reduce_sum(again * OTHER_USE)
        return taken, part.gradients(total)

    taken, [found] = gradient()
    np.testing.assert_array_equal(taken, table.numpy()[ROWS.numpy()])
    return found


def test_the_gradients_of_a_lookup_and_of_other_uses_add_up(table):
    current = CurrentStep()
    found = gradient_of(current, StepScope(current, [], accumulates=False), table)
    np.testing.assert_array_equal(found, expected_gradient())


def test_rows_that_are_looked_up_are_added_to_a_sum_that_is_made_elsewhere(table):
    current = CurrentStep()
    scope = StepScope(current, [], accumulates=True)
    scope.sums["table"] = other = GradientSum()

    @tf.function
    def gradient():
        with scope, scope.micro_batch([table]) as part:
            taken = current.look_up(table, ROWS)
            total = tf.reduce_sum(taken * WEIGHTS)
        other.put(OTHER_USE)  # As the gradient of a product does.
        assert part.gradients(total) == [None]
        return scope.take_sum("table")

    np.testing.assert_array_equal(gradient(), expected_gradient())
    assert scope.take_sum("table").shape == (0, 0)


def test_a_lookup_outside_of_a_step_has_the_gradient_of_tensorflow(table):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(CurrentStep().look_up(table, ROWS) * WEIGHTS)
    found = tf.convert_to_tensor(tape.gradient(total, table.value))
    np.testing.assert_array_equal(found + OTHER_USE, expected_gradient())


def test_a_step_begins_without_the_sums_of_one_that_failed():
    scope = StepScope(CurrentStep(), [], accumulates=True)
    scope.sums["a"] = GradientSum()
    with pytest.raises(ZeroDivisionError), scope:
        scope.sums["a"].put(tf.ones([2, 2]))
        1 / 0  # noqa: B018
    with scope:
        assert scope.take_sum("a").shape == (0, 0)


@pytest.mark.usefixtures("isa")
def test_kernels_are_packed_once_for_all_calls_inside():
    model = build_pretraining_model(
        dataclasses.replace(PRESETS["tiny"], vocab_size=100),
        max_seq_length=32,
        policy=PrecisionPolicy("bf16"),
        allow_fused=True,
    )
    scope = step_scope(model, accumulates=True)
    with scope:
        # Three products of each of two layers, q, k and v together, two of the
        # feed-forward block; and the table.
        assert len(scope.prepacked) == 2 * 4 + 1
        assert "bert/embeddings/word_embeddings" in scope.prepacked
    assert not scope.prepacked
    # Every kernel of a layer has its own sum.
    assert len(scope.sums) == 2 * 6 + 1
