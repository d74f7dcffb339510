"""What the workers of a Keras model sum, with another worker's values made up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.keras_fit.sums import KerasSums


class Pair(Communicator):
    """Two workers, of which the other one's tensors are given in advance."""

    size = 2

    def __init__(self, others=(), rank=0):
        self.others, self.rank, self.calls = list(others), rank, []

    def sum(self, tensors, name):
        self.calls.append((name, len(tensors)))
        other = self.others.pop(0)
        return [
            own + tf.cast(x, own.dtype) for own, x in zip(tensors, other, strict=True)
        ]


def variable(value, dtype="float32", **settings):
    return keras.Variable(np.asarray(value), dtype=dtype, **settings)


def test_gradients_are_means_over_rows():
    # 3 rows here, 1 row there: (3 * 2 + 1 * 6) / 4 = 3.
    sums = KerasSums(Pair([[[6.0], [1.0], 0.0, 1.0]]))
    sums.rows = tf.constant(3.0)
    [mean] = sums.mean_gradients([tf.constant([2.0])], [variable([0.0])], "g")
    assert mean.numpy().tolist() == [3.0]


def test_accumulated_gradients_weigh_the_same():
    sums = KerasSums(Pair([[[6.0], [1.0], 0.0, 1.0]]))
    sums.rows = tf.constant(3.0)
    [mean] = sums.mean_gradients([tf.constant([2.0])], None, "g")
    assert mean.numpy().tolist() == [4.0]


def test_all_gradients_of_a_step_are_one_sum():
    pair = Pair([[0.0] * 3 + [[1.0] * 3, 0.0, 1.0]])
    KerasSums(pair).mean_gradients(
        [tf.zeros(2)] * 3, [variable([0.0, 0.0])] * 3, "gradients"
    )
    # Three gradients, which of them exist, the flag to stop, the weight.
    assert pair.calls == [("keras.gradients.float32", 6)]


@pytest.mark.parametrize("dense_shape", [(3, 1), None])
def test_sliced_gradients_become_dense(dense_shape):
    shape = None if dense_shape is None else tf.constant(dense_shape)
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([2, 2]), shape)
    sums = KerasSums(Pair([[[[4.0], [0.0], [0.0]], [1.0], 0.0, 1.0]]))
    [mean] = sums.mean_gradients([slices], [variable(np.zeros((3, 1)))], "g")
    assert mean.numpy().tolist() == [[2.0], [0.0], [1.5]]


def test_half_precision_is_summed_in_float32():
    pair = Pair([[[1.0], [1.0], 0.0, 1.0]])
    gradient = tf.constant([2.0], tf.bfloat16)
    [mean] = KerasSums(pair).mean_gradients(
        [gradient], [variable([0.0], "bfloat16")], "g"
    )
    assert pair.calls == [("keras.g.float32", 4)]
    assert (mean.dtype, float(mean[0])) == (tf.bfloat16, 1.5)


def test_a_variable_without_gradient_stays_without_one():
    sums = KerasSums(Pair([[[4.0], [0.0], [1.0, 0.0], 0.0, 1.0]]))
    variables = [variable([0.0]), variable([0.0])]
    mean, none = sums.mean_gradients([tf.constant([2.0]), None], variables, "g")
    assert mean.numpy().tolist() == [3.0] and none is None


@pytest.mark.parametrize("own, other", [(tf.constant([2.0]), 0.0), (None, 1.0)])
def test_a_gradient_on_one_worker_only_is_refused(own, other):
    sums = KerasSums(Pair([[[4.0], [0.0], [other, 1.0], 0.0, 1.0]]))
    variables = [variable([0.0]), variable([0.0])]
    with pytest.raises(tf.errors.InvalidArgumentError, match="on some workers only"):
        sums.mean_gradients([own, tf.constant([1.0])], variables, "g")


def test_a_request_to_stop_comes_with_the_gradients():
    sums = KerasSums(Pair([[[0.0], [1.0], 1.0, 1.0], [[0.0], [1.0], 0.0, 1.0]]))
    for _ in range(2):
        sums.mean_gradients([tf.zeros(1)], [variable([0.0])], "g")
        assert sums.stops.numpy() == 1.0


@pytest.mark.parametrize(
    "aggregation, dtype, expected",
    [
        ("none", "float32", 13.0),  # 10 + (3 * 2 + 1 * 6) / 4
        ("mean", "float32", 13.0),
        ("sum", "float32", 18.0),  # 10 + 2 + 6
        ("only_first_replica", "float32", 12.0),
        ("none", "int32", 12),
        ("sum", "int64", 18),
        ("none", "bfloat16", 13.0),
    ],
)
def test_changes_of_statistics_are_combined(aggregation, dtype, expected):
    moving = variable(12, dtype, aggregation=aggregation)
    before = tf.cast(10, dtype)
    weighted = {18.0: 6.0, 13.0: 6.0, 12.0: 0.0}[expected]
    is_mean = expected == 13.0
    sums = KerasSums(Pair([[weighted, 1.0] if is_mean else [weighted]]))
    sums.rows = tf.constant(3.0)
    sums.share_statistics([moving], [before])
    assert float(moving.value) == expected


def test_frozen_statistics_do_not_drift():
    frozen = variable(0.1)
    sums = KerasSums(Pair([[0.0, 1.0]]))
    sums.share_statistics([frozen], [tf.identity(frozen.value)])
    assert frozen.numpy() == np.float32(0.1)


def test_metrics_count_all_rows():
    mean = keras.metrics.Mean()
    mean.update_state([1.0, 2.0, 3.0])
    pair = Pair([[10.0, 1.0]])
    pair.gather = lambda values: np.asarray([values, values])
    KerasSums(pair).sum_metrics(mean.variables)
    assert float(mean.result()) == 4.0  # (1 + 2 + 3 + 10) / 4


def test_the_first_workers_values_of_any_type_are_sent():
    kinds = {"uint32": 7, "bool": True, "bfloat16": 0.5, "float32": 0.25}
    variables = [variable(x, t) for t, x in kinds.items()]
    sent = []
    first = Pair([[0.0], [0, 0]])
    first.gather = lambda values: np.asarray([values, values])
    first.broadcast = sent.extend
    KerasSums(first).broadcast(variables)
    assert [v.dtype for v in sent] == ["float32"]
    other = Pair([[0.5], [7, 1]], rank=1)
    other.gather, other.broadcast = first.gather, first.broadcast
    variables = [variable(0, t) for t in kinds]
    KerasSums(other).broadcast(variables)
    assert [float(v.value) for v in variables] == [7.0, 1.0, 0.5, 0.0]


def test_what_differs_between_workers_is_refused_with_both_named():
    pair = Pair()
    pair.gather = lambda values: np.asarray([values, [0.0] * len(values)])
    with pytest.raises(RunError, match="Worker 1 has another recipe than worker 0"):
        KerasSums(pair).require_same("recipe", [1, 2])


def test_weights_that_differ_are_named():
    pair = Pair()
    pair.gather = lambda values: np.asarray([values, [values[0], 0.0]])
    same, other = variable([1.0], name="same"), variable([2.0], name="other")
    with pytest.raises(RunError, match="differ, other first"):
        KerasSums(pair).require_same_values([same, other])
