"""Learning rates by layer."""

import re

import pytest

from bert_tf.config.finetuning import FinetuningOptimizerConfig
from bert_tf.config.run import OptimizerConfig
from bert_tf.jobs.run.optimization import rate_factors

PATHS = (
    "bert/embeddings/LayerNorm/beta",
    "bert/encoder/layer_0/output/dense/kernel",
    "bert/encoder/layer_1/output/dense/kernel",
    "bert/encoder/layer_11/output/dense/kernel",
    "bert/pooler/dense/kernel",
    "output_weights",
)


def factors_of(num_layers, **settings):
    """The factor of each of PATHS."""
    found = rate_factors(FinetuningOptimizerConfig(**settings), num_layers)
    return [
        next((x for p, x in found.items() if re.search(p, path)), 1.0) for path in PATHS
    ]


def test_each_layer_has_a_part_of_the_rate_above_it():
    # 12 layers: the lowest one is twelve below the head, the embeddings thirteen.
    expected = [0.9**13, 0.9**12, 0.9**11, 0.9, 1.0, 1.0]
    assert factors_of(12, layerwise_lr_decay=0.9) == pytest.approx(expected)


def test_frozen_layers_have_none():
    assert factors_of(12) == [1.0] * 6
    assert factors_of(12, frozen_layers=0) == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert factors_of(12, frozen_layers=1) == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert factors_of(12, frozen_layers=12) == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    both = factors_of(12, frozen_layers=2, layerwise_lr_decay=0.5)
    assert both == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0, 1.0])


def test_pretraining_has_one_rate():
    assert rate_factors(OptimizerConfig(), 12) == {}
