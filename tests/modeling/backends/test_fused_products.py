"""Products and attention against NumPy and TensorFlow, for sizes that fit no block."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from modeling.backends.bfloat16 import draw, half, single

from bert_tf import fused_ops
from bert_tf.modeling import ops
from bert_tf.modeling.backends import fused_operations, fused_products
from bert_tf.modeling.backends.fused_layout import Layout, unpadded
from bert_tf.modeling.backends.fused_products import Kernels
from bert_tf.modeling.backends.interface import Dropout
from bert_tf.modeling.backends.step import GradientSum

pytestmark = pytest.mark.usefixtures("isa")


def product(x, matrices):
    """The product alone, for gradients of all inputs."""

    @tf.custom_gradient
    def apply(x, *matrices):
        y, gradient = fused_products.product(x, Kernels(matrices))

        def flat(dy):
            dx, dmatrices = gradient(dy)
            return dx, *dmatrices

        return y, flat

    return apply(x, *matrices)


def feed_forward(x, bias, matrices, *, approximate, added=()):
    """Both products and the activation; `added` to the gradient of `x`."""

    @tf.custom_gradient
    def apply(x, bias, first, second):
        y, gradient = fused_products.feed_forward(
            x, bias, Kernels([first]), Kernels([second]), approximate=approximate
        )

        def flat(dy):
            dx, dbias, dmatrices = gradient(dy, added)
            return dx, dbias, *dmatrices

        return y, flat

    return apply(x, bias, *matrices)


def cross_entropy(x, table, bias, labels):
    @tf.custom_gradient
    def apply(x, bias, table):
        return fused_products.cross_entropy(x, bias, Kernels([table]), labels)

    return apply(x, bias, table)


def attend(x, bias, mask, seed, queries=None, *, heads, rate, stream):
    @tf.custom_gradient
    def apply(x, bias):
        return fused_operations.attention(
            x,
            bias,
            input_mask=mask,
            queries=queries,
            dropout=Dropout(rate, seed, stream),
            heads=heads,
        )

    return apply(x, bias)


def assert_close(ours, expected, tolerance):
    np.testing.assert_allclose(ours, expected, atol=tolerance * np.abs(expected).max())


# Rows, depth, widths of the matrices side by side: whole blocks of 32, parts of one,
# more rows than stay in the cache, a depth that is taken in parts.
SHAPES = [
    (64, 64, (96,)),
    (37, 64, (32, 32, 32)),
    (1, 32, (64,)),
    (4100, 96, (64,)),
    (33, 8320, (64,)),
    (700, 1024, (160,)),
]


@pytest.mark.parametrize("rows, depth, widths", SHAPES)
def test_product_and_gradients(rows, depth, widths):
    matrices = [draw(place, depth, width) for place, width in enumerate(widths)]
    x, upstream = draw(8, rows, depth), draw(9, rows, sum(widths))
    with tf.GradientTape() as tape:
        tape.watch([x, *matrices])
        y = product(half(x), matrices)
        total = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
    dx, *dmatrices = tape.gradient(total, [x, *matrices])
    matrix = np.concatenate([m.numpy() for m in matrices], axis=1)
    assert_close(single(y), x.numpy() @ matrix, 2**-8)
    assert_close(single(dx), upstream.numpy() @ matrix.T, 2**-8)
    gradient = np.concatenate([m.numpy() for m in dmatrices], axis=1)
    # Of numbers that bfloat16 holds, a float32 sum is exact but for its order.
    assert_close(gradient, x.numpy().T @ upstream.numpy(), 1e-5)


TYPES = [("bfloat16", 2**-6), ("float32", 1e-5)]


@pytest.mark.parametrize("dtype, tolerance", TYPES)
@pytest.mark.parametrize("size", [40, 64, 1003])
def test_cross_entropy_of_a_table_of_any_size(size, dtype, tolerance):
    x, table, bias = draw(0, 9, 64), draw(1, size, 64) * 0.25, draw(2, size)
    labels = tf.constant(np.random.default_rng(3).integers(0, size, 9), tf.int32)
    upstream = draw(4, 9)

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([x, table, bias])
            losses = function()
            total = tf.reduce_sum(losses * upstream)
        return [
            losses,
            *map(tf.convert_to_tensor, tape.gradient(total, [x, table, bias])),
        ]

    ours = gradients(lambda: cross_entropy(tf.cast(x, dtype), table, bias, labels))
    expected = gradients(
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=x @ tf.transpose(table) + bias
        )
    )
    for one, other in zip(ours, expected, strict=True):
        assert_close(single(one), single(other), tolerance)


def test_padding_takes_no_part_in_the_gradient():
    """A loss that counts nothing moves nothing."""
    x, table = draw(0, 5, 32), draw(1, 40, 32)
    with tf.GradientTape() as tape:
        tape.watch(table)
        labels = tf.zeros([5], tf.int32)
        losses = cross_entropy(half(x), table, tf.zeros([40]), labels)
        total = tf.reduce_sum(losses * 0.0)
    assert not np.any(tape.gradient(total, table))


@pytest.mark.parametrize("dtype, tolerance", [TYPES[0], ("float32", 5e-5)])
@pytest.mark.parametrize("approximate", [False, True])
def test_feed_forward(approximate, dtype, tolerance):
    x, bias = draw(0, 2, 19, 64), draw(1, 96)
    matrices = [draw(2, 64, 96) * 0.125, draw(3, 96, 64) * 0.125]
    upstream, other_use = draw(4, 2, 19, 64), draw(5, 2, 19, 64)
    activation = ops.gelu_tanh if approximate else ops.gelu

    def gradients(function):
        inputs = [x, bias, *matrices]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = tf.cast(function(x), tf.float32)
            total = tf.reduce_sum(y * upstream)
        return [y, *tape.gradient(total, inputs)]

    def ours(x):
        added = [tf.cast(other_use, dtype)]
        return feed_forward(
            tf.cast(x, dtype), bias, matrices, approximate=approximate, added=added
        )

    def theirs(x):
        return activation(x @ matrices[0] + bias) @ matrices[1]

    found, expected = gradients(ours), gradients(theirs)
    expected[1] += other_use
    for one, other in zip(found, expected, strict=True):
        assert_close(single(one), single(other), tolerance)


def test_a_prediction_that_keeps_nothing_for_a_gradient_is_the_same():
    x, bias = half(draw(0, 2, 19, 64)), draw(1, 96)
    matrices = [draw(2, 64, 96) * 0.125, draw(3, 96, 64) * 0.125]

    def predict():
        return feed_forward(x, bias, matrices, approximate=False)

    # A graph knows that nobody reads the product before the activation.
    np.testing.assert_array_equal(single(tf.function(predict)()), single(predict()))


def make_rows(length):
    """Input masks [5, length]."""
    places = np.arange(length)
    two = np.where(places < length // 2, 1, 2) * (places < length - 5)
    many = 1 + places // 7
    short = places < 3  # Whole blocks behind it are padding.
    mixed = np.roll(two, 11)  # Out of order, with padding between.
    return np.stack([two, np.ones(length), many, short, mixed]).astype(np.int32)


@pytest.mark.parametrize("approximate", [False, True])
def test_activation_of_a_product_is_rounded_gelu(approximate):
    """The product is that with 1; half a unit of bfloat16 is 2^-8 of a number."""
    values = np.concatenate([np.linspace(-12, 12, 8192), [-1e30, -1e4, 0, 1e4, 1e30]])
    x = half(np.pad(values, (0, -len(values) % 32)).reshape(-1, 32))
    packed, _ = fused_ops.library().bert_pack_kernels(kernels=[tf.eye(32)])
    y = fused_ops.library().bert_product_gelu(
        x=x, panels=packed, bias=tf.zeros([32]), width=32, approximate=approximate
    )[1]
    x, y = single(x).astype(float), single(y)
    distribution = scipy.special.ndtr(x)
    if approximate:
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        distribution = (1 + np.tanh(inner)) / 2
    expected = x * distribution
    assert (np.abs(y - expected) <= 2**-8 * np.abs(expected) + 3e-6).all()


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2**-5), ("float32", 1e-5)])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("length, head", [(24, 32), (32, 64), (75, 32), (160, 64)])
def test_attention(length, head, rate, dtype, tolerance):
    """Every kind of row, and the other path's dropout."""
    mask = make_rows(length)
    heads, batch = 3, len(mask)
    width = heads * head
    x, bias = draw(0, batch, length, 3 * width), draw(1, 3 * width)
    upstream = draw(2, batch, length, width)
    visible = tf.cast(mask > 0, tf.float32)[:, :, None]
    seed = tf.constant([[7, 5, 11 + row] for row in range(batch)])

    def theirs(x):
        def split(part):
            return tf.transpose(
                tf.reshape(part, [batch, length, heads, head]), [0, 2, 1, 3]
            )

        query, keys, value = map(split, tf.split(x + bias, 3, axis=-1))
        scores = tf.matmul(query / head**0.5, keys, transpose_b=True)
        probabilities = tf.nn.softmax(scores + ops.attention_bias(tf.constant(mask)))
        dropped = ops.dropout(probabilities, rate, seed, 9)
        merged = tf.transpose(tf.matmul(dropped, value), [0, 2, 1, 3])
        return tf.reshape(merged, [batch, length, width])

    def ours(x):
        x = tf.cast(x, dtype)
        return attend(
            x, bias, tf.constant(mask), seed, heads=heads, rate=rate, stream=9
        )

    results = []
    for function in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch([x, bias])
            y = tf.cast(function(x), tf.float32) * visible
            total = tf.reduce_sum(y * upstream)
        results.append([y, *tape.gradient(total, [x, bias])])
    for one, other in zip(*results, strict=True):
        assert_close(single(one), single(other), tolerance)
        # Not only within bounds: rounding errors have no direction.
        assert abs(np.mean(single(one) - single(other))) < 2**-9 * np.abs(other).max()


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("length, head", [(24, 32), (75, 32), (160, 64)])
def test_attention_without_padding(length, head, rate):
    """The same bits for every token as in whole rows, one of them empty."""
    mask = np.concatenate([make_rows(length), np.zeros((1, length), np.int32)])
    heads, batch = 3, len(mask)
    width = heads * head
    x, bias = draw(0, batch, length, 3 * width), draw(1, 3 * width)
    upstream = draw(2, batch, length, width) * (mask > 0)[:, :, None]
    seed = tf.constant([[7, 5, 11 + row] for row in range(batch)])

    def apply(x, bias, leaves_out):
        x, layout = half(x), unpadded(tf.constant(mask))
        if leaves_out:
            x = layout.take(x)
        y = attend(x, bias, tf.constant(mask), seed, heads=heads, rate=rate, stream=9)
        return layout.put_back(y) if leaves_out else y

    results = []
    for leaves_out in (False, True):
        with tf.GradientTape() as tape:
            tape.watch([x, bias])
            y = tf.cast(apply(x, bias, leaves_out), tf.float32)
            total = tf.reduce_sum(y * upstream)
        results.append([y, *tape.gradient(total, [x, bias])])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2**-6), ("float32", 1e-6)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("length, head", [(24, 32), (75, 32), (160, 64)])
