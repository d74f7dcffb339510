"""The compiled optimizer step against the formulas in TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.training.optimizers import LAMB, AdamWeightDecay

SHAPES = [(7,), (1,), (130, 65), (3, 4, 5), (70_000,)]


@pytest.fixture(autouse=True)
def library():
    if fused_ops.library() is None:
        pytest.fail("the library is not built: `make setup` builds it")


def state_after(optimizer, is_fused, steps=4):
    """Weights and moments after some steps of the same gradients."""
    rng = np.random.default_rng(0)
    names = ["bias" if len(shape) == 1 else "kernel" for shape in SHAPES]
    variables = [
        keras.Variable(rng.normal(size=shape).astype("f4"), name=f"{name}_{place}")
        for place, (name, shape) in enumerate(zip(names, SHAPES, strict=True))
    ]
    variables[0].assign(tf.zeros(SHAPES[0]))  # No norm: the ratio is 1.
    optimizer.build(variables)
    optimizer.is_fused = is_fused
    step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    for _ in range(steps):
        step([tf.constant(rng.normal(size=s), tf.float32) for s in SHAPES])
    weights = [variable.numpy() for variable in variables]
    return weights, [slot.numpy() for slot in optimizer.slots().values()]


OPTIMIZERS = [
    lambda: LAMB(0.01),
    lambda: LAMB(0.01, bias_correction=False, weight_decay_rate=0.0),
    lambda: LAMB(0.01, exclude_from_layer_adaptation=["kernel"]),
    lambda: AdamWeightDecay(0.01),
    lambda: AdamWeightDecay(0.01, bias_correction=True, beta_1=0.0),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=range(len(OPTIMIZERS)))
def test_steps_are_those_of_the_formulas(make):
    weights, slots = state_after(make(), is_fused=True)
    expected_weights, expected_slots = state_after(make(), is_fused=False)
    # A few roundings of float32 for each of four steps; terms of 0.1 may cancel.
    for one, other in zip(slots, expected_slots, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=5e-8)
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)


def test_value_that_was_read_before_stays():
    """A tensor that shares the variable's memory is not overwritten."""
    variable = keras.Variable(np.ones((100,), "f4"), name="w")
    optimizer = AdamWeightDecay(0.1)
    optimizer.build([variable])
    optimizer.is_fused = True
    before = variable.value.read_value()
    optimizer.apply([tf.ones([100])], [variable])
    np.testing.assert_array_equal(before, np.ones(100))
    assert np.all(variable.numpy() < 1.0)
