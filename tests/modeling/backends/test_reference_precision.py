"""What precision lists name is rounded to bfloat16 by the reference, against NumPy."""

import ml_dtypes
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from conftest import TINY

from bert_tf.config import BertConfig
from bert_tf.modeling.backends.interface import (
    AttentionWeights,
    DenseWeights,
    Dropout,
    FeedForwardWeights,
    MaskedLmWeights,
    NormWeights,
)
from bert_tf.modeling.backends.reference import Reference
from bert_tf.modeling.backends.step import Recorder
from bert_tf.modeling.finetuning import ClassTask, build_classifier_model
from bert_tf.precision import PrecisionPolicy, PrecisionRules

CONFIG = BertConfig(**TINY | {"layer_norm_eps": 0.1, "num_attention_heads": 1})
WIDTH = CONFIG.hidden_size
RNG = np.random.default_rng(3)
X = RNG.normal(size=(2, 6, WIDTH)).astype(np.float32)
MASK = np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32)
NO_DROPOUT = Dropout(0.0, tf.zeros([2, 3], tf.int32), 1)


class Weight(np.ndarray):
    """An array with the path of a variable."""


def weight(path, *shape):
    array = RNG.normal(0, 0.5, shape).astype(np.float32).view(Weight)
    array.path = f"bert/encoder/layer_0/{path}"
    return array


def dense(path, inner, outer):
    return DenseWeights(
        weight(f"{path}/kernel", inner, outer), weight(f"{path}/bias", outer)
    )


def norm(path):
    return NormWeights(
        weight(f"{path}/LayerNorm/gamma", WIDTH),
        weight(f"{path}/LayerNorm/beta", WIDTH),
    )


FEED_FORWARD = FeedForwardWeights(
    dense("intermediate/dense", WIDTH, 16),
    dense("output/dense", 16, WIDTH),
    norm("output"),
)
ATTENTION = AttentionWeights(
    *(
        dense(f"attention/self/{name}", WIDTH, WIDTH)
        for name in ("query", "key", "value")
    ),
    dense("attention/output/dense", WIDTH, WIDTH),
    norm("attention/output"),
)
HEAD = MaskedLmWeights(
    dense("transform/dense", WIDTH, WIDTH),
    norm("transform"),
    weight("words", 30, WIDTH),
    weight("output_bias", 30),
)


def backend(*listed):
    """The reference, in float32 but for some types of operations."""
    policy = PrecisionPolicy("bf16", PrecisionRules(listed))
    return Reference(CONFIG, policy, Recorder())


def rounding(*listed):
    """Type of an operation -> what NumPy does before and after it."""

    def bf16(x):
        return x.astype(ml_dtypes.bfloat16).astype(np.float32)

    return lambda operation: bf16 if operation in listed else lambda x: x


def expected_norm(x, weights, around):
    x = around("LayerNorm")(x)
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)
    return around("LayerNorm")(centred * scale * weights.gamma + weights.beta)


def expected_dense(x, weights):
    return np.asarray(x @ weights.kernel + weights.bias)


def expected_gelu(x, around):
    x = around("Gelu")(x)
    return around("Gelu")(x * scipy.special.ndtr(x).astype(np.float32))


def expected_feed_forward(around):
    inner = expected_gelu(expected_dense(X, FEED_FORWARD.inner), around)
    y = expected_dense(inner, FEED_FORWARD.outer) + X
    return expected_norm(y, FEED_FORWARD.norm, around)


def expected_attention(around):
    query, key, value, output = (expected_dense(X, part) for part in ATTENTION[:4])
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH)
    scores += np.where(MASK[:, None, :] == 1, 0, -1e9) * (MASK[:, :, None] == 1)
    del output
    scores = around("Softmax")(scores.astype(np.float32))
    seen = around("Softmax")(scipy.special.softmax(scores, axis=-1))
    y = expected_dense(seen @ value, ATTENTION.output) + X
    return expected_norm(y, ATTENTION.norm, around)


def expected_losses(around):
    x = expected_gelu(expected_dense(X, HEAD.transform), around)
    logits = expected_norm(x, HEAD.norm, around) @ HEAD.words.T + HEAD.bias
    logits = around("LogSoftmax")(np.asarray(logits, np.float32))
    return -scipy.special.log_softmax(logits.astype(np.float64), axis=-1)[..., 7]


def found(block, *listed):
    reference = backend(*listed)
    scope = reference.encoder_scope(tf.constant(MASK))
    if block == "feed-forward":
        y = reference.feed_forward_block(X, FEED_FORWARD, scope, NO_DROPOUT)
    elif block == "attention":
        y = reference.attention_block(X, ATTENTION, scope, NO_DROPOUT, NO_DROPOUT)
    else:
        y = reference.masked_lm_losses(X, HEAD, tf.fill([2, 6], 7))
    return y.numpy()[MASK == 1]


EXPECTED = {
    "feed-forward": expected_feed_forward,
    "attention": expected_attention,
    "masked LM": expected_losses,
}


@pytest.mark.parametrize(
    "block, listed, operation",
    [
        ("feed-forward", "HabanaGelu", "Gelu"),
        ("feed-forward", "HabanaLayerNorm", "LayerNorm"),
        ("attention", "Softmax", "Softmax"),
        ("attention", "LayerNorm", "LayerNorm"),
        ("masked LM", "LogSoftmax", "LogSoftmax"),
        ("masked LM", "Gelu", "Gelu"),
    ],
)
def test_a_listed_operation_is_rounded_where_numpy_rounds_it(block, listed, operation):
    ours = found(block, listed)
    expected = EXPECTED[block](rounding(operation))[MASK == 1]
    exact = EXPECTED[block](rounding())[MASK == 1]
    # A number halfway may be rounded to the other side: nearly all agree.
    assert np.mean(np.abs(ours - expected) < 1e-5) > 0.9
    assert np.mean(np.abs(ours - exact) < 1e-5) < 0.5
    np.testing.assert_allclose(ours, exact, atol=0.2)


@pytest.mark.parametrize("block", EXPECTED)
def test_what_no_list_names_is_exact(block):
    ours, expected = found(block, "Conv2D"), EXPECTED[block](rounding())[MASK == 1]
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("listed", [(), ("LogSoftmax",)])
def test_the_loss_of_a_classifier_follows_the_lists(listed):
    policy = PrecisionPolicy("bf16", PrecisionRules(listed))
    model = build_classifier_model(CONFIG, 3, max_seq_length=6, policy=policy)
    logits = np.array([[[1.0, 2.003, -3.001]]], np.float32)
    labels = {"labels": tf.constant([[1]])}
    [[loss]] = ClassTask(model).losses(tf.constant(logits), labels).numpy()
    used = rounding("LogSoftmax" if listed else "")("LogSoftmax")(logits)
    assert loss == pytest.approx(-scipy.special.log_softmax(used)[0, 0, 1], rel=1e-5)