def test_attention_of_some_queries(length, head, share, dtype, tolerance):
    """The bits of all queries, and the gradient when nothing flows back to the others.

    Keys' and values' gradients are sums over queries, in another order.
    """
    mask = make_rows(length)
    heads, batch = 3, len(mask)
    width = heads * head
    x, bias = draw(0, batch, length, 3 * width), draw(1, 3 * width)
    is_read = np.random.default_rng(3).random((batch, length)) < share
    part = Layout(tf.constant(is_read))
    upstream = draw(2, batch, length, width) * is_read[:, :, None]
    seed = tf.constant([[7, 5, 11 + row] for row in range(batch)])

    def apply(x, bias, queries):
        return attend(
            tf.cast(x, dtype),
            bias,
            tf.constant(mask),
            seed,
            queries,
            heads=heads,
            rate=0.1,
            stream=9,
        )

    results = []
    for queries in (None, part.mask):
        with tf.GradientTape() as tape:
            tape.watch([x, bias])
            y = apply(x, bias, queries)
            y = part.take(y) if queries is None else y
            y = tf.cast(y, tf.float32)
            total = tf.reduce_sum(y * part.take(upstream))
        results.append([y, *tape.gradient(total, [x, bias])])
    (whole, *expected), (some, *found) = results
    np.testing.assert_array_equal(some, whole)
    for one, other in zip(found, expected, strict=True):
        assert_close(single(one), single(other), tolerance)


