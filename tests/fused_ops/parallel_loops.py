"""A program: operations that use the same threads at once, all equal to one alone."""

import concurrent.futures

import numpy as np
import tensorflow as tf

from bert_tf import fused_ops

CALLERS, TIMES = 8, 100
library = fused_ops.library()
kernel = tf.random.stateless_normal([256, 512], [1, 2])
panels, _ = library.bert_pack_kernels(kernels=[kernel])
x = tf.cast(tf.random.stateless_normal([1024, 256], [3, 4]), tf.bfloat16)
numbers = tf.random.stateless_normal([500_000], [5, 6])


def compute(x):
    """A loop of few calls, and one of many."""
    y = library.bert_product(x=x, panels=panels, added=[], width=512)
    return tf.cast(y, tf.float32), library.bert_square_sum(tensors=[numbers])


alone = [value.numpy() for value in compute(x)]
product = tf.cast(x, tf.float32).numpy() @ kernel.numpy()
np.testing.assert_allclose(alone[0], product, rtol=0.02, atol=0.3)
np.testing.assert_allclose(alone[1], np.sum(numbers.numpy() ** 2.0), rtol=1e-5)


def check(found):
    for value, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(value, expected)


def call_often(_):
    for _ in range(TIMES):
        check(compute(x))


with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
    list(callers.map(call_often, range(CALLERS)))
# Threads of tf.data, and operations of one graph that do not wait for each other.
for found in tf.data.Dataset.range(TIMES).map(lambda _: compute(x), CALLERS):
    check(found)


@tf.function
def branches():
    return [compute(x) for _ in range(CALLERS)]


for found in branches():
    check(found)
print("equal")
