"""The compiled operations against those of TensorFlow, in float32, and their gradients.

Inputs are bfloat16 numbers, so that both sides see the same ones; results may differ by
the rounding of what is stored in bfloat16, 2^-8 of a value. In float32 they differ by
the order of sums.
"""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from modeling.backends.bfloat16 import draw, half

from bert_tf import fused_ops
from bert_tf.modeling import ops
from bert_tf.modeling.backends import fused_operations
from bert_tf.modeling.backends.fused_layout import FusedScope, unpadded
from bert_tf.modeling.backends.interface import Dropout

B, S, N, D = 3, 24, 2, 16
H = N * D
RATE = 0.1
SEED = tf.constant([[7, 5, 11 + row] for row in range(B)])  # Seed, step, row.
MASK = tf.ones([B, S], tf.int32)


pytestmark = pytest.mark.usefixtures("isa")


def values_and_gradients(function, inputs, upstream):
    """A function's value and its gradients, float32."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = tf.cast(function(*inputs), tf.float32)
        total = tf.reduce_sum(value * upstream)
    return [value, *tape.gradient(total, inputs)]


def assert_close(ours, expected, tolerance=2**-7):
    for one, other in zip(ours, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=tolerance * scale)
        # Not only within bounds: rounding errors have no direction.
        assert np.abs(np.mean(one - other)) < 2**-9 * scale


def differentiable(operation, *inputs, **settings):
    """The value of an operation, for gradients of its inputs."""
    return tf.custom_gradient(lambda *inputs: operation(*inputs, **settings))(*inputs)


def add_norm(x, bias, residual, gamma, beta, mask, *, rate, stream, epsilon, seed=SEED):
    return differentiable(
        fused_operations.dropout_add_norm,
        *(x, bias, residual, gamma, beta),
        input_mask=mask,
        dropout=Dropout(rate, seed, stream),
        epsilon=epsilon,
    )


TOLERANCES = [("bfloat16", 2**-7), ("float32", 5e-5)]


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("approximate", [False, True])
def test_bias_and_gelu(approximate, dtype, tolerance):
    activation = ops.gelu_tanh if approximate else ops.gelu
    inputs = [draw(0, B, S, H, scale=3.0), draw(1, H)]
    upstream = draw(2, B, S, H)
    ours = values_and_gradients(
        lambda x, b: differentiable(
            fused_operations.bias_gelu, tf.cast(x, dtype), b, approximate=approximate
        ),
        inputs,
        upstream,
    )
    expected = values_and_gradients(lambda x, b: activation(x + b), inputs, upstream)
    assert_close(ours, expected, tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("width, place", [(40, 3), (40, 37), (7, 3)])
def test_the_gradient_of_gelu_at_any_width_and_of_what_is_not_finite(width, place, bad):
    """Vectors of 32 numbers and what is left over; a bad one spoils itself alone."""
    x, upstream = draw(0, 3, width, scale=3.0).numpy(), draw(1, 3, width).numpy()
    bias = tf.zeros([width])

    def gradient(x, upstream):
        return fused_ops.library().bert_bias_gelu_grad(
            x=half(x), bias=bias, dy=half(upstream), approximate=False
        )

    with tf.GradientTape() as tape:
        rounded = tf.cast(half(x), tf.float32)
        tape.watch(rounded)
        y = tf.reduce_sum(ops.gelu(rounded) * tf.cast(half(upstream), tf.float32))
    expected = tape.gradient(y, rounded).numpy()
    dx, dbias = gradient(x, upstream)
    np.testing.assert_allclose(tf.cast(dx, tf.float32), expected, rtol=2**-8, atol=1e-4)
    np.testing.assert_allclose(dbias, expected.sum(axis=0), atol=1e-3)
    upstream[1, place] = bad
    spoiled, sums = gradient(x, upstream)
    others = np.ones((3, width), bool)
    others[1, place] = False
    is_finite = np.isfinite(tf.cast(spoiled, tf.float32))
    np.testing.assert_array_equal(is_finite, others)
    np.testing.assert_array_equal(np.isfinite(sums), others[1])


def test_gelu_in_float32_is_as_exact_as_float32():
    """Against float64: a unit in the last place of x, and 1e-5 of a tail's own size."""
    x = np.concatenate([np.linspace(-12, 12, 4099), [-100, 100, -1e30, 1e30]])
    x = x.astype(np.float32)
    cdf = scipy.special.ndtr(x.astype(float))
    density = np.exp(-(x.astype(float) ** 2) / 2) / np.sqrt(2 * np.pi)
    zeros = tf.zeros([len(x)])
    library = fused_ops.library()
    y = library.bert_bias_gelu(x=x[None], bias=zeros, approximate=False)[0].numpy()
    bound = np.minimum(3e-7 * np.abs(x), 1e-5 * np.abs(x * cdf) + 1e-20)
    assert (np.abs(y - x * cdf) <= bound).all()
    dx, _ = library.bert_bias_gelu_grad(
        x=x[None], bias=zeros, dy=tf.ones([1, len(x)]), approximate=False
    )
    expected = cdf + np.where(np.abs(x) < 50, x, 0) * density
    np.testing.assert_allclose(dx[0], expected, rtol=0, atol=5e-7)