def test_queries_that_x_does_not_have_are_refused():
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.int32)
    x = tf.zeros([3, 96], tf.bfloat16)

    def of(queries):
        seed = tf.zeros([2, 3], tf.int32)
        shared = {"heads": 1, "rate": 0.0, "stream": 1}
        queries = tf.constant(queries)
        return attend(x, tf.zeros([96]), mask, seed, queries, **shared)

    assert of([[0, 1, 0, 0], [1, 0, 0, 0]]).shape == (2, 32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="but x has 1 tokens"):
        of([[0, 1, 0, 0], [0, 1, 0, 0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape of input_mask"):
        of([[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    "shape, message",
    [((7, 96), "94 positions .* 7 tokens"), ((5, 24, 90), "heads of 32 n")],
)
def test_attention_refuses_other_shapes(shape, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        attend(
            tf.zeros(shape, tf.bfloat16),
            tf.zeros(shape[-1:]),
            tf.constant(make_rows(24)),
            tf.constant([[7, 5, 11]] * 5),
            heads=1,
            rate=0.0,
            stream=9,
        )


def test_a_row_does_not_depend_on_the_rows_beside_it():
    """What makes micro-batches of any size give one gradient."""
    x, matrix = half(draw(0, 300, 64)), [draw(1, 64, 96)]
    every = single(product(x, matrix))
    for rows in (1, 32, 100):
        some = single(product(x[:rows], matrix))
        np.testing.assert_array_equal(some, every[:rows])


def test_not_a_number_stays_one():
    x = draw(0, 40, 64).numpy()
    x[33, 5] = np.nan
    y = single(product(half(x), [draw(1, 64, 64)]))
    assert np.isnan(y[33]).all()
    assert np.isfinite(np.delete(y, 33, axis=0)).all()


@pytest.mark.parametrize(
    "operation, inputs, message",
    [
        ("bert_product", {"x": [4, 33], "panels": [33 * 32]}, "depth"),
        ("bert_product", {"x": [4, 32], "panels": [32 * 64]}, "panels"),
        ("bert_kernel_gradients", {"x": [4, 32], "dy": [5, 32]}, "shape"),
    ],
)
def test_wrong_shapes_are_refused(operation, inputs, message):
    tensors = {name: tf.zeros(shape, tf.bfloat16) for name, shape in inputs.items()}
    others = {"width": 32, "added": []}
    if operation == "bert_kernel_gradients":
        others = {"count": 1, "height": 32, "sums": []}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        getattr(fused_ops.library(), operation)(**tensors, **others)


@pytest.mark.parametrize("shape", [(4, 31), (3, 32)])
def test_a_wrong_shape_of_what_is_added_is_refused(shape):
    x, panels = tf.zeros([4, 32], tf.bfloat16), tf.zeros([32 * 32], tf.bfloat16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="what is added"):
        fused_ops.library().bert_product(
            x=x, panels=panels, added=[tf.zeros(shape, tf.bfloat16)], width=32
        )


def test_more_than_one_matrix_to_add_is_refused():
    x, panels = tf.zeros([4, 32], tf.bfloat16), tf.zeros([32 * 32], tf.bfloat16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one matrix, not 2"):
        fused_ops.library().bert_product(x=x, panels=panels, added=[x, x], width=32)


@pytest.mark.parametrize("shapes", [[(32, 31)], [(32, 32), (32, 32)]])
def test_a_wrong_sum_is_refused(shapes):
    x = tf.zeros([4, 32], tf.bfloat16)
    with pytest.raises(tf.errors.InvalidArgumentError, match="sum"):
        fused_ops.library().bert_kernel_gradients(
            x=x, dy=x, sums=[tf.zeros(s) for s in shapes], count=1, height=32
        )


def test_an_empty_sum_is_none():
    x, dy = half(draw(0, 37, 64)), half(draw(1, 37, 64))
    operation = fused_ops.library().bert_kernel_gradients
    plain = operation(x=x, dy=dy, sums=[], count=2, height=64)
    empty = [tf.zeros([0, 0])] * 2
    found = operation(x=x, dy=dy, sums=empty, count=2, height=64)
    np.testing.assert_array_equal(found, plain)
    for sums in ([tf.zeros([64, 32]), tf.zeros([0, 0])],
                 [tf.zeros([0, 0]), tf.zeros([64, 32])]):  # fmt: skip
        with pytest.raises(tf.errors.InvalidArgumentError, match="sum"):
            operation(x=x, dy=dy, sums=sums, count=2, height=64)


def test_what_is_added_to_a_gradient_is_added_before_rounding():
    x, matrix = draw(0, 37, 64), draw(1, 64, 96)
    upstream, added = draw(2, 37, 96), draw(3, 37, 64)
    _, gradient = fused_products.product(half(x), Kernels([matrix]))
    dx, _ = gradient(half(upstream), [half(added)])
    expected = upstream.numpy() @ matrix.numpy().T + added.numpy()
    # One rounding to bfloat16 of each number: half of its last place.
    assert (np.abs(single(dx) - expected) <= np.abs(expected) * 2**-8 + 1e-4).all()


def test_a_sum_is_taken_once_and_put_back():
    total = GradientSum([2, 3])
    assert total.take().shape == (0, 0)
    total.put(tf.ones([2, 3]))
    np.testing.assert_array_equal(total.take(), np.ones([2, 3]))
    assert total.take().shape == (0, 0)
    total.put(tf.ones([2, 3]))
    total.clear()
    assert total.take().shape == (0, 0)


def test_gradients_of_kernels_with_sums_are_added_up_there():
    matrices = [draw(0, 64, 32), draw(1, 64, 32)]
    sums = [GradientSum([64, 32]) for _ in matrices]
    kernels = Kernels(matrices, sums=sums)
    assert kernels.differentiated == ()
    expected = np.zeros([64, 64])

    @tf.function
    def add(x, dy):
        y, gradient = fused_products.product(x, kernels)
        dx, rest = gradient(dy)
        assert not rest
        return dx

    for seed in (2, 4, 6):
        x, dy = draw(seed, 37, 64), draw(seed + 1, 37, 64)
        add(half(x), half(dy))
        expected += x.numpy().T @ dy.numpy()
    found = np.concatenate([total.take() for total in sums], axis=1)
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("starts", [True, False])
def test_gradients_of_large_kernels_whoever_computes_them(isa, starts):
    """Micro-batches of 37 and 5 rows, two kernels, an input wider than their height."""
    assert fused_products.is_tensorflow_faster(512, 544) == (isa in ("avx512", "avx2"))
    matrices = [tf.zeros([512, 544])] * 2
    sums = [GradientSum([512, 544]) for _ in matrices] if starts else []
    kernels, expected = Kernels(matrices, sums=sums), 0
    for seed, rows in enumerate((37, 5)):
        x, dy = draw(seed, rows, 544), draw(seed + 9, rows, 2 * 544)
        found = kernels.gradients(half(x), half(dy), 512)
        gradient = x.numpy().T[:512] @ dy.numpy()
        expected = expected + gradient if starts else gradient
    if starts:
        assert found == ()
        found = [total.take() for total in sums]
    assert_close(np.concatenate(found, axis=1), expected, 1e-5)


@pytest.mark.parametrize(
    "rows, height, width", [(37, 64, 96), (1100, 90, 40), (0, 9, 5)]
)
def test_gradients_that_start_from_a_sum(rows, height, width):
    """Tiles that are whole, edges, several parts of the depth, and no rows at all."""
    depth = -(-height // 32) * 32
    x, dy, start = draw(0, rows, depth), draw(1, rows, width), draw(2, height, width)
    before = start.numpy().copy()
    [found] = fused_ops.library().bert_kernel_gradients(
        x=half(x), dy=half(dy), sums=[start], count=1, height=height
    )
    expected = x.numpy().T[:height] @ dy.numpy() + before
    assert_close(single(found), expected, 1e-5)
    np.testing.assert_array_equal(start, before)  # Somebody reads it: it was copied.
