import types

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from bert_tf.modeling.pretraining import PretrainingTask


class FixedModel:
    """Answers with the logits that the features bring along."""

    inputs = layers = ()

    def __init__(self, logits):
        self.logits = logits

    @property
    def with_labels(self):
        return FixedLosses(self.logits)

    def __call__(self, inputs, training):
        return {name: tf.constant(values) for name, values in self.logits.items()}


class FixedLosses:
    """The same with masked-LM losses, as the model of training."""

    def __init__(self, logits):
        self.logits = logits
        self.inputs = [types.SimpleNamespace(name="masked_lm_ids")]

    def __call__(self, inputs, training):
        every = -log_softmax(self.logits["masked_lm_logits"].astype(float), axis=-1)
        labels = np.asarray(inputs["masked_lm_ids"])[..., None]
        losses = np.take_along_axis(every, labels, axis=-1)[..., 0]
        follows = tf.constant(self.logits["next_sentence_logits"])
        return {
            "masked_lm_losses": tf.constant(losses, tf.float32),
            "next_sentence_logits": follows,
        }


@pytest.fixture
def batch():
    """Features and logits of 3 packed records: P=4, K=2, 7 words."""
    rng = np.random.default_rng(1)
    features = {
        "input_ids": np.zeros([3, 8], np.int32),
        "masked_lm_ids": rng.integers(0, 7, [3, 4], np.int32),
        "masked_lm_weights": np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], "f4"),
        "next_sentence_labels": rng.integers(0, 2, [3, 2], np.int32),
        "next_sentence_weights": np.array([[1, 1], [1, 0], [1, 1]], "f4"),
    }
    logits = {
        "masked_lm_logits": rng.normal(0, 3, [3, 4, 7]).astype(np.float32),
        "next_sentence_logits": rng.normal(0, 3, [3, 2, 2]).astype(np.float32),
    }
    return features, logits


def expected_sums(features, logits):
    """[2, 3] loss sum, hits and count in float64, one prediction at a time."""
    names = [
        ("masked_lm_logits", "masked_lm_ids", "masked_lm_weights"),
        ("next_sentence_logits", "next_sentence_labels", "next_sentence_weights"),
    ]
    sums = np.zeros([2, 3])
    for row, (scores, labels, weights) in enumerate(names):
        for place in np.ndindex(features[labels].shape):
            if features[weights][place] > 0:
                values = logits[scores][place].astype(float)
                label = features[labels][place]
                hit = values.argmax() == label
                sums[row] += -log_softmax(values)[label], hit, 1
    return sums


def test_sums_match_numpy(batch):
    features, logits = batch
    task, expected = PretrainingTask(FixedModel(logits)), expected_sums(*batch)
    assert expected[0, 2] == 6 and expected[1, 2] == 5
    losses = task.loss_sums(features, training=True)
    np.testing.assert_allclose(losses, expected[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(task.counts(features), expected[:, 2])
    sums = task.evaluation_sums(features)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)


def test_without_pairs_the_masked_lm_sums_stay(batch):
    features, logits = batch
    expected = expected_sums(*batch)
    task = PretrainingTask(FixedModel(logits), do_nsp=False)
    assert task.loss_names == ("mlm_loss",)
    losses = task.loss_sums(features, training=True)
    np.testing.assert_allclose(losses, expected[:1, 0], rtol=1e-5)
    np.testing.assert_array_equal(task.counts(features), expected[:1, 2])
    only = {"masked_lm_logits": logits["masked_lm_logits"]}
    task = PretrainingTask(FixedModel(only), do_nsp=False)
    sums = task.evaluation_sums(features)
    np.testing.assert_allclose(sums[0], expected[0], rtol=1e-5)
    assert sums[1].numpy().tolist() == [0, 0, expected[1, 2]]


def test_values_under_zero_weights_do_not_matter(batch):
    features, logits = batch
    task = PretrainingTask(FixedModel(logits))
    before = task.evaluation_sums(features).numpy()
    is_padding = features["masked_lm_weights"] == 0
    features["masked_lm_ids"][is_padding] = 0
    logits["masked_lm_logits"][is_padding] = 1e4
    logits["next_sentence_logits"][1, 1] = 1e4
    np.testing.assert_array_equal(task.evaluation_sums(features), before)


def test_a_batch_without_predictions_sums_to_zero(batch):
    features, logits = batch
    for name in ("masked_lm_weights", "next_sentence_weights"):
        features[name] = np.zeros_like(features[name])
    task = PretrainingTask(FixedModel(logits))
    assert task.counts(features).numpy().tolist() == [0, 0]
    assert task.evaluation_sums(features).numpy().tolist() == [[0, 0, 0]] * 2


def test_numbers_of_sequences_weigh_as_much_as_ones(batch):
    features, logits = batch
    task = PretrainingTask(FixedModel(logits))
    before = task.evaluation_sums(features).numpy()
    features["masked_lm_weights"] = features["masked_lm_weights"] * 3
    np.testing.assert_array_equal(task.evaluation_sums(features), before)


def test_counts_take_any_leading_axes(batch):
    features = {name: np.stack([x, x]) for name, x in batch[0].items()}
    counts = PretrainingTask(FixedModel({})).counts(features)
    assert counts.numpy().tolist() == [12, 10]


def test_sums_add_up_over_micro_batches(batch):
    features, logits = batch
    parts = []
    for row in range(3):
        cut = slice(row, row + 1)
        model = FixedModel({name: x[cut] for name, x in logits.items()})
        part = {name: x[cut] for name, x in features.items()}
        parts.append(PretrainingTask(model).evaluation_sums(part).numpy())
    whole = PretrainingTask(FixedModel(logits)).evaluation_sums(features)
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)
