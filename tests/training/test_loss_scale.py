"""The loss scale: its rule, and what it does to gradients and to steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.modeling.backends.step import ModelStep, Recorder
from bert_tf.training import loss_scale
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.optimizers import AdamWeightDecay
from bert_tf.training.trainer import Trainer


class OneWeight:
    """The loss of a row is its number times the weight, so that is the gradient."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.model = keras.layers.Layer()
        self.weight = self.model.add_weight(name="w", shape=(), initializer="ones")
        self.loss_names = ("loss",)

    def counts(self, features):
        return tf.constant([1.0])

    def loss_sums(self, features, *, training):
        # The product and its gradient in the type; the gradient arrives scaled.
        weight = tf.cast(self.weight, self.dtype)
        numbers = tf.cast(features["numbers"], tf.float32)
        return tf.cast(weight, tf.float32)[None] * numbers

    def step_scope(self, *, accumulates):
        return ModelStep(Recorder(), [])


def batch(number):
    return {
        "input_ids": np.zeros((1, 1, 1), np.int32),
        "numbers": np.full((1, 1), number, np.float32),
    }


def trainer(task, scale, **more):
    optimizer = AdamWeightDecay(0.1, bias_correction=True)
    return Trainer(task, optimizer, Communicator(), GradientSettings(), scale, **more)


def test_the_scale_doubles_after_2000_steps_without_overflow():
    scale = LossScale(8.0)
    for _ in range(1999):
        scale.note_finite_step()
    assert (scale.value, scale.num_finite_steps) == (8.0, 1999)
    scale.note_finite_step()
    assert (scale.value, scale.num_finite_steps) == (16.0, 0)


def test_an_overflow_halves_the_scale_and_counts_anew():
    scale = LossScale(8.0, num_finite_steps=5)
    assert scale.lower()
    assert (scale.value, scale.num_finite_steps) == (4.0, 0)


def test_the_scale_is_never_below_one():
    scale = LossScale(2.0)
    assert scale.lower()
    assert not scale.lower()
    assert scale.value == 1.0


def test_the_largest_scale_is_kept():
    scale = LossScale(2.0**32, num_finite_steps=loss_scale.GROWTH_STEPS - 1)
    scale.note_finite_step()
    assert scale.value == 2.0**32


@pytest.mark.parametrize("scale", [1.0, 2.0**20])
def test_a_scale_changes_no_bit_where_nothing_overflows(scale):
    plain, scaled = OneWeight(tf.float32), OneWeight(tf.float32)
    without = trainer(plain, None).train_step(batch(0.7))
    with_scale = trainer(scaled, LossScale(scale)).train_step(batch(0.7))
    assert with_scale.gradient_norm == without.gradient_norm
    assert plain.weight.numpy() == scaled.weight.numpy()
    assert with_scale.loss_scale == scale


def test_a_gradient_that_vanishes_in_float16_is_there_with_a_scale():
    # 2e-9 is below half of float16's smallest number, 6e-8.
    alone = trainer(OneWeight(tf.float16), LossScale(1.0)).train_step(batch(2e-9))
    scaled = trainer(OneWeight(tf.float16), LossScale(2.0**20)).train_step(batch(2e-9))
    assert alone.gradient_norm == 0.0
    assert scaled.gradient_norm == pytest.approx(2e-9, rel=1e-2)


def test_a_step_that_overflows_is_taken_again_with_half_the_scale():
    task, scale = OneWeight(tf.float16), LossScale(2.0**20)
    result = trainer(task, scale).train_step(batch(1.0))
    # Float16 ends at 65504: the largest scale at which a gradient of 1 fits is 2^15.
    assert result.loss_scale == 2.0**15
    assert result.step == 1
    assert result.gradient_norm == 1.0
    np.testing.assert_allclose(task.weight.numpy(), 1.0 - 0.1, rtol=2e-3)


def test_what_no_scale_can_help_leaves_the_scale():
    """The gradient, 70,000, is beyond float16 with any scale; the loss is float32."""
    task, scale = OneWeight(tf.float16), LossScale(8.0)
    result = trainer(task, scale, skip_nonfinite=True).train_step(batch(7e4))
    assert "step 1 is not finite" in result.skipped
    assert scale.value == 8.0


def test_what_no_scale_can_help_stops_the_run():
    task = OneWeight(tf.float16)
    with pytest.raises(NonFiniteError):
        trainer(task, LossScale(4.0)).train_step(batch(float("inf")))
    assert task.weight.numpy() == 1.0
