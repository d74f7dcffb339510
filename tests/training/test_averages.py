"""Moving averages of weights, against the formula in NumPy."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.training.averages import WeightAverages

A, B = "bert/pooler/dense/kernel", "bert/pooler/dense/bias"


@pytest.fixture
def weights():
    rng = np.random.default_rng(5)
    return {
        A: tf.Variable(rng.standard_normal((3, 2)), dtype=tf.float32),
        B: tf.Variable(rng.standard_normal(2), dtype=tf.float32),
    }


def test_averages_follow_the_formula(weights):
    averages = WeightAverages(weights, 0.9)
    update = tf.function(averages.update)
    expected = {name: weight.numpy().astype(float) for name, weight in weights.items()}
    for step in range(1, 8):
        for weight in weights.values():
            weight.assign(weight * 0.5 + step)
        update()
        for name, weight in weights.items():
            expected[name] = 0.9 * expected[name] + 0.1 * weight.numpy()
    for name, average in averages.slots().items():
        name, _, ending = name.rpartition("/")
        assert ending == "ExponentialMovingAverage"
        # A few roundings of float32.
        np.testing.assert_allclose(average.numpy(), expected[name], rtol=1e-6)


def test_a_decay_of_0_is_the_weights_and_restart_forgets(weights):
    averages = WeightAverages(weights, 0.0)
    weights[B].assign([7.0, 8.0])
    averages.update()
    assert averages.values()[B].numpy().tolist() == [7.0, 8.0]
    averages = WeightAverages(weights, 0.5)
    weights[B].assign([1.0, 2.0])
    averages.restart()
    assert averages.values()[B].numpy().tolist() == [1.0, 2.0]


def test_in_the_model_they_change_places_and_a_checkpoint_holds_the_same(weights):
    averages = WeightAverages(weights, 0.5)
    weights[B].assign([3.0, 5.0])
    names = averages.tensors().keys()
    before = {name: x.numpy() for name, x in averages.tensors().items()}
    average = averages.values()[B].numpy()
    with averages.in_model(threading.RLock()):
        np.testing.assert_array_equal(weights[B].numpy(), average)
        np.testing.assert_array_equal(averages.values()[B].numpy(), average)
        inside = averages.tensors()
        assert inside.keys() == names
        for name, value in before.items():
            np.testing.assert_array_equal(inside[name].numpy(), value)
        with averages.in_model(threading.RLock()):  # They are there already.
            np.testing.assert_array_equal(weights[B].numpy(), average)
        np.testing.assert_array_equal(weights[B].numpy(), average)
    for name, value in before.items():
        np.testing.assert_array_equal(averages.tensors()[name].numpy(), value)
    assert weights[B].numpy().tolist() == [3.0, 5.0]
