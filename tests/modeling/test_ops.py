import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from oracles import numpy_bert

from bert_tf.modeling import ops

X = np.linspace(-6, 6, 97, dtype=np.float32)
# A few roundings of float32 in numbers up to 6.
TOLERANCE = 2e-6


def make_seed(rows, seed=5, step=3):
    """A dropout seed [B, 3] of rows with these numbers in the global batch."""
    return tf.constant([[seed, step, row] for row in rows], tf.int32)


def draw(rows, rate=0.3, stream=11, shape=(5, 7), **seeds):
    """What dropout makes of ones [B, *shape]; rows of 35 do not fill Philox blocks."""
    rows = list(rows)
    ones = tf.ones([len(rows), *shape])
    return ops.dropout(ones, rate, make_seed(rows, **seeds), stream).numpy()


def test_gelu_is_x_times_the_normal_distribution():
    expected = X * (1 + scipy.special.erf(X.astype(float) / math.sqrt(2))) / 2
    np.testing.assert_allclose(ops.gelu(X), expected, atol=TOLERANCE)


def test_gelu_tanh_matches_its_formula_and_is_near_gelu():
    expected = numpy_bert.gelu_tanh(X.astype(float))
    np.testing.assert_allclose(ops.gelu_tanh(X), expected, atol=TOLERANCE)
    distance = np.abs(ops.gelu_tanh(X) - ops.gelu(X)).max()
    assert 1e-4 < distance < 5e-4


@pytest.mark.parametrize(
    "name, at_one",
    [
        ("gelu", 0.841345),
        ("gelu_tanh", 0.841192),
        ("gelu_new", 0.841192),
        ("gelu_pytorch_tanh", 0.841192),
        ("relu", 1.0),
        ("tanh", 0.761594),
    ],
)
def test_activations_by_name(name, at_one):
    value = ops.ACTIVATIONS[name](tf.constant(1.0)).numpy()
    assert value == pytest.approx(at_one, abs=1e-6)


def test_layer_norm_matches_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, [2, 5, 24]).astype(np.float32)
    gamma, beta = rng.normal(size=[2, 24]).astype(np.float32)
    expected = numpy_bert.layer_norm(x.astype(float), gamma, beta)
    ours = ops.layer_norm(x, gamma, beta, 1e-12)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_layer_norm_adds_epsilon_to_the_variance():
    # Deviation 1 and epsilon 3: divided by sqrt(1 + 3).
    ours = ops.layer_norm(tf.constant([-1.0, 1.0]), 1.0, 0.0, 3.0)
    np.testing.assert_allclose(ours, [-0.5, 0.5], rtol=1e-6)


