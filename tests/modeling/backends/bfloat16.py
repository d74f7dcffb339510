"""Random numbers that bfloat16 holds exactly, and casts."""

import numpy as np
import tensorflow as tf


def draw(seed, *shape, scale=1.0):
    """Numbers that bfloat16 holds exactly, as float32."""
    values = scale * np.random.default_rng(seed).normal(size=shape)
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)


def half(x):
    return tf.cast(x, tf.bfloat16)


def single(x):
    return tf.cast(x, tf.float32).numpy()
