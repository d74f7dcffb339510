"""Linear probes, against values that can be worked out by hand."""

import numpy as np
import pytest

from bert_tf.evaluation.probe import fit_probe, probe_accuracy


def test_weights_of_one_feature_are_the_log_odds():
    """3 of 4 have class 1 at +1, and 1 of 4 at -1: odds of 3 and of 1/3."""
    vectors = np.repeat([[1.0], [-1.0]], 4, axis=0)
    weights = fit_probe(vectors, np.array([1, 1, 1, 0, 0, 0, 0, 1]), 2, 0.0)
    slope, bias = weights[:, 1] - weights[:, 0]
    assert slope == pytest.approx(np.log(3.0), abs=1e-3)
    assert bias == pytest.approx(0.0, abs=1e-3)


def test_a_penalty_leaves_the_bias_alone():
    """With weights near 0, the bias alone gives the share of each class."""
    vectors = np.random.default_rng(0).normal(size=(8, 3))
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    weights = fit_probe(vectors, labels, 3, 1e6)
    np.testing.assert_allclose(weights[:-1], 0.0, atol=1e-5)
    shares = np.exp(weights[-1]) / np.exp(weights[-1]).sum()
    np.testing.assert_allclose(shares, [1 / 8, 3 / 8, 4 / 8], atol=1e-3)


def test_classes_that_a_line_separates_are_found_whatever_the_scale():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 5)) * [1.0, 1e-3, 1e3, 1.0, 0.0] + 7.0
    labels = (vectors[:, 0] > 7.0).astype(int)
    assert (
        probe_accuracy(vectors[:200], labels[:200], vectors[200:], labels[200:], 2)
        > 0.95
    )


def test_vectors_that_know_nothing_give_chance():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(600, 4)), rng.integers(2, size=600)
    accuracy = probe_accuracy(
        vectors[:300], labels[:300], vectors[300:], labels[300:], 2
    )
    assert 0.4 < accuracy < 0.6


def test_a_single_example_can_be_learnt():
    one = np.ones((1, 2))
    assert probe_accuracy(one, np.array([1]), one, np.array([1]), 2) == 1.0
