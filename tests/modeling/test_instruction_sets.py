"""Whole models on each compute path against the same on all others.

Instruction sets compute the same formulas on the same vectors of 16 numbers, and draw
the same dropout. They differ in how products of bfloat16 are summed: in float32, in a
different order, and then rounded to bfloat16, now and then to its other neighbour.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import INSTRUCTION_SETS, require_isa

from bert_tf import fused_ops
from bert_tf.config import PRESETS, BertConfig
from bert_tf.modeling.models import backends_of
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy

S, V, P = 75, 100, 3  # More than two blocks of 32 tokens, the last not whole.
# Lengths of the sequences in each row.
ROWS = {
    "unpacked": [[75], [40], [20], [9]],
    "packed": [[30, 20, 25], [40, 30], [75], [10, 9, 8]],
}
# Bounds of a loss, relative, and of a gradient by its norm. Between instruction sets:
# float32, a few roundings where a compiler joins multiplication and addition or does
# not (here all are equal to the last bit); bfloat16, the rounding of activations, 2^-8
# from one number to the next, since a number that is rounded to its other neighbour
# changes what is computed of it (losses by at most 0.0016 in six draws, gradients by
# 0.005).
BETWEEN = {"fp32": (1e-6, 1e-6), "bf16": (2**-8, 2**-6)}
# From the reference: float32, the derivative of GELU, a polynomial off by 2e-5 at most;
# bfloat16, the same rounding, but of activations that the reference does not round
# (0.0035 and 0.015).
FROM_REFERENCE = {"fp32": (1e-5, 5e-5), "bf16": (2**-7, 2**-5)}


@functools.cache
def features(kind):
    rng = np.random.default_rng(0)
    lengths = ROWS[kind]
    shape, most = (len(lengths), S), max(map(len, lengths))
    arrays = {name: np.zeros(shape) for name in ("input_mask", "positions")}
    starts, weights = np.zeros((2, len(lengths), most))
    for row, parts in enumerate(lengths):
        end, count = sum(parts), len(parts)
        arrays["input_mask"][row, :end] = np.repeat(np.arange(count) + 1, parts)
        arrays["positions"][row, :end] = [p for n in parts for p in range(n)]
        starts[row, :count] = np.cumsum([0, *parts[:-1]])
        weights[row, :count] = 1
    arrays |= {
        "input_ids": rng.integers(5, V, shape) * (arrays["input_mask"] > 0),
        "segment_ids": rng.integers(0, 2, shape),
        "masked_lm_positions": np.tile([1, 5, 8], (len(lengths), 1)),
        "masked_lm_ids": rng.integers(5, V, (len(lengths), P)),
        "next_sentence_positions": starts,
        "next_sentence_labels": rng.integers(0, 2, (len(lengths), most)),
        "dropout_seed": [[1, 2, row] for row in range(len(lengths))],
    }
    result = {name: tf.constant(x, tf.int32) for name, x in arrays.items()}
    result["masked_lm_weights"] = tf.ones([len(lengths), P])
    return result | {"next_sentence_weights": tf.constant(weights, tf.float32)}


@functools.cache
def task(precision, is_fused):
    """Equal weights in all of them, so large that every token has a visible effect."""
    values = PRESETS["tiny"].to_dict() | {"vocab_size": V, "initializer_range": 0.1}
    model = build_pretraining_model(
        BertConfig.from_dict(values, source="test"),
        max_seq_length=S,
        policy=PrecisionPolicy(precision),
        seeded_dropout=True,
        allow_fused=is_fused,
    )
    assert (backends_of(model).fused_dtype is not None) == is_fused
    return PretrainingTask(model)


@functools.cache
def computed(path, precision, kind):
    """Losses of training with dropout and of evaluation, and all gradients."""
    fused_ops.limit(path)
    try:
        ours = task(precision, path != fused_ops.REFERENCE)
        variables = [v.value for v in ours.model.trainable_variables]
        with tf.GradientTape() as tape:
            trained = ours.loss_sums(features(kind), training=True)
            total = tf.reduce_sum(trained)
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        evaluated = ours.evaluation_sums(features(kind))[:, 0]
    finally:
        fused_ops.limit("")
    return (
        np.concatenate([trained, evaluated]),
        [tf.convert_to_tensor(g).numpy() for g in gradients],
    )


def assert_agree(one, other, bounds):
    np.testing.assert_allclose(one[0], other[0], rtol=bounds[0])
    # Of a small tensor, the error that others have and hand on to it counts: key biases
    # have no gradient at all.
    floor = 0.03 * np.sqrt(sum(np.sum(gradient**2) for gradient in other[1]))
    for ours, theirs in zip(one[1], other[1], strict=True):
        limit = bounds[1] * (np.linalg.norm(theirs) + floor)
        assert np.linalg.norm(ours - theirs) <= limit


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("path", INSTRUCTION_SETS)
def test_a_path_agrees_with_all_others(path, precision, kind):
    require_isa(path)
    ours = computed(path, precision, kind)
    for other in fused_ops.paths():
        bounds = FROM_REFERENCE if other == fused_ops.REFERENCE else BETWEEN
        assert_agree(ours, computed(other, precision, kind), bounds[precision])
