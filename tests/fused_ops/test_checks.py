"""What the compiled operations refuse, and what they make of nothing."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.config import PRESETS, BertConfig
from bert_tf.modeling.models import build_encoder_model
from bert_tf.precision import PrecisionPolicy

BETAS = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6, "weight_decay_rate": 0.0}


@pytest.fixture(autouse=True)
def library():
    if fused_ops.library() is None:
        pytest.fail("the library is not built: `make setup` builds it")
    return fused_ops.library()


def half(*shape):
    return tf.zeros(shape, tf.bfloat16)


def refused(match):
    return pytest.raises(tf.errors.InvalidArgumentError, match=match)


NORM = {
    "x": half(2, 3, 8),
    "bias": tf.zeros([8]),
    "residual": half(2, 3, 8),
    "gamma": tf.zeros([8]),
    "beta": tf.zeros([8]),
    "input_mask": tf.ones([2, 3], tf.int32),
    "seed": tf.zeros([2, 3], tf.int32),
    "stream": 1,
    "kept": 230,
    "epsilon": 1e-12,
}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x": half()}, "x must have a last axis"),
        ({"x": half(2, 3, 0)}, "x must have a last axis of at least 1"),
        ({"bias": tf.zeros([7])}, r"bias must have the shape \[8\], not \[7\]"),
        ({"gamma": tf.zeros([7])}, "gamma must have the shape"),
        ({"beta": tf.zeros([1, 8])}, "beta must have the shape"),
        ({"residual": half(6, 8)}, "residual must have the shape of x"),
        ({"seed": tf.zeros([2, 2], tf.int32)}, "seed must have the shape"),
        ({"seed": tf.zeros([0, 3], tf.int32)}, "seed must have the shape"),
        ({"kept": 0}, "kept must lie within"),
        ({"kept": 257}, "kept must lie within"),
        ({"epsilon": np.nan}, "epsilon must be at least 0"),
    ],
)
def test_normalisation_names_what_does_not_fit(library, changed, message):
    library.bert_dropout_add_norm(**NORM)
    with refused(message):
        library.bert_dropout_add_norm(**NORM | changed)


def test_a_gradient_of_gelu_of_another_shape_is_refused(library):
    inputs = {"x": half(4, 8), "bias": tf.zeros([8]), "approximate": False}
    with refused("dy must have the shape of x"):
        library.bert_bias_gelu_grad(dy=half(3, 8), **inputs)
    with refused("bias must have the shape"):
        library.bert_bias_gelu_grad(dy=half(4, 8), **inputs | {"bias": tf.zeros([9])})


@pytest.mark.parametrize("label", [-1, 5, 2**31 - 1])
def test_a_label_that_is_no_column_is_refused(library, label):
    inputs = {"logits": half(2, 32), "bias": tf.zeros([5]), "labels": [3, label]}
    message = rf"labels\[1\] is {label}, which is out of range.*\[0, 5\)"
    with refused(message):
        library.bert_cross_entropy(**inputs)
    with refused(message):
        library.bert_cross_entropy_grad(
            normalisers=tf.zeros([2]), dlosses=tf.ones([2]), **inputs
        )


def test_a_bias_wider_than_the_logits_is_refused(library):
    with refused("logits must have rows of at least 9 numbers"):
        library.bert_cross_entropy(
            logits=half(2, 8), bias=tf.zeros([9]), labels=tf.zeros([2], tf.int32)
        )


def step(library, variables, gradient, **changed):
    names = ("weights", "first_moment", "second_moment")
    handles = {n: v.handle for n, v in zip(names, variables, strict=True)}
    scalars = tf.constant([0.1, 1, 1, 1, 0.1, 0.001])
    inputs = {"scalars": scalars, "layer_adaptation": True} | BETAS | changed
    return library.bert_adam_step(gradient=gradient, **handles, **inputs)


def test_a_step_refuses_what_it_cannot_update(library):
    w, m, v = (tf.Variable(tf.zeros([3])) for _ in range(3))
    double = tf.Variable(tf.zeros([3], tf.float64))
    with refused("scalars must have the shape"):
        step(library, [w, m, v], tf.ones([3]), scalars=tf.zeros([0]))
    with refused("first_moment must be float32, not double"):
        step(library, [w, double, v], tf.ones([3]))
    with refused("three variables"):
        step(library, [w, w, w], tf.ones([3]))
    with refused("weights must have the shape of gradient"):
        step(library, [w, m, v], tf.ones([4]))
    step(library, [w, m, v], tf.ones([3]))  # No lock was left behind.


def test_no_rows_make_empty_results_and_gradients_of_zero(library):
    bias, mask = tf.ones([8]), tf.zeros([0, 3], tf.int32)
    x, seed = half(0, 3, 8), tf.zeros([0, 3], tf.int32)
    assert library.bert_bias_gelu(x=x, bias=bias, approximate=False).shape == x.shape
    _, dbias = library.bert_bias_gelu_grad(x=x, bias=bias, dy=x, approximate=True)
    np.testing.assert_array_equal(dbias, np.zeros(8))
    dropout = {"input_mask": mask, "seed": seed, "stream": 1, "kept": 230}
    y, total, statistics = library.bert_dropout_add_norm(
        x=x, bias=bias, residual=x, gamma=bias, beta=bias, epsilon=0.0, **dropout
    )
    assert y.shape == total.shape == x.shape and statistics.shape == (0, 2)
    gradients = library.bert_dropout_add_norm_grad(
        dy=x, sum=x, statistics=statistics, gamma=bias, **dropout
    )
    for gradient in gradients[2:]:
        np.testing.assert_array_equal(gradient, np.zeros(8))
    labels = tf.zeros([0], tf.int32)
    losses, normalisers = library.bert_cross_entropy(
        logits=half(0, 32), bias=bias, labels=labels
    )
    _, dbias = library.bert_cross_entropy_grad(
        logits=half(0, 32),
        bias=bias,
        labels=labels,
        normalisers=normalisers,
        dlosses=losses,
    )
    np.testing.assert_array_equal(dbias, np.zeros(8))


def test_an_encoder_of_no_rows_gives_none():
    values = PRESETS["tiny"].to_dict() | {"vocab_size": 100}
    model = build_encoder_model(
        BertConfig.from_dict(values, source="test"),
        max_seq_length=32,
        policy=PrecisionPolicy("bf16"),
        allow_fused=True,
    )
    inputs = {
        tensor.name: tf.zeros([0, tensor.shape[1] or 1], tf.int32)
        for tensor in model.inputs
    }
    outputs = model(inputs, training=False)
    assert outputs["sequence_output"].shape == (0, 32, values["hidden_size"])


def test_shapes_that_cannot_fit_are_refused_when_a_graph_is_built(library):
    @tf.function
    def normalise(x):
        return library.bert_dropout_add_norm(**NORM | {"x": x, "residual": x})

    with pytest.raises(ValueError, match="Dimensions must be equal, but are 7 and 8"):
        normalise.get_concrete_function(tf.TensorSpec([None, 3, 7], tf.bfloat16))


@pytest.mark.slow
@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer itself takes more memory than the limit",
)
def test_memory_that_runs_out_is_an_error_of_the_operation():
    """Sums for 32 parts of a wide bias: four gigabytes, where two are left."""
    code = """
import resource, tensorflow as tf
from bert_tf import fused_ops
library = fused_ops.library()
x, bias = tf.zeros([1, 1 << 25], tf.bfloat16), tf.zeros([1 << 25])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (2 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    library.bert_bias_gelu_grad(x=x, bias=bias, dy=x, approximate=False)
except tf.errors.ResourceExhaustedError as error:
    print(error.message)
print(library.bert_bias_gelu(x=x[:, :9], bias=bias[:9], approximate=False).shape)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert "not enough memory" in result.stdout, result.stderr[-2000:]
    assert result.stdout.rstrip().endswith("(1, 9)")
