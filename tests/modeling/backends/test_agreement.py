"""Every backend against the reference in float32: outputs and all gradients.

Both dropouts of attention and those of the outputs draw the same numbers, so that the
bounds are those of rounding: of sums in another order in float32; in bfloat16 of
operands, 2^-9 of each, which some ten products one after another enlarge.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config import PRESETS
from bert_tf.modeling.models import model_outputs
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy

# Dropout on, and weights so large that every input has a visible effect.
CONFIG = dataclasses.replace(
    PRESETS["tiny"],
    vocab_size=100,
    hidden_size=64,
    intermediate_size=128,
    initializer_range=0.05,
)
# Of outputs and losses, and of gradients: parts of their norms.
BOUNDS = {"fp32": (2e-6, 4e-6), "bf16": (0.015, 0.015)}
CASES = [(training, packed) for training in (True, False) for packed in (True, False)]


def results(precision, make_features, *, allow_fused, do_nsp=True, **settings):
    """(training, packed) -> losses, logits of tokens and pairs, and gradients."""
    model = build_pretraining_model(
        CONFIG,
        max_seq_length=32,
        policy=PrecisionPolicy(precision),
        seeded_dropout=True,
        allow_fused=allow_fused,
        do_nsp=do_nsp,
        **settings,
    )
    task, found = PretrainingTask(model, do_nsp), {}
    variables = [v.value for v in model.trainable_variables]
    for training, packed in CASES:
        features = make_features(CONFIG, packed=packed)
        with tf.GradientTape() as tape:
            losses = task.loss_sums(features, training=training)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        logits = model_outputs(model, features, training).values()
        outputs = [losses, *logits]
        if not training:
            outputs.append(task.evaluation_sums(features)[:, 0])
        found[training, packed] = (
            [np.asarray(x) for x in outputs],
            [tf.convert_to_tensor(g).numpy() for g in gradients],
        )
    return found


@pytest.fixture(scope="module")
def expected(pretraining_features):
    return results("fp32", pretraining_features, allow_fused=False)


def test_without_pairs_the_masked_lm_is_the_same_on_every_backend(
    pretraining_features, expected
):
    alone = results("fp32", pretraining_features, allow_fused=False, do_nsp=False)
    for case, (outputs, _) in expected.items():
        for one, other in zip(alone[case][0][:2], outputs[:2], strict=True):
            np.testing.assert_allclose(one, other[: len(one)], rtol=1e-5, atol=1e-5)
    ours = results("bf16", pretraining_features, allow_fused=True, do_nsp=False)
    assert_agree(ours, alone, "bf16")


def assert_agree(ours, expected, precision):
    output_bound, gradient_bound = BOUNDS[precision]
    for case, (outputs, gradients) in expected.items():
        for one, other in zip(ours[case][0], outputs, strict=True):
            error = np.linalg.norm(one - other)
            assert error <= output_bound * np.linalg.norm(other), case
        norm = np.sqrt(sum(np.square(g).sum() for g in gradients))
        for one, other in zip(ours[case][1], gradients, strict=True):
            # The gradients of keys' biases are rounding alone: part of the whole.
            bound = gradient_bound * (np.linalg.norm(other) + 0.03 * norm)
            assert np.linalg.norm(one - other) <= bound, (case, one.shape)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_operations_agree_with_the_reference(
    isa, precision, recompute, pretraining_features, expected
):
    ours = results(
        precision, pretraining_features, allow_fused=True, recompute=recompute
    )
    assert_agree(ours, expected, precision)
    rounds = any(
        np.any(one != other)
        for case in CASES
        for one, other in zip(ours[case][0], expected[case][0], strict=True)
    )
    assert rounds, "nothing was computed otherwise"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_agrees_with_itself_in_every_type(
    precision, pretraining_features, expected
):
    ours = results(precision, pretraining_features, allow_fused=False, recompute=True)
    assert_agree(ours, expected, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_no_head_reads_changes_no_loss(
    isa, precision, recompute, pretraining_features
):
    """No bit of losses and predictions; gradients are sums over rows in other parts."""
    settings = {"allow_fused": True, "recompute": recompute}
    short, whole = (
        results(precision, pretraining_features, unpad=unpad, **settings)
        for unpad in (True, False)
    )
    for case in CASES:
        for one, other in zip(short[case][0], whole[case][0], strict=True):
            np.testing.assert_array_equal(one, other)
        norm = np.sqrt(sum(np.square(g).sum() for g in whole[case][1]))
        for one, other in zip(short[case][1], whole[case][1], strict=True):
            bound = 1e-5 * np.linalg.norm(other) + 1e-7 * norm
            assert np.linalg.norm(one - other) < bound