def test_bfloat16_products_round_their_operands():
    # 257 needs nine bits, bfloat16 has eight: it becomes 256.
    a, b = tf.constant([[257.0, 1.0]]), tf.constant([[1.0, 1.0]])
    for dtype, expected in ((tf.float32, 258.0), (tf.bfloat16, 256.0)):
        product = ops.matmul(a, b, dtype, transpose_b=True)
        assert product.dtype == tf.float32
        assert product.numpy().tolist() == [[expected]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("by_xla", [False, True], ids=["TensorFlow", "XLA"])
def test_the_gradient_of_weights_is_not_rounded_to_16_bits(transpose_b, dtype, by_xla):
    # 2048 + 1 + 4 = 2053 needs twelve bits, float16 has eleven and bfloat16 eight.
    a = tf.constant([[2048.0, 2.0], [1.0, 4.0], [4.0, 1.0]])
    weights = tf.Variable([[3.0], [5.0]])
    more = {"transpose_b": transpose_b, "is_compiled": by_xla}

    @tf.function(jit_compile=by_xla)
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(a)
            b = tf.transpose(weights) if transpose_b else weights
            total = tf.reduce_sum(ops.matmul(a, b, tf.as_dtype(dtype), **more))
        return tape.gradient(total, [a, weights])

    da, dweights = gradients()
    assert dweights.numpy().tolist() == [[2053.0], [7.0]]
    assert da.numpy().tolist() == [[3.0, 5.0]] * 3


def test_padding_is_seen_by_nobody():
    bias = ops.attention_bias(tf.constant([[1, 1, 0]]))
    assert bias.shape == [1, 1, 3, 3]
    visible = (bias[0, 0].numpy() == 0).astype(int).tolist()
    assert visible == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_packed_sequences_do_not_see_each_other():
    bias = ops.attention_bias(tf.constant([[1, 1, 2, 2, 0], [1, 1, 1, 1, 1]]))
    packed, alone = (bias[:, 0].numpy() == 0).astype(int).tolist()
    assert packed == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert alone == [[1] * 5] * 5


def test_hidden_positions_have_probability_zero_and_padding_rows_are_finite():
    scores = 50.0 + ops.attention_bias(tf.constant([[1, 1, 2, 0]]))
    probabilities = tf.nn.softmax(scores)[0, 0].numpy()
    assert probabilities[0].tolist() == [0.5, 0.5, 0, 0]
    assert probabilities[2].tolist() == [0, 0, 1, 0]
    assert np.isfinite(probabilities).all()


def test_gather_rows_takes_the_vectors_of_each_row():
    x = tf.reshape(tf.range(12.0), [2, 3, 2])
    taken = ops.gather_rows(x, tf.constant([[2, 0], [1, 1]]))
    assert taken.numpy().tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_rate_is_true_and_the_mean_is_kept(rate):
    share = round((1 - rate) * 256) / 256  # One byte decides.
    assert abs(share - (1 - rate)) <= 1 / 512
    drawn = draw(range(64), rate=rate, shape=(64, 63))
    deviation = math.sqrt(share * (1 - share) / drawn.size)
    # Five deviations: a true generator passes all but 6 in 10 million times.
    assert abs((drawn > 0).mean() - share) < 5 * deviation
    assert abs(drawn.mean() - 1) < 5 * deviation / share
    np.testing.assert_allclose(drawn[drawn > 0], 1 / share, rtol=1e-6)


def philox(key, counter):
    """16 bytes of Philox4x32-10, Salmon et al. 2011, section 3.3."""
    words = [counter >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        one, two = b >> 32 ^ words[1] ^ keys[0], a >> 32 ^ words[3] ^ keys[1]
        words = [one, b & 0xFFFFFFFF, two, a & 0xFFFFFFFF]
        weyl = (0x9E3779B9, 0xBB67AE85)
        keys = [(k + w) & 0xFFFFFFFF for k, w in zip(keys, weyl, strict=True)]
    return np.array(words, "<u4").tobytes()


def test_dropout_draws_the_bytes_of_philox():
    # The known answer that the authors publish with their code.
    assert (
        philox(0, 0)
        == np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "<u4").tobytes()
    )
    seed, stream, step, blocks, kept = 5, 11, 3, 3, 179  # 35 numbers, 0.7 * 256.
    for row, drawn in zip((7, 8), draw((7, 8), seed=seed, step=step), strict=True):
        numbers = range(row * blocks, (row + 1) * blocks)
        key = seed << 32 | stream
        drawn_bytes = b"".join(philox(key, step << 64 | number) for number in numbers)
        expected = np.frombuffer(drawn_bytes, np.uint8)[:35] < kept
        np.testing.assert_array_equal(drawn.ravel() > 0, expected)


def test_rows_of_any_size_draw_the_bits_of_their_size():
    signature = [tf.TensorSpec([None, None, 7])]
    seed = make_seed(range(3))
    graph = tf.function(
        lambda x: ops.dropout(x, 0.3, seed, 11), input_signature=signature
    )
    np.testing.assert_array_equal(graph(tf.ones([3, 5, 7])), draw(range(3)))


def test_the_smallest_rate_drops():
    share = (draw(range(64), rate=1 / 256, shape=(64, 63)) == 0).mean()
    assert share == pytest.approx(1 / 256, abs=5 * math.sqrt(1 / 256 / (64 * 64 * 63)))


def test_dropout_of_each_place_in_a_row_is_as_frequent():
    # 4,096 draws for each of 35 places, five deviations.
    kept = (draw(range(4096), rate=0.5) > 0).mean(axis=0)
    assert np.abs(kept - 0.5).max() < 5 * 0.5 / math.sqrt(4096)


def test_micro_batches_draw_the_bits_of_the_whole_batch():
    whole = draw(range(32))
    parts = [draw(range(first, first + 8)) for first in (0, 8, 16, 24)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_rows_draw_different_bits():
    rows = draw(range(32)).reshape(32, -1)
    assert len(np.unique(rows, axis=0)) == 32


@pytest.mark.parametrize("change", [{"seed": 6}, {"step": 4}, {"stream": 12}])
def test_seed_step_and_stream_change_the_bits(change):
    first, second = draw(range(64)) > 0, draw(range(64), **change) > 0
    # Independent draws agree where both keep or both drop: 0.7^2 + 0.3^2.
    deviation = math.sqrt(0.58 * 0.42 / first.size)
    assert abs((first == second).mean() - 0.58) < 5 * deviation + 1 / 256


def test_the_same_seed_draws_the_same_bits():
    np.testing.assert_array_equal(draw(range(4)), draw(range(4)))


def test_dropout_scales_the_values_that_it_keeps():
    x = tf.reshape(tf.range(1.0, 81.0), [2, 40])
    y = ops.dropout(x, 0.5, make_seed([0, 1]), 1).numpy()
    assert set((y / x.numpy()).ravel().tolist()) == {0.0, 2.0}


def test_rate_0_returns_the_input():
    x = tf.ones([2, 3])
    assert ops.dropout(x, 0.0, make_seed([0, 1]), 1) is x
