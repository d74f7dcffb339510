import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.modeling.backends.step import ModelStep, Recorder
from bert_tf.training.averages import WeightAverages
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import AdamWeightDecay
from bert_tf.training.trainer import MAX_SKIPPED_IN_A_ROW, Trainer


class TwoWeights:
    """The loss is the sum of a weight times numbers; the other weight is not used."""

    def __init__(self):
        self.model = keras.layers.Layer()
        self.weight = self.model.add_weight(name="w", shape=(), initializer="ones")
        self.other = self.model.add_weight(name="v", shape=(2,), initializer="ones")
        self.loss_names = ("loss",)

    def counts(self, features):
        return tf.reduce_sum(tf.ones_like(features["numbers"]))[None]

    def loss_sums(self, features, *, training):
        return tf.reduce_sum(self.weight * features["numbers"])[None]

    def step_scope(self, *, accumulates):
        return ModelStep(Recorder(), [])


def batch(*numbers):
    """A micro-batch of one row for each number."""
    return {
        "input_ids": np.zeros((len(numbers), 1, 1), np.int32),
        "numbers": np.asarray(numbers, np.float32)[:, None],
    }


def trainer(task, **options):
    optimizer = AdamWeightDecay(0.1, bias_correction=True)
    return Trainer(
        task,
        optimizer,
        Communicator(),
        GradientSettings(),
        name_rows=lambda step, part: f"row {part} of step {step}",
        **options,
    )


def test_the_error_names_step_micro_batch_records_losses_and_tensors():
    task = TwoWeights()
    steps = trainer(task)
    steps.train_step(batch(1.0, 2.0))
    before = task.weight.numpy()
    with pytest.raises(NonFiniteError) as error:
        steps.train_step(batch(1.0, 2.0, np.nan, 4.0))
    message = str(error.value)
    assert "The gradient of step 2 is not finite (loss=nan)." in message
    assert "micro-batch 3 of 4, row 2 of step 1: loss is nan, 1 of 2 gradients" in (
        message
    )
    assert f"not finite ({task.weight.path})" in message
    assert "--skip_nonfinite" in message
    assert (steps.step, task.weight.numpy()) == (1, before)


def test_weights_that_were_not_finite_before_are_named():
    task = TwoWeights()
    task.weight.assign(np.inf)
    with pytest.raises(NonFiniteError, match=r"1 of 2 weights are not finite \(.*w\)"):
        trainer(task, skip_nonfinite=True).train_step(batch(1.0))


def test_a_sum_that_overflows_has_no_micro_batch_to_name():
    with pytest.raises(NonFiniteError, match="every micro-batch is finite"):
        # Their mean, 2.4e38, is finite as well; the square in its norm is not.
        trainer(TwoWeights()).train_step(batch(3.2e38, 3.2e38, 3.2e38, 3.2e38, -1e38))


def test_a_skipped_step_is_counted_and_changes_no_weight():
    task = TwoWeights()
    steps = trainer(task, skip_nonfinite=True)
    steps.train_step(batch(1.0))
    state = [v.numpy() for v in (task.weight, *steps.optimizer.slots().values())]
    result = steps.train_step(batch(np.inf))
    assert (result.step, steps.step) == (2, 2)
    assert "step 2 is not finite" in result.skipped
    after = [v.numpy() for v in (task.weight, *steps.optimizer.slots().values())]
    for a, b in zip(state, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not steps.train_step(batch(1.0)).skipped


def test_a_skipped_step_does_not_move_the_averages():
    task = TwoWeights()
    averages = WeightAverages({"w": task.weight.value}, 0.5)
    steps = trainer(task, skip_nonfinite=True, averages=averages)
    steps.train_step(batch(1.0))
    [average] = averages.variables
    expected = 0.5 * 1.0 + 0.5 * task.weight.numpy()
    np.testing.assert_allclose(average.numpy(), expected, rtol=1e-6)
    before = average.numpy()
    assert steps.train_step(batch(np.inf)).skipped
    np.testing.assert_array_equal(average.numpy(), before)


def test_ten_skipped_steps_in_a_row_stop_the_run():
    steps = trainer(TwoWeights(), skip_nonfinite=True)
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        steps.train_step(batch(np.nan))
    steps.train_step(batch(1.0))  # Counts from the beginning after it.
    for _ in range(MAX_SKIPPED_IN_A_ROW - 1):
        steps.train_step(batch(np.nan))
    with pytest.raises(NonFiniteError, match="10th in a row"):
        steps.train_step(batch(np.nan))


class Workers(Communicator):
    """The first of two workers; the second one has found something."""

    size = 2

    def __init__(self, **found):
        self.found = {"host": "b", "found": "", "weights": []} | found

    def gather_values(self, value):
        return [value, self.found]


def test_every_worker_reports_the_worker_that_found_it():
    workers = Workers(found="micro-batch 1 of 1, r: loss is inf")
    steps = Trainer(*(TwoWeights(), AdamWeightDecay(0.1), workers, GradientSettings()))
    with pytest.raises(NonFiniteError, match="Worker 1 on b, micro-batch 1 of 1, r:"):
        steps.train_step(batch(3e38, 3e38))


def test_weights_that_are_not_finite_on_another_worker_are_named_by_all():
    workers = Workers(weights=["bert/pooler/dense/kernel"])
    steps = Trainer(*(TwoWeights(), AdamWeightDecay(0.1), workers, GradientSettings()))
    with pytest.raises(NonFiniteError, match="Before the step, .*bert/pooler/dense/"):
        steps.train_step(batch(3e38, 3e38))


def test_batches_of_any_number_of_rows_are_examined_too():
    """As packed fine-tuning has them; empty rows at the end are cut off."""
    steps = trainer(TwoWeights(), rows_vary=True)
    for count in (2, 3):
        rows = np.ones((2, count), np.float32)
        mask = np.ones((2, count, 1), np.int32)
        mask[:, -1] = 0
        features = {"input_ids": mask, "input_mask": mask, "numbers": rows}
        steps.train_step(features)
    rows[1, 0] = np.inf
    with pytest.raises(NonFiniteError, match="micro-batch 2 of 2, row 1 of step 2"):
        steps.train_step(features)