def test_the_gradient_of_gelu_tanh_far_out():
    x = tf.constant([[-np.inf, -2e19, -1e9, 1e9, 2e19, np.inf, np.nan]])
    dx, _ = fused_ops.library().bert_bias_gelu_grad(
        x=x, bias=tf.zeros([7]), dy=tf.ones([1, 7]), approximate=True
    )
    np.testing.assert_array_equal(dx[0], [0, 0, 0, 1, 1, 1, np.nan])


@pytest.mark.parametrize("size, place", [(20, 17), (30, 29), (67, 66), (130, 5)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_cross_entropy_of_a_large_logit_and_of_small_ones(dtype, size, place):
    """Wherever the largest one is, in whole vectors or in what is left over."""
    logits = np.full((3, size), -120.0, np.float32)
    logits[1, place] = 100.0
    logits[2] = -1e4
    losses, _ = fused_ops.library().bert_cross_entropy(
        logits=tf.cast(logits, dtype), bias=tf.zeros([size]), labels=[place] * 3
    )
    expected = [np.log(size), 0.0, np.log(size)]
    np.testing.assert_allclose(losses, expected, atol=1e-3)


@pytest.mark.parametrize("place", [0, 63, 64, 99])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_makes_the_loss_so(place, bad):
    logits = draw(0, 2, 100).numpy()
    logits[1, place] = bad
    losses, _ = fused_ops.library().bert_cross_entropy(
        logits=half(logits), bias=tf.zeros([100]), labels=tf.constant([1, 2])
    )
    assert np.isfinite(losses).tolist() == [True, False]


@pytest.mark.parametrize("dtype, tolerance", TOLERANCES)
@pytest.mark.parametrize("rate", [0.0, RATE, 0.5])
def test_dropout_residual_and_normalisation(rate, dtype, tolerance):
    inputs = [draw(0, B, S, H), draw(1, H), draw(2, B, S, H), draw(3, H), draw(4, H)]
    upstream = draw(5, B, S, H)
    settings = {"rate": rate, "stream": 12345}

    def ours(x, bias, residual, gamma, beta):
        x, residual = tf.cast(x, dtype), tf.cast(residual, dtype)
        return add_norm(x, bias, residual, gamma, beta, MASK, epsilon=1e-12, **settings)

    def theirs(x, bias, residual, gamma, beta):
        dropped = ops.dropout(x + bias, rate, SEED, 12345)
        return ops.layer_norm(dropped + residual, gamma, beta, 1e-12)

    assert_close(
        values_and_gradients(ours, inputs, upstream),
        values_and_gradients(theirs, inputs, upstream),
        tolerance,
    )


# Padding behind, between and before tokens; none; nothing but padding.
GAPS = np.array([[1, 1, 2, 0, 0], [1, 0, 2, 2, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]])
STAYS = [0, 1, 2, 5, 6, 7, 8, 15, 16, 17, 18, 19]  # Of all 20 places.


def test_without_padding_and_back():
    x, upstream, later = draw(0, 4, 5, 32), draw(1, len(STAYS), 32), draw(2, 4, 5, 32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        layout = unpadded(tf.constant(GAPS))
        taken = layout.take(half(x))
        tape.watch(taken)
        whole = layout.put_back(taken)
    flat = x.numpy().reshape(20, 32)
    np.testing.assert_array_equal(tf.cast(taken, "float32"), flat[STAYS])
    expected = np.zeros((20, 32), np.float32)
    expected[STAYS] = flat[STAYS]
    np.testing.assert_array_equal(tf.cast(whole, "float32"), expected.reshape(4, 5, 32))
    down = tape.gradient(taken, x, output_gradients=half(upstream))
    expected[STAYS] = upstream
    np.testing.assert_array_equal(down, expected.reshape(4, 5, 32))
    up = tape.gradient(whole, taken, output_gradients=half(later))
    np.testing.assert_array_equal(
        tf.cast(up, "float32"), later.numpy().reshape(20, 32)[STAYS]
    )


def test_dropout_residual_and_normalisation_without_padding():
    """The same bits as in whole rows, and the same sums over all places."""
    mask, seed = tf.constant(GAPS, tf.int32), tf.constant([[7, 5, 11]] * 4)
    shape = (4, 5, H)
    x, residual, upstream = draw(0, *shape), draw(1, *shape), draw(2, *shape)
    vectors = [draw(3, H), draw(4, H), draw(5, H)]
    upstream *= tf.reshape(tf.scatter_nd([[i] for i in STAYS], [1.0] * 12, [20]),
                           [4, 5, 1])  # fmt: skip

    def apply(leaves_out, x, residual, bias, gamma, beta):
        x, residual = half(x), half(residual)
        layout = unpadded(mask)
        if leaves_out:
            x, residual = layout.take(x), layout.take(residual)
        y = add_norm(
            *(x, bias, residual, gamma, beta, mask),
            rate=0.5,
            stream=3,
            epsilon=1e-12,
            seed=seed,
        )
        return layout.put_back(y) if leaves_out else y

    inputs = [x, residual, *vectors]
    whole, *expected = values_and_gradients(
        lambda *a: apply(False, *a), inputs, upstream
    )
    short, *found = values_and_gradients(lambda *a: apply(True, *a), inputs, upstream)
    pick = [tf.reshape(array, [20, H]).numpy()[STAYS] for array in (whole, short)]
    np.testing.assert_array_equal(*pick)
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found[2:], expected[2:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


READ = [0, 2, 7, 15, 19]  # Some of STAYS.


def test_a_part_of_a_layout_takes_its_rows_and_gives_them_back():
    x, upstream = draw(0, len(STAYS), 32), draw(1, len(READ), 32)
    # Twice, in any order, and where there is no row.
    positions = [[2, 0, 2], [2, 2, 2], [3, 3, 3], [4, 0, 4]]
    whole = FusedScope(tf.float32, tf.constant(GAPS), unpadded(tf.constant(GAPS)))
    part = whole.narrowed(tf.constant(positions)).layout
    rows = [STAYS.index(place) for place in READ]
    found, down = values_and_gradients(part.take, [x], upstream)
    np.testing.assert_array_equal(found, x.numpy()[rows])
    expected = np.zeros((len(STAYS), 32), np.float32)
    expected[rows] = upstream
    np.testing.assert_array_equal(down, expected)
    whole = part.put_back(found).numpy().reshape(20, 32)
    np.testing.assert_array_equal(whole[READ], found)
    assert not np.delete(whole, READ, axis=0).any()


def test_dropout_residual_and_normalisation_of_some_tokens():
    """Each token has the bits that it has among all of them."""
    is_read = np.isin(np.arange(20), READ).reshape(4, 5).astype(np.int32)
    x, seed = half(draw(0, 4, 5, H)), tf.constant([[7, 5, 11]] * 4)
    vectors = [draw(3, H), draw(4, H), draw(5, H)]

    def apply(x, mask):
        bias, gamma, beta = vectors
        settings = {"rate": 0.5, "stream": 3, "epsilon": 1e-12, "seed": seed}
        return add_norm(x, bias, x, gamma, beta, mask, **settings)

    whole = apply(x, tf.ones([4, 5], tf.int32))
    some = apply(tf.gather(tf.reshape(x, [20, H]), READ), tf.constant(is_read))
    np.testing.assert_array_equal(some, tf.gather(tf.reshape(whole, [20, H]), READ))


@pytest.mark.parametrize(
    "shape, mask, residual, message",
    [
        ((7, H), GAPS, (7, H), "10 positions that are not 0, .* 7 tokens"),
        ((4, 5, H), np.ones((4, 6)), (4, 5, H), "does not fit 20 tokens"),
        ((4, 5, H), np.ones(20), (4, 5, H), "does not fit"),
        ((4, 5, H), np.ones((4, 5)), (12, H), "residual"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, mask, residual, message):
    zeros = tf.zeros([H])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        add_norm(
            tf.zeros(shape, tf.bfloat16),
            zeros,
            tf.zeros(residual, tf.bfloat16),
            zeros,
            zeros,
            tf.constant(mask, tf.int32),
            rate=0.0,
            stream=1,
            epsilon=1e-12,
        )


@pytest.mark.parametrize("width", [16, 24, 100, 700])
def test_dropped_numbers_are_those_of_the_other_path(width):
    """For rows whose bytes begin anywhere in a block of the generator, too."""
    ones, zeros = tf.ones([B, S, width]), tf.zeros([width])
    expected = ops.dropout(ones, RATE, SEED, 77).numpy() != 0
    library = fused_ops.library()
    _, total, _ = library.bert_dropout_add_norm(
        x=half(ones),
        bias=zeros,
        residual=half(tf.zeros_like(ones)),
        gamma=zeros,
        beta=zeros,
        input_mask=MASK,
        seed=SEED,
        stream=77,
        kept=ops.num_kept(RATE),
        epsilon=1.0,
    )
    np.testing.assert_array_equal(tf.cast(total, tf.float32).numpy() != 0, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bad):
    x = draw(0, B, S, H).numpy()
    x[1, 2, 3] = bad
    ours, _ = fused_operations.bias_gelu(half(x), tf.zeros([H]), approximate=False)
    finite = np.isfinite(tf.cast(ours, tf.float32).numpy())
    assert finite.sum() >= finite.size - 1
    total = add_norm(
        half(x),
        tf.zeros([H]),
        half(draw(1, B, S, H)),
        tf.ones([H]),
        tf.zeros([H]),
        MASK,
        rate=0.0,
        stream=1,
        epsilon=1e-12,
    )
    assert not np.isfinite(tf.cast(total, tf.float32).numpy()[1, 2]).any()


def test_loading_the_library_leaves_small_numbers_alone():
    """A library linked with -ffast-math makes denormal numbers 0 in all of Python."""
    code = "from bert_tf import fused_ops; fused_ops.library(); print(5e-324 * 1.5 > 0)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "True"
