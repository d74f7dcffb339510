"""Ranks of the texts that belong together."""

import numpy as np
import pytest

from bert_tf.evaluation.retrieval import retrieval_metrics


def turned(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_ranks_are_those_of_the_cosines():
    # Nearest first: of 0 the candidates 10, 40, 80; of 90 the candidates 80, 40, 10.
    found = retrieval_metrics(turned(0, 90), turned(10, 40, 80), np.array([1, 2]))
    assert found["accuracy_at_1"] == 0.5 and found["accuracy_at_10"] == 1.0
    assert found["mrr"] == pytest.approx((1 / 2 + 1) / 2)


def test_equal_vectors_are_no_hit():
    found = retrieval_metrics(turned(0, 0, 0), turned(0, 0, 0), np.arange(3))
    assert found["accuracy_at_1"] == 0.0
    assert found["mrr"] == pytest.approx(1 / 2)  # The rank in the middle of three.
